// SPDX-License-Identifier: GPL-2.0-or-later

//! An image that says to have more than it has takes no memory for that. One test, as it looks at the memory of the process.

use std::fs::{self, File};

use fsck_tesserafs::{check, Options, Source};
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::convert::{convert, Conversion, Form};
use tesserafs_format::superblock::Layout;
use tesserafs_image::{Cancel, Silent};

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{superblock, Draft};

/// Inodes and contents that the superblock says, of which nothing is on the disk.
const RECORDS: u64 = 10_000_000;

/// Bytes that may be in memory; what the tools keep for so many records takes 80 MB and more.
const MOST: u64 = 40 << 20;

/// The most memory that this process has had.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

#[test]
fn a_sparse_image_takes_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut image = Draft::sample().image();
    let tree_offset = common::layout(&image).tree_offset;
    superblock(&mut image, |sb| {
        // In the shared form, of no pack, no chunk is looked for.
        sb.map.packs = 2.into();
        (sb.tree.inodes, sb.tree.contents) = (RECORDS.into(), RECORDS.into());
        sb.image_bytes = Layout::new(tree_offset, &sb.tree, &sb.map).expect("a layout").image_bytes.into();
    });
    let bytes = common::layout(&image).image_bytes;
    fs::write(at("sparse"), &image[..4096]).expect("an image");
    File::options().write(true).open(at("sparse")).and_then(|file| file.set_len(bytes)).expect("an image");
    assert!(peak() < MOST, "{} bytes before anything is read", peak());

    let (output, pack_dir) = (at("new"), None);
    let conversion = Conversion { output, image: at("sparse"), pack_dir, form: Form::OneFile, force: false };
    let error = convert(&conversion, &mkfs_tesserafs::progress::Silent).expect_err("no image").to_string();
    assert!(error.contains("hash-block"), "{error}");
    assert!(peak() < MOST, "{} bytes to convert nothing", peak());

    let layers = vec![LayerPath { image: at("sparse"), at: Vec::new() }; 2];
    let (output, annotations) = (at("new"), Default::default());
    let error = compose(&Composition { output, layers, partial: false, annotations, force: false });
    let error = error.expect_err("no image").to_string();
    assert!(error.contains("hash-block"), "{error}");
    assert!(peak() < MOST, "{} bytes to compose nothing", peak());

    let source = Source::open(&at("sparse")).expect("an image");
    let options = Options { threads: 2, ..Options::default() };
    let report = check(&source, &options, &Silent, &Cancel::default());
    assert!(!report.is_clean(), "{report:?}");
    assert!(peak() < MOST, "{} bytes to check nothing", peak());
}
