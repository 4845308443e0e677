// SPDX-License-Identifier: GPL-2.0

//! Step 2 of a read: which chunk fills which memory, as the extents of the file say. Nothing of a
//! chunk is read here.
//!
//! A chunk that is an extent as a whole, and whose bytes lie in one folio, is decoded into the folio;
//! in large folios that goes for most of a large file. The bytes of the others, and of those that are
//! wanted more than once, are copied from the chunk cache.

use kernel::prelude::*;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Chunk, Extent, Target};

use crate::error::Failure;
use crate::klib::buffer::Buffer;
use crate::read::Reader;
use crate::vfs::folio::{Gap, Gaps};

/// Extents of a plan, at most.
const EXTENTS: usize = 64;

/// Raw bytes of a plan, at most, give or take a chunk.
const BYTES: u32 = 2 << 20;

/// Which chunks are wanted, and for what.
pub(crate) struct Plan<'a> {
    pub(crate) parts: Buffer<Part<'a>>,
    pub(crate) copies: Buffer<Copied<'a>>,
}

/// A chunk that is wanted.
pub(crate) struct Part<'a> {
    pub(crate) chunk: Chunk,
    /// How many of its raw bytes, from the first on.
    pub(crate) wanted: u32,
    /// Memory of a folio for all of its raw bytes; else they go to the chunk cache.
    pub(crate) in_place: Option<Gap<'a>>,
}

/// Memory that gets a copy of raw bytes.
pub(crate) struct Copied<'a> {
    pub(crate) gap: Gap<'a>,
    /// Which of the parts of the plan the bytes are of.
    pub(crate) part: usize,
    /// The first of them in its chunk.
    pub(crate) offset: u64,
    /// Whether this is the end of a chunk that is one extent: nobody else will ask for it.
    pub(crate) is_end: bool,
}

/// An extent, and its chunk unless it is a hole.
struct Piece {
    extent: Extent,
    chunk: Option<Chunk>,
}

impl Piece {
    fn has(&self, chunk: &Chunk) -> bool {
        self.chunk.is_some_and(|own| own.index == chunk.index)
    }
}

impl Reader<'_> {
    /// Plans how the next of `gaps`, which begin at `pos`, are filled, and takes them; when none is
    /// left, all are planned. Memory that needs no chunk is filled with zeros at once.
    pub(crate) fn plan<'a>(&self, pos: u64, gaps: &mut Gaps<'a, '_>) -> Result<Plan<'a>, Failure> {
        let mut plan = Plan {
            parts: Buffer::with_capacity(1)?,
            copies: Buffer::with_capacity(1)?,
        };
        let Some(extents) = self.extents.filter(|_| pos < self.size) else {
            gaps.take(u64::MAX)?.zero()?;
            return Ok(plan);
        };
        let pieces = self.pieces(&extents, pos, gaps.end())?;
        for Piece { extent, chunk } in &*pieces {
            match chunk {
                // A chunk that is as long as its extent has no byte before the extent:
                // `check_range`.
                Some(chunk) => {
                    let is_only = pieces
                        .iter()
                        .filter(|piece| piece.has(chunk))
                        .nth(1)
                        .is_none();
                    let is_whole = extent.len() == chunk.raw_len.into();
                    plan.add(extent, chunk, is_whole, is_only, gaps)?;
                }
                None => {
                    while let Some(pos) = gaps.pos().filter(|pos| *pos < extent.end) {
                        gaps.take(extent.end.saturating_sub(pos))?.zero()?;
                    }
                }
            }
        }
        Ok(plan)
    }

    /// The pieces of the file from `pos` to `end`, as many as a plan has.
    fn pieces(&self, extents: &Extents, pos: u64, end: u64) -> Result<Buffer<Piece>, Failure> {
        let mut pieces = Buffer::with_capacity(1)?;
        let mut bytes = 0_u32;
        let mut extent = self.image.extent_at(extents, pos)?;
        loop {
            let chunk = self.chunk(&extent)?;
            bytes = bytes.saturating_add(chunk.map_or(0, |chunk| chunk.raw_len));
            pieces.push(Piece { extent, chunk })?;
            let next = extent.index.saturating_add(1);
            let is_last = extent.end >= end || next >= extents.end;
            if is_last || bytes >= BYTES || pieces.len() >= EXTENTS {
                break;
            }
            extent = self.image.extent(extents, next)?;
        }
        if pieces.len() > 1 {
            self.image.check_run(extents, &extent)?;
        }
        Ok(pieces)
    }

    /// The chunk of an extent; none for a hole.
    fn chunk(&self, extent: &Extent) -> Result<Option<Chunk>, Failure> {
        let Target::Chunk { index, .. } = extent.target else {
            return Ok(None);
        };
        let chunk = self.image.chunk(index)?;
        extent.check_range(&chunk)?;
        Ok(Some(chunk))
    }
}

impl<'a> Plan<'a> {
    /// Adds `chunk`, of which `extent` is a part, for the gaps that lie in the extent.
    fn add(
        &mut self,
        extent: &Extent,
        chunk: &Chunk,
        is_whole: bool,
        is_only: bool,
        gaps: &mut Gaps<'a, '_>,
    ) -> Result {
        let first = gaps.pos().ok_or(EIO)?;
        let in_place = if is_whole && is_only && first == extent.start {
            gaps.take_whole(extent.len())?
        } else {
            None
        };
        while let Some(pos) = gaps.pos().filter(|pos| *pos < extent.end) {
            let left = extent.end.saturating_sub(pos);
            let gap = gaps.take(left)?;
            self.copies.push(Copied {
                is_end: is_whole && u64_from_usize(gap.len()) == left,
                gap,
                part: self.parts.len(),
                offset: in_chunk(extent, pos),
            })?;
        }
        self.parts.push(Part {
            chunk: *chunk,
            wanted: wanted(extent, chunk, first, gaps.end()),
            in_place,
        })
    }
}

/// Raw bytes from the start of `chunk` that a reader of `pos..end`, in `extent`, wants.
fn wanted(extent: &Extent, chunk: &Chunk, pos: u64, end: u64) -> u32 {
    // A reader of the first file of a group may well go on with the next ones.
    let is_group = extent.len() < chunk.raw_len.into();
    if is_group && in_chunk(extent, pos) < BLOCK_BYTES {
        return chunk.raw_len;
    }
    let wanted = u32::try_from(in_chunk(extent, extent.end.min(end))).unwrap_or(u32::MAX);
    // The window ends in the chunk's last page, which the next chunk shares: a reader that goes on
    // wants the rest of this one, and should not have to decode it again.
    if u64::from(chunk.raw_len.saturating_sub(wanted)) < BLOCK_BYTES {
        return chunk.raw_len;
    }
    wanted
}

/// Where the byte at `pos` of the file, in `extent`, lies in the raw bytes of the chunk.
fn in_chunk(extent: &Extent, pos: u64) -> u64 {
    match extent.target {
        Target::Chunk { offset, .. } => {
            u64::from(offset).saturating_add(pos.saturating_sub(extent.start))
        }
        Target::Hole => 0,
    }
}
