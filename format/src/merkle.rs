// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Geometry of the hash region: which hash block vouches for which block.
//!
//! Metadata blocks (tree and map regions) and the hash blocks behind them are numbered together, from the start of the
//! tree region: metadata blocks first, then the hash levels from the root's down to the one over metadata blocks.

use crate::limits::{DIGESTS_PER_BLOCK, DIGEST_SIZE, MAX_HASH_LEVELS};
use crate::num::u64_from_usize;

/// Where the digest of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// In the superblock.
    Root,
    /// In a hash block.
    Slot {
        /// The hash block.
        block: u64,
        /// First byte of the digest in that block.
        offset: u64,
    },
}

/// One level of hash blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level {
    /// First block of the level.
    start: u64,
    /// Number of blocks.
    blocks: u64,
}

/// The shape of the Merkle tree over a number of metadata blocks.
///
/// # Invariants
///
/// `levels[..depth]` go from the level over metadata blocks up to the root's, which has one block; the blocks of all
/// levels follow `metadata_blocks` without a gap, the highest level first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    metadata_blocks: u64,
    levels: [Level; MAX_HASH_LEVELS],
    depth: usize,
    total: u64,
}

impl Geometry {
    /// The tree over `metadata_blocks` blocks; `None` for no block, or for more than the levels can cover.
    pub fn new(metadata_blocks: u64) -> Option<Self> {
        if metadata_blocks == 0 {
            return None;
        }
        let mut levels = [Level::default(); MAX_HASH_LEVELS];
        let mut depth = 0_usize;
        let mut covered = metadata_blocks;
        for level in &mut levels {
            covered = covered.div_ceil(DIGESTS_PER_BLOCK);
            level.blocks = covered;
            depth = depth.checked_add(1)?;
            if covered == 1 {
                break;
            }
        }
        if covered != 1 {
            return None;
        }
        let mut start = metadata_blocks;
        for level in levels.get_mut(..depth)?.iter_mut().rev() {
            level.start = start;
            start = start.checked_add(level.blocks)?;
        }
        // INVARIANT: the second loop laid the levels out from the highest, and the first ended at one block.
        Some(Self { metadata_blocks, levels, depth, total: start })
    }

    /// Metadata blocks under the tree.
    pub const fn metadata_blocks(&self) -> u64 {
        self.metadata_blocks
    }

    /// Metadata and hash blocks together.
    pub const fn total_blocks(&self) -> u64 {
        self.total
    }

    /// Levels of hash blocks, from the one over metadata blocks up, as (first block, number of blocks).
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.levels.iter().take(self.depth).map(|level| (level.start, level.blocks))
    }

    /// Where the digest of `block` is; `None` behind the last hash block.
    pub fn parent(&self, block: u64) -> Option<Parent> {
        let mut below = Level { start: 0, blocks: self.metadata_blocks };
        for level in self.levels.iter().take(self.depth) {
            if let Some(n) = block.checked_sub(below.start).filter(|n| *n < below.blocks) {
                let slot = n.checked_rem(DIGESTS_PER_BLOCK)?;
                return Some(Parent::Slot {
                    block: level.start.checked_add(n.checked_div(DIGESTS_PER_BLOCK)?)?,
                    offset: slot.checked_mul(u64_from_usize(DIGEST_SIZE))?,
                });
            }
            below = *level;
        }
        (block == below.start).then_some(Parent::Root)
    }
}
