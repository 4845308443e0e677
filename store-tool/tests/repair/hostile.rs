// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that lie, or are none.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::repair;
use rustix::fs::{mknodat, FileType, Mode, CWD};
use tesserafs_format::superblock::Layout;
use tesserafs_image::hash::{sha256, Sha2};
use zerocopy::IntoBytes;

use crate::damage::Random;
use crate::made::{made, superblock};
use crate::{mends, repaired, request, Bench};

/// An image with 20 damaged places in its chunks.
fn damaged(good: &[u8]) -> Vec<u8> {
    let pack = 4096..superblock(good).layout.tree_offset - 4096;
    let (mut bad, mut random) = (good.to_vec(), Random::new(50));
    (0..20).for_each(|_| {
        random.change(&mut bad, &pack);
    });
    bad
}

/// Makes the hashes of an image right again, of which there is one block.
fn seal(image: &mut [u8]) {
    let layout = superblock(image).layout;
    let (tree, hashes) = (layout.tree_offset as usize, layout.hash_offset as usize);
    assert_eq!(layout.image_bytes as usize - hashes, 4096);
    let digests: Vec<u8> = image[tree..hashes].chunks(4096).flat_map(|block| sha256(block).0).collect();
    image[hashes..hashes + digests.len()].copy_from_slice(&digests);
    let root = sha256(&image[hashes..hashes + 4096]);
    image[0xe0..0x100].copy_from_slice(&root.0);
    let prefix = sha256(&image[..512]);
    image[0x200..0x220].copy_from_slice(&prefix.0);
}

#[test]
fn what_is_no_file_is_refused() {
    let bench = Bench::new();
    let good = made().read("unsigned.tess");
    let image = bench.damaged(&damaged(&good));
    let fifo = bench.at("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
    for other in [fifo.as_path(), bench.folder.path(), Path::new("/dev/null")] {
        for request in [request(&image, &[Path::new("unsigned.tess"), other]), request(other, &[&image])] {
            let error = repair(&request, &Silent).expect_err("refused").to_string();
            assert!(error.contains("neither a regular file nor a block device"), "{error}");
        }
    }
    let error = repair(&request(&image, &[Path::new("nothing")]), &Silent).expect_err("refused").to_string();
    assert!(error.contains("nothing"), "{error}");
    assert!(fs::read(&image).expect("an image") == damaged(&good));
}

#[test]
fn empty_and_huge_files_are_no_hindrance() {
    let bench = Bench::new();
    let good = made().read("unsigned.tess");
    File::create(bench.at("empty")).expect("a file");
    File::create(bench.at("huge")).and_then(|file| file.set_len(1 << 42)).expect("a file");
    // One that begins as the image does, and has nothing else.
    fs::write(bench.at("huge image"), &good[..4096]).expect("written");
    let file = File::options().write(true).open(bench.at("huge image")).expect("a file");
    file.set_len(1 << 42).expect("a length");
    fs::write(bench.at("no bundle"), b"TESSBNDL and no more").expect("written");
    let started = Instant::now();
    let names = ["empty", "huge", "huge image", "no bundle"].map(|name| bench.at(name));
    let mut from: Vec<&str> = names.iter().map(|name| name.to_str().expect("UTF-8")).collect();
    let image = bench.damaged(&damaged(&good));
    let from_paths: Vec<&Path> = from.iter().map(Path::new).collect();
    let report = repair(&request(&image, &from_paths), &Silent).expect("a report");
    assert!(!report.repaired && report.lost.chunks > 10, "{report:?}");
    assert!(report.from[3].notes[0].contains("not used: "), "{report:?}");
    from.push("level.tess");
    let report = mends(&good, &damaged(&good), &from, |_| ());
    assert!(report.from[..4].iter().all(|from| from.chunks + from.blocks == 0), "{report:?}");
    // An image that became huge is as long as it was.
    let file = File::options().write(true).open(&image).expect("an image");
    file.set_len(1 << 42).expect("a length");
    repaired(&request(&image, &[Path::new("level.tess")]));
    assert!(fs::read(&image).expect("an image") == good);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// It says to have 4 TiB of xattrs, and an honest ID.
#[test]
fn an_image_that_says_to_be_huge() {
    let bench = Bench::new();
    let mut sb = superblock(&made().read("unsigned.tess"));
    let mut raw = sb.to_raw::<Sha2>();
    raw.tree.xattr_bytes = (1 << 42).into();
    sb.layout = Layout::new(raw.tree_offset.get(), &raw.tree, &raw.map).expect("a layout");
    let image = bench.damaged(sb.to_raw::<Sha2>().as_bytes());
    let file = File::options().write(true).open(&image).expect("an image");
    file.set_len(sb.layout.image_bytes).expect("a length");
    let started = Instant::now();
    let report = repair(&request(&image, &[&image, Path::new("tuesday.tess")]), &Silent).expect("a report");
    assert!(!report.repaired && report.lost.unproven_blocks >= 1 << 30, "{report:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_copy_whose_chunks_are_lies() {
    let good = made().read("unsigned.tess");
    let bench = Bench::new();
    let mut lies = good.clone();
    let tree = superblock(&good).layout.tree_offset as usize;
    lies[4096..tree].iter_mut().for_each(|byte| *byte = !*byte);
    fs::write(bench.at("lies"), lies).expect("written");
    let lies = bench.at("lies");
    let report = mends(&good, &damaged(&good), &[lies.to_str().expect("UTF-8"), "level.tess"], |_| ());
    assert_eq!(report.from[0].chunks, 0, "{report:?}");
}

/// Their metadata is authentic for an ID of their own, and wrong.
#[test]
fn images_whose_tables_are_lies() {
    let good = made().read("unsigned.tess");
    let layout = superblock(&good).layout;
    let bench = Bench::new();
    let rotated = |name: &str, start: u64, end: u64, record: usize| {
        let mut lies = good.clone();
        lies[start as usize..end as usize].rotate_left(record);
        // The offsets of a copy would serve all the same.
        lies[0xd8] = 4;
        seal(&mut lies);
        fs::write(bench.at(name), lies).expect("written");
        bench.at(name).to_str().expect("UTF-8").to_owned()
    };
    let table = |table: tesserafs_format::Table| (table.offset(), table.end());
    let (start, end) = table(layout.chunks);
    let places = rotated("places", start, end, 16);
    let (start, end) = table(layout.chunk_digests);
    let digests = rotated("digests", start, end, 32);
    let (start, end) = table(layout.raw_digests);
    let raw = rotated("raw", start, end, 32);
    let (start, end) = table(layout.content_digests);
    let contents = rotated("contents", start, end, 32);
    let image = bench.damaged(&damaged(&good));
    let lies = [&*places, &digests];
    let from: Vec<&Path> = lies.iter().map(Path::new).collect();
    let report = repair(&request(&image, &from), &Silent).expect("a report");
    assert!(!report.repaired && report.from.iter().all(|from| from.chunks == 0), "{report:?}");
    assert!(fs::read(&image).expect("an image") == damaged(&good));
    let all = [&*places, &digests, &raw, &contents, "cut.tess"];
    mends(&good, &damaged(&good), &all, |_| ());
}

/// Chunks that another image says to lie where this one has none are found, and are not what the pack has there.
#[test]
fn an_image_that_lies_about_bytes_that_are_not_used() {
    let bench = Bench::new();
    let image = bench.at("tuesday");
    fs::copy(made().at("tuesday"), &image).expect("copied");
    let packs = bench.packs();
    let mut lies = made().read("monday");
    let layout = superblock(&lies).layout;
    let records = layout.chunk_digests.offset() as usize..layout.chunk_digests.end() as usize;
    lies[records].rotate_left(32);
    seal(&mut lies);
    fs::create_dir(bench.at("lies")).expect("a folder");
    fs::write(bench.at("lies/monday"), lies).expect("written");
    for pack in packs.read_dir().expect("packs") {
        let pack = pack.expect("a pack").path();
        let good = fs::read(&pack).expect("a pack");
        fs::remove_file(&pack).expect("removed");
        let lies = bench.at("lies/monday");
        let from = [&*lies, Path::new("tuesday.tess"), Path::new("monday.tess")];
        let mut request = request(&image, &from);
        request.pack_dir = Some(packs.clone());
        if !repair(&request, &Silent).expect("a report").repaired {
            assert!(!pack.exists());
            request.from.push(made().at("monday"));
            repaired(&request);
        }
        assert!(fs::read(&pack).expect("a pack") == good);
    }
}

#[test]
fn what_is_in_the_way_of_a_pack_is_named() {
    let bench = Bench::new();
    let image = bench.at("tuesday");
    fs::copy(made().at("tuesday"), &image).expect("copied");
    let packs = bench.packs();
    let pack = packs.read_dir().expect("packs").next().expect("a pack").expect("a pack").path();
    fs::remove_file(&pack).expect("removed");
    fs::create_dir(&pack).expect("a folder");
    let mut request = request(&image, &[Path::new("monday")]);
    request.pack_dir = Some(packs);
    let error = repair(&request, &Silent).expect_err("refused").to_string();
    assert!(error.contains("is in the way of a pack"), "{error}");
    fs::remove_dir(&pack).expect("removed");
    mknodat(CWD, &pack, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
    let error = repair(&request, &Silent).expect_err("refused").to_string();
    assert!(error.contains("is in the way of a pack"), "{error}");
}
