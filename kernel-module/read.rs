// SPDX-License-Identifier: GPL-2.0

//! Reading regular files into the page cache.
//!
//! A short readahead window is widened to whole chunks first, so that what was decoded is used; then
//! its folios are filled.

use core::ops::Range;

use kernel::prelude::*;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Extent, FileKind, Image, Target};

use crate::error::Failure;
use crate::fetch::Chunks;
use crate::klib::buffer::Buffer;
use crate::meta::MetaReader;
use crate::mount::Tesserafs;
use crate::share;
use crate::vfs::address_space::{self, ReadAhead};
use crate::vfs::file::{self, Seek};
use crate::vfs::inode::INode;
use crate::vfs::page_cache::PageKey;
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
            .and_then(|reader| reader.fill(core::slice::from_mut(&mut folio)))
            .map_err(|failure| mounted.stats.report(failure))?;
        folio.complete()
    }

    fn readahead(inode: &INode<Tesserafs>, window: ReadAhead<'_>) {
        let meta = inode.super_block().data().meta(inode.super_block());
        // What fails here is read again by `read_folio`, which reports it.
        let _ = Reader::new(inode, &meta).and_then(|reader| reader.read_ahead(window));
    }
}

#[vtable]
impl file::Operations for RegularFile {
    type FileSystem = Tesserafs;

    fn page_key(inode: &INode<Tesserafs>) -> Result<Option<PageKey>> {
        let key = match share::key(inode) {
            Err(failure) if failure.is_transient() => return Err(failure.errno()),
            // A reader of the file meets the same failure, which is reported then.
            key => key.unwrap_or(None),
        };
        if key.is_some() {
            inode.super_block().data().stats.shared_files.increment();
        }
        Ok(key)
    }

    fn widen(inode: &INode<Tesserafs>, range: Range<u64>) -> Result<Range<u64>> {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.decoded_with(range))
            .map_err(|failure| failure.errno())
    }

    fn seek(inode: &INode<Tesserafs>, offset: u64, seek: Seek) -> Result<u64> {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.seek(offset, seek))
            .map_err(|failure| mounted.stats.report(failure))
    }
}

/// Bytes of a readahead window that is wide enough: what its ends leave of a chunk waits in the chunk
/// cache for the next one.
///
/// The page cache widens a window by single pages, and the next one begins behind them, out of
/// alignment. Of a file of 33 MB that is read from its beginning to its end, 29 % do not get into large
/// folios without a copy if every window is widened, and 12 % if none is of this width.
const WIDE: usize = 256 << 10;

/// A reader of one file.
pub(crate) struct Reader<'a> {
    pub(crate) chunks: Chunks<'a>,
    pub(crate) image: Image<'a, MetaReader<'a>>,
    /// The file's extents; none where it has no bytes.
    pub(crate) extents: Option<Extents>,
    pub(crate) size: u64,
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
        })
    }

    /// Fills as many folios of a window as can be filled.
    fn read_ahead(&self, mut window: ReadAhead<'_>) -> Result<(), Failure> {
        // Who wants one page reads here and there. The others would have to be decoded, made and
        // copied; should they be wanted after all, all of the chunk is decoded then, and cached.
        if (BLOCK_SIZE + 1..WIDE).contains(&window.len()) {
            self.widen(&mut window)?;
        }
        let mut folios = Buffer::with_capacity(window.len() / BLOCK_SIZE)?;
        for folio in window.folios() {
            folios.push(folio)?;
        }
        let filled = self.fill(&mut folios);
        while let Some(folio) = folios.pop() {
            // One that is not filled is let go.
            let _ = folio.complete();
        }
        filled
    }

    /// Widens a readahead window to what is decoded for it.
    fn widen(&self, window: &mut ReadAhead<'_>) -> Result<(), Failure> {
        let (pos, behind) = (window.pos(), end(window.pos(), window.len()));
        let range = self.decoded_with(pos..behind.min(self.size))?;
        let behind = behind.max(range.end);
        let len = |from: u64| usize::try_from(behind.saturating_sub(from)).unwrap_or(0);
        // The end first: the page cache gives up at the first page that is there already, and the
        // page in which a chunk begins was part of the window before.
        window.expand(pos, len(pos));
        window.expand(range.start, len(range.start));
        Ok(())
    }

    /// `range`, widened to the pages that lie as a whole in the extents at its ends: their chunks are
    /// decoded for `range` anyway. A page that needs another chunk, too, is none of them.
    fn decoded_with(&self, range: Range<u64>) -> Result<Range<u64>, Failure> {
        let Some(extents) = self.extents.filter(|_| !range.is_empty()) else {
            return Ok(range);
        };
        // A hole costs nothing now and nothing later.
        let is_data = |extent: &Extent| extent.target != Target::Hole;
        let first = self.image.extent_at(&extents, range.start)?;
        let start = Some(first)
            .filter(is_data)
            .and_then(|first| first.start.checked_next_multiple_of(BLOCK_BYTES))
            .map_or(range.start, |start| start.min(range.start));
        let last = self
            .image
            .extent_at(&extents, range.end.saturating_sub(1))?;
        let end = Some(last)
            .filter(is_data)
            .map(|last| last.end)
            .map(|end| {
                if end < self.size {
                    end.saturating_sub(end % BLOCK_BYTES)
                } else {
                    end
                }
            })
            .map_or(range.end, |end| end.max(range.end));
        Ok(start..end)
    }

    /// The next data or hole at or after `offset`, which is below the size.
    fn seek(&self, offset: u64, seek: Seek) -> Result<u64, Failure> {
        let Some(extents) = self.extents else {
            return Err(ENXIO.into());
        };
        let mut extent = self.image.extent_at(&extents, offset)?;
        let is_wanted = |extent: &Extent| (extent.target == Target::Hole) == (seek == Seek::Hole);
        while !is_wanted(&extent) {
            let next = extent.index.saturating_add(1);
            if next >= extents.end {
                break;
            }
            if fatal_signal_pending() {
                return Err(EINTR.into());
            }
            extent = self.image.extent(&extents, next)?;
        }
        // Who copies the data only must miss none that a reader finds.
        self.image.check_run(&extents, &extent)?;
        match seek {
            _ if is_wanted(&extent) => Ok(offset.max(extent.start)),
            Seek::Hole => Ok(self.size),
            Seek::Data => Err(ENXIO.into()),
        }
    }
}

/// Where `len` bytes at `pos` end.
fn end(pos: u64, len: usize) -> u64 {
    pos.saturating_add(u64_from_usize(len))
}
