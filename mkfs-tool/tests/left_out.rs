// SPDX-License-Identifier: GPL-2.0-or-later

//! What is left out, how it is chosen, and that it is never left out in silence.

#[path = "common/archive.rs"]
mod archive;
mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use archive::Archive;
use common::{read_image, Sandbox};

fn keys(sandbox: &Sandbox, image: &str) -> Vec<String> {
    read_image(&sandbox.path(image)).items.into_keys().collect()
}

fn tree() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["boot/vmlinuz", "a/b/x.pyc", "x.pyc", "cache/1", "srv/cache/2", "keep"] {
        sandbox.write(&format!("src/{name}"), name);
    }
    sandbox
}

#[test]
fn a_pattern_that_matches_nothing_is_told_even_when_quiet() {
    let sandbox = tree();
    for quiet in [&["--force"][..], &["--force", "--quiet"], &["--force", "--json"]] {
        let args = [quiet, &["--exclude", "src/boot", "--exclude", "/cache", "image", "src"]].concat();
        let output = sandbox.run(&args);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("--exclude 'src/boot' matches nothing") && !text.contains("'/cache'"),
            "{text}"
        );
    }
    let mut archive = Archive::default();
    sandbox.write("a.tar", archive.file("f", b"x").end());
    let report = sandbox.report(["--exclude", "*.o", "--tar", "a.tar", "other"]);
    assert_eq!(report["unmatched_excludes"], serde_json::json!(["*.o"]));
}

#[test]
fn names_match_at_any_depth_and_paths_from_the_root() {
    let sandbox = tree();
    sandbox.write("list", "# caches\n\n/cache\n*.pyc\n");
    sandbox.mkfs(["--exclude-from", "list", "--exclude", "boot/", "image", "src"]);
    assert_eq!(keys(&sandbox, "image"), ["/", "a", "a/b", "keep", "srv", "srv/cache", "srv/cache/2"]);
    sandbox.mkfs(["--exclude", "cache", "--exclude", "**/b/*", "image2", "src"]);
    assert_eq!(keys(&sandbox, "image2"), ["/", "a", "a/b", "boot", "boot/vmlinuz", "keep", "srv", "x.pyc"]);
    assert!(sandbox.refused(1, ["--exclude-from", "nowhere", "image3", "src"]).contains("nowhere"));
    sandbox.write("bytes", b"good\n\xff\n");
    assert!(sandbox.refused(2, ["--exclude-from", "bytes", "image3", "src"]).contains("bytes: line 2"));
}

#[test]
fn the_report_counts_and_names_what_is_left_out() {
    let sandbox = tree();
    let args = ["--exclude", "*.pyc", "image", "src"];
    let text = sandbox.mkfs(args);
    assert!(text.contains("left out: 2 excluded names\n") && !text.contains("a/b/x.pyc"), "{text}");
    let text = sandbox.mkfs([&["--force", "-v"][..], &args].concat());
    assert!(
        text.contains("left out: 2 excluded names\n  x.pyc: excluded\n  a/b/x.pyc: excluded\n"),
        "{text}"
    );
    let report = sandbox.report([&["--force", "-v"][..], &args].concat());
    let names = report["left_out"]["names"].as_array().unwrap();
    assert_eq!(names[1], serde_json::json!({ "name": "a/b/x.pyc", "what": "excluded" }));
    let output = sandbox.run([&["--force", "-q", "-v"][..], &args].concat());
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("left out: 2 excluded names\n") && text.contains("a/b/x.pyc"), "{text}");
    let quiet = sandbox.run(["-q", "whole", "src"]);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
}

#[test]
fn xattrs_that_no_copy_could_have_are_left_out_with_a_word() {
    let sandbox = Sandbox::new();
    let user: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.user.note", b"1")];
    let bad: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.security.capability", b"no capability")];
    let mut archive = Archive::default();
    archive.dir("d").pax(b'x', user).link(b'2', "d/link", "there");
    archive.pax(b'x', bad).file("d/program", b"x").pax(b'x', user).file("d/file", b"y");
    sandbox.write("a.tar", archive.end());
    let report = sandbox.report(["-v", "--tar", "a.tar", "image"]);
    assert_eq!(report["left_out"]["xattrs"], 2, "{report}");
    let names = report["left_out"]["names"].to_string();
    assert!(names.contains(r#""d/link","what":"xattr user.note: only files and directories"#), "{names}");
    assert!(names.contains(r#""d/program","what":"xattr security.capability"#), "{names}");
    let read = read_image(&sandbox.path("image"));
    assert!(read.item("d/link").xattrs.is_empty() && read.item("d/program").xattrs.is_empty());
    assert_eq!(read.item("d/file").xattrs, [("user.note".to_owned(), b"1".to_vec())]);
}

#[test]
fn a_tree_ends_at_its_filesystem_where_that_is_wanted() {
    let sandbox = tree();
    fs::create_dir(sandbox.path("src/proc")).unwrap();
    let script = "mount -t proc proc src/proc && exec \"$0\" -v --one-file-system image src";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_mkfs-tesserafs")]);
    if fs::metadata(sandbox.path("src")).unwrap().uid() != 0 {
        eprintln!("this test mounts, which only root may");
        return;
    }
    let output = command.current_dir(sandbox.path(".")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprintln!("no mount namespace here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    assert!(text.contains("  proc: on another filesystem\n"), "{text}");
    let read = read_image(&sandbox.path("image"));
    assert_eq!((read.item("proc").kind, read.item("proc").size), ('d', 0));
    assert_eq!(read.item("srv/cache/2").bytes, b"srv/cache/2");
}

/// Files of an overlay whose layers are on two filesystems have other device numbers than its directories: all of them were
/// left out.
#[test]
fn the_files_of_an_overlay_are_on_its_filesystem() {
    let sandbox = tree();
    if fs::metadata(sandbox.path("src")).unwrap().uid() != 0 {
        eprintln!("this test mounts, which only root may");
        return;
    }
    for name in ["other", "merged"] {
        fs::create_dir(sandbox.path(name)).unwrap();
    }
    sandbox.write("src/mounted", "below");
    sandbox.write("over", "above");
    let script = "mount -t tmpfs none other && mkdir other/up other/work && \
        mount -t overlay none -o lowerdir=src,upperdir=other/up,workdir=other/work merged && \
        mount --bind over merged/mounted && \
        exec \"$0\" -v --one-file-system image merged";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_mkfs-tesserafs")]);
    let output = command.current_dir(sandbox.path(".")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprintln!("no overlay here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let others = text.lines().filter(|line| line.ends_with("on another filesystem"));
    assert_eq!(others.collect::<Vec<_>>(), ["  mounted: on another filesystem"], "{text}");
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.item("srv/cache/2").bytes, b"srv/cache/2");
}

#[test]
fn a_directory_whose_place_another_entry_takes_is_told() {
    let sandbox = Sandbox::new();
    let archive = Archive::default()
        .file("file/lost", b"1")
        .file("file", b"2")
        .file("link/lost", b"3")
        .link(b'1', "link", "file")
        .file("kept/file", b"4")
        .dir("kept")
        .end();
    sandbox.write("a.tar", archive);
    let report = sandbox.report(["-v", "--tar", "a.tar", "image"]);
    assert_eq!(report["archive"]["replaced_directories"], 2, "{report}");
    let names = report["archive"]["names"].to_string();
    assert!(names.contains("in the place of an earlier directory"), "{names}");
    assert_eq!(report["counts"]["inodes"], 4, "{report}");
}
