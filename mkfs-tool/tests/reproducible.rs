// SPDX-License-Identifier: GPL-2.0-or-later

//! The same tree gives the same bytes.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use common::{noise, read_image, Sandbox};

/// Files of a tree: names and bytes.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for i in 0..200_u64 {
        let len = [0, 10, 3000, 20_000, 70_000, 300_000][i as usize % 6];
        // Some have the same bytes as others.
        let mut bytes = noise(i % 90, len);
        if i % 7 == 0 {
            bytes.extend(vec![0; 100_000]);
            bytes.extend(noise(i, 9000));
        }
        files.push((format!("d{}/e{}/f{i}", i % 5, i % 3), bytes));
    }
    files.push(("large".into(), noise(1000, 5 << 20)));
    files
}

/// Makes the tree, in the given order.
fn make(root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let time = UNIX_EPOCH + Duration::from_nanos(1_000_000_007 * name.len() as u64);
        fs::File::open(&path).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    }
}

#[test]
fn order_path_threads_and_umask_make_no_difference() {
    let sandbox = Sandbox::new();
    let mut files = files();
    make(&sandbox.path("one"), &files);
    files.reverse();
    make(&sandbox.path("somewhere/else/two"), &files);
    // Directories have the time at which they were made.
    let build = |image: &str, source: &str, threads: &str, umask: &str| {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let status = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_mkfs-tesserafs"), "-q", "--threads", threads])
            .args([image, source])
            .current_dir(sandbox.path("."))
            .env("SOURCE_DATE_EPOCH", "1")
            .status()
            .unwrap();
        assert!(status.success());
        fs::read(sandbox.path(image)).unwrap()
    };
    let first = build("a", "one", "1", "022");
    for (image, source, threads, umask) in [
        ("b", "one", "2", "077"),
        ("c", "somewhere/else/two", "7", "0"),
        ("d", "somewhere/else/two", "3", "022"),
    ] {
        assert!(build(image, source, threads, umask) == first, "{image}");
    }
    let read = read_image(&sandbox.path("a"));
    for (name, bytes) in &files {
        assert!(read.item(name).bytes == *bytes, "{name}");
    }
    // Chunks depend on the profile, the tree does not.
    let other = sandbox
        .command(["-q", "--chunk-size", "16,64,128", "--group-size", "64", "--level", "7", "e", "one"])
        .env("SOURCE_DATE_EPOCH", "1")
        .status();
    assert!(other.unwrap().success());
    let other = read_image(&sandbox.path("e"));
    assert_eq!(other.superblock.tree_id, read.superblock.tree_id);
    assert_ne!(other.superblock.merkle_root, read.superblock.merkle_root);
    assert_eq!(other.items, read.items);
}

#[test]
fn numbers_are_given_breadth_first_in_the_order_of_names() {
    let sandbox = Sandbox::new();
    for name in ["b/z", "b/a/deep", "a", "ab", "c/x"] {
        sandbox.write(&format!("src/{name}"), name);
    }
    fs::hard_link(sandbox.path("src/c/x"), sandbox.path("src/b/link")).unwrap();
    sandbox.mkfs(["image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let mut numbers: Vec<(u32, &str)> = read.items.iter().map(|(name, item)| (item.ino, &**name)).collect();
    numbers.sort_unstable();
    let expected = [
        (1, "/"),
        (2, "a"),
        (3, "ab"),
        (4, "b"),
        (5, "c"),
        (6, "b/a"),
        (7, "b/link"),
        (7, "c/x"),
        (8, "b/z"),
        (9, "b/a/deep"),
    ];
    assert_eq!(numbers, expected);
}

/// A small tree whose every attribute is given, as an archive.
fn golden_archive() -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entry = |name: &str, kind: u8, link: &str, mode: u32, bytes: &[u8]| {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, number, digits) in [
            (100, mode.into(), 7),
            (108, 1000, 7),
            (116, 100, 7),
            (124, bytes.len() as u64, 11),
            (136, 1_700_000_000, 11),
        ] {
            let text = format!("{number:0digits$o}");
            header[at..at + digits].copy_from_slice(text.as_bytes());
        }
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    };
    entry("./", b'5', "", 0o755, b"");
    entry("bin/", b'5', "", 0o755, b"");
    entry("bin/sh", b'0', "", 0o755, &noise(42, 400_000));
    entry("bin/ash", b'1', "bin/sh", 0o755, b"");
    entry("etc/", b'5', "", 0o700, b"");
    entry("etc/motd", b'0', "", 0o644, b"hello, world\n");
    entry("etc/issue", b'0', "", 0o600, b"hello, world\n");
    entry("etc/hostname", b'0', "", 0o644, b"tessera\n");
    entry("etc/link", b'2', "../bin/sh", 0o777, b"");
    entry("run", b'6', "", 0o600, b"");
    entry("gone", b'3', "", 0o000, b"");
    let mut zeros = noise(7, 5000);
    zeros.resize(200_000, 0);
    entry("zeros", b'0', "", 0o644, &zeros);
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// These change when the format does, and then on purpose. `format/tests/tree_id.py --inspect`, written from FORMAT.md alone,
/// computes the same tree ID and image ID from the image.
#[test]
fn golden_identities() {
    let sandbox = Sandbox::new();
    sandbox.write("golden.tar", golden_archive());
    let report = sandbox.report(["--tar", "golden.tar", "image"]);
    read_image(&sandbox.path("image"));
    assert_eq!(report["tree_id"], GOLDEN_TREE);
    assert_eq!(report["image_id"], GOLDEN_IMAGE);
    if let Some(program) = independent_program() {
        let output = Command::new("python3")
            .arg(program)
            .arg("--inspect")
            .arg(sandbox.path("image"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(GOLDEN_TREE) && text.contains(GOLDEN_IMAGE),
            "{text}"
        );
    }
}

/// The program that computes identities from FORMAT.md alone, where it can run.
fn independent_program() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/tree_id.py");
    if !program.exists() || Command::new("python3").arg("--version").output().is_err() {
        eprintln!("no python3; a part of this test needs it");
        return None;
    }
    Some(program)
}

const GOLDEN_TREE: &str = "sha256:ea8a7983351919c7c6eef9549bdf8d15c0abe5e101e1e6cbace5220c6bfecf80";
const GOLDEN_IMAGE: &str = "sha256:36e8402ff8830539b19de37155bc079140c8cc418e47d80e1d1b81522d622a6c";

/// The tree ID, computed by a program that shares nothing with this one but FORMAT.md.
#[test]
fn the_tree_id_is_that_of_an_independent_program() {
    let Some(program) = independent_program() else { return };
    let sandbox = Sandbox::new();
    make(&sandbox.path("src"), &files());
    fs::hard_link(sandbox.path("src/large"), sandbox.path("src/d0/again")).unwrap();
    std::os::unix::fs::symlink("target", sandbox.path("src/link")).unwrap();
    let report = sandbox.report(["image", "src"]);
    let output = Command::new("python3").arg(program).arg(sandbox.path("src")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), report["tree_id"], "{}", String::from_utf8_lossy(&output.stderr));
}
