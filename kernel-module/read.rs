// SPDX-License-Identifier: GPL-2.0

//! Reading regular files into the page cache.
//!
//! For each range of a folio: its extent says which chunk, and [`Chunks`] gives the chunk's raw
//! bytes. A readahead window of more than a page is widened to whole chunks first, so that what was
//! decoded is used.

use kernel::prelude::*;
use kernel::sync::Arc;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Chunk, Extent, FileKind, Image, Target};

use crate::chunk_cache::Slot;
use crate::error::Failure;
use crate::fetch::Chunks;
use crate::klib::buffer::Buffer;
use crate::meta::MetaReader;
use crate::mount::Tesserafs;
use crate::share;
use crate::vfs::address_space::{self, ReadAhead};
use crate::vfs::file::{self, Seek};
use crate::vfs::inode::INode;
use crate::vfs::page_cache::Key;
use crate::vfs::{fatal_signal_pending, LockedFolio};

/// The file and page cache operations of regular files.
pub(crate) struct RegularFile;

#[vtable]
impl address_space::Operations for RegularFile {
    type FileSystem = Tesserafs;

    fn read_folio(inode: &INode<Tesserafs>, mut folio: LockedFolio<'_>) -> Result {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.until(end(folio.pos(), folio.len())).fill(&mut folio))
            .map_err(|failure| mounted.stats.report(failure))?;
        folio.complete()
    }

    fn readahead(inode: &INode<Tesserafs>, mut window: ReadAhead<'_>) {
        let meta = inode.super_block().data().meta(inode.super_block());
        // What fails here is read again by `read_folio`, which reports it.
        let Ok(reader) = Reader::new(inode, &meta) else {
            return;
        };
        // Who wants one page reads here and there. The others would have to be decoded, made and
        // copied; should they be wanted after all, all of the chunk is decoded then, and cached.
        if window.len() > BLOCK_SIZE && reader.widen(&mut window).is_err() {
            return;
        }
        let mut reader = reader.until(end(window.pos(), window.len()));
        for mut folio in window.folios() {
            if reader.fill(&mut folio).is_err() || folio.complete().is_err() {
                return;
            }
        }
    }
}

#[vtable]
impl file::Operations for RegularFile {
    type FileSystem = Tesserafs;

    fn page_key(inode: &INode<Tesserafs>) -> Option<Key> {
        // What fails here is met again by whoever reads the file, and reported then.
        let key = share::key(inode).ok().flatten()?;
        inode.super_block().data().stats.shared_files.increment();
        Some(key)
    }

    fn seek(inode: &INode<Tesserafs>, offset: u64, seek: Seek) -> Result<u64> {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.seek(offset, seek))
            .map_err(|failure| mounted.stats.report(failure))
    }
}

/// Extents that are looked up at once, at most.
const PIECES: usize = 64;

/// Raw bytes that are decoded at once, at most, give or take a chunk.
const PIECES_BYTES: u32 = 2 << 20;

/// An extent, and its chunk unless it is a hole.
struct Piece {
    extent: Extent,
    chunk: Option<Chunk>,
    slot: Option<Arc<Slot>>,
}

/// A reader of one file.
struct Reader<'a> {
    chunks: Chunks<'a>,
    image: Image<'a, MetaReader<'a>>,
    /// The file's extents; none where it has no bytes.
    extents: Option<Extents>,
    size: u64,
    /// Up to where the file is wanted.
    end: u64,
    /// Extents of the file that follow each other.
    pieces: Buffer<Piece>,
}

impl<'a> Reader<'a> {
    fn new(inode: &'a INode<Tesserafs>, meta: &'a MetaReader<'a>) -> Result<Self, Failure> {
        let sb = inode.super_block();
        let mounted = sb.data();
        let image = Image::new(&mounted.sb, meta);
        let (size, extents) = match inode.data().kind {
            FileKind::Regular {
                size,
                content: Some(content),
            } => (size, Some(image.extents(content, size)?)),
            _ => (0, None),
        };
        Ok(Self {
            chunks: Chunks::new(mounted, sb.global()),
            image,
            extents,
            size,
            end: 0,
            pieces: Buffer::with_capacity(0)?,
        })
    }

    /// The reader, when it is known up to where the file is wanted.
    fn until(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// Widens a readahead window to the first and last byte of the extents at its ends.
    fn widen(&self, window: &mut ReadAhead<'_>) -> Result<(), Failure> {
        let Some(extents) = self.extents else {
            return Ok(());
        };
        let (pos, behind) = (window.pos(), end(window.pos(), window.len()));
        let last = behind.min(self.size).saturating_sub(1);
        if pos > last {
            return Ok(());
        }
        let first = self.image.extent_at(&extents, pos)?;
        let last = self.image.extent_at(&extents, last)?;
        // A hole costs nothing now and nothing later.
        let is_data = |extent: &Extent| extent.target != Target::Hole;
        let start = Some(first).filter(is_data).map_or(pos, |first| first.start);
        let start = start.saturating_sub(start % BLOCK_BYTES);
        let behind = Some(last)
            .filter(is_data)
            .map_or(0, |last| last.end)
            .max(behind);
        let behind = behind
            .checked_next_multiple_of(BLOCK_BYTES)
            .unwrap_or(behind);
        let len = |from: u64| usize::try_from(behind.saturating_sub(from)).unwrap_or(0);
        // The end first: the page cache gives up at the first page that is there already, and the
        // page in which a chunk begins was part of the window before.
        window.expand(pos, len(pos));
        window.expand(start, len(start));
        Ok(())
    }

    /// Fills a folio: what lies behind the end of the file with zeros.
    fn fill(&mut self, folio: &mut LockedFolio<'_>) -> Result<(), Failure> {
        while let Some(room) = folio
            .len()
            .checked_sub(folio.filled())
            .filter(|room| *room > 0)
        {
            let pos = folio.pos().saturating_add(u64_from_usize(folio.filled()));
            let Some(extents) = self.extents.filter(|_| pos < self.size) else {
                folio.zero(room)?;
                return Ok(());
            };
            let chunks = self.chunks;
            let Piece {
                extent,
                chunk,
                slot,
            } = self.at(&extents, pos)?;
            let len = usize::try_from(extent.end.saturating_sub(pos))
                .unwrap_or(room)
                .min(room);
            match (extent.target, slot) {
                (Target::Chunk { offset, .. }, Some(slot)) => {
                    let from = u64::from(offset).saturating_add(pos.saturating_sub(extent.start));
                    let raw = slot.raw().ok_or(EIO)?;
                    folio.write(bytes_at(raw, from, len).ok_or(EIO)?)?;
                    let is_whole = chunk.is_some_and(|chunk| extent.len() == chunk.raw_len.into());
                    if is_whole && end(pos, len) == extent.end {
                        chunks.spent(slot);
                    }
                }
                _ => folio.zero(len)?,
            }
        }
        Ok(())
    }

    /// The piece that covers `pos`, with the raw bytes of its chunk.
    fn at(&mut self, extents: &Extents, pos: u64) -> Result<&Piece, Failure> {
        let covers = |piece: &Piece| (piece.extent.start..piece.extent.end).contains(&pos);
        if !self.pieces.iter().any(covers) {
            self.look_ahead(extents, pos)?;
        }
        let (chunks, end) = (self.chunks, self.end);
        let piece = self.pieces.iter_mut().find(|piece| covers(piece));
        let piece = piece.ok_or(EIO)?;
        if let Some(chunk) = &piece.chunk {
            let wanted = wanted(&piece.extent, chunk, pos, end);
            piece.slot = Some(chunks.filled(chunk, wanted, piece.slot.take())?);
        }
        Ok(piece)
    }

    /// Looks up the pieces from `pos` to where the file is wanted, and gets their chunks.
    fn look_ahead(&mut self, extents: &Extents, pos: u64) -> Result<(), Failure> {
        self.pieces.clear();
        let mut chunks = Buffer::with_capacity(1)?;
        let mut bytes = 0_u32;
        let mut extent = self.image.extent_at(extents, pos)?;
        loop {
            let chunk = self.chunk(&extent)?;
            if let Some(chunk) = chunk {
                chunks.push(chunk)?;
                bytes = bytes.saturating_add(chunk.raw_len);
            }
            let slot = None;
            self.pieces.push(Piece {
                extent,
                chunk,
                slot,
            })?;
            let next = extent.index.saturating_add(1);
            let last = extent.end >= self.end || next >= extents.end;
            if last || bytes >= PIECES_BYTES || self.pieces.len() >= PIECES {
                break;
            }
            extent = self.image.extent(extents, next)?;
        }
        if chunks.len() > 1 {
            let slots = self.chunks.get_ahead(&chunks)?;
            let pieces = self.pieces.iter_mut().filter(|piece| piece.chunk.is_some());
            for (piece, slot) in pieces.zip(slots.iter()) {
                piece.slot = Some(slot.clone());
            }
        }
        Ok(())
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

    /// The next data or hole at or after `offset`, which is below the size.
    fn seek(&self, offset: u64, seek: Seek) -> Result<u64, Failure> {
        let Some(extents) = self.extents else {
            return Err(ENXIO.into());
        };
        let mut extent = self.image.extent_at(&extents, offset)?;
        loop {
            if (extent.target == Target::Hole) == (seek == Seek::Hole) {
                return Ok(offset.max(extent.start));
            }
            let next = extent.index.saturating_add(1);
            if next >= extents.end {
                break;
            }
            if fatal_signal_pending() {
                return Err(EINTR.into());
            }
            extent = self.image.extent(&extents, next)?;
        }
        match seek {
            Seek::Hole => Ok(self.size),
            Seek::Data => Err(ENXIO.into()),
        }
    }
}

/// Raw bytes from the start of `chunk` that a reader of `pos..end`, in `extent`, wants.
fn wanted(extent: &Extent, chunk: &Chunk, pos: u64, end: u64) -> u32 {
    let Target::Chunk { offset, .. } = extent.target else {
        return 0;
    };
    let in_chunk = |pos: u64| u64::from(offset).saturating_add(pos.saturating_sub(extent.start));
    // Who wants the first file of a group may well go on with the next ones.
    let is_group = extent.len() < chunk.raw_len.into();
    if is_group && in_chunk(pos) < BLOCK_BYTES {
        return chunk.raw_len;
    }
    let wanted = u32::try_from(in_chunk(extent.end.min(end))).unwrap_or(u32::MAX);
    wanted.min(chunk.raw_len)
}

/// Where `len` bytes at `pos` end.
fn end(pos: u64, len: usize) -> u64 {
    pos.saturating_add(u64_from_usize(len))
}

/// `len` bytes of `raw` from `from`.
fn bytes_at(raw: &[u8], from: u64, len: usize) -> Option<&[u8]> {
    raw.get(usize::try_from(from).ok()?..)?.get(..len)
}
