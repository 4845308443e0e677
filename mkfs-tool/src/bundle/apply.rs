// SPDX-License-Identifier: GPL-2.0-or-later

//! From an image and a bundle to the other image, byte for byte.
//!
//! The metadata comes first, and is compared with the image ID. It says what chunks there are: each is verified before it is written. A
//! run that goes on with the file of an earlier one reads each chunk back, and keeps it if it has its digest; all other bytes are
//! written anew.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK};
use tesserafs_format::raw::MAGIC;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::{superblock, Source};

use super::fill::fill;
use super::partial::Partial;
use super::side::Side;
use super::stream::{Header, Kind, Reader};
use super::tables::{parts, Span};
use super::{head, in_pool, ApplyReport, ApplyRequest};
use crate::convert::broken;
use crate::encode::{sha256, zstd_version, Sha2};
use crate::error::{Error, Result, Shown};
use crate::output::is_stdout;
use crate::progress::Progress;

/// Threads, at most: each holds sections of 8 MiB, and a prefix and raw chunks of 17.
const THREADS_MAX: usize = 12;

/// Applies a bundle.
pub fn apply(request: &ApplyRequest, progress: &dyn Progress) -> Result<ApplyReport> {
    in_pool(THREADS_MAX, || apply_bundle(request, progress))
}

fn apply_bundle(request: &ApplyRequest, progress: &dyn Progress) -> Result<ApplyReport> {
    let started = Instant::now();
    if is_stdout(&request.new) {
        return Err(Error::Usage("an image is written at places: name a file".to_owned()));
    }
    let source = Source::open(&request.old)?;
    let old = superblock::read_head(&source).map_err(broken(&request.old))?;
    let from: Box<dyn Read> = match &*request.bundle {
        path if path == Path::new("-") => Box::new(io::stdin().lock()),
        path => Box::new(BufReader::new(File::open(path).map_err(Error::io("open", path))?)),
    };
    let (mut reader, header) = Reader::open(from, &request.bundle)?;
    check(request, &header, old.id)?;
    let old = Side::open(&source, &old.sb, request.pack_dir.as_deref())?;
    let (block, signature, sb) = read_head(&mut reader, &header)?;

    let inputs = [&*request.old, &*request.bundle];
    let mut image = Partial::open(&request.new, request.force, &inputs)?;
    let mut there = Box::new([0; BLOCK_SIZE]);
    if image.is_begun && (image.read(0, &mut *there).is_err() || there != block) {
        // Of another image; or a file of the user's.
        let is_ours = there.starts_with(&MAGIC) || there.iter().all(|byte| *byte == 0);
        if !is_ours && !request.force {
            return Err(Error::unsupported(
                image.path(),
                "is in the way, and no unfinished image; --force replaces it",
            ));
        }
        image.restart()?;
    }
    let written = write_metadata(&mut reader, &old, &image, &block, &signature, &sb);
    written.inspect_err(|_| {
        if !image.is_begun {
            image.remove();
        }
    })?;
    let kept = image.path().to_owned();
    let finished = fill(request, &old, &sb, image, reader, progress);
    let (wanted, bundle_bytes) =
        finished.map_err(|error| Error::Unfinished { cause: Box::new(error), path: kept })?;
    Ok(ApplyReport::new(request, &header, &sb, &wanted, bundle_bytes, started))
}

/// Refuses a bundle for another image, or another libzstd, before anything is written.
fn check(request: &ApplyRequest, header: &Header, old: Digest) -> Result<()> {
    if header.old != old {
        return Err(Error::unsupported(
            &request.bundle,
            format!("is for the image sha256:{}, found sha256:{old} in {}", header.old, Shown(&request.old)),
        ));
    }
    let (found, expected) = (zstd_version(), header.zstd_version);
    if !header.portable && found != expected {
        return Err(Error::unsupported(
            &request.bundle,
            format!(
                "needs libzstd {}, found {} in this program: chunks would be compressed to other bytes; take a bundle that was \
                 made with --portable",
                tesserafs_image::profile::version(expected),
                tesserafs_image::profile::version(found)
            ),
        ));
    }
    Ok(())
}

/// The first block, the signature, and the superblock.
type ImageHead = (Box<[u8; BLOCK_SIZE]>, Vec<u8>, SuperBlock);

fn read_head<R: Read>(reader: &mut Reader<R>, header: &Header) -> Result<ImageHead> {
    let at = reader.at();
    let (_, section) = reader.next(&[Kind::Head])?;
    let parse = || -> Result<ImageHead, String> {
        let (block, signature) = head::decode(&section).ok_or("found no block and signature")?;
        let id = check_prefix::<Sha2>(&block).map_err(|error| error.to_string())?;
        if id != header.new {
            return Err(format!("found the image sha256:{id}, expected sha256:{}", header.new));
        }
        let sb = SuperBlock::parse(&block).map_err(|error| error.to_string())?;
        let (found, expected) = (signature.len(), sb.signature_bytes as usize);
        if found != expected {
            return Err(format!("found a signature of {found} bytes, expected {expected}"));
        }
        let (found, expected) = (sha256(&signature), sb.signature_digest);
        if !signature.is_empty() && found != expected {
            return Err(format!("found a signature with the digest {found}, expected {expected}"));
        }
        Ok((block, signature, sb))
    };
    parse().map_err(|reason| reader.broken(at, reason))
}

/// Writes all but the chunks, and compares it with the superblock.
fn write_metadata<R: Read>(
    reader: &mut Reader<R>,
    old: &Side<'_>,
    image: &Partial,
    block: &[u8; BLOCK_SIZE],
    signature: &[u8],
    sb: &SuperBlock,
) -> Result<()> {
    let layout = &sb.layout;
    image.set_len(sb.file_bytes())?;
    let mut end_of_last = layout.tree_offset;
    let zeros = |from: u64, until: u64| image.write(from, &vec![0; until.saturating_sub(from) as usize]);
    for part in parts(&old.superblock().layout, layout) {
        let at = reader.at();
        let (_, section) = reader.next(&[Kind::Table])?;
        let bytes = part.decode(&section, &old.metadata(part.old)?);
        let bytes = bytes.ok_or_else(|| {
            let Span { offset, len } = part.new;
            reader
                .broken(at, format!("found no table of the {len} bytes from byte {offset} of the new image"))
        })?;
        // Less than a block is between two tables.
        zeros(end_of_last, part.new.offset)?;
        image.write(part.new.offset, &bytes)?;
        end_of_last = part.new.offset + part.new.len;
    }
    zeros(end_of_last, layout.hash_offset)?;
    let offset = |number: u64| layout.tree_offset + number * BLOCK_BYTES;
    let mut below = (0, layout.geometry.metadata_blocks());
    let mut root = Digest::default();
    for level in layout.geometry.levels() {
        for (hashes, first) in (level.0..).zip((0..below.1).step_by(DIGESTS_PER_BLOCK as usize)) {
            let mut digests = Vec::with_capacity(BLOCK_SIZE);
            let blocks = DIGESTS_PER_BLOCK.min(below.1 - first);
            let mut bytes = vec![0; (blocks * BLOCK_BYTES) as usize];
            image.read(offset(below.0 + first), &mut bytes)?;
            bytes.chunks_exact(BLOCK_SIZE).for_each(|block| digests.extend(sha256(block).0));
            digests.resize(BLOCK_SIZE, 0);
            root = sha256(&digests);
            image.write(offset(hashes), &digests)?;
        }
        below = level;
    }
    if root != sb.merkle_root {
        return Err(reader.broken(
            reader.at(),
            format!("the tables have the Merkle root {root}, expected {}", sb.merkle_root),
        ));
    }
    image.write(layout.image_bytes, signature)?;
    zeros(layout.image_bytes + signature.len() as u64, sb.file_bytes())?;
    image.write(0, block)
}
