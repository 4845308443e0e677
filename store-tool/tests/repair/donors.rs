// SPDX-License-Identifier: GPL-2.0-or-later

//! Each kind of file that good bytes come from.

use std::fs;

use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::{repair, RepairReport};

use crate::damage::Random;
use crate::made::{made, superblock};
use crate::{mends, request, Bench, PLACES};

/// Damages 200 places of pack 0, 20 at a time, and repairs them by these files.
fn chunks_by(seed: u64, from: &[&str]) -> RepairReport {
    let good = made().read("tuesday.tess");
    let pack = 4096..superblock(&good).layout.tree_offset - 4096;
    let mut random = Random::new(seed);
    let mut last = None;
    for _ in 0..PLACES / 20 {
        let mut bad = good.clone();
        (0..20).for_each(|_| {
            random.change(&mut bad, &pack);
        });
        let report = mends(&good, &bad, from, |request| request.pack_dir = Some(made().at("packs")));
        assert!(report.damage.chunks > 5 && report.damage.blocks == 0, "{report:?}");
        last = Some(report);
    }
    last.expect("a report")
}

#[test]
fn a_copy() {
    let report = chunks_by(20, &["unsigned.tess"]);
    assert_eq!(report.from[0].chunks, report.damage.chunks);
}

#[test]
fn an_image_of_another_level() {
    let report = chunks_by(21, &["level.tess"]);
    // Some are stored plain, or the frames are the same.
    assert!(report.from[0].encoded_chunks > 0, "{report:?}");
    assert_eq!(report.from[0].chunks + report.from[0].encoded_chunks, report.damage.chunks);
}

#[test]
fn an_image_with_other_chunks() {
    let report = chunks_by(22, &["cut.tess"]);
    assert!(report.from[0].encoded_chunks > 3, "{report:?}");
}

#[test]
fn the_packs_of_an_image() {
    let report = chunks_by(23, &["tuesday"]);
    assert_eq!(report.from[0].chunks, report.damage.chunks);
}

#[test]
fn an_older_image_and_one_that_has_the_rest() {
    let report = chunks_by(24, &["monday", "level.tess"]);
    assert!(report.from[0].chunks > 0 && report.from[1].encoded_chunks > 0, "{report:?}");
}

#[test]
fn a_bundle_and_its_old_image() {
    let report = chunks_by(25, &["update", "monday.tess"]);
    assert!(report.from[0].chunks > 0 && report.from[1].chunks > 0, "{report:?}");
}

#[test]
fn a_portable_bundle_and_packs_of_the_old_image() {
    // It is not the image that the bundle is applied to, which is in one file: which chunks the bundle has is found out.
    let report = chunks_by(26, &["portable", "monday"]);
    assert!(report.from[0].chunks > 0 && report.from[1].chunks > 0, "{report:?}");
}

/// Two copies, each damaged at other places.
#[test]
fn two_damaged_copies() {
    let good = made().read("unsigned.tess");
    let layout = superblock(&good).layout;
    let mut random = Random::new(27);
    for _ in 0..10 {
        let bench = Bench::new();
        let (mut a, mut b) = (good.clone(), good.clone());
        for _ in 0..PLACES / 10 {
            let block = random.below(good.len() as u64 / 4096 - 1) + 1;
            // Chunks lie across blocks, and so one copy has the even places of 32 KiB, and the other the odd ones.
            let is_chunk = block * 4096 < layout.tree_offset;
            let bad =
                if is_chunk && (block / 8) % 2 == 0 || !is_chunk && block % 2 == 0 { &mut a } else { &mut b };
            if is_chunk && (block % 8 < 2 || block % 8 > 5) {
                continue;
            }
            random.change(bad, &(block * 4096..block * 4096 + 4096));
        }
        fs::write(bench.at("b"), &b).expect("written");
        let image = bench.damaged(&a);
        let report = repair(&request(&image, &[&bench.at("b")]), &Silent).expect("a report");
        assert!(report.repaired && fs::read(&image).expect("an image") == good, "{report:?}");
        fs::write(bench.at("a"), &a).expect("written");
        let report = repair(&request(&bench.at("b"), &[&bench.at("a")]), &Silent).expect("a report");
        assert!(report.repaired && fs::read(bench.at("b")).expect("an image") == good, "{report:?}");
    }
}

/// A bundle that was cut is good for what it has.
#[test]
fn a_cut_bundle() {
    let good = made().read("tuesday.tess");
    let portable = made().read("portable");
    let bench = Bench::new();
    fs::write(bench.at("cut"), &portable[..portable.len() - 60]).expect("written");
    let layout = superblock(&good).layout;
    let mut bad = good.clone();
    bad[..4096].fill(0);
    bad[layout.tree_offset as usize] ^= 1;
    let (cut, id) = (
        bench.at("cut"),
        tesserafs_format::superblock::image_id::<tesserafs_image::hash::Sha2>(
            good.first_chunk().expect("a block"),
        ),
    );
    let report =
        mends(&good, &bad, &[cut.to_str().expect("UTF-8"), "monday.tess"], |request| request.id = Some(id));
    assert_eq!((report.from[0].first_blocks, report.from[0].blocks), (2, 1), "{report:?}");
}
