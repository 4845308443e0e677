// SPDX-License-Identifier: GPL-2.0

//! Reading regular files into the page cache, in six steps:
//!
//! 1. [`window`](crate::window): which bytes of the file are read together;
//! 2. [`plan`](crate::plan): which chunk fills which memory;
//! 3. [`fetch`](crate::fetch): a chunk is found in the [`chunk_cache`](crate::chunk_cache), waited for, or
//! 4. [`pack`](crate::pack): read into private memory,
//! 5. [`verify`](crate::verify): compared with its digest, and
//! 6. [`decode`](crate::decode): decoded, into a page or for a copy.

use core::ops::Range;

use kernel::prelude::*;

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::{Extent, FileKind, Image, Target};

use crate::error::Failure;
use crate::fetch::Chunks;
use crate::klib::buffer::Buffer;
use crate::meta::MetaReader;
use crate::mount::Tesserafs;
use crate::share;
use crate::vfs::address_space::{self, ReadAhead};
use crate::vfs::file::{self, Seek};
use crate::vfs::folio::Gaps;
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
        // A folio that fails here is read again by `read_folio`, which reports the failure.
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

    fn fill(inode: &INode<Tesserafs>, folios: Buffer<LockedFolio<'_>>) {
        let meta = inode.super_block().data().meta(inode.super_block());
        let _ = Reader::new(inode, &meta).and_then(|reader| reader.complete(folios));
    }

    fn seek(inode: &INode<Tesserafs>, offset: u64, seek: Seek) -> Result<u64> {
        let mounted = inode.super_block().data();
        let meta = mounted.meta(inode.super_block());
        Reader::new(inode, &meta)
            .and_then(|reader| reader.seek(offset, seek))
            .map_err(|failure| mounted.stats.report(failure))
    }
}

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
        self.widen(&mut window)?;
        let mut folios = Buffer::with_capacity(window.len() / BLOCK_SIZE)?;
        for folio in window.folios() {
            folios.push(folio)?;
        }
        self.complete(folios)
    }

    /// Fills as many of `folios` as can be filled, and completes these.
    fn complete(&self, mut folios: Buffer<LockedFolio<'_>>) -> Result<(), Failure> {
        let filled = self.fill(&mut folios);
        while let Some(folio) = folios.pop() {
            // One that is not filled is let go.
            let _ = folio.complete();
        }
        filled
    }

    /// Fills `folios`, which follow each other: with zeros what lies behind the end of the file.
    fn fill(&self, folios: &mut [LockedFolio<'_>]) -> Result<(), Failure> {
        let mut gaps = Gaps::new(folios);
        while let Some(pos) = gaps.pos() {
            if fatal_signal_pending() {
                return Err(EINTR.into());
            }
            let plan = self.plan(pos, &mut gaps)?;
            self.chunks.carry_out(plan)?;
        }
        Ok(())
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
        // A program that copies the data only must miss none that a reader finds.
        self.image.check_run(&extents, &extent)?;
        match seek {
            _ if is_wanted(&extent) => Ok(offset.max(extent.start)),
            Seek::Hole => Ok(self.size),
            Seek::Data => Err(ENXIO.into()),
        }
    }
}
