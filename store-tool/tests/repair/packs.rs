// SPDX-License-Identifier: GPL-2.0-or-later

//! Packs beside the image.

use std::fs;
use std::path::{Path, PathBuf};

use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::{repair, RepairReport};

use crate::damage::Random;
use crate::made::made;
use crate::{repaired, request, Bench, PLACES};

/// The packs that are in a folder.
fn names(packs: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        packs.read_dir().expect("packs").map(|pack| pack.expect("a pack").path()).collect();
    names.sort();
    names
}

/// Damages a pack of `tuesday` so often, and repairs it by these files.
fn each(seed: u64, from: &[&str], mut damage: impl FnMut(&mut Random, &Path)) -> Vec<RepairReport> {
    let bench = Bench::new();
    let image = bench.at("tuesday");
    fs::copy(made().at("tuesday"), &image).expect("copied");
    let good = fs::read(&image).expect("an image");
    let packs = bench.packs();
    let names = names(&packs);
    assert_eq!(names.len(), 2);
    let mut random = Random::new(seed);
    let mut reports = Vec::new();
    for _ in 0..PLACES {
        let pack = &names[random.below(2) as usize];
        damage(&mut random, pack);
        let from: Vec<&Path> = from.iter().map(Path::new).collect();
        let mut request = request(&image, &from);
        request.pack_dir = Some(packs.clone());
        reports.push(repaired(&request));
        for name in &names {
            let file = name.file_name().expect("a name");
            assert!(fs::read(name).expect("a pack") == made().read(Path::new("packs").join(file)));
        }
        assert_eq!(packs.read_dir().expect("packs").count(), 2, "something is left behind");
    }
    assert!(fs::read(&image).expect("an image") == good);
    reports
}

fn change(random: &mut Random, pack: &Path) {
    let mut bytes = fs::read(pack).expect("a pack");
    let end = bytes.len() as u64;
    random.change(&mut bytes, &(0..end));
    fs::write(pack, bytes).expect("written");
}

fn cut(random: &mut Random, pack: &Path) {
    let mut bytes = fs::read(pack).expect("a pack");
    match random.below(4) {
        0 => fs::remove_file(pack).expect("removed"),
        1 => fs::write(pack, [&bytes[..], b"more"].concat()).expect("written"),
        _ => {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
            fs::write(pack, bytes).expect("written");
        }
    }
}

/// The folder of the fixture's packs, by one of them: that is a file of its own, and the other one is beside it.
fn a_pack() -> String {
    let name = names(&made().at("packs"))[0].clone();
    name.to_str().expect("UTF-8").to_owned()
}

#[test]
fn changed_packs_by_copies_of_them() {
    each(30, &[&a_pack()], change);
}

#[test]
fn cut_longer_and_missing_packs_by_copies_of_them() {
    each(31, &[&a_pack()], cut);
}

/// The base has bytes that only Monday's image uses, and Monday's images say which.
#[test]
fn changed_packs_by_images() {
    let monday_or_tuesday = ["monday.tess", "tuesday.tess", "monday"];
    each(32, &monday_or_tuesday, change);
}

#[test]
fn cut_longer_and_missing_packs_by_images() {
    each(33, &["monday.tess", "tuesday.tess", "monday"], cut);
}

#[test]
fn a_pack_that_a_bundle_makes() {
    let bench = Bench::new();
    let image = bench.at("tuesday");
    fs::copy(made().at("tuesday"), &image).expect("copied");
    let packs = bench.packs();
    for pack in names(&packs) {
        let good = fs::read(&pack).expect("a pack");
        // The base is Monday's, and lies beside Monday's image only: by it the other one is made.
        let monday = bench.at("elsewhere");
        fs::create_dir_all(&monday).expect("a folder");
        fs::copy(made().at("monday"), monday.join("monday")).expect("copied");
        if names(&monday).len() == 1 {
            for pack in names(&made().at("packs")) {
                fs::copy(&pack, monday.join(pack.file_name().expect("a name"))).expect("copied");
            }
        }
        fs::remove_file(&pack).expect("removed");
        let mut request = request(&image, &[Path::new("packs-update"), &monday.join("monday")]);
        request.pack_dir = Some(packs.clone());
        repaired(&request);
        assert!(fs::read(&pack).expect("a pack") == good);
    }
}

/// Tuesday's image says nothing of bytes that only Monday's uses.
#[test]
fn bytes_that_the_image_does_not_use() {
    let bench = Bench::new();
    let image = bench.at("tuesday");
    fs::copy(made().at("tuesday"), &image).expect("copied");
    let packs = bench.packs();
    let base = names(&packs)
        .into_iter()
        .find(|pack| {
            let mut request = request(&image, &[Path::new("tuesday.tess")]);
            request.pack_dir = Some(packs.clone());
            let good = fs::read(pack).expect("a pack");
            fs::remove_file(pack).expect("removed");
            let report = repair(&request, &Silent).expect("a report");
            if !report.repaired {
                assert!(!pack.exists(), "a pack with another digest is put in place");
                fs::write(pack, good).expect("written");
                let failure = report.failure().expect("a failure");
                assert!(failure.contains("bytes of 1 pack that this image does not use"), "{failure}");
                assert_eq!((report.lost.chunks, report.lost.dead.len()), (0, 1), "{report:?}");
                let text = report.to_text();
                assert!(
                    text.contains("its chunks in it are there") && text.contains(&report.lost.dead[0].pack)
                );
            }
            !report.repaired
        })
        .expect("a pack that is not full of Tuesday's chunks");
    // Monday's image in one file has these chunks, but not where they are in the pack.
    fs::remove_file(&base).expect("removed");
    let mut request = request(&image, &[Path::new("tuesday.tess"), Path::new("monday.tess")]);
    request.pack_dir = Some(packs);
    assert!(!repair(&request, &Silent).expect("a report").repaired);
    request.from.push(made().at("monday"));
    repaired(&request);
}

#[test]
fn the_image_and_its_packs_at_once() {
    let bench = Bench::new();
    let packs = bench.packs();
    let good = made().read("tuesday");
    let mut random = Random::new(34);
    for _ in 0..10 {
        let mut bad = good.clone();
        for _ in 0..5 {
            random.change(&mut bad, &(4096..good.len() as u64));
        }
        let image = bench.damaged(&bad);
        for pack in names(&packs) {
            change(&mut random, &pack);
        }
        // It is repaired by the copy and the packs beside it.
        let beside = bench.at("beside");
        fs::create_dir_all(&beside).expect("a folder");
        fs::copy(made().at("tuesday"), beside.join("tuesday")).expect("copied");
        for pack in names(&made().at("packs")) {
            fs::copy(&pack, beside.join(pack.file_name().expect("a name"))).expect("copied");
        }
        let mut request = request(&image, &[&beside.join("tuesday")]);
        request.pack_dir = Some(packs.clone());
        let report = repaired(&request);
        assert!(fs::read(&image).expect("an image") == good, "{report:?}");
        assert_eq!(report.damage.packs.len(), 2);
        for pack in names(&packs) {
            let name = pack.file_name().expect("a name").to_owned();
            assert!(fs::read(&pack).expect("a pack") == made().read(Path::new("packs").join(name)));
        }
    }
}
