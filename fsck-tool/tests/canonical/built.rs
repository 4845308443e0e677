// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that the builder makes, of directories and archives, in every profile: all are canonical.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;

use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use tesserafs_format::Profile;

use super::common::{self, pattern};
use super::compare;

/// A tree with hard links, holes, files with the same bytes and with chunks of others, code, text and xattrs.
fn make_tree(root: &Path) {
    let path = |name: &str| root.join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).expect(name);
    for name in ["many", "a/b", "empty"] {
        fs::create_dir_all(path(name)).expect(name);
    }
    for n in 0..150_u64 {
        write(&format!("many/{n}"), &pattern((n * 97 % 40_000) as usize, n % 100));
    }
    let large = pattern(3_000_000, 1);
    write("a/large", &large);
    write("a/b/same", &large);
    write("beginning", &large[..1_000_000]);
    write("text", "the same line again and again\n".repeat(20_000).as_bytes());
    write("code", &[0xe8, 0x10, 0x20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].repeat(9_000));
    write("zeros", &[0; 300_001]);
    write("none", b"");
    let sparse = File::create(path("sparse")).expect("sparse");
    sparse.write_all_at(&large[..70_000], 1_234_567).expect("written");
    sparse.write_all_at(b"x", 200_000_000).expect("written");
    sparse.set_len(200_070_001).expect("set");
    // Its digest is over its data runs.
    let huge = File::create(path("huge")).expect("huge");
    huge.write_all_at(b"somewhere", 1 << 40).expect("written");
    huge.set_len((1 << 41) + 1).expect("set");
    fs::hard_link(path("text"), path("a/b/hard")).expect("a link");
    symlink("../text", path("a/link")).expect("a symlink");
    fs::hard_link(path("a/link"), path("a/b/hard link of a symlink")).expect("a link");
    for (name, value) in [("user.one", "1"), ("user.two", "")] {
        // Not every filesystem has them.
        let _ = rustix::fs::lsetxattr(path("text"), name, value.as_bytes(), rustix::fs::XattrFlags::empty());
    }
}

fn build(source: SourcePath, image: &Path, profile: Profile) -> Vec<u8> {
    let annotation = |key: &str, value: Vec<u8>| (key.as_bytes().to_vec(), value);
    let config = Config {
        image: image.to_owned(),
        source,
        filter: Default::default(),
        profile,
        threads: NonZeroUsize::MIN,
        annotations: [annotation("none", Vec::new()), annotation("two blocks", pattern(8192, 7))].into(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: true,
        dry_run: false,
    };
    mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent).expect("built");
    fs::read(image).expect("read")
}

fn profiles() -> Vec<(&'static str, Profile)> {
    let default = default_profile(1);
    let kib = |n: u32| n << 10;
    vec![
        ("level 1", default),
        ("level 19", default_profile(19)),
        (
            "small",
            Profile { chunk_min: 4096, chunk_avg: kib(16), chunk_max: kib(32), small_max: 4096, ..default },
        ),
        ("fixed", Profile { chunk_min: kib(64), chunk_max: kib(64), ..default }),
        (
            "large",
            Profile {
                chunk_min: kib(256),
                chunk_avg: kib(512),
                chunk_max: kib(1024),
                group_size: kib(512),
                small_max: kib(512),
                hole_min: kib(1024),
                ..default
            },
        ),
        ("no groups", Profile { group_size: 0, small_max: 0, ..default }),
        ("holes of a block", Profile { hole_min: 4096, ..default }),
    ]
}

#[test]
fn what_the_builder_makes_of_a_directory_is_canonical_in_every_profile() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, image) = (dir.path().join("root"), dir.path().join("image"));
    make_tree(&root);
    for (name, profile) in profiles() {
        let mut image = build(SourcePath::Directory(root.clone()), &image, profile);
        for threads in [1, 3] {
            let report = compare(&image, threads);
            assert_eq!(report.canonical, Some(true), "{name}: {report:?}");
            assert!(report.is_clean() && report.exit_code().value() == 0, "{name}: {report:?}");
        }
        // No builder knows the signature.
        common::attach(&mut image, b"a signature that nobody asks for");
        let report = compare(&image, 2);
        assert!(report.signed && report.canonical == Some(true), "{name}: {report:?}");
    }
}

#[test]
fn what_the_builder_makes_of_an_archive_is_canonical() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, image, tar) = (dir.path().join("root"), dir.path().join("image"), dir.path().join("tar"));
    make_tree(&root);
    let archived = std::process::Command::new("tar")
        .args(["--sparse", "--format=posix", "--xattrs", "-cf"])
        .args([&tar, Path::new("-C"), &root, Path::new(".")])
        .status();
    if !archived.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no tar here");
        return;
    }
    let image = build(SourcePath::Tar(tar), &image, default_profile(3));
    let report = compare(&image, 2);
    assert_eq!(report.canonical, Some(true), "{report:?}");
}

#[test]
fn the_smallest_image_is_canonical() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, image) = (dir.path().join("root"), dir.path().join("image"));
    fs::create_dir(&root).expect("a directory");
    let image = build(SourcePath::Directory(root), &image, default_profile(3));
    assert_eq!(compare(&image, 1).canonical, Some(true));
}
