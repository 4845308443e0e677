// SPDX-License-Identifier: GPL-2.0-or-later

//! Digests that are computed, and their places in the new image.

use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{plain_holes_max, BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{Digest, SuperBlock, Table};

use super::{Digests, PackFiles, Rebuild};
use crate::bundle::matches::Matches;
use crate::bundle::partial::NewFile;
use crate::bundle::side::{RawReader, Side};
use crate::convert::Tables;
use crate::encode::sha256;
use crate::error::{Error, Result};

/// Bytes of a pack that are hashed at once.
const HASHED: u64 = 1 << 20;

/// Contents that a thread digests one after the other: those of a group are in one chunk.
const TOGETHER: usize = 256;

/// Digests that are read and written at once.
const WRITTEN: usize = 1 << 15;

impl Rebuild<'_, '_> {
    /// Keeps computed digests, in the file too.
    pub(super) fn learn(&mut self, digests: Vec<Digests>) -> Result<()> {
        for (chunk, (stored, raw)) in digests {
            self.image.write(place(&self.sb.layout.chunk_digests, chunk), &stored.0)?;
            self.image.write(place(&self.sb.layout.raw_digests, chunk), &raw.0)?;
            self.new.chunks[chunk as usize].digest = stored;
            self.new.raw_digests[chunk as usize] = raw;
        }
        Ok(())
    }

    /// Compares a whole pack that was made with its digest.
    pub(in super::super) fn check(&self, files: &PackFiles<'_>, index: u16) -> Result<()> {
        let (file, start) = self.file(files, index);
        let pack = &self.new.packs[usize::from(index)];
        let mut hasher = Sha256::new();
        let mut piece = vec![0; HASHED.min(pack.bytes) as usize];
        let mut at = 0;
        while at < pack.bytes {
            let piece = &mut piece[..HASHED.min(pack.bytes - at) as usize];
            file.read(start + at, piece)?;
            hasher.update(&*piece);
            at += piece.len() as u64;
        }
        let found = Digest(hasher.finalize().into());
        if found != pack.digest {
            let reason = format!("pack {index} has digest {found}, expected {}", pack.digest);
            return Err(Error::unsupported(file.path(), reason));
        }
        Ok(())
    }
}

/// The digests of contents, computed from their bytes.
pub(in super::super) fn digests(side: &Side<'_>, contents: &[u32]) -> Result<Vec<(u32, Result<Digest>)>> {
    let in_files = side.tables.chunks.iter().filter(|chunk| chunk.pack.0 > 0);
    let stored: u64 = in_files.map(|chunk| u64::from(chunk.stored_len)).sum();
    let most = plain_holes_max(side.superblock().layout.image_bytes.saturating_add(stored));
    if side.tables.plain_hole_bytes > most {
        let found = side.tables.plain_hole_bytes;
        let reason =
            format!("has {found} bytes in holes of files, expected {most} at most: see content-holes");
        return Err(Error::unsupported(side.path, reason));
    }
    let digests: Result<Vec<Vec<_>>> = contents
        .par_chunks(TOGETHER)
        .map(|contents| {
            let mut reader = RawReader::new(side)?;
            Ok(contents.iter().map(|content| (*content, reader.digest(*content))).collect())
        })
        .collect();
    Ok(digests?.into_iter().flatten().collect())
}

/// Where a table has the digest with this number.
pub(super) fn place(table: &Table, number: u32) -> u64 {
    table.offset() + u64::from(number) * 32
}

/// Writes the digests that the old image has.
pub(super) fn write_known(image: &NewFile, layout: &Layout, new: &Tables, matches: &Matches) -> Result<()> {
    let is_content = |content| matches.content(content).is_some();
    write_digests(image, &layout.content_digests, &new.content_digests, is_content)?;
    let stored: Vec<_> = new.chunks.iter().map(|chunk| chunk.digest).collect();
    let is_chunk = |chunk| matches.chunk(chunk).is_some();
    write_digests(image, &layout.chunk_digests, &stored, is_chunk)?;
    write_digests(image, &layout.raw_digests, &new.raw_digests, is_chunk)
}

/// Writes those digests of a table that `is_known` names, many at once.
fn write_digests(
    image: &NewFile,
    table: &Table,
    digests: &[Digest],
    is_known: impl Fn(u32) -> bool,
) -> Result<()> {
    let mut number = 0;
    for run in digests.chunks(WRITTEN) {
        let mut bytes = vec![0; run.len() * 32];
        image.read(place(table, number), &mut bytes)?;
        for ((number, digest), bytes) in (number..).zip(run).zip(bytes.chunks_exact_mut(32)) {
            if is_known(number) {
                bytes.copy_from_slice(&digest.0);
            }
        }
        image.write(place(table, number), &bytes)?;
        number += run.len() as u32;
    }
    Ok(())
}

/// Writes the hash region over the metadata; its root is the answer.
pub(super) fn write_hashes(image: &NewFile, sb: &SuperBlock) -> Result<Digest> {
    let layout = &sb.layout;
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
    Ok(root)
}
