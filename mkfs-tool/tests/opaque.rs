// SPDX-License-Identifier: GPL-2.0-or-later

//! Whiteouts in opaque directories of a layer: the image has those that hide something, whether the layer comes as a directory
//! or as an archive.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;

use std::path::Path;

use archive::Archive;
use common::{read_image, Sandbox};
use rustix::fs::{lsetxattr, mknodat, FileType, Mode, XattrFlags, CWD};

/// Puts a whiteout somewhere; whether that can be done here.
fn whiteout(path: &Path) -> bool {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).is_ok()
}

/// Sets an xattr that users may set; whether that can be done here.
fn mark(path: &Path, name: &str, value: &str) -> bool {
    lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).is_ok()
}

/// The upper directory of an overlay, as a user has it; `None` where it cannot be made.
fn layer() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    let at = |name: &str| sandbox.path("src").join(name);
    let names =
        ["hides", "d/nothing", "d/sub/deep/nothing", "d/moved/hides", "d/moved/again/hides", "n/hides"];
    sandbox.write("src/d/kept", "x");
    let made = names.iter().all(|name| whiteout(&at(name)))
        && mark(&at("d"), "user.overlay.opaque", "y")
        && mark(&at("d/moved"), "user.overlay.redirect", "/lower/moved")
        && mark(&at("n"), "user.overlay.opaque", "n");
    if !made {
        eprintln!("no whiteouts or no xattrs of users here; this test needs both");
    }
    made.then_some(sandbox)
}

const KEPT: [&str; 11] = [
    "/",
    "d",
    "d/kept",
    "d/moved",
    "d/moved/again",
    "d/moved/again/hides",
    "d/moved/hides",
    "d/sub",
    "d/sub/deep",
    "hides",
    "n",
];

#[test]
fn a_directory_keeps_the_whiteouts_that_hide_something() {
    let Some(sandbox) = layer() else { return };
    let report = sandbox.mkfs(["-v", "image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let names: Vec<&str> = read.items.keys().map(String::as_str).collect();
    assert_eq!(names, [&KEPT[..], &["n/hides"]].concat());
    assert_eq!(read.item("hides").kind, 'w');
    assert!(report.contains("left out: 2 whiteouts in opaque directories"), "{report}");
    for name in ["d/nothing", "d/sub/deep/nothing"] {
        assert!(report.contains(&format!("  {name}: a whiteout in an opaque directory")), "{report}");
    }
    // Not in silence without -v either, but without the names; nor where nothing else is said.
    let report = sandbox.report(["-f", "image", "src"]);
    assert_eq!(report["left_out"]["whiteouts"], 2, "{report}");
    let output = sandbox.run(["-f", "-q", "image", "src"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("left out: 2 whiteouts"));
}

#[test]
fn the_mark_of_a_root_hides_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("src/a/f", "x");
    let root = sandbox.path("src");
    if !whiteout(&root.join("a/nothing")) || !mark(&root, "user.overlay.opaque", "y") {
        eprintln!("no whiteouts or no xattrs of users here; this test needs both");
        return;
    }
    // Two names of one whiteout, as overlayfs makes them.
    std::fs::hard_link(root.join("a/nothing"), root.join("nothing")).unwrap();
    sandbox.mkfs(["image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let names: Vec<_> = read.items.keys().map(String::as_str).collect();
    assert_eq!(names, ["/", "a", "a/f", "a/nothing", "nothing"]);
}

#[test]
fn an_archive_keeps_the_same() {
    let mut archive = Archive::default();
    for dir in ["d", "d/sub", "d/sub/deep", "d/moved", "d/moved/again", "n"] {
        let mark: &[(&[u8], &[u8])] = match dir {
            "d" => &[(b"SCHILY.xattr.user.overlay.opaque", b"y")],
            "d/moved" => &[(b"SCHILY.xattr.user.overlay.redirect", b"/lower/moved")],
            "n" => &[(b"SCHILY.xattr.user.overlay.opaque", b"n")],
            _ => &[],
        };
        archive.pax(b'x', mark).dir(dir);
    }
    for name in
        ["hides", "d/nothing", "d/sub/deep/nothing", "d/moved/hides", "d/moved/again/hides", "n/hides"]
    {
        archive.link(b'3', name, "");
    }
    let read = archive.file("d/kept", b"x").image();
    let names: Vec<&str> = read.items.keys().map(String::as_str).collect();
    assert_eq!(names, [&KEPT[..], &["n/hides"]].concat());
}

#[test]
fn a_whiteout_of_no_name_is_refused_wherever_it_stands() {
    let long = "n".repeat(256);
    for name in ["", ".", "..", &long] {
        for dir in ["", "d/"] {
            let path = format!("{dir}.wh.{name}");
            let mut archive = Archive::default();
            // Where whiteouts are left out, too.
            archive.file("d/.wh..wh..opq", b"").pax(b'x', &[(b"path", path.as_bytes())]).file("short", b"");
            let error = archive.refusal();
            assert!(error.contains("an OCI whiteout"), "{path}: {error}");
        }
    }
    let longest = "n".repeat(255);
    let path = format!(".wh.{longest}");
    let read = Archive::default().pax(b'x', &[(b"path", path.as_bytes())]).file("short", b"").image();
    assert_eq!(read.item(&longest).kind, 'w');
}

#[test]
fn a_directory_stays_opaque_until_something_else_takes_its_place() {
    let marks = |read: &common::Read, name: &str| read.item(name).xattrs.len();
    let read = Archive::default().file("d/.wh..wh..opq", b"").dir("d").dir("d").image();
    assert_eq!(marks(&read, "d"), 2);
    let read = Archive::default().file("d/.wh..wh..opq", b"").file("d", b"x").dir("d").image();
    assert_eq!(marks(&read, "d"), 0);
}

#[test]
fn values_that_no_set_holds_are_refused_and_names_left_out() {
    let value = vec![b'v'; 65_537];
    let error = Archive::default().pax(b'x', &[(b"SCHILY.xattr.user.a", &value)]).file("f", b"").refusal();
    assert!(error.contains("f: its xattr user.a"), "{error}");
    let read = Archive::default().pax(b'x', &[(b"SCHILY.xattr.user.a", &value[1..])]).file("f", b"").image();
    assert_eq!(read.item("f").xattrs[0].1.len(), 65_536);
}
