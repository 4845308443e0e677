// SPDX-License-Identifier: GPL-2.0-or-later

//! Hash blocks that no file has: from the blocks below them.
//!
//! Where a block below differs between files, nothing tells yet which one is right, as this hash block would. So each combination is tried,
//! as long as there are few.

use tesserafs_format::limits::{BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::Digest;
use tesserafs_image::metadata::Block;

use super::blocks::{read, BlockFile, Blocks};
use crate::encode::sha256;

/// Combinations that are tried, at most.
const TRIED: u64 = 1 << 12;

/// The hash block that has this digest; none if the blocks below do not give it, or it is no hash block.
pub(super) fn compute(blocks: &Blocks<'_>, number: u64, expected: &Digest) -> Option<Box<Block>> {
    let below = below(blocks, number)?;
    let mut choices: Vec<Vec<Digest>> = Vec::new();
    let mut combinations = 1_u64;
    for child in below {
        let mut digests = Vec::new();
        for file in blocks.files.iter().filter(|file| file.is_copy) {
            let computed = computed(blocks, file, child).map(|block| sha256(block.as_ref()));
            let stored = read(file, child).map(|block| sha256(block.as_ref()));
            for digest in stored.into_iter().chain(computed) {
                if !digests.contains(&digest) {
                    digests.push(digest);
                }
            }
        }
        combinations = combinations.saturating_mul(digests.len() as u64);
        choices.push(digests);
    }
    let mut chosen = vec![0; choices.len()];
    for _ in 0..combinations.min(TRIED) {
        let digests = choices.iter().zip(&chosen).map(|(digests, at)| digests[*at]);
        let block = block_of(digests);
        if sha256(block.as_ref()) == *expected {
            return Some(block);
        }
        // The next combination: as the digits of a number are counted up.
        for (at, digests) in chosen.iter_mut().zip(&choices) {
            *at += 1;
            if *at < digests.len() {
                break;
            }
            *at = 0;
        }
    }
    None
}

/// A hash block over metadata, by the bytes of one file alone; none if it is another block, or the file ends before.
///
/// Not those above: a file that says to be huge would be read as a whole for one of them.
fn computed(blocks: &Blocks<'_>, file: &BlockFile<'_>, number: u64) -> Option<Box<Block>> {
    let mut digests = Vec::new();
    for child in below(blocks, number)? {
        if child >= blocks.sb.layout.geometry.metadata_blocks() {
            return None;
        }
        digests.push(sha256(read(file, child)?.as_ref()));
    }
    Some(block_of(digests.into_iter()))
}

/// The blocks whose digests a hash block has.
fn below(blocks: &Blocks<'_>, number: u64) -> Option<std::ops::Range<u64>> {
    let geometry = &blocks.sb.layout.geometry;
    let mut level_below = (0, geometry.metadata_blocks());
    for (start, count) in geometry.levels() {
        if (start..start + count).contains(&number) {
            let first = level_below.0 + (number - start) * DIGESTS_PER_BLOCK;
            return Some(first..(first + DIGESTS_PER_BLOCK).min(level_below.0 + level_below.1));
        }
        level_below = (start, count);
    }
    None
}

fn block_of(digests: impl Iterator<Item = Digest>) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    for (place, digest) in block.chunks_exact_mut(DIGEST_SIZE).zip(digests) {
        place.copy_from_slice(&digest.0);
    }
    block
}
