// SPDX-License-Identifier: GPL-2.0
//! Breaks images: bits at chosen places, features that nobody knows, signatures of other images.

use std::mem::offset_of;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::SIGNED_PREFIX;
use tesserafs_format::raw::RawSuperBlock;
use tesserafs_guest::plan::Flip;

use crate::rootfs::noise;
use crate::tools::Region;

/// Flips one bit.
pub(crate) fn flip(bytes: &mut [u8], flip: &Flip) -> Result<()> {
    let offset = usize::try_from(flip.offset).context("a place beyond any memory")?;
    let byte = bytes.get_mut(offset).with_context(|| format!("{flip:?} lies beyond the image"))?;
    *byte ^= 1 << flip.bit;
    Ok(())
}

/// `count` places in each region, the same ones for the same image.
pub(crate) fn places(image: &[u8], regions: &[Region], count: usize) -> Result<Vec<Flip>> {
    let mut flips = Vec::new();
    for (seed, region) in regions.iter().enumerate() {
        let start = usize::try_from(region.offset).context("a region beyond any memory")?;
        let end = start
            .checked_add(usize::try_from(region.length).context("a region beyond any memory")?)
            .filter(|end| *end <= image.len())
            .with_context(|| format!("{region:?} lies beyond the image"))?;
        let length = meaningful(&image[start..end], &region.name) as u64;
        ensure!(length > 0, "{region:?} is empty: there is nothing to damage");
        for word in noise(seed as u64 + 1000, count * 16).chunks_exact(16) {
            let (place, bit) = word.split_at(8);
            let place = u64::from_le_bytes(place.try_into().context("eight bytes are eight")?);
            flips.push(Flip {
                region: region.name.clone(),
                offset: region.offset + place % length,
                bit: bit[0] % 8,
            });
        }
    }
    Ok(flips)
}

/// Bytes of a region that say something: a pack and a signature end in zeros up to a block.
///
/// fsck reports a bit set there; the kernel has no reason to read it.
fn meaningful(bytes: &[u8], name: &str) -> usize {
    match name {
        "pack" | "signature" => bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
        _ => bytes.len(),
    }
}

/// Sets an incompat bit that no version has given a meaning.
pub(crate) fn unknown_feature(image: &mut [u8]) -> Result<()> {
    let offset = offset_of!(RawSuperBlock, incompat) + 7;
    *image.get_mut(offset).context("no superblock")? |= 0x40;
    seal(image)
}

/// Flips a bit of the tree ID, which nothing but the signature vouches for at mount time.
pub(crate) fn tamper(image: &mut [u8]) -> Result<()> {
    *image.get_mut(offset_of!(RawSuperBlock, tree_id)).context("no superblock")? ^= 1;
    seal(image)
}

/// Makes the digest of the signed prefix right again, as a forger of an image does.
pub(crate) fn seal(image: &mut [u8]) -> Result<()> {
    let (prefix, rest) = image.split_at_mut_checked(SIGNED_PREFIX).context("no superblock")?;
    let digest = rest.first_chunk_mut::<32>().context("no superblock")?;
    *digest = Sha256::digest(prefix).into();
    Ok(())
}

/// Puts the signature of `donor` into `image`, with the fields of the superblock that describe it.
pub(crate) fn transplant(image: &mut [u8], donor: &[u8], at: (u64, u64), length: u64) -> Result<()> {
    let fields = offset_of!(RawSuperBlock, signature_bytes)..offset_of!(RawSuperBlock, reserved4);
    let range = |start: u64| -> Result<std::ops::Range<usize>> {
        let start = usize::try_from(start).context("a region beyond any memory")?;
        let length = usize::try_from(length).context("a region beyond any memory")?;
        Ok(start..start + length)
    };
    let from = donor.get(range(at.1)?).context("the donor is too short")?;
    image.get_mut(range(at.0)?).context("the image is too short")?.copy_from_slice(from);
    let from = donor.get(fields.clone()).context("the donor is too short")?;
    image.get_mut(fields).context("the image is too short")?.copy_from_slice(from);
    Ok(())
}

/// Writes a changed copy of an image.
pub(crate) fn changed(from: &Path, to: &Path, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let mut bytes = std::fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
    change(&mut bytes)?;
    std::fs::write(to, bytes).with_context(|| format!("failed to write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, offset: u64, length: u64) -> Region {
        Region { name: name.to_owned(), offset, length }
    }

    #[test]
    fn places_lie_in_their_regions_and_stay_the_same() {
        let mut image = vec![1; 8192];
        image[6000..].fill(0);
        let regions = [region("tree", 0, 4096), region("pack", 4096, 4096)];
        let flips = places(&image, &regions, 50).unwrap();
        assert_eq!(flips.len(), 100);
        assert!(flips[..50].iter().all(|f| f.offset < 4096 && f.bit < 8));
        assert!(flips[50..].iter().all(|f| (4096..6000).contains(&f.offset)));
        assert_eq!(flips, places(&image, &regions, 50).unwrap());
        assert!(places(&image, &[region("tree", 8000, 4096)], 1).is_err());
    }

    #[test]
    fn a_flip_is_its_own_inverse() {
        let one = Flip { region: "tree".to_owned(), offset: 2, bit: 7 };
        let mut bytes = [0; 4];
        flip(&mut bytes, &one).unwrap();
        assert_eq!(bytes, [0, 0, 0x80, 0]);
        flip(&mut bytes, &one).unwrap();
        assert_eq!(bytes, [0; 4]);
    }
}
