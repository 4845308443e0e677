// SPDX-License-Identifier: GPL-2.0-or-later

//! Blocks of metadata: which are damaged, and where good ones are.
//!
//! From the root of the Merkle tree down, the digest of each block is known before it is looked for. All files of one image ID have the
//! same block at the same offset.

use std::collections::BTreeMap;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::metadata::Block;
use tesserafs_image::Source;

use super::donor::read_all;
use super::hashes;
use crate::encode::sha256;

/// Blocks of metadata, in files that may all be damaged.
pub(super) struct Blocks<'a> {
    pub(super) sb: &'a SuperBlock,
    /// The image itself, and then the others.
    pub(super) files: Vec<BlockFile<'a>>,
}

/// A file that has blocks of metadata.
#[derive(Clone, Copy)]
pub(super) struct BlockFile<'a> {
    /// Its number among those of `--from`; none of the image itself.
    pub(super) number: Option<usize>,
    pub(super) source: &'a Source,
    /// Where its tree region begins.
    pub(super) start: u64,
    /// Whether it may be the same image. Of another one blocks can be the same: all of the tree region, if it has the same tree.
    pub(super) is_copy: bool,
}

impl<'a> BlockFile<'a> {
    /// A file that may be the image with this superblock.
    pub(super) fn copy(number: Option<usize>, source: &'a Source, sb: &SuperBlock) -> Self {
        Self { number, source, start: sb.layout.tree_offset, is_copy: true }
    }
}

/// The damaged blocks of the image, found or lost.
#[derive(Default)]
pub(super) struct Mended {
    /// Those that were found elsewhere, by their numbers from the tree region, with the number of the file; none where they were computed.
    pub(super) found: BTreeMap<u64, (Box<Block>, Option<usize>)>,
    /// Those that were found nowhere.
    pub(super) lost: Vec<u64>,
    /// How many blocks are below these: nothing proves them.
    pub(super) unproven: u64,
}

/// A block that is known, and where it is from.
enum Origin {
    Image,
    File(usize),
    Computed,
}

impl Blocks<'_> {
    /// Looks at all blocks of the image, and for those that are damaged at the other files.
    pub(super) fn mend(&self) -> Mended {
        let geometry = &self.sb.layout.geometry;
        let mut levels: Vec<(u64, u64)> = geometry.levels().collect();
        levels.reverse();
        let mut below: Vec<_> = levels.iter().skip(1).copied().collect();
        below.push((0, geometry.metadata_blocks()));
        let mut mended = Mended::default();
        // Those blocks whose digests are known, so that an image which only says that it is huge takes no memory.
        let mut known = vec![(geometry.metadata_blocks(), self.sb.merkle_root)];
        for ((start, _), (start_below, blocks_below)) in levels.into_iter().zip(below) {
            let looked_at: Vec<_> =
                known.par_iter().map(|(number, expected)| self.look(*number, expected)).collect();
            let mut known_below = Vec::new();
            for ((number, _), looked_at) in known.iter().zip(looked_at) {
                let Some(block) = mended.take(*number, looked_at) else { continue };
                let first = (number - start) * DIGESTS_PER_BLOCK;
                let digests = block.chunks_exact(DIGEST_SIZE).map(|digest| digest.first_chunk().copied());
                let numbers = first..blocks_below;
                known_below.extend(
                    numbers
                        .zip(digests)
                        .map(|(at, digest)| (start_below + at, Digest(digest.unwrap_or_default()))),
                );
            }
            known = known_below;
            mended.unproven += blocks_below - known.len() as u64;
        }
        let damaged: Vec<_> = known
            .par_iter()
            .map(|(number, expected)| (*number, self.look(*number, expected)))
            .filter(|(_, looked_at)| !matches!(looked_at, Some((_, Origin::Image))))
            .collect();
        for (number, looked_at) in damaged {
            mended.take(number, looked_at);
        }
        mended
    }

    /// The block that has this digest; none if no file has it.
    fn look(&self, number: u64, expected: &Digest) -> Option<(Box<Block>, Origin)> {
        for file in &self.files {
            if let Some(block) = read(file, number).filter(|block| sha256(block.as_ref()) == *expected) {
                return Some((block, file.number.map_or(Origin::Image, Origin::File)));
            }
        }
        let computed = hashes::compute(self, number, expected)?;
        Some((computed, Origin::Computed))
    }
}

/// The bytes of a block in a file; none if the file ends before.
pub(super) fn read(file: &BlockFile<'_>, number: u64) -> Option<Box<Block>> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    let offset = file.start.checked_add(number.checked_mul(BLOCK_BYTES)?)?;
    read_all(file.source, offset, block.as_mut()).then_some(block)
}

impl Mended {
    /// Keeps what became of a block; the answer is the block.
    fn take(&mut self, number: u64, looked_at: Option<(Box<Block>, Origin)>) -> Option<Box<Block>> {
        let Some((block, origin)) = looked_at else {
            self.lost.push(number);
            return None;
        };
        match origin {
            Origin::Image => (),
            Origin::File(file) => drop(self.found.insert(number, (block.clone(), Some(file)))),
            Origin::Computed => drop(self.found.insert(number, (block.clone(), None))),
        }
        Some(block)
    }

    /// Blocks that are damaged in the image.
    pub(super) fn damaged(&self) -> u64 {
        self.found.len() as u64 + self.lost.len() as u64
    }
}
