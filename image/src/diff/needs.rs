// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of an image that a host lacks which has another one.

use std::collections::HashSet;

use tesserafs_format::{ChunkIndex, Digest, PackIndex, PackKind};

use crate::error::Error;
use crate::unchecked::Unchecked;

/// Stored bytes that the second image needs, and the first one has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Chunks with another digest than all of the first one's.
    pub chunks: u64,
    /// Their stored bytes.
    pub chunk_bytes: u64,
    /// Packs that the first one does not name: their digests and bytes.
    pub packs: Vec<(Digest, u64)>,
    /// Bytes of the second one's metadata, which is its own in any case.
    pub metadata_bytes: u64,
}

/// Compares the chunks and packs of two images.
pub fn needs(a: &Unchecked<'_>, b: &Unchecked<'_>) -> Result<Needs, Error> {
    let mut needs = Needs::default();
    let mut known = HashSet::new();
    for number in 0..chunks(a) {
        known.insert(a.of(a.image.chunk(ChunkIndex(number)))?.digest);
    }
    for number in 0..chunks(b) {
        let chunk = b.of(b.image.chunk(ChunkIndex(number)))?;
        if known.insert(chunk.digest) {
            needs.chunks += 1;
            needs.chunk_bytes += u64::from(chunk.stored_len);
        }
    }
    let mut packs = HashSet::new();
    for number in 0..self::packs(a) {
        packs.insert(a.of(a.image.pack(PackIndex(number)))?.digest);
    }
    for number in 0..self::packs(b) {
        let pack = b.of(b.image.pack(PackIndex(number)))?;
        if pack.kind == PackKind::File && packs.insert(pack.digest) {
            needs.packs.push((pack.digest, pack.bytes));
        }
    }
    let layout = &b.image.sb.layout;
    needs.metadata_bytes = layout.image_bytes.saturating_sub(layout.tree_offset);
    Ok(needs)
}

fn chunks(side: &Unchecked<'_>) -> u32 {
    u32::try_from(side.image.sb.layout.chunks.records()).unwrap_or(u32::MAX)
}

fn packs(side: &Unchecked<'_>) -> u16 {
    u16::try_from(side.image.sb.layout.packs.records()).unwrap_or(u16::MAX)
}
