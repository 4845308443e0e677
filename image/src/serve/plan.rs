// SPDX-License-Identifier: GPL-2.0-or-later

//! Which chunks hold a range of a file.

use std::ops::Range;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Chunk, Extent, Image, Target};

use crate::error::Broken;
use crate::metadata::VerifiedMetadata;

/// A part of a range that one extent covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    extent: Extent,
    /// The chunk; `None` of a hole.
    pub(super) chunk: Option<Chunk>,
    /// First byte of the file, and the one behind the last.
    start: u64,
    end: u64,
    /// Whether no more than a page is read: at a random place, or a small file.
    is_page: bool,
}

/// The pieces of `range`, which is not empty and lies in the content. They follow each other without a gap.
///
/// Their number is bounded by the length of the range: an extent of a chunk has 4096 bytes, or ends at a multiple of that or with the
/// content, and holes that follow each other, which can be shorter, are one piece.
pub(super) fn pieces(
    image: &Image<'_, VerifiedMetadata<'_>>,
    extents: &Extents,
    range: Range<u64>,
) -> Result<Vec<Piece>, Broken> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut is_one = true;
    let is_page = range.end.saturating_sub(range.start) <= BLOCK_BYTES;
    let mut extent = image.extent_at(extents, range.start)?;
    loop {
        let chunk = match extent.target {
            Target::Hole => None,
            Target::Chunk { index, .. } => {
                let chunk = image.chunk(index)?;
                extent.check_range(&chunk)?;
                Some(chunk)
            }
        };
        let (start, end) = (extent.start.max(range.start), extent.end.min(range.end));
        match pieces.last_mut() {
            Some(last @ Piece { chunk: None, .. }) if chunk.is_none() => last.end = end,
            _ => pieces.push(Piece { extent, chunk, start, end, is_page }),
        }
        is_one &= extent.end >= range.end;
        let next = extent.index.saturating_add(1);
        if extent.end >= range.end || next >= extents.end {
            break;
        }
        extent = image.extent(extents, next)?;
    }
    if !is_one {
        image.check_run(extents, &extent)?;
    }
    Ok(pieces)
}

impl Piece {
    /// Bytes of the file.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    /// Whether it is all of its chunk: then that is decoded in its place.
    pub(super) fn is_whole_chunk(&self) -> bool {
        self.chunk.is_some_and(|chunk| u64::from(chunk.raw_len) == self.end.saturating_sub(self.start))
    }

    /// Whether it is the end of a chunk that is one extent: nobody else will ask for it.
    pub(super) fn is_end_of_chunk(&self) -> bool {
        let is_one = self.chunk.is_some_and(|chunk| u64::from(chunk.raw_len) == self.extent.len());
        is_one && self.end == self.extent.end
    }

    /// Where it lies in the raw bytes of its chunk.
    pub(super) fn in_chunk(&self) -> Range<usize> {
        let start = usize::try_from(self.raw(self.start)).unwrap_or(usize::MAX);
        start..start.saturating_add(self.len())
    }

    /// Whether it is a page of a chunk that is one file's: nobody reads it in order.
    pub(super) fn is_random(&self) -> bool {
        self.is_page && self.chunk.is_none_or(|chunk| u64::from(chunk.raw_len) == self.extent.len())
    }

    /// Raw bytes from the start of its chunk that are wanted: those up to its end, or all.
    pub(super) fn wanted(&self) -> u32 {
        let Some(chunk) = self.chunk else { return 0 };
        let is_group = self.extent.len() < chunk.raw_len.into();
        let is_wanted_whole = if is_group {
            // A reader of the first file of a group may well go on with the next ones.
            self.raw(self.start) < BLOCK_BYTES
        } else {
            // The kernel reads ahead, or the program reads much: the rest of the chunk is wanted next.
            !self.is_page
        };
        if is_wanted_whole {
            return chunk.raw_len;
        }
        u32::try_from(self.raw(self.end)).unwrap_or(u32::MAX)
    }

    /// Where the byte at `pos` of the file lies in the raw bytes.
    fn raw(&self, pos: u64) -> u64 {
        match self.extent.target {
            Target::Chunk { offset, .. } => {
                u64::from(offset).saturating_add(pos.saturating_sub(self.extent.start))
            }
            Target::Hole => 0,
        }
    }
}
