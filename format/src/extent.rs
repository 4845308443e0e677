// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Contents and extents: which part of which chunk holds a range of a file.

use crate::chunk::{Chunk, ChunkIndex};
use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::BLOCK_BYTES;
use crate::raw::RawExtent;

/// The `chunk` of a hole.
pub const HOLE: u32 = u32::MAX;

/// Index of a content: the bytes of all regular files that have the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentIndex(pub u32);

/// The extents of one content.
///
/// # Invariants
///
/// `first < end`, and `end` is at most the number of extents in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// The content.
    pub content: ContentIndex,
    /// Index of its first extent.
    pub first: u32,
    /// Index behind its last extent.
    pub end: u32,
    /// Bytes of the content, 1 at least.
    pub size: u64,
}

/// The bytes that an extent maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Zeros.
    Hole,
    /// Bytes of a chunk.
    Chunk {
        /// The chunk.
        index: ChunkIndex,
        /// First byte in the decoded chunk.
        offset: u32,
    },
}

/// A range of a content and what it maps to.
///
/// # Invariants
///
/// `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its index.
    pub index: u32,
    /// First byte of the file.
    pub start: u64,
    /// First byte of the file behind it.
    pub end: u64,
    /// The bytes that it maps to.
    pub target: Target,
}

impl Extent {
    /// Parses and proves record `index` of the extent table, which ends at byte `end` of a content of `size` bytes.
    ///
    /// The rule about the length leaves at most two extents with a chunk in a block: one that begins before
    /// the block or with it, and one that begins within and so reaches its end.
    pub fn parse(raw: &RawExtent, index: u32, end: u64, size: u64) -> Result<Self, FormatError> {
        let place = Place::Extent(index);
        let start = raw.file_offset.get();
        ensure(start < end, Rule::ExtentOrder, place, start, end)?;
        let offset = raw.chunk_offset.get();
        let target = match raw.chunk.get() {
            HOLE => {
                ensure(offset == 0, Rule::ExtentHole, place, offset.into(), 0)?;
                Target::Hole
            }
            chunk => {
                let len = end.saturating_sub(start);
                let is_long = len >= BLOCK_BYTES || end % BLOCK_BYTES == 0 || end == size;
                ensure(is_long, Rule::ExtentLength, place, len, BLOCK_BYTES)?;
                Target::Chunk { index: ChunkIndex(chunk), offset }
            }
        };
        // INVARIANT: `start < end` was proven first.
        Ok(Self { index, start, end, target })
    }

    /// The inverse of [`parse`](Self::parse), but for the end, which the next extent or the file's size says.
    pub fn to_raw(&self) -> RawExtent {
        let (chunk, offset) = match self.target {
            Target::Hole => (HOLE, 0),
            Target::Chunk { index, offset } => (index.0, offset),
        };
        RawExtent { file_offset: self.start.into(), chunk: chunk.into(), chunk_offset: offset.into() }
    }

    /// Bytes that it covers.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Never: an extent covers a byte at least.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Proves that the extent lies in its chunk.
    pub fn check_range(&self, chunk: &Chunk) -> Result<(), FormatError> {
        if let Target::Chunk { offset, .. } = self.target {
            let end = self.len().saturating_add(offset.into());
            let most = u64::from(chunk.raw_len);
            ensure(end <= most, Rule::ExtentRange, Place::Extent(self.index), end, most)?;
        }
        Ok(())
    }
}
