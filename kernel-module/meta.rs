// SPDX-License-Identifier: GPL-2.0

//! Metadata: the tree and map regions, through a page cache in which "up to date" means "verified".
//!
//! The metadata inode holds the metadata blocks and the hash blocks behind them, in the order of
//! the image. A block is read into its folio, which is locked and which nobody can map, and
//! compared there with the digest in its parent before anybody else sees it. The parent is another
//! folio of the same inode, verified in the same way, up to the root in the superblock.

use kernel::prelude::*;
use kernel::sync::Arc;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::{
    Digest, FormatError, Geometry, Metadata, Parent, Place, Rule, SuperBlock, Table, Verified,
};

use crate::error::Failure;
use crate::klib::{buffer::Buffer, sha256::sha256_2x};
use crate::stats::Stats;
use crate::verify::KernelSha256;
use crate::vfs::address_space::ReadAhead;
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
    pub(crate) fn new(backing: Backing, sb: &SuperBlock, stats: Arc<Stats>) -> Self {
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

    /// Asks the store for the blocks with the first bytes of each of `tables`, and for those that
    /// they are verified with: to read one after the other takes a round trip each.
    pub(crate) fn ask_for(&self, tables: &[Table]) {
        for table in tables {
            let pos = table.offset().saturating_sub(self.tree_offset);
            let mut block = pos / BLOCK_BYTES;
            loop {
                let pos = block.saturating_mul(BLOCK_BYTES);
                self.backing
                    .ask_for(self.tree_offset.saturating_add(pos), BLOCK_SIZE);
                let Some(Parent::Slot { block: parent, .. }) = self.geometry.parent(block) else {
                    break;
                };
                block = parent;
            }
        }
    }

    /// The digest that block `block` must have.
    fn expected(&self, meta: Meta<'_>, block: u64) -> Result<Digest, Failure> {
        match self.geometry.parent(block) {
            Some(Parent::Root) => Ok(self.root),
            Some(Parent::Slot {
                block: parent,
                offset,
            }) => {
                let pos = parent.saturating_mul(BLOCK_BYTES).saturating_add(offset);
                // A digest does not cross a block.
                let buf = meta.single(pos)?;
                Ok(Digest(*buf.bytes_from(pos).first_chunk().ok_or(EIO)?))
            }
            None => Err(FormatError::new(Rule::HashBlock, Place::Block(block), 0, 0).into()),
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
        self.stats.read_bytes.add(BLOCK_SIZE);
        self.stats.hashed_bytes.add(BLOCK_SIZE);
        Verified::check::<KernelSha256>(folio.bytes(), &expected).map_err(|found| {
            let (found, expected) = (found.prefix(), expected.prefix());
            FormatError::new(Rule::HashBlock, Place::Block(block), found, expected)
        })?;
        Ok(())
    }

    /// The first block behind the level that `block` belongs to: the metadata blocks are one, and
    /// each level of hash blocks.
    fn level_end(&self, block: u64) -> u64 {
        let metadata = Some(self.geometry.metadata_blocks()).filter(|end| *end > block);
        self.geometry
            .levels()
            .map(|(start, blocks)| start.saturating_add(blocks))
            .filter(|end| *end > block)
            .fold(metadata.unwrap_or(u64::MAX), u64::min)
    }

    /// Fills the folios of a window that are of one level: read with one request, and verified two
    /// at once.
    fn fill_ahead(&self, meta: Meta<'_>, window: ReadAhead<'_>) -> Result<(), Failure> {
        let pos = window.pos();
        let first = pos / BLOCK_BYTES;
        let end = self.level_end(first).saturating_mul(BLOCK_BYTES);
        let mut folios = Buffer::with_capacity(window.len() / BLOCK_SIZE)?;
        for folio in window.folios() {
            // Those of the next level are let go here, before anything waits for them.
            if folio.pos() < end {
                folios.push(folio)?;
            }
        }
        self.backing
            .read_run(self.tree_offset.saturating_add(pos), &mut folios)
            .map_err(|error| Failure::backing(Place::Block(first), error))?;
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
    /// Waits for folios of parents only, so the waits end at the root.
    fn read_folio(&self, meta: Meta<'_>, mut folio: LockedFolio<'_>) -> Result {
        self.fill(meta, &mut folio)
            .map_err(|failure| self.stats.report(failure))?;
        folio.complete()
    }

    /// Waits for folios of parents only, none of which is in the window any more by then.
    fn readahead(&self, meta: Meta<'_>, window: ReadAhead<'_>) {
        // What fails here is read again by `read_folio`, which reports it.
        let _ = self.fill_ahead(meta, window);
    }
}

/// The verified metadata of a mounted image, as the format crate reads it.
#[derive(Clone, Copy)]
pub(crate) struct MetaReader<'a> {
    meta: Meta<'a>,
    tree_offset: u64,
}

impl<'a> MetaReader<'a> {
    /// Reads the metadata of the image with that superblock.
    pub(crate) fn new(meta: Meta<'a>, sb: &SuperBlock) -> Self {
        Self {
            meta,
            tree_offset: sb.layout.tree_offset,
        }
    }
}

impl Metadata for MetaReader<'_> {
    type Error = Failure;

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Failure> {
        let pos = offset.checked_sub(self.tree_offset).ok_or(EINVAL)?;
        Ok(self.meta.read_exact(pos, buf)?)
    }
}
