// SPDX-License-Identifier: GPL-2.0-or-later

//! Files and directories whose ctime moves while they are read: an error where something that is stored changed, and none
//! where nothing did. And trees without end.

mod common;

use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{noise, read_image, Sandbox};
use mkfs_tesserafs::chunker::ContentHasher;
use mkfs_tesserafs::error::Result;
use mkfs_tesserafs::source::dir::{DirFile, DirSource};
use mkfs_tesserafs::source::{FileTask, Filter, OpenFile, Source};
use rustix::fs::{lsetxattr, mkdirat, openat, Mode, OFlags, XattrFlags};

/// Reads the only file of a tree as a worker does, with a change in between.
fn read_around(len: usize, change: impl Fn(&Path)) -> Result<()> {
    let sandbox = Sandbox::new();
    let path = sandbox.write("tree/file", noise(1, len));
    let source = DirSource::open(&sandbox.path("tree"), Filter::default())?;
    let mut tasks: Vec<FileTask<DirFile>> = Vec::new();
    source.walk(&mut |task| {
        tasks.push(task);
        Ok(())
    })?;
    let mut open = source.open(&tasks[0])?;
    let mut bytes = Vec::new();
    open.read(0..len as u64, &mut bytes)?;
    change(&path);
    let mut hasher = ContentHasher::new(len as u64);
    hasher.data(&bytes);
    open.confirm(&hasher.finish())?;
    open.close()
}

#[test]
fn a_ctime_that_moves_for_nothing_that_is_stored_is_no_change() {
    for len in [10, 3 << 20] {
        read_around(len, |path| fs::hard_link(path, path.with_extension("link")).unwrap()).unwrap();
        read_around(len, |path| {
            let mode = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, Permissions::from_mode(mode.mode() ^ 0o100)).unwrap();
            fs::set_permissions(path, mode).unwrap();
        })
        .unwrap();
        read_around(len, |path| fs::rename(path, path.with_extension("aside")).unwrap()).unwrap();
    }
}

#[test]
fn what_is_stored_is_compared_where_the_ctime_moved() {
    let refused = |change: fn(&Path), what: &str| {
        for len in [10, 3 << 20] {
            let error = read_around(len, change).unwrap_err().to_string();
            assert!(error.contains("tree/file changed while it was read") && error.contains(what), "{error}");
        }
    };
    refused(
        |path| {
            // Other bytes, and the old mtime.
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let len = fs::metadata(path).unwrap().len() as usize;
            let file = OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"X", len as u64 - 1).unwrap();
            file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        },
        "its bytes are different",
    );
    refused(|path| fs::set_permissions(path, Permissions::from_mode(0o604)).unwrap(), "permission bits");
    let probe = Sandbox::new();
    let file = probe.write("f", "");
    if lsetxattr(&file, "user.a", b"1", XattrFlags::empty()).is_ok() {
        refused(|path| lsetxattr(path, "user.a", b"1", XattrFlags::empty()).unwrap(), "xattrs");
    }
}

#[test]
fn files_that_get_links_all_the_time_are_built() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("src/f", noise(1, 40 << 20));
    fs::create_dir(sandbox.path("out")).unwrap();
    let mut linker = Command::new("sh")
        .args(["-c", "i=0; while ln \"$0\" out/$i; do i=$((i+1)); done"])
        .arg(&path)
        .current_dir(sandbox.path("."))
        .spawn()
        .unwrap();
    let output = sandbox.run(["-q", "image", "src"]);
    linker.kill().unwrap();
    linker.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_image(&sandbox.path("image"));
}

/// Makes directories in directories, each with a file, and builds; how long the build took.
fn build_deep(levels: usize) -> Duration {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("src")).unwrap();
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let mut dir = rustix::fs::open(sandbox.path("src"), directory, Mode::empty()).unwrap();
    for level in 0..levels {
        let create = OFlags::CREATE | OFlags::WRONLY;
        let file = openat(&dir, "file", create, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(&file, format!("{level}").as_bytes()).unwrap();
        mkdirat(&dir, "directory", Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, "directory", directory, Mode::empty()).unwrap();
    }
    let started = Instant::now();
    let report = sandbox.report(["image", "src"]);
    let elapsed = started.elapsed();
    let counts = &report["counts"];
    assert_eq!((&counts["directories"], &counts["files"]), (&(levels + 1).into(), &levels.into()));
    // Deeper than what removes a TempDir can go on some systems.
    Command::new("rm").arg("-rf").arg(sandbox.path("src")).status().unwrap();
    elapsed
}

#[test]
fn deep_trees_take_time_by_their_number() {
    let (some, many) = (build_deep(500), build_deep(3000));
    // Six times as many; the square would be 36 times as long, some 10 s.
    assert!(many < some * 18 + Duration::from_millis(500), "{some:?}, {many:?}");
}
