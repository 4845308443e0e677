// SPDX-License-Identifier: GPL-2.0-or-later

//! The geometry of the hash region, for any number of metadata blocks.
//!
//! Invariant: every block has one parent, in the level above it; no two blocks share a digest; from every block five
//! steps at most lead to the root; a block behind the last has no parent. No panic, no overflow.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_format::limits::{BLOCK_BYTES, DIGESTS_PER_BLOCK, MAX_HASH_LEVELS};
use tesserafs_format::{Geometry, Parent};
use tesserafs_fuzz::input::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let blocks = input.u64();
    let covered = DIGESTS_PER_BLOCK.pow(MAX_HASH_LEVELS as u32);
    let Some(geometry) = Geometry::new(blocks) else {
        assert!(blocks == 0 || blocks > covered);
        return;
    };
    assert!((1..=covered).contains(&blocks));
    let (first, last) = (geometry.levels().next().expect("a level"), geometry.levels().last());
    assert_eq!(geometry.levels().map(|(_, blocks)| blocks).sum::<u64>() + blocks, geometry.total_blocks());
    // The level of the root comes first in the image, the one over the metadata last.
    assert_eq!(last, Some((blocks, 1)));
    assert_eq!(first.0 + first.1, geometry.total_blocks());
    for block in [0, blocks - 1, blocks, geometry.total_blocks() - 1] {
        climb(&geometry, block);
    }
    while !input.is_empty() {
        let block = input.u64();
        assert_eq!(geometry.parent(block).is_some(), block < geometry.total_blocks());
        climb(&geometry, block % geometry.total_blocks());
    }
});

fn climb(geometry: &Geometry, block: u64) {
    let mut at = block;
    for _ in 0..=MAX_HASH_LEVELS {
        let Parent::Slot { block: parent, offset } = geometry.parent(at).expect("a parent") else {
            assert_eq!(at, geometry.metadata_blocks());
            return;
        };
        assert!(offset % 32 == 0 && offset + 32 <= BLOCK_BYTES);
        assert!(parent >= geometry.metadata_blocks() && parent < geometry.total_blocks() && parent != at);
        // Its neighbours have other places.
        for other in [at.wrapping_sub(1), at + 1] {
            assert_ne!(geometry.parent(other), geometry.parent(at));
        }
        at = parent;
    }
    panic!("block {block} never leads to the root");
}
