// SPDX-License-Identifier: GPL-2.0-or-later

//! Each kind of place in an image in one file, damaged so often.

use tesserafs_format::superblock::image_id;
use tesserafs_image::hash::Sha2;

use crate::damage::Random;
use crate::made::{made, superblock};
use crate::{mends, PLACES};

/// Damages an image so often in one way, at one place each time, and repairs it by these files.
fn each_alone(seed: u64, from: &[&str], mut damage: impl FnMut(&mut Random, &mut Vec<u8>)) {
    let good = made().read("tuesday.tess");
    let id = image_id::<Sha2>(good.first_chunk().expect("a block"));
    let mut random = Random::new(seed);
    for _ in 0..PLACES {
        let mut bad = good.clone();
        damage(&mut random, &mut bad);
        mends(&good, &bad, from, |request| request.id = Some(id));
    }
}

#[test]
fn chunks() {
    let sb = superblock(&made().read("tuesday.tess"));
    let pack = 4096..sb.layout.tree_offset - 4096;
    each_alone(1, &["unsigned.tess"], |random, bad| {
        random.change(bad, &pack);
    });
}

#[test]
fn metadata() {
    let layout = superblock(&made().read("tuesday.tess")).layout;
    each_alone(2, &["unsigned.tess"], |random, bad| {
        random.change(bad, &(layout.tree_offset..layout.hash_offset));
    });
}

/// The tree region is a function of the tree: images of another level, and those in the other form, have the same.
#[test]
fn the_tree_region_by_other_images_of_the_tree() {
    let layout = superblock(&made().read("tuesday.tess")).layout;
    for (seed, other) in [(17, "level.tess"), (18, "tuesday")] {
        each_alone(seed, &[other], |random, bad| {
            random.change(bad, &(layout.tree_offset..layout.map_offset));
        });
    }
}

#[test]
fn metadata_by_a_bundle_and_its_old_image() {
    let layout = superblock(&made().read("tuesday.tess")).layout;
    each_alone(3, &["update", "monday.tess"], |random, bad| {
        random.change(bad, &(layout.tree_offset..layout.hash_offset));
    });
}

/// They follow from what they are the hashes of.
#[test]
fn hash_blocks_without_another_image() {
    let layout = superblock(&made().read("tuesday.tess")).layout;
    each_alone(4, &["key.pem"], |random, bad| {
        random.change(bad, &(layout.hash_offset..layout.image_bytes));
    });
}

#[test]
fn the_first_512_bytes_with_an_id() {
    each_alone(5, &["unsigned.tess"], |random, bad| {
        random.change(bad, &(0..512));
    });
    each_alone(6, &["portable"], |random, bad| {
        random.change(bad, &(0..512));
    });
}

#[test]
fn a_bit_of_the_first_512_bytes_without_another_image() {
    each_alone(16, &["key.pem"], |random, bad| {
        bad[random.below(512) as usize] ^= 1 << random.below(8);
    });
}

#[test]
fn the_first_block_behind_them() {
    // The signature's length and digest are in a copy that has it only: a bundle, here.
    each_alone(7, &["unsigned.tess", "update"], |random, bad| {
        random.change(bad, &(512..4096));
    });
}

#[test]
fn the_signature() {
    let sb = superblock(&made().read("tuesday.tess"));
    let signature = sb.layout.image_bytes..sb.layout.image_bytes + u64::from(sb.signature_bytes);
    each_alone(8, &["unsigned.tess", "portable"], |random, bad| {
        random.change(bad, &signature);
    });
}

#[test]
fn zeros_behind_pack_0_and_behind_the_signature() {
    let good = made().read("tuesday.tess");
    let sb = superblock(&good);
    let tree = sb.layout.tree_offset as usize;
    let zeros = good[..tree].iter().rev().take_while(|byte| **byte == 0).count() as u64;
    assert!(zeros > 100, "{zeros}");
    let behind = sb.layout.image_bytes + u64::from(sb.signature_bytes)..good.len() as u64;
    each_alone(9, &["key.pem"], |random, bad| {
        if random.below(2) == 0 {
            random.change(bad, &(sb.layout.tree_offset - zeros..sb.layout.tree_offset));
        } else {
            random.change(bad, &behind);
        }
    });
}

#[test]
fn cut_and_longer_files() {
    // Both have the signature.
    each_alone(10, &["update", "unsigned.tess"], |random, bad| {
        let len = random.below(bad.len() as u64) as usize;
        bad.truncate(len);
    });
    each_alone(11, &["key.pem"], |random, bad| {
        let more = 1 + random.below(10_000) as usize;
        bad.resize(bad.len() + more, random.below(2) as u8);
    });
}

#[test]
fn blocks_of_zeros() {
    each_alone(12, &["update", "unsigned.tess"], |random, bad| random.zero(bad));
}

#[test]
fn blocks_in_the_places_of_others() {
    each_alone(13, &["update", "unsigned.tess"], |random, bad| random.swap(bad));
}

/// All of that at once.
#[test]
fn many_places_at_once() {
    let good = made().read("tuesday.tess");
    let id = image_id::<Sha2>(good.first_chunk().expect("a block"));
    let mut random = Random::new(14);
    for _ in 0..5 {
        let mut bad = good.clone();
        for _ in 0..PLACES {
            match random.below(8) {
                0 => random.zero(&mut bad),
                1 => random.swap(&mut bad),
                _ => {
                    random.change(&mut bad, &(0..good.len() as u64));
                }
            }
        }
        bad.truncate(good.len() - random.below(20_000) as usize);
        let report = mends(&good, &bad, &["unsigned.tess", "portable"], |request| request.id = Some(id));
        assert!(report.damage.blocks > 0 && report.damage.chunks > 10, "{report:?}");
    }
}

#[test]
fn hash_blocks_of_two_levels() {
    let good = made().read("deep.tess");
    let layout = superblock(&good).layout;
    let blocks = (layout.image_bytes - layout.hash_offset) / 4096;
    assert!(blocks > 3, "{blocks}");
    // The root and a block that it has the digest of: alone they follow from what is below.
    let mut random = Random::new(15);
    for _ in 0..8 {
        let mut bad = good.clone();
        random.change(&mut bad, &(layout.hash_offset..layout.hash_offset + 4096));
        random.change(&mut bad, &(layout.hash_offset + 4096..layout.image_bytes));
        let report = mends(&good, &bad, &["key.pem"], |_| ());
        assert_eq!(report.damage.blocks, 2, "{report:?}");
    }
    // A block of metadata is damaged, too: below it the stored hashes are right, and above the computed ones.
    let mut bad = good.clone();
    bad[layout.hash_offset as usize] ^= 1;
    bad[layout.tree_offset as usize] ^= 1;
    bad[layout.image_bytes as usize - 4096] ^= 1;
    let folder = crate::Bench::new();
    let mut copy = good.clone();
    for at in [layout.hash_offset, layout.image_bytes - 4096, layout.hash_offset - 4096] {
        copy[at as usize] ^= 2;
    }
    std::fs::write(folder.at("copy"), copy).expect("written");
    let copy = folder.at("copy");
    let report = mends(&good, &bad, &[copy.to_str().expect("UTF-8")], |_| ());
    assert_eq!(report.damage.blocks, 3, "{report:?}");
}
