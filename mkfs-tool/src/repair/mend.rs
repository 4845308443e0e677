// SPDX-License-Identifier: GPL-2.0-or-later

//! The metadata: the blocks of it that are damaged, by copies, by images of the same tree, and by what bundles and their old images give.

use std::path::Path;

use tesserafs_image::Source;

use super::blocks::{BlockFile, Blocks, Mended};
use super::donor::{self, Donor};
use super::head::Head;
use crate::bundle::salvage::{self, Damaged};
use crate::bundle::side::Side;
use crate::error::Result;

/// Finds the damaged blocks of metadata, and good ones.
pub(super) fn mend(
    head: &Head,
    image: &Source,
    donors: &[Donor],
    target: &Path,
    pack_dir: &Path,
) -> Result<Mended> {
    let mut files = vec![BlockFile::copy(None, image, &head.sb)];
    for (number, donor) in donors.iter().enumerate() {
        if donor.may_be_copy_of(head.id) {
            files.push(BlockFile::copy(Some(number), &donor.source, &head.sb));
        } else if let Some((_, sb)) = donor.image() {
            files.push(BlockFile { is_copy: false, ..BlockFile::copy(Some(number), &donor.source, sb) });
        }
    }
    let mut mended = Blocks { sb: &head.sb, files: files.clone() }.mend();
    if !mended.lost.is_empty() {
        let made = made_by_bundles(head, image, donors, target, pack_dir)?;
        if !made.is_empty() {
            files
                .extend(made.iter().map(|(number, source)| BlockFile::copy(Some(*number), source, &head.sb)));
            mended = Blocks { sb: &head.sb, files }.mend();
        }
    }
    for (_, file) in mended.found.values() {
        file.iter().for_each(|file| donor::count(&donors[*file].taken.blocks, 1));
    }
    Ok(mended)
}

/// The image as bundles and their old images give it, in files without a name.
fn made_by_bundles(
    head: &Head,
    image: &Source,
    donors: &[Donor],
    target: &Path,
    pack_dir: &Path,
) -> Result<Vec<(usize, Source)>> {
    let scratch = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dirs = donor::dirs(donors, pack_dir);
    let damaged = Damaged { image, sb: &head.sb, pack_dir };
    let mut made = Vec::new();
    for (number, donor) in donors.iter().enumerate() {
        let Some(header) = donor.bundle_of(head.id) else { continue };
        for (old, sb) in donors.iter().filter_map(|old| Some((old, old.image_of(header.old)?))) {
            let side = match Side::open_some(&old.source, sb, &dirs) {
                Ok(side) => side,
                Err(error) => {
                    donor.note(error.to_string());
                    continue;
                }
            };
            let (source, whole) = salvage::rebuild(&donor.source, &side, &damaged, scratch)?;
            whole.unwrap_or_else(|error| donor.note(error.to_string()));
            made.push((number, source));
        }
    }
    Ok(made)
}
