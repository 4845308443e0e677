// SPDX-License-Identifier: GPL-2.0-or-later

//! The result of the encoder: the tables of the map region, and figures for the report.

use tesserafs_format::raw::{RawChunk, RawExtent};
use tesserafs_format::{Digest, Pack};

/// The map of an image: everything but the bytes.
#[derive(Debug, Default)]
pub struct Map {
    /// Content index of each regular file with bytes, with its inode, by inode.
    pub files: Vec<(u32, u32)>,
    /// Digests of the contents.
    pub content_digests: Vec<Digest>,
    /// Blocks of the contents that are not all zero.
    pub content_blocks: Vec<u32>,
    /// First extents of the contents.
    pub content_map: Vec<u32>,
    /// Extents.
    pub extents: Vec<RawExtent>,
    /// Chunks.
    pub chunks: Vec<RawChunk>,
    /// Digests of the stored chunks.
    pub chunk_digests: Vec<Digest>,
    /// Digests of the raw chunks.
    pub raw_digests: Vec<Digest>,
    /// Bytes of pack 0.
    pub pack_bytes: u64,
    /// The packs beside it, in the order of their indices, which begin at 1.
    pub packs: Vec<Pack>,
    /// Bytes of holes in contents whose digest is over all of their bytes.
    pub plain_hole_bytes: u64,
    /// The figures.
    pub figures: Figures,
}

impl Map {
    /// An empty map with room for so many files, each with a content of one extent, as far as there is memory.
    pub(super) fn with_room(files: usize) -> Self {
        let mut map = Self::default();
        let _ = map.files.try_reserve(files);
        let _ = map.content_blocks.try_reserve(files);
        let _ = map.content_map.try_reserve(files);
        let _ = map.extents.try_reserve(files);
        map
    }

    /// The content of a file, by its inode.
    pub fn content_of(&self, ino: u32) -> Option<u32> {
        let at = self.files.binary_search_by_key(&ino, |(file, _)| *file).ok()?;
        Some(self.files[at].1)
    }
}

/// Figures that the encoder found.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Figures {
    /// Bytes of all files; of a hard-linked one once.
    pub raw_bytes: u64,
    /// Bytes of distinct contents.
    pub content_bytes: u64,
    /// Of those, bytes in holes.
    pub hole_bytes: u64,
    /// Bytes of distinct chunks before compression.
    pub chunk_raw_bytes: u64,
    /// Bytes of chunks after compression.
    pub stored_bytes: u64,
    /// Files whose bytes another file has too.
    pub duplicate_files: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Chunks of distinct contents that are another one.
    pub duplicate_chunks: u64,
    /// Their bytes before compression.
    pub duplicate_chunk_bytes: u64,
    /// Chunks that are groups.
    pub groups: u64,
    /// Contents in groups.
    pub grouped_contents: u64,
    /// Chunks that compression does not make smaller.
    pub plain_chunks: u64,
    /// Chunks of x86 code, compressed after the filter.
    pub filtered_chunks: u64,
}
