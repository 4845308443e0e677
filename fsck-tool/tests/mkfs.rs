// SPDX-License-Identifier: GPL-2.0-or-later

//! With the real mkfs: its images are clean, and an extracted tree builds the same image.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FileType, Mode, XattrFlags, CWD};

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::pattern;

/// Builds mkfs where that was not done, and says where it is. It is built for a test of all packages, as it is where all
/// tests are run: for another choice cargo would choose other features of libraries, and compile them once more.
fn mkfs() -> PathBuf {
    let fsck = Path::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--quiet", "--no-run", "--workspace", "--test", "encode"]);
    let profile = fsck.parent().and_then(Path::file_name).expect("the profile's directory");
    if profile == "release" {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "mkfs is built");
    fsck.with_file_name("mkfs-tesserafs")
}

fn run(program: &Path, args: &[&OsStr]) -> Output {
    let output = Command::new(program).args(args).output().expect("it runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {args:?}: {said}", program.display());
    output
}

/// A tree with something of everything that a file system can be asked to keep.
fn make_tree(root: &Path) {
    let path = |name: &str| root.join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).expect(name);
    fs::create_dir(root).expect("the root");
    for name in ["bin", "many", "deep", "deep/er", "empty directory"] {
        fs::create_dir(path(name)).expect(name);
    }
    // Small files in groups, larger ones in chunks, files of one content, compressible and not.
    for n in 0..300_u64 {
        write(&format!("many/{n}"), &pattern((n * 37 % 9000) as usize, n % 200));
    }
    write("empty", b"");
    write("bin/large", &pattern(1_000_000, 1));
    write("bin/copy", &pattern(1_000_000, 1));
    write("bin/text", "the same line again and again\n".repeat(5_000).as_bytes());
    write("zeros", &[0; 300_000]);
    let sparse = File::create(path("sparse")).expect("sparse");
    sparse.write_all_at(b"begin", 12_345).expect("written");
    sparse.write_all_at(&pattern(200_000, 2), 2_000_000).expect("written");
    sparse.set_len(6_000_001).expect("set");
    let huge = File::create(path("huge")).expect("huge");
    huge.write_all_at(b"somewhere", 1 << 40).expect("written");
    huge.set_len((1 << 42) + 1).expect("set");
    fs::hard_link(path("bin/text"), path("deep/er/link")).expect("a link");
    symlink(OsStr::from_bytes(&[b'x'; 4095]), path("long")).expect("a symlink");
    symlink("../nowhere", path("deep/dangling")).expect("a symlink");
    for bytes in [b"\xff\xfe".as_slice(), b"new\nline", b"back\\slash", &[b'n'; 255]] {
        fs::write(root.join(OsString::from_vec(bytes.to_vec())), bytes).expect("a file");
    }
    let node = |name: &str, kind| {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o640), 0).expect(name);
    };
    node("fifo", FileType::Fifo);
    node("socket", FileType::Socket);
    node("whiteout", FileType::CharacterDevice);
    let xattr = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path(name), key, value, XattrFlags::empty()).expect(key);
    };
    let capability = [&[1, 0, 0, 2][..], &0x400_u32.to_le_bytes(), &[0; 12]].concat();
    xattr("bin/large", "security.capability", &capability);
    xattr("many/1", "trusted.overlay.opaque", b"y");
    xattr("deep", "trusted.empty", b"");
    xattr("long", "trusted.on.symlink", b"too");
    // user::rwx, user:1:r--, group::r-x, mask::r-x, other::---
    let entries =
        [(1_u16, 7_u16, u32::MAX), (2, 4, 1), (4, 5, u32::MAX), (0x10, 5, u32::MAX), (0x20, 0, u32::MAX)];
    let entries = entries.iter().flat_map(|(tag, perm, id)| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    let acl: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(entries).collect();
    // Not every file system has ACLs.
    for (name, key) in [("many/2", "system.posix_acl_access"), ("deep", "system.posix_acl_default")] {
        let _ = rustix::fs::lsetxattr(path(name), key, &acl, XattrFlags::empty());
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect(name);
    };
    std::os::unix::fs::lchown(path("long"), Some(7), Some(8)).expect("owned");
    std::os::unix::fs::chown(path("bin/copy"), Some(4_000_000_000), Some(100)).expect("owned");
    mode("bin/copy", 0o6755);
    mode("many", 0o1777);
    mode("empty", 0);
    mode("deep/er", 0o555);
    let time = |name: &str, tv_sec, tv_nsec| {
        let time = rustix::fs::Timespec { tv_sec, tv_nsec };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect(name);
    };
    time("empty", -1, 999_999_999);
    time("long", 1_000_000_000, 1);
    time("deep", 2_000_000_000, 123_456_789);
    time("", 1, 0);
}

#[test]
fn what_is_extracted_builds_the_same_image() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can restore owners, whiteouts and trusted xattrs");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let (tree, first, out, second) = (path("tree"), path("first"), path("out"), path("second"));
    make_tree(&tree);
    let (mkfs, fsck) = (mkfs(), PathBuf::from(env!("CARGO_BIN_EXE_fsck-tesserafs")));
    run(&mkfs, &["--quiet".as_ref(), first.as_os_str(), tree.as_os_str()]);
    run(&fsck, &[first.as_os_str()]);
    run(&fsck, &["--threads=1".as_ref(), first.as_os_str()]);
    run(&fsck, &["--extract".as_ref(), out.as_os_str(), first.as_os_str()]);

    // Equal in everything that an image keeps, as another program sees it.
    let rsync = Command::new("rsync")
        .args(["-aHAXnic", "--delete", "--specials", "--devices", "--exclude=huge"])
        .args([tree.join(""), out.join("")])
        .output();
    if let Ok(rsync) = rsync {
        assert!(rsync.status.success(), "{}", String::from_utf8_lossy(&rsync.stderr));
        assert!(rsync.stdout.is_empty(), "{}", String::from_utf8_lossy(&rsync.stdout));
    }
    let used: u64 = ["sparse", "huge", "zeros"]
        .iter()
        .map(|name| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(out.join(name)).expect(name)))
        .sum();
    assert!(used * 512 < 1 << 20, "holes are holes: {used} sectors");

    run(&mkfs, &["--quiet".as_ref(), second.as_os_str(), out.as_os_str()]);
    let (first, second) = (fs::read(first).expect("read"), fs::read(second).expect("read"));
    assert!(first == second, "the images differ");

    // Another level is another image of the same tree.
    let third = path("third");
    run(&mkfs, &["--quiet".as_ref(), "--level=9".as_ref(), third.as_os_str(), out.as_os_str()]);
    let id = |image: &Path, field: &str| {
        let report = run(&fsck, &["--json".as_ref(), image.as_os_str()]).stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        report[field].as_str().expect("an ID").to_owned()
    };
    assert_eq!(id(&third, "tree_id"), id(&path("first"), "tree_id"));
    assert_ne!(id(&third, "image_id"), id(&path("first"), "image_id"));

    // A profile is named by its numbers.
    let fourth = path("fourth");
    for (args, text, name) in [
        (&["--profile=fast"][..], ", profile fast, not signed", "fast".into()),
        (&["--chunk-size=32,128,256", "--group-size=128"], ", profile small, not signed", "small".into()),
        (&["--profile=small", "--group-size=96"], " chunks, not signed", serde_json::Value::Null),
    ] {
        let mut mkfs_args: Vec<&OsStr> = ["--quiet", "--force"].map(OsStr::new).to_vec();
        mkfs_args.extend(args.iter().map(OsStr::new));
        mkfs_args.extend([fourth.as_os_str(), out.as_os_str()]);
        run(&mkfs, &mkfs_args);
        let said = run(&fsck, &["--canonical".as_ref(), fourth.as_os_str()]).stdout;
        let said = String::from_utf8(said).expect("text");
        assert!(said.contains(text) && said.ends_with(", canonical\n"), "{args:?}: {said}");
        let report = run(&fsck, &["--json".as_ref(), fourth.as_os_str()]).stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["profile"]["name"], name, "{args:?}");
        assert_eq!(id(&fourth, "tree_id"), id(&path("first"), "tree_id"));
    }
}
