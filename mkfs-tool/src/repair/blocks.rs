// SPDX-License-Identifier: GPL-2.0-or-later

//! Blocks of metadata: which are damaged, and where good ones are.
//!
//! From the root of the Merkle tree down, the digest of each block is known before it is looked for. All files of one image ID have the
//! same block at the same offset.

use std::collections::BTreeMap;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGEST_SIZE};
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::metadata::Block;
use tesserafs_image::Source;

use super::donor::read_all;
use super::hashes;
use crate::encode::sha256;

/// Blocks of metadata, in files that may all be damaged.
pub(super) struct Blocks<'a> {
    pub(super) sb: &'a SuperBlock,
    /// The image itself, and then those that may be copies of it, with numbers of theirs.
    pub(super) files: Vec<(Option<usize>, &'a Source)>,
}

/// What became of the blocks that are damaged in the image.
#[derive(Default)]
pub(super) struct Mended {
    /// Those that were found elsewhere, by their numbers from the tree region, with the number of the file; none where they were computed.
    pub(super) found: BTreeMap<u64, (Box<Block>, Option<usize>)>,
    /// Those that were found nowhere.
    pub(super) lost: Vec<u64>,
    /// Blocks below these, which nothing proves.
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
        let mut mended = Mended::default();
        let mut expected = vec![Some(self.sb.merkle_root)];
        for (start, blocks) in levels {
            let looked_at: Vec<_> = (start..start + blocks)
                .into_par_iter()
                .map(|number| {
                    expected[(number - start) as usize].map(|expected| self.look(number, &expected))
                })
                .collect();
            let mut below = Vec::new();
            for (number, looked_at) in (start..).zip(looked_at) {
                let Some(block) = mended.take(number, looked_at) else {
                    below.resize(below.len() + BLOCK_SIZE / DIGEST_SIZE, None);
                    continue;
                };
                let digests = block.chunks_exact(DIGEST_SIZE);
                below.extend(digests.map(|digest| digest.first_chunk().copied().map(Digest)));
            }
            expected = below;
        }
        let looked_at: Vec<_> = (0..geometry.metadata_blocks())
            .into_par_iter()
            .filter_map(|number| {
                let looked_at = expected[number as usize].map(|expected| self.look(number, &expected));
                let is_whole = matches!(looked_at, Some(Some((_, Origin::Image))));
                (!is_whole).then_some((number, looked_at))
            })
            .collect();
        for (number, looked_at) in looked_at {
            mended.take(number, looked_at);
        }
        mended
    }

    /// The block that has this digest; none if no file has it.
    fn look(&self, number: u64, expected: &Digest) -> Option<(Box<Block>, Origin)> {
        for (file, source) in &self.files {
            if let Some(block) = self.read(source, number).filter(|block| sha256(block.as_ref()) == *expected)
            {
                return Some((block, file.map_or(Origin::Image, Origin::File)));
            }
        }
        let computed = hashes::compute(self, number, expected)?;
        Some((computed, Origin::Computed))
    }

    /// The bytes of a block in a file; none if the file ends before.
    pub(super) fn read(&self, source: &Source, number: u64) -> Option<Box<Block>> {
        let mut block = Box::new([0; BLOCK_SIZE]);
        let offset = self.sb.layout.tree_offset.checked_add(number.checked_mul(BLOCK_BYTES)?)?;
        read_all(source, offset, block.as_mut()).then_some(block)
    }
}

impl Mended {
    /// Keeps what became of a block; the answer is the block.
    fn take(&mut self, number: u64, looked_at: Option<Option<(Box<Block>, Origin)>>) -> Option<Box<Block>> {
        match looked_at {
            None => self.unproven += 1,
            Some(None) => self.lost.push(number),
            Some(Some((block, Origin::Image))) => return Some(block),
            Some(Some((block, origin))) => {
                let file = match origin {
                    Origin::File(file) => Some(file),
                    _ => None,
                };
                self.found.insert(number, (block.clone(), file));
                return Some(block);
            }
        }
        None
    }

    /// Blocks that are damaged in the image.
    pub(super) fn damaged(&self) -> u64 {
        self.found.len() as u64 + self.lost.len() as u64
    }
}
