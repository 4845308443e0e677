// SPDX-License-Identifier: GPL-2.0

//! Reading regular files into the page cache.
//!
//! For each range of a folio: its extent says which chunk, and [`Chunks`] gives the chunk's raw
//! bytes. A readahead window is widened to whole chunks first, so that what was decoded is used.

use kernel::prelude::*;
use kernel::sync::Arc;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Extent, FileKind, Image, Target};

use crate::chunk_cache::Slot;
use crate::error::Failure;
use crate::fetch::Chunks;
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
            .and_then(|mut reader| reader.fill(&mut folio))
            .map_err(|failure| failure.report(&mounted.id))?;
        folio.complete()
    }

    fn readahead(inode: &INode<Tesserafs>, mut window: ReadAhead<'_>) {
        let meta = inode.super_block().data().meta(inode.super_block());
        // What fails here is read again by `read_folio`, which reports it.
        let Ok(mut reader) = Reader::new(inode, &meta) else {
            return;
        };
        if reader.widen(&mut window).is_err() {
            return;
        }
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
        share::key(inode).ok().flatten()
    }

    fn seek(inode: &INode<Tesserafs>, offset: u64, seek: Seek) -> Result<u64> {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.seek(offset, seek))
            .map_err(|failure| failure.report(&mounted.id))
    }
}

/// The extent that was read last, and its chunk's bytes unless it is a hole.
struct Current {
    extent: Extent,
    slot: Option<Arc<Slot>>,
}

/// A reader of one file.
struct Reader<'a> {
    chunks: Chunks<'a>,
    image: Image<'a, MetaReader<'a>>,
    /// The file's extents; none where it has no bytes.
    extents: Option<Extents>,
    size: u64,
    current: Option<Current>,
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
            current: None,
        })
    }

    /// Widens a readahead window to the first and last byte of the extents at its ends.
    fn widen(&self, window: &mut ReadAhead<'_>) -> Result<(), Failure> {
        let Some(extents) = self.extents else {
            return Ok(());
        };
        let start = window.pos();
        let last = start
            .saturating_add(u64_from_usize(window.len()))
            .min(self.size)
            .saturating_sub(1);
        if start > last {
            return Ok(());
        }
        let first = self.image.extent_at(&extents, start)?;
        let last = self.image.extent_at(&extents, last)?;
        // A hole costs nothing now and nothing later.
        let start = if first.target == Target::Hole {
            start
        } else {
            first.start
        };
        let end = if last.target == Target::Hole {
            start
        } else {
            last.end
        };
        let start = start.saturating_sub(start % BLOCK_BYTES);
        let end = end.max(window.pos().saturating_add(u64_from_usize(window.len())));
        let end = end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(end);
        if let Ok(len) = usize::try_from(end.saturating_sub(start)) {
            // The end first: the page cache gives up at the first page that is there already, and
            // the page in which a chunk begins was part of the window before.
            let pos = window.pos();
            let behind = usize::try_from(pos.saturating_sub(start)).unwrap_or(len);
            window.expand(pos, len.saturating_sub(behind));
            window.expand(start, len);
        }
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
            let Current { extent, slot } = self.at(&extents, pos)?;
            let len = usize::try_from(extent.end.saturating_sub(pos))
                .unwrap_or(room)
                .min(room);
            match (extent.target, slot) {
                (Target::Chunk { offset, .. }, Some(slot)) => {
                    let from = u64::from(offset).saturating_add(pos.saturating_sub(extent.start));
                    let bytes = slot.raw().and_then(|raw| bytes_at(raw, from, len));
                    folio.write(bytes.ok_or(EIO)?)?;
                }
                _ => folio.zero(len)?,
            }
        }
        Ok(())
    }

    /// The extent that covers `pos`, and its chunk.
    fn at(&mut self, extents: &Extents, pos: u64) -> Result<&Current, Failure> {
        let there = self
            .current
            .take()
            .filter(|current| (current.extent.start..current.extent.end).contains(&pos));
        let current = match there {
            Some(current) => current,
            None => {
                let extent = self.image.extent_at(extents, pos)?;
                Current {
                    extent,
                    slot: self.slot(&extent)?,
                }
            }
        };
        Ok(self.current.insert(current))
    }

    /// The decoded chunk of an extent; none for a hole.
    fn slot(&self, extent: &Extent) -> Result<Option<Arc<Slot>>, Failure> {
        let Target::Chunk { index, .. } = extent.target else {
            return Ok(None);
        };
        let chunk = self.image.chunk(index)?;
        extent.check_range(&chunk)?;
        Ok(Some(self.chunks.get(&chunk)?))
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

/// `len` bytes of `raw` from `from`.
fn bytes_at(raw: &[u8], from: u64, len: usize) -> Option<&[u8]> {
    raw.get(usize::try_from(from).ok()?..)?.get(..len)
}
