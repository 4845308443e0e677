// SPDX-License-Identifier: GPL-2.0-or-later

//! Extraction where not all can be restored: what comes out, what is said, and the exit status.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{text, Bench};
use common::Draft;

fn is_root() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    true
}

/// The sample without the capability, which only root may give.
fn sample() -> Draft {
    let mut draft = Draft::sample();
    draft.xattr_sets.clear();
    draft.xattr_entries.clear();
    draft.xattr_set(&[(b"user.a", b"value")]);
    draft.xattr_set(&[(b"user.b", b"")]);
    draft
}

/// A copy of the program in a directory that everybody may work in: where another user runs it, or a namespace does.
fn open_to_all(bench: &Bench) -> PathBuf {
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o777)).expect("open to all");
    let program = bench.path("fsck");
    fs::copy(env!("CARGO_BIN_EXE_fsck-tesserafs"), &program).expect("copied");
    program
}

fn output(command: &mut Command) -> Output {
    loop {
        match command.output() {
            // Another test forked while the copy was open for writing; its child will exec, and close it.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => return output.expect("it runs"),
        }
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no {program} here");
    }
    found
}

fn extract(bench: &Bench, args: &[&str], out: &Path) -> Output {
    let out = out.to_str().expect("text");
    bench.run(args.iter().copied().chain(["--extract", out]))
}

#[test]
fn an_xattr_that_the_system_refuses_is_named_and_the_rest_is_there() {
    let mut draft = sample();
    // user.b of a symlink and a FIFO: no Linux takes it.
    draft.inodes[4].xattrs = 2.into();
    draft.inodes[6].xattrs = 2.into();
    let bench = Bench::new(&draft.image());
    assert_eq!(bench.run(["--quiet"]).status.code(), Some(4));
    let out = bench.path("out");
    let result = extract(&bench, &[], &out);
    let said = text(&result.stderr);
    assert_eq!(result.status.code(), Some(4 | 64), "{said}");
    assert!(said.contains("2 xattrs were not restored"), "{said}");
    assert!(said.contains("not restored: xattr user.b of /link: "), "{said}");
    assert!(said.contains("not restored: xattr user.b of /fifo: "), "{said}");
    assert!(!said.contains("not complete"), "{said}");
    assert!(out.join("a/b/link2").is_symlink() && out.join("small1").is_file());
    let report = extract(&bench, &["--json"], &bench.path("json")).stdout;
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["version"], 2);
    assert_eq!(report["exit_code"], 4 | 64);
    assert_eq!(report["clean"], false);
    assert_eq!(report["not_restored"]["counts"]["xattr"], 2);
    assert_eq!(report["not_restored"]["examples"][0]["what"], "user.b");
    // A user who asks for no xattrs misses none; the image is what it is.
    let result = extract(&bench, &["--no-xattrs"], &bench.path("plain"));
    assert_eq!(result.status.code(), Some(4), "{}", text(&result.stderr));
    let mut none = [0; 64];
    assert_eq!(rustix::fs::listxattr(bench.path("plain/a"), &mut none).unwrap_or(0), 0);
}

#[test]
fn a_new_filesystem_counts_as_empty() {
    let bench = Bench::new(&sample().image());
    let out = bench.path("out");
    fs::create_dir_all(out.join("lost+found")).expect("a directory");
    let result = extract(&bench, &[], &out);
    assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
    assert!(out.join("small1").is_file() && out.join("lost+found").is_dir());
    // No excuse for a file of that name.
    let file = bench.path("file");
    fs::create_dir(&file).expect("a directory");
    fs::write(file.join("lost+found"), b"precious").expect("written");
    let result = extract(&bench, &[], &file);
    assert_eq!(result.status.code(), Some(8));
    assert!(text(&result.stderr).contains("is not empty: it has lost+found"), "{}", text(&result.stderr));
}

#[test]
fn a_lost_found_of_the_image_takes_the_place_of_an_empty_one() {
    let mut draft = Draft::empty();
    draft.directory(1, 1, 3, 0);
    draft.directory(1, 0, 2, 0);
    draft.dirent(b"lost+found", 2, 2);
    draft.inodes[1].mode = 0o751.into();
    draft.seal();
    let bench = Bench::new(&draft.image());
    let out = bench.path("out");
    fs::create_dir_all(out.join("lost+found")).expect("a directory");
    assert_eq!(extract(&bench, &[], &out).status.code(), Some(0));
    let mode = fs::metadata(out.join("lost+found")).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o751);
    let full = bench.path("full");
    fs::create_dir_all(full.join("lost+found/inode")).expect("a directory");
    let result = extract(&bench, &[], &full);
    assert_eq!(result.status.code(), Some(8));
    assert!(text(&result.stderr).contains("/lost+found is there, and not empty"), "{}", text(&result.stderr));
}

#[test]
fn owners_are_left_out_on_demand_and_with_them_the_bits_of_another_owner() {
    if !is_root() {
        return;
    }
    let mut draft = sample();
    draft.inodes[2].uid = 1234.into();
    draft.inodes[2].mode = 0o6755.into();
    let bench = Bench::new(&draft.image());
    let out = bench.path("out");
    let result = extract(&bench, &["--no-owner"], &out);
    assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
    let metadata = fs::metadata(out.join("big")).expect("there");
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o755));
}

#[test]
fn a_missing_privilege_is_said_and_no_error_unless_asked() {
    if !is_root() {
        return;
    }
    let mut draft = sample();
    draft.inodes[2].uid = 5.into();
    let bench = Bench::new(&draft.image());
    let program = open_to_all(&bench);
    let run = |args: &[&str], out: &str| {
        let mut command = Command::new(&program);
        command.uid(65534).gid(65534).args(args).arg("--extract").args([&bench.path(out), &bench.image]);
        output(&mut command)
    };
    let result = run(&[], "lax");
    let said = text(&result.stderr);
    assert_eq!(result.status.code(), Some(0), "{said}");
    assert!(said.contains("not root: the owners") && !said.contains("owner 5:0 of /big"), "{said}");
    let said = text(&run(&["-v"], "verbose").stderr);
    assert!(said.contains("not restored: owner 5:0 of /big: "), "{said}");
    assert_eq!(run(&["--strict"], "strict").status.code(), Some(64));
}

#[test]
fn an_owner_without_a_number_in_the_namespace_is_named() {
    if !is_root() || !is_installed("unshare") {
        return;
    }
    let mut draft = sample();
    draft.inodes[2].uid = 5.into();
    let bench = Bench::new(&draft.image());
    let program = open_to_all(&bench);
    let out = bench.path("out");
    let mut command = Command::new("unshare");
    command.uid(65534).gid(65534).arg("-Ur").arg(&program).arg("--extract").args([&out, &bench.image]);
    let result = output(&mut command);
    let said = text(&result.stderr);
    if said.contains("unshare failed") {
        eprintln!("skipped: no user namespaces here");
        return;
    }
    assert_eq!(result.status.code(), Some(64), "{said}");
    assert!(said.contains("not restored: owner 5:0 of /big: "), "{said}");
    assert!(out.join("big").is_file() && out.join("a/b/link2").is_symlink(), "the rest is there");
}

#[test]
fn fakeroot_sees_every_owner_mode_and_type() {
    if !is_root() || !is_installed("fakeroot") {
        return;
    }
    let mut draft = sample();
    for (at, inode) in draft.inodes.iter_mut().enumerate() {
        inode.uid = (1000 + at as u32).into();
        inode.gid = (2000 + at as u32).into();
    }
    draft.inodes[2].mode = 0o4711.into();
    let bench = Bench::new(&draft.image());
    let program = open_to_all(&bench);
    let script = format!(
        "{0} --extract {1}/out {1}/image >/dev/null; echo $?; cd {1}/out && stat -c '%n %u %g %a %F' . a big fifo link wh",
        program.display(),
        bench.dir.path().display(),
    );
    let expected = [
        "0",
        ". 1000 2000 755 directory",
        "a 1001 2001 755 directory",
        "big 1002 2002 4711 regular file",
        "fifo 1004 2004 644 fifo",
        "link 1006 2006 777 symbolic link",
        "wh 1009 2009 0 character special file",
    ];
    // The user is somebody, or the one whose number a file has: fakeroot shows neither.
    for [uid, gid] in [[65534, 65534], [1002, 2002]] {
        let _ = fs::remove_dir_all(bench.path("out"));
        let mut command = Command::new("fakeroot");
        let result = output(command.uid(uid).gid(gid).args(["sh", "-c", &script]));
        let said = text(&result.stdout);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{uid}: {}", text(&result.stderr));
    }
}

#[test]
fn a_part_of_the_tree_is_extracted_alone() {
    let bench = Bench::new(&sample().image());
    let out = bench.path("out");
    let result = extract(&bench, &["--path", "/a"], &out);
    assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
    let mut names: Vec<_> =
        fs::read_dir(&out).expect("there").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["b", "copy", "hard", "small2"]);
    // The first name of this file is outside.
    assert_eq!(fs::read(out.join("hard")).expect("there"), b"first small file\n");
    assert_eq!(fs::metadata(&out).expect("there").mtime(), -5);
    let one = bench.path("one");
    assert_eq!(extract(&bench, &["--path", "fifo"], &one).status.code(), Some(0));
    assert!(fs::metadata(one.join("fifo")).expect("there").file_type().is_fifo());
    assert_eq!(fs::read_dir(&one).expect("there").count(), 1);
    let result = extract(&bench, &["--path", "a/none"], &bench.path("none"));
    assert_eq!(result.status.code(), Some(8));
    assert!(text(&result.stderr).contains("a/none: is not in the image"), "{}", text(&result.stderr));
    assert!(!bench.path("none").exists());
}

#[test]
fn a_tree_deeper_than_a_path_is_long_is_extracted() {
    let levels = 3000_u32;
    let mut draft = Draft::empty();
    for level in 1..=levels {
        let is_last = level == levels;
        draft.directory(level.max(2) - 1, u64::from(!is_last), if is_last { 2 } else { 3 }, 0);
    }
    for level in 2..=levels {
        draft.dirent(b"d", level, 2);
    }
    draft.seal();
    let bench = Bench::new(&draft.image());
    let result = extract(&bench, &["--quiet"], &bench.path("out"));
    assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
    // The image library's tests count what it costs.
    // The way down is too long for a path, and for a test's cleaning up: level by level.
    let mut at = bench.path("out");
    let aside = bench.path("aside");
    while at.join("d").exists() {
        fs::rename(at.join("d"), &aside).expect("moved");
        fs::remove_dir(&at).expect("empty");
        fs::rename(&aside, &at).expect("moved back");
        at = bench.path("out");
    }
}
