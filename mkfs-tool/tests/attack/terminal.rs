// SPDX-License-Identifier: GPL-2.0-or-later

//! Names that a terminal would obey.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::archive::Archive;
use crate::assert_plain;
use crate::common::Sandbox;

/// Colours, clears, rings, reorders, and is no UTF-8.
const EVIL: &str = "\x1b[2J\x1b[31m\u{202e}e\x07\r\u{9b}";

#[test]
fn nothing_that_is_printed_is_obeyed_by_a_terminal() {
    let sandbox = Sandbox::new();
    let odd = OsStr::from_bytes(b"\x1b]0;title\x07\xff");
    let name = |what: &str| format!("{what}{EVIL}");
    let path = name("path");
    let archives = [
        Archive::default().file(&name("../"), b"").end(),
        Archive::default().link(b'1', "x", &name("to")).end(),
        Archive::default().dir(&name("d")).link(b'1', "x", &name("d")).end(),
        Archive::default()
            .link(b'2', &name("l"), "x")
            .file(&name("l"), b"")
            .file(&format!("{}/x", name("l")), b"")
            .end(),
        Archive::default().link(b'3', &name("null"), "").raw(b"sda\x1b[m", b'4', b"", b"", |_| {}).end(),
        Archive::default().pax(b'x', &[(b"mtime", path.as_bytes())]).file("x", b"").end(),
        Archive::default()
            .pax(b'x', &[(path.as_bytes(), b"1"), (b"uid", path.as_bytes())])
            .file("x", b"")
            .end(),
        Archive::default().pax(b'x', &[(b"uid", b"4294967295")]).file(&name("nobody"), b"").end(),
        Archive::default().pax(b'x', &[(b"linkpath", &[0x1b; 5000])]).link(b'2', &name("l"), "").end(),
        Archive::default().pax(b'x', &[(b"SCHILY.xattr.user.\x1b[m", &[0x1b; 70_000])]).file("x", b"").end(),
        Archive::default()
            .file(&"\x1b".repeat(99), b"")
            .pax(b'x', &[(b"path", &[0x1b; 300])])
            .file("x", b"")
            .end(),
    ];
    for archive in archives {
        sandbox.write("a.tar", archive);
        let output = sandbox.run(["--tar", "a.tar", "image"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!output.stderr.is_empty());
        assert_plain(&output);
    }
    sandbox.write(&path, b"PAX?");
    sandbox.write("src/x", b"x");
    let annotation = name("key=");
    let annotate = format!("{EVIL}={path}");
    for args in [
        &["--tar", &path, "image"][..],
        &["image", &name("nowhere")],
        &[&name("nowhere/"), "src"],
        &[&path, "src"],
        &["image", "src", &path],
        &["--annotate", &annotation, "image", "src"],
        &["--annotate", EVIL, "image", "src"],
        &["--annotate", &annotate, "--annotate", &annotate, "image", "src"],
        &["--exclude", &name("["), "image", "src"],
        &["--level", EVIL, "image", "src"],
        &[&name("--"), "image", "src"],
        &["--attach-signature", &path, &path],
        &["--sign-key", &path, "--sign-cert", &path, "image", "src"],
    ] {
        let output = sandbox.run(args);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
        assert_plain(&output);
    }
    // Reports of success hold none of them either: in names, targets, annotations, and the image's own name.
    sandbox.write(&format!("src/kept{path}"), b"x");
    fs::write(sandbox.path("src").join(odd), b"x").unwrap();
    symlink(EVIL, sandbox.path("src/link")).unwrap();
    for args in [&["--force"][..], &["--force", "--json"]] {
        let image = name("image");
        let output = sandbox.run(args.iter().chain(&[
            "--annotate",
            &annotate,
            "--exclude",
            "nothing\x1b",
            &image,
            "src",
        ]));
        assert!(output.status.success(), "{}", output.stderr.escape_ascii());
        assert_plain(&output);
        if args.contains(&"--json") {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert!(!report["image"].as_str().expect("a name").contains(char::is_control));
        }
    }
}
