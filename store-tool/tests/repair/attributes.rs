// SPDX-License-Identifier: GPL-2.0-or-later

//! The files that are written: which, where, and whose.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{chown, symlink, MetadataExt, PermissionsExt};
use std::path::Path;

use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::repair;
use rustix::fs::{getxattr, setxattr, XattrFlags};

use crate::made::made;
use crate::support::{as_user, done, refused, run};
use crate::{repaired, request, Bench};

/// An image with a damaged chunk.
fn damaged() -> Vec<u8> {
    let mut bad = made().read("unsigned.tess");
    bad[10_000] ^= 1;
    bad
}

#[test]
fn mode_owner_and_xattrs_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("image");
    fs::write(&image, damaged()).expect("written");
    fs::set_permissions(&image, Permissions::from_mode(0o640)).expect("a mode");
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&image, Some(1234), Some(4321)).expect("an owner");
    }
    let has_xattrs = setxattr(&image, c"user.origin", b"backup", XattrFlags::empty()).is_ok();
    let before = fs::metadata(&image).expect("an image");
    repaired(&request(&image, &[Path::new("unsigned.tess")]));
    let after = fs::metadata(&image).expect("an image");
    assert_ne!(before.ino(), after.ino(), "a mount of the damaged file would see other bytes");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    if has_xattrs {
        let mut value = [0; 16];
        let len = getxattr(&image, c"user.origin", &mut value).expect("an xattr");
        assert_eq!(&value[..len], b"backup");
    }
}

/// A user who cannot give the new file to the owner of the old one changes nothing.
#[test]
fn an_owner_that_cannot_stay() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let bench = Bench::new();
    let image = bench.damaged(&damaged());
    fs::copy(made().at("unsigned.tess"), bench.at("copy")).expect("copied");
    fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o777)).expect("a mode");
    let request = request(&image, &[&bench.at("copy")]);
    let error = as_user(|| repair(&request, &Silent)).expect_err("refused").to_string();
    assert!(error.contains("cannot keep the owner of "), "{error}");
    assert!(fs::read(&image).expect("an image") == damaged());
    assert_eq!(bench.folder.path().read_dir().expect("files").count(), 2);
    let mut request = request;
    request.output = Some(bench.at("new"));
    assert!(as_user(|| repair(&request, &Silent)).expect("a report").repaired);
}

#[test]
fn a_link_stays_a_link() {
    let bench = Bench::new();
    let image = bench.damaged(&damaged());
    symlink("damaged", bench.at("link")).expect("a link");
    repaired(&request(&bench.at("link"), &[Path::new("unsigned.tess")]));
    assert!(bench.at("link").symlink_metadata().expect("a link").is_symlink());
    assert!(fs::read(image).expect("an image") == made().read("unsigned.tess"));
}

#[test]
fn the_damaged_file_is_kept_where_that_is_asked_for() {
    let bench = Bench::new();
    let image = bench.damaged(&damaged());
    let mut request = request(&image, &[Path::new("unsigned.tess")]);
    request.keep = Some(OsString::from(".bad"));
    repaired(&request);
    assert!(fs::read(&image).expect("an image") == made().read("unsigned.tess"));
    assert!(fs::read(bench.at("damaged.bad")).expect("the damaged one") == damaged());
    // No file is lost by it.
    bench.damaged(&damaged());
    let error = repair(&request, &Silent).expect_err("refused").to_string();
    assert!(error.contains("damaged.bad: exists, and --keep would replace it"), "{error}");
    for suffix in ["", "/bad", "/../bad"] {
        request.keep = Some(OsString::from(suffix));
        let error = repair(&request, &Silent).expect_err("refused").to_string();
        assert!(error.contains("found no suffix of a name"), "{suffix:?}: {error}");
    }
    assert!(fs::read(&image).expect("an image") == damaged());
}

#[test]
fn another_file_is_written_where_that_is_asked_for() {
    let bench = Bench::new();
    let image = bench.damaged(&damaged());
    let mut request = request(&image, &[Path::new("unsigned.tess")]);
    request.output = Some(bench.at("new"));
    repaired(&request);
    assert!(fs::read(&image).expect("an image") == damaged());
    assert!(fs::read(bench.at("new")).expect("an image") == made().read("unsigned.tess"));
    let error = repair(&request, &Silent).expect_err("refused").to_string();
    assert!(error.contains("new: exists; --force replaces it"), "{error}");
    request.force = true;
    repaired(&request);
    request.output = Some(bench.at(""));
    assert!(repair(&request, &Silent).expect_err("refused").to_string().contains("no regular file"));
    request.output = Some("-".into());
    assert!(repair(&request, &Silent).expect_err("refused").to_string().contains("name a file by --output"));
}

#[test]
fn a_dry_run_changes_nothing() {
    let bench = Bench::new();
    let image = bench.damaged(&damaged());
    let mut request = request(&image, &[Path::new("unsigned.tess")]);
    request.dry_run = true;
    let report = repair(&request, &Silent).expect("a report");
    assert!(report.damaged && !report.repaired && report.failure().is_none());
    assert!(report.to_text().contains("would be whole"), "{}", report.to_text());
    assert_eq!(report.from[0].chunks, 1);
    assert!(fs::read(&image).expect("an image") == damaged());
    assert_eq!(bench.folder.path().read_dir().expect("files").count(), 1);
}

#[test]
fn the_command_line() {
    let bench = Bench::new();
    bench.damaged(&damaged());
    let folder = bench.folder.path();
    let copy = made().at("unsigned.tess");
    let copy = copy.to_str().expect("UTF-8");
    let text = done(folder, &["repair", "--dry-run", "damaged", "--from", copy]);
    assert!(text.contains("damaged: damaged: 1 chunk\n") && text.contains("would be whole"), "{text}");
    let text = refused(folder, 1, &["repair", "-q", "damaged", "--from", "damaged"]);
    assert!(text.contains("damaged: not repaired, and nothing was changed: no file has 1 chunk"), "{text}");
    let json = run(folder, &["repair", "--json", "damaged", "--from", "damaged"]);
    assert_eq!(json.status.code(), Some(1));
    let json = String::from_utf8(json.stdout).expect("text");
    assert!(json.contains("\"repaired\": false") && json.contains("\"path\": \"/"), "{json}");
    let json = done(folder, &["repair", "--json", "damaged", "--from", copy]);
    assert!(json.contains("\"repaired\": true") && json.contains("\"damaged\": true"), "{json}");
    let text = done(folder, &["repair", "damaged", "--from", copy]);
    assert_eq!(text, "damaged: nothing is damaged, nothing was changed\n");
    refused(folder, 2, &["repair", "damaged"]);
    refused(folder, 2, &["repair", "--id", "sha256:1", "damaged", "--from", copy]);
}
