// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs diff`, as a user types it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use mkfs_tesserafs::config::SourcePath;
use mkfs_tesserafs::packs::SharedForm;
use tempfile::TempDir;

mod support;

use support::{build_with, TESSERAFS};

/// A folder with a tree, and the image `a.tess` of it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    for name in ["", "dir", "dir/below"] {
        fs::create_dir(root.join(name)).expect(name);
    }
    for (name, bytes) in [
        ("dir/below/same", vec![1; 50_000]),
        ("dir/bytes", b"before".to_vec()),
        ("dir/gone", b"gone".to_vec()),
        ("dir/longer", b"four".to_vec()),
        ("dir/mode", b"mode".to_vec()),
        ("dir/moved", b"these bytes are elsewhere".to_vec()),
        ("dir/type", b"type".to_vec()),
        ("empty", Vec::new()),
    ] {
        fs::write(root.join(name), bytes).expect(name);
    }
    symlink("old", root.join("link")).expect("a link");
    still(&root);
    image(folder.path(), "a.tess");
    folder
}

/// Gives everything the same time: what a test changes has another one only if the test says so.
fn still(root: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let kind = path.symlink_metadata().expect("metadata");
        if kind.is_dir() {
            todo.extend(path.read_dir().expect("entries").map(|entry| entry.expect("an entry").path()));
        }
        if kind.is_dir() || kind.is_file() {
            File::open(&path).and_then(|file| file.set_modified(time)).expect("a time");
        }
    }
}

fn image(folder: &Path, name: &str) {
    build_with(folder, |config| config.image = folder.join(name));
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(TESSERAFS).current_dir(folder).arg("diff").args(arguments).output().expect("tesserafs")
}

/// The output where there are differences; times of links, which the tests cannot set, are none.
fn differs(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn same(folder: &Path, arguments: &[&str]) {
    let output = run(folder, arguments);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), said), (Some(0), String::new()), "{arguments:?}");
}

fn change(root: &Path) {
    let path = |name: &str| root.join(name);
    fs::write(path("dir/bytes"), "behind").expect("written");
    fs::write(path("dir/longer"), "longer").expect("written");
    fs::remove_file(path("dir/gone")).expect("removed");
    fs::set_permissions(path("dir/mode"), Permissions::from_mode(0o600)).expect("a mode");
    fs::create_dir(path("new")).expect("a folder");
    fs::rename(path("dir/moved"), path("new/here")).expect("renamed");
    fs::remove_file(path("dir/type")).expect("removed");
    symlink("mode", path("dir/type")).expect("a link");
    fs::remove_file(path("link")).expect("removed");
    symlink("new", path("link")).expect("a link");
    fs::write(root.join(OsStr::from_bytes(b"new/\xff\n")), "added").expect("written");
    fs::hard_link(path("dir/longer"), path("new/hard")).expect("a link");
    still(root);
}

const CHANGES: &str = "\
M  dir/bytes  (bytes, as many)
D  dir/gone  (file, 4 bytes)
M  dir/longer  (bytes 4 -> 6)
M  dir/mode  (mode 0644 -> 0600)
M  dir/type  (type file -> symlink; mode 0644 -> 0777)
M  link  (target old -> new)
A  new  (directory)
A  new/hard  (file, 6 bytes)
R  dir/moved -> new/here
A  new/\\377\\012  (file, 5 bytes)
";

#[test]
fn each_kind_of_difference_has_its_line() {
    let folder = folder();
    let folder = folder.path();
    change(&folder.join("root"));
    image(folder, "b.tess");
    let ignored = ["--ignore", "time", "a.tess", "b.tess"];
    assert_eq!(differs(folder, &ignored), CHANGES);
    assert!(differs(folder, &["a.tess", "b.tess"]).contains("M  link  (target old -> new; time 2"));
    // The other way round.
    let back = differs(folder, &["--ignore=time,mode", "b.tess", "a.tess"]);
    assert!(back.contains("A  dir/gone") && back.contains("R  new/here -> dir/moved"), "{back}");
    assert!(!back.contains("mode "), "{back}");
    assert_eq!(differs(folder, &["--path", "/new/", "--ignore=time", "a.tess", "b.tess"]).lines().count(), 4);
    same(folder, &["--path", "dir/below", "--ignore=time", "a.tess", "b.tess"]);
    same(folder, &["a.tess", "a.tess"]);
    assert_eq!(differs(folder, &["-q", "a.tess", "b.tess"]), "");
}

#[test]
fn machines_get_an_object_a_line() {
    let folder = folder();
    let folder = folder.path();
    change(&folder.join("root"));
    image(folder, "b.tess");
    let text = differs(folder, &["--json", "--ignore", "time", "a.tess", "b.tess"]);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), CHANGES.lines().count());
    let of = |path: &str| lines.iter().find(|line| line["path"] == path).expect(path);
    assert_eq!(of("dir/mode")["what"], serde_json::json!(["mode"]));
    assert_eq!(
        (&of("dir/mode")["before"]["mode"], &of("dir/mode")["after"]["mode"]),
        (&"0644".into(), &"0600".into())
    );
    let renamed = of("new/here");
    assert_eq!((&renamed["change"], &renamed["from"]), (&"renamed".into(), &"dir/moved".into()));
    assert_eq!(of("new/\\377\\012")["change"], "added");
    assert_eq!(of("dir/gone")["before"]["size"], 4);
    assert!(of("dir/gone")["after"].is_null() && of("link")["after"]["target"] == "new");
    let digest = of("dir/bytes")["after"]["sha256"].as_str().expect("a digest");
    assert_eq!(digest.len(), 64);
}

#[test]
fn what_the_second_image_needs_is_counted() {
    let folder = folder();
    let folder = folder.path();
    fs::create_dir(folder.join("packs")).expect("a folder");
    let shared = |image: &str, parents: &[&str]| {
        let parents = parents.iter().map(|parent| folder.join(parent)).collect();
        let form = SharedForm { dir: folder.join("packs"), parents, rebase: false };
        build_with(folder, |config| {
            config.image = folder.join(image);
            config.shared = Some(form);
        });
    };
    shared("base.tess", &[]);
    // The form is no difference.
    same(folder, &["a.tess", "base.tess"]);
    let noise: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(folder.join("root/noise"), noise).expect("written");
    shared("next.tess", &["base.tess"]);
    let stat = differs(folder, &["--stat", "base.tess", "next.tess"]);
    assert!(stat.starts_with("1 added, 0 removed, 1 changed, 0 renamed\nneeds "), "{stat}");
    assert_eq!(stat.matches("needs pack ").count(), 1, "{stat}");
    let json = differs(folder, &["--stat", "--json", "base.tess", "next.tess"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let of = |value: &serde_json::Value| value.as_u64().expect("a number");
    let (chunks, pack) = (of(&json["needs"]["chunk_bytes"]), of(&json["needs"]["packs"][0]["bytes"]));
    // The pack has absorbed the first one, which is small.
    assert!(chunks > 100_000 && (chunks..chunks + 1000).contains(&pack), "{json}");
    // Packs need not be there.
    fs::remove_dir_all(folder.join("packs")).expect("removed");
    differs(folder, &["base.tess", "next.tess"]);
}

#[test]
fn xattrs_are_named() {
    let folder = folder();
    let folder = folder.path();
    let file = folder.join("root/dir/mode");
    let set =
        |name: &str, value: &[u8]| rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty());
    if set("user.kept", b"1")
        .and_then(|()| set("user.changed", b"1"))
        .and_then(|()| set("user.gone", b""))
        .is_err()
    {
        eprintln!("SKIPPED: no xattrs on the filesystem of {}", folder.display());
        return;
    }
    image(folder, "a.tess");
    set("user.changed", b"2").and_then(|()| set("user.come", b"")).expect("an xattr");
    rustix::fs::removexattr(&file, "user.gone").expect("removed");
    image(folder, "b.tess");
    let text = differs(folder, &["a.tess", "b.tess"]);
    assert_eq!(text, "M  dir/mode  (xattrs user.changed -user.gone +user.come)\n");
    same(folder, &["--ignore", "xattrs", "a.tess", "b.tess"]);
}

#[test]
fn a_copied_tree_id_hides_nothing() {
    let folder = folder();
    let folder = folder.path();
    change(&folder.join("root"));
    image(folder, "b.tess");
    let a = fs::read(folder.join("a.tess")).expect("read");
    let mut b = fs::read(folder.join("b.tess")).expect("read");
    b[0x100..0x120].copy_from_slice(&a[0x100..0x120]);
    let prefix = tesserafs_image::hash::sha256(&b[..0x200]);
    b[0x200..0x220].copy_from_slice(&prefix.0);
    fs::write(folder.join("b.tess"), b).expect("written");
    assert_eq!(differs(folder, &["--ignore", "time", "a.tess", "b.tess"]), CHANGES);
}

/// A tree of one directory in the other, as deep as an image can hold for its bytes: paths take the square of that, but not in memory.
#[test]
fn deep_trees_take_no_more_memory_than_names() {
    const DEPTH: usize = 40_000;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for (name, path) in [("flat", "f".to_owned()), ("deep", "d/".repeat(DEPTH) + "f")] {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        archive.append_pax_extensions([("path", path.as_bytes())]).expect("a path");
        header.set_path("f").expect("a path");
        header.set_cksum();
        archive.append(&header, &[][..]).expect("a file");
        fs::write(folder.join("tar"), archive.into_inner().expect("an archive")).expect("written");
        build_with(folder, |config| {
            config.image = folder.join(name);
            config.source = SourcePath::Tar(folder.join("tar"));
        });
    }
    // With their paths in memory the differences would take 1.6 GB.
    let mut limited = Command::new("prlimit");
    limited.current_dir(folder).arg("--as=200000000").arg(TESSERAFS).arg("diff");
    let output = limited.args(["--stat", "flat", "deep"]).output().expect("prlimit");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("{} added, 1 removed, 0 changed", DEPTH + 1)), "{output:?}");
}

#[test]
fn trouble_is_named() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("root/more"), "more").expect("written");
    image(folder, "b.tess");
    let mut bytes = fs::read(folder.join("b.tess")).expect("read");
    // Somewhere in the tree region.
    let tree = u64::from_le_bytes(bytes[0x28..0x30].try_into().expect("eight bytes")) as usize;
    bytes[tree + 50] ^= 1;
    fs::write(folder.join("broken.tess"), bytes).expect("written");
    fs::write(folder.join("none"), "no image").expect("written");
    for (arguments, expected) in [
        (["a.tess", "broken.tess"], "broken.tess: hash-block @"),
        (["none", "a.tess"], "none: file-length @"),
        (["a.tess", "nothing"], "nothing"),
    ] {
        let output = run(folder, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let output = run(folder, &["--path", "/ect", "a.tess", "b.tess"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), said.contains("--path ect: neither image has it")),
        (Some(2), true),
        "{said}"
    );
    assert_eq!(run(folder, &["--ignore", "colour", "a.tess", "b.tess"]).status.code(), Some(2));
}
