// SPDX-License-Identifier: GPL-2.0

//! Which chunks fill which memory: the extents of a file say it, and [`Chunks`] does it.
//!
//! A chunk that is an extent as a whole, and whose bytes lie in one folio, is decoded into the folio;
//! in large folios that goes for most of a large file. The bytes of the others, and of those that are
//! wanted more than once, are copied from the chunk cache.
//!
//! [`Chunks`]: crate::fetch::Chunks

use kernel::prelude::*;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Chunk, Extent, Target};

use crate::error::Failure;
use crate::fetch::{Fetched, Want};
use crate::klib::buffer::Buffer;
use crate::read::Reader;
use crate::vfs::folio::{Gap, Gaps};
use crate::vfs::{fatal_signal_pending, LockedFolio};

/// Extents that are looked up at once, at most.
const PIECES: usize = 64;

/// Raw bytes that are decoded at once, at most, give or take a chunk.
const PIECES_BYTES: u32 = 2 << 20;

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

/// Memory that gets a copy of raw bytes.
struct Copied<'a> {
    /// Taken when it is filled.
    gap: Option<Gap<'a>>,
    /// Which of the chunks that are wanted the bytes are of, and the first of them in it.
    want: usize,
    offset: u64,
    /// Whether this is the end of a chunk that is one extent: nobody else will ask for it.
    is_end: bool,
}

impl Reader<'_> {
    /// Fills `folios`, which follow each other: with zeros what lies behind the end of the file.
    pub(crate) fn fill(&self, folios: &mut [LockedFolio<'_>]) -> Result<(), Failure> {
        let mut gaps = Gaps::new(folios);
        while let Some(pos) = gaps.pos() {
            if fatal_signal_pending() {
                return Err(EINTR.into());
            }
            match self.extents.filter(|_| pos < self.size) {
                Some(extents) => {
                    let pieces = self.pieces(&extents, pos, gaps.end())?;
                    self.fill_pieces(&pieces, &mut gaps)?;
                }
                None => gaps.take(u64::MAX)?.zero()?,
            }
        }
        Ok(())
    }

    /// The pieces of the file from `pos` to `end`, as many as are decoded at once.
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
            if is_last || bytes >= PIECES_BYTES || pieces.len() >= PIECES {
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

    /// Fills the next of `gaps` with `pieces`.
    fn fill_pieces(&self, pieces: &[Piece], gaps: &mut Gaps<'_, '_>) -> Result<(), Failure> {
        let mut wants = Buffer::with_capacity(pieces.len())?;
        let mut copies = Buffer::with_capacity(pieces.len())?;
        for Piece { extent, chunk } in pieces {
            let Some(chunk) = chunk else {
                while let Some(pos) = gaps.pos().filter(|pos| *pos < extent.end) {
                    gaps.take(extent.end.saturating_sub(pos))?.zero()?;
                }
                continue;
            };
            let first = gaps.pos().ok_or(EIO)?;
            let is_whole = extent.len() == chunk.raw_len.into();
            // Of the chunk that is as long as its extent no byte lies before that: `check_range`.
            let mut same = pieces.iter().filter(|piece| piece.has(chunk));
            let is_only = same.nth(1).is_none();
            let gap = if is_whole && is_only && first == extent.start {
                gaps.take_whole(extent.len())?
            } else {
                None
            };
            while let Some(pos) = gaps.pos().filter(|pos| *pos < extent.end) {
                let left = extent.end.saturating_sub(pos);
                let gap = gaps.take(left)?;
                copies.push(Copied {
                    is_end: is_whole && u64_from_usize(gap.len()) == left,
                    gap: Some(gap),
                    want: wants.len(),
                    offset: in_chunk(extent, pos),
                })?;
            }
            wants.push(Want {
                chunk: *chunk,
                wanted: wanted(extent, chunk, first, gaps.end()),
                gap,
            })?;
        }
        let Fetched { mut slots, failed } = self.chunks.get_all(&mut wants)?;
        for copied in copies.iter_mut() {
            let want = wants.get(copied.want).ok_or(EIO)?;
            let slot = slots.get_mut(copied.want).ok_or(EIO)?;
            let filled = self.chunks.filled(want, slot.take())?;
            let gap = copied.gap.take().ok_or(EIO)?;
            let raw = filled.raw().ok_or(EIO)?;
            let raw = bytes_at(raw, copied.offset, gap.len()).ok_or(EIO)?;
            self.chunks.copy(raw, gap)?;
            if copied.is_end {
                self.chunks.spent(&filled);
            }
            *slot = Some(filled);
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Raw bytes from the start of `chunk` that a reader of `pos..end`, in `extent`, wants.
fn wanted(extent: &Extent, chunk: &Chunk, pos: u64, end: u64) -> u32 {
    // Who wants the first file of a group may well go on with the next ones.
    let is_group = extent.len() < chunk.raw_len.into();
    if is_group && in_chunk(extent, pos) < BLOCK_BYTES {
        return chunk.raw_len;
    }
    let wanted = u32::try_from(in_chunk(extent, extent.end.min(end))).unwrap_or(u32::MAX);
    // The window ends in the chunk's last page, which the next chunk shares: whoever goes on wants
    // the rest of this one, and should not have to decode it again.
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

/// `len` bytes of `raw` from `from`.
fn bytes_at(raw: &[u8], from: u64, len: usize) -> Option<&[u8]> {
    raw.get(usize::try_from(from).ok()?..)?.get(..len)
}
