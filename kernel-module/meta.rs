// SPDX-License-Identifier: GPL-2.0

//! Metadata: the tree and map regions, through a page cache in which "up to date" means "verified".
//!
//! The metadata inode holds the metadata blocks and the hash blocks behind them, in the order of
//! the image. A block is read into its folio, which is locked and which nobody can map, and
//! compared there with the digest in its parent before anybody else sees it. The parent is another
//! folio of the same inode, verified in the same way, up to the root in the superblock.
//!
//! A reader walks from the root down: it holds the parent, verified, while it reads the child. So nothing
//! that fills a folio waits for another one, and the stack does not grow with the tree.

use core::cell::Cell;

use kernel::prelude::*;
use kernel::sync::Arc;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{
    Digest, FormatError, Geometry, Metadata, Parent, Place, Rule, SuperBlock as ImageSuperBlock,
    Table, Verified,
};

use crate::error::Failure;
use crate::klib::{
    buffer::{self, Buffer},
    sha256::sha256_2x,
};
use crate::stats::Stats;
use crate::verify::KernelSha256;
use crate::vfs::address_space::ReadAhead;
use crate::vfs::meta_inode::MetaBuf;
use crate::vfs::{Backing, LockedFolio, Meta, MetaSource};

/// Reads and verifies the blocks of the metadata inode.
pub(crate) struct MerkleTree {
    backing: Backing,
    tree_offset: u64,
    geometry: Geometry,
    root: Digest,
    stats: Arc<Stats>,
}

impl MerkleTree {
    /// The Merkle tree of the image with that superblock.
    pub(crate) fn new(backing: Backing, sb: &ImageSuperBlock, stats: Arc<Stats>) -> Self {
        Self {
            backing,
            tree_offset: sb.layout.tree_offset,
            geometry: sb.layout.geometry,
            root: sb.merkle_root,
            stats,
        }
    }

    /// Bytes of the metadata inode.
    pub(crate) fn len(&self) -> u64 {
        self.geometry.total_blocks().saturating_mul(BLOCK_BYTES)
    }

    /// The digest that block `block` must have. Its parent is cached: the reader of a block holds
    /// it.
    fn expected(&self, meta: Meta<'_>, block: u64) -> Result<Digest, Failure> {
        match self.geometry.parent(block) {
            Some(Parent::Root) => Ok(self.root),
            Some(Parent::Slot {
                block: parent,
                offset,
            }) => {
                let pos = parent.saturating_mul(BLOCK_BYTES).saturating_add(offset);
                // A digest does not cross a block.
                let buf = meta.cached(pos)?.ok_or(EIO)?;
                Ok(Digest(*buf.bytes_from(pos).first_chunk().ok_or(EIO)?))
            }
            None => Err(no_parent(block)),
        }
    }

    /// Fills `folio`, which holds one block, with verified bytes.
    fn fill(&self, meta: Meta<'_>, folio: &mut LockedFolio<'_>) -> Result<(), Failure> {
        let block = folio.pos() / BLOCK_BYTES;
        let expected = self.expected(meta, block)?;
        let pos = self.tree_offset.saturating_add(folio.pos());
        self.backing
            .read_run(pos, core::slice::from_mut(folio))
            .map_err(|error| Failure::backing(Place::Block(block), error))?;
        check(&self.stats, block, folio.bytes(), &expected)
    }

    /// Fills the folios of a window: read with one request, and verified two at once.
    fn fill_ahead(&self, meta: Meta<'_>, window: ReadAhead<'_>) -> Result<(), Failure> {
        let pos = window.pos();
        let mut folios = Buffer::with_capacity(window.len() / BLOCK_SIZE)?;
        for folio in window.folios() {
            folios.push(folio)?;
        }
        self.backing
            .read_run(self.tree_offset.saturating_add(pos), &mut folios)
            .map_err(|error| Failure::backing(Place::Block(pos / BLOCK_BYTES), error))?;
        let bytes = folios.len().saturating_mul(BLOCK_SIZE);
        self.stats.read_bytes.add(bytes);
        self.stats.hashed_bytes.add(bytes);
        while let Some(folio) = folios.pop() {
            self.complete(meta, folio, folios.pop())?;
        }
        Ok(())
    }

    /// Completes those of two folios whose bytes are authentic.
    fn complete(
        &self,
        meta: Meta<'_>,
        first: LockedFolio<'_>,
        second: Option<LockedFolio<'_>>,
    ) -> Result<(), Failure> {
        let bytes = second.as_ref().map_or(&[][..], |second| second.bytes());
        let [found_first, found_second] = sha256_2x([first.bytes(), bytes]);
        for (folio, found) in [(Some(first), found_first), (second, found_second)] {
            let Some(folio) = folio else {
                continue;
            };
            if self.expected(meta, folio.pos() / BLOCK_BYTES)? == Digest(found) {
                folio.complete()?;
            }
        }
        Ok(())
    }
}

impl MetaSource for MerkleTree {
    fn read_folio(&self, meta: Meta<'_>, mut folio: LockedFolio<'_>) -> Result {
        self.fill(meta, &mut folio)
            .map_err(|failure| self.stats.report(failure))?;
        folio.complete()
    }

    fn readahead(&self, meta: Meta<'_>, window: ReadAhead<'_>) {
        // A block that fails here is read again by `read_folio`, which reports the failure.
        let _ = self.fill_ahead(meta, window);
    }
}

/// Compares a block that was read with the digest that it must have.
fn check(stats: &Stats, block: u64, bytes: &[u8], expected: &Digest) -> Result<(), Failure> {
    stats.read_bytes.add(BLOCK_SIZE);
    stats.hashed_bytes.add(BLOCK_SIZE);
    Verified::check::<KernelSha256>(bytes, expected).map_err(|found| {
        let (found, expected) = (found.prefix(), expected.prefix());
        FormatError::new(Rule::HashBlock, Place::Block(block), found, expected)
    })?;
    Ok(())
}

/// Why a block behind the last one cannot be read.
fn no_parent(block: u64) -> Failure {
    FormatError::new(Rule::HashBlock, Place::Block(block), 0, 0).into()
}

/// The hash blocks that vouch for `block`, from the root's down, and then `block` itself.
fn path(geometry: &Geometry, block: u64) -> impl Iterator<Item = u64> + '_ {
    let levels = geometry
        .levels()
        .fold(0_usize, |levels, _| levels.saturating_add(1));
    (0..=levels).rev().filter_map(move |height| {
        (0..height).try_fold(block, |below, _| match geometry.parent(below)? {
            Parent::Slot { block, .. } => Some(block),
            Parent::Root => None,
        })
    })
}

/// The first block behind those that are verified with the same hash block as `block`.
fn siblings_end(geometry: &Geometry, block: u64) -> u64 {
    let slot = match geometry.parent(block) {
        Some(Parent::Slot { offset, .. }) => offset / u64_from_usize(DIGEST_SIZE),
        _ => return block.saturating_add(1),
    };
    let end = block.saturating_sub(slot).saturating_add(DIGESTS_PER_BLOCK);
    // The last hash block of a level may have fewer digests: behind them another level begins.
    let metadata_end = geometry.metadata_blocks();
    let end = if block < metadata_end {
        end.min(metadata_end)
    } else {
        end
    };
    geometry
        .levels()
        .map(|(start, blocks)| start.saturating_add(blocks))
        .filter(|level_end| *level_end > block)
        .fold(end, u64::min)
}

/// The verified metadata of a mounted image, as the format crate reads it.
#[derive(Clone, Copy)]
pub(crate) struct MetaReader<'a> {
    meta: Meta<'a>,
    sb: &'a ImageSuperBlock,
}

impl<'a> MetaReader<'a> {
    /// Reads the metadata of the image with that superblock.
    pub(crate) fn new(meta: Meta<'a>, sb: &'a ImageSuperBlock) -> Self {
        Self { meta, sb }
    }

    /// The block with the byte at `pos`, and those after it if they are likely to be wanted.
    fn block(&self, pos: u64) -> Result<MetaBuf<'a>> {
        if let Some(buf) = self.meta.cached(pos)? {
            return Ok(buf);
        }
        let geometry = &self.sb.layout.geometry;
        let wanted = pos / BLOCK_BYTES;
        let mut held = None;
        for block in path(geometry, wanted) {
            let start = block.saturating_mul(BLOCK_BYTES);
            let buf = match self.meta.cached(start)? {
                Some(buf) => buf,
                None => {
                    if block == wanted {
                        let end = siblings_end(geometry, block).saturating_mul(BLOCK_BYTES);
                        self.meta.read_ahead(start, end)?;
                    }
                    self.meta.read(start)?
                }
            };
            // Until here its parent is held, which it was verified with.
            held = Some(buf);
        }
        held.ok_or(EIO)
    }
}

impl Metadata for MetaReader<'_> {
    type Error = Failure;

    fn read(&self, offset: u64, mut to: &mut [u8]) -> Result<(), Failure> {
        let mut pos = offset
            .checked_sub(self.sb.layout.tree_offset)
            .ok_or(EINVAL)?;
        while !to.is_empty() {
            let block = self.block(pos)?;
            let (n, rest) = copy_beginning(block.bytes_from(pos), to)?;
            pos = pos.checked_add(n).ok_or(EINVAL)?;
            to = rest;
        }
        Ok(())
    }
}

/// Metadata straight from the store, verified in the same way: for reads before there is a
/// superblock, and so a page cache.
///
/// It keeps the few blocks that it has read.
pub(crate) struct EarlyReader<'a> {
    backing: &'a Backing,
    sb: &'a ImageSuperBlock,
    stats: &'a Stats,
    /// None while a block is being read.
    blocks: Cell<Option<Buffer<EarlyBlock>>>,
}

/// Blocks that are kept, and then forgotten all at once: what a mount looks at is not the whole of a table.
const EARLY_BLOCKS: usize = 256;

/// A block that was verified.
struct EarlyBlock {
    number: u64,
    bytes: Buffer<u8>,
}

impl<'a> EarlyReader<'a> {
    /// Reads the metadata of the image with that superblock.
    pub(crate) fn new(backing: &'a Backing, sb: &'a ImageSuperBlock, stats: &'a Stats) -> Self {
        Self {
            backing,
            sb,
            stats,
            blocks: Cell::new(None),
        }
    }

    /// Asks the store for the blocks with the first bytes of each of `tables`, and for those that
    /// they are verified with: reading them one after the other takes a round trip each.
    pub(crate) fn ask_for(&self, tables: &[Table]) {
        for table in tables {
            let pos = table.offset().saturating_sub(self.sb.layout.tree_offset);
            for block in path(&self.sb.layout.geometry, pos / BLOCK_BYTES) {
                self.backing.ask_for(self.offset(block), BLOCK_SIZE);
            }
        }
    }

    /// Where a block begins in the image.
    fn offset(&self, block: u64) -> u64 {
        let pos = block.saturating_mul(BLOCK_BYTES);
        self.sb.layout.tree_offset.saturating_add(pos)
    }

    /// Adds `wanted`, and the hash blocks that vouch for it, to `blocks`, from the root down,
    /// unless they are there.
    fn load(&self, blocks: &mut Buffer<EarlyBlock>, wanted: u64) -> Result<(), Failure> {
        let geometry = &self.sb.layout.geometry;
        for number in path(geometry, wanted) {
            if find(blocks, number).is_some() {
                continue;
            }
            let expected = match geometry.parent(number) {
                Some(Parent::Root) => self.sb.merkle_root,
                Some(Parent::Slot { block, offset }) => {
                    let parent = find(blocks, block).ok_or(EIO)?;
                    let digest = parent.get(usize::try_from(offset).map_err(|_| EIO)?..);
                    Digest(*digest.and_then(<[u8]>::first_chunk).ok_or(EIO)?)
                }
                None => return Err(no_parent(number)),
            };
            let bytes = self
                .backing
                .read(self.offset(number), BLOCK_SIZE)
                .map_err(|error| Failure::backing(Place::Block(number), error))?;
            check(self.stats, number, &bytes, &expected)?;
            blocks.push(EarlyBlock { number, bytes })?;
        }
        Ok(())
    }

    /// As [`Metadata::read`], with the blocks that were read before.
    fn read_with(
        &self,
        blocks: &mut Buffer<EarlyBlock>,
        offset: u64,
        mut to: &mut [u8],
    ) -> Result<(), Failure> {
        let mut pos = offset
            .checked_sub(self.sb.layout.tree_offset)
            .ok_or(EINVAL)?;
        while !to.is_empty() {
            let block = pos / BLOCK_BYTES;
            self.load(blocks, block)?;
            let bytes = find(blocks, block).ok_or(EIO)?;
            let from = usize::try_from(pos % BLOCK_BYTES).map_err(|_| EIO)?;
            let (n, rest) = copy_beginning(bytes.get(from..).ok_or(EIO)?, to)?;
            pos = pos.checked_add(n).ok_or(EINVAL)?;
            to = rest;
        }
        Ok(())
    }
}

/// The bytes of a block, if it was read.
fn find(blocks: &[EarlyBlock], number: u64) -> Option<&[u8]> {
    let block = blocks.iter().find(|block| block.number == number)?;
    Some(&block.bytes)
}

impl Metadata for EarlyReader<'_> {
    type Error = Failure;

    fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), Failure> {
        let mut blocks = match self.blocks.take() {
            Some(blocks) if blocks.len() < EARLY_BLOCKS => blocks,
            _ => Buffer::with_capacity(0)?,
        };
        let result = self.read_with(&mut blocks, offset, to);
        self.blocks.set(Some(blocks));
        result
    }
}

/// Copies as much of `from` as there is room for to the beginning of `to`; gives how many bytes that was, one
/// at least, and the rest of `to`.
fn copy_beginning<'a>(from: &[u8], to: &'a mut [u8]) -> Result<(u64, &'a mut [u8])> {
    let n = from.len().min(to.len());
    if n == 0 {
        return Err(EIO);
    }
    let (beginning, rest) = to.split_at_mut_checked(n).ok_or(EIO)?;
    buffer::copy(beginning, from.get(..n).ok_or(EIO)?)?;
    Ok((u64_from_usize(n), rest))
}
