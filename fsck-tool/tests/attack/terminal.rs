// SPDX-License-Identifier: GPL-2.0-or-later

//! Names, values and arguments that a terminal would obey.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bench::{run, text, Bench};
use crate::common::{inode, pattern, Draft, DraftInode, Piece};

/// Colours, clears, rings, reorders, and is no UTF-8.
const EVIL: &[u8] = b"\x1b[2J\x1b[31m\xe2\x80\xaee\x07\r\xc2\x9b\xff";

/// The output of a program holds nothing that a terminal obeys.
fn assert_plain(output: &Output, what: &str) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        let obeyed = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(obeyed), "{what}: {}", bytes.escape_ascii());
    }
}

/// The output of `fsck-tesserafs` with these arguments on a terminal.
fn on_a_terminal(arguments: &str, image: &Path) -> Output {
    let command = format!("{} {arguments} {}", env!("CARGO_BIN_EXE_fsck-tesserafs"), image.display());
    let output = Command::new("script").args(["-qefc", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.expect("script, of util-linux");
    // Behind the progress bar, and with ends of lines as before the terminal driver.
    let shown = text(&stdout).replace("\r\n", "\n");
    let shown = shown.rsplit_once("\r\x1b[2K").map_or(&*shown, |(_, shown)| shown);
    Output { status, stdout: shown.as_bytes().to_vec(), stderr }
}

#[test]
fn bytes_that_are_wanted_as_they_are_keep_from_the_terminal() {
    let mut draft = Draft::empty();
    draft.directory(1, 1, 2, 0);
    let bytes = pattern(5000, 1);
    let content = draft.content(&[Piece::Data(&bytes)], &bytes);
    draft.regular(content, 5000, 1, 0);
    let name = "f\x1b[31m\u{202e}\u{e4}";
    draft.dirent(name.as_bytes(), 2, 1);
    // Characters of two bytes at odd places: one lies across the end of each piece that is read.
    let letters = "\u{e4}".repeat(100_000);
    draft.annotation(b"letters", format!("x{letters}\n").as_bytes());
    draft.annotation(b"worst", EVIL);
    draft.seal();
    let bench = Bench::new(&draft.image());

    let plain = bench.run(["--annotation", "worst"]);
    assert_eq!(plain.stdout, EVIL);
    let worst = on_a_terminal("--annotation worst", &bench.image);
    assert!(worst.status.success());
    assert_plain(&worst, "worst");
    assert!(text(&worst.stdout).starts_with("?[2J?[31m?e??"), "{}", worst.stdout.escape_ascii());
    let shown = on_a_terminal("--annotation letters", &bench.image);
    assert!(text(&shown.stdout) == format!("x{letters}\n"), "a character is broken");
    let listed = on_a_terminal("--list=sha256", &bench.image);
    assert_plain(&listed, "list");
    assert!(text(&listed.stdout).ends_with("  f?[31m?\u{e4}\n"));
}

#[test]
fn nothing_that_is_printed_is_obeyed_by_a_terminal() {
    let evil = |what: &str| [EVIL, what.as_bytes()].concat();
    let mut good = Draft::empty();
    let set = good.xattr_set(&[(&[b"user.", EVIL].concat(), EVIL)]);
    good.directory(1, 3, 2, set);
    good.inode(DraftInode { file_type: 1, xattrs: set.into(), ..inode(1) });
    let bytes = pattern(5000, 1);
    let content = good.content(&[Piece::Data(&bytes)], &bytes);
    good.regular(content, 5000, 1, 0);
    good.symlink(EVIL);
    for (name, ino, kind) in [(evil("empty"), 2, 1), (evil("file"), 3, 1), (evil("link"), 4, 3)] {
        good.dirent(&name, ino, kind);
    }
    good.annotation(EVIL, EVIL);
    good.seal();
    type Change = fn(&mut Draft);
    let changes: [(&str, Change); 7] = [
        ("clean", |_| ()),
        ("content", |d| d.contents[0][0] ^= 1),
        ("chunk", |d| d.chunk_digests[0][0] ^= 1),
        ("order", |d| d.dirents.swap(1, 2)),
        ("xattr", |d| d.xattr_entries[8] = 0x1b),
        ("target", |d| d.targets[0] = 0),
        ("link", |d| d.inodes[1].nlink = 9.into()),
    ];
    let arg = |bytes: &[u8]| std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    for (what, change) in changes {
        let mut draft = good.clone();
        change(&mut draft);
        let bench = Bench::new(&draft.image());
        let image = bench.dir.path().join::<std::ffi::OsString>(arg(&evil("image")));
        fs::rename(&bench.image, &image).expect("renamed");
        let out = bench.dir.path().join::<std::ffi::OsString>(arg(&evil("out")));
        for args in
            [&[][..], &["--list"], &["--json"], &["--metadata-only"], &["--annotation", "nothing\x1b"]]
        {
            let output = run(args.iter().map(OsStr::new).chain([image.as_os_str()]));
            assert_plain(&output, what);
            if args == ["--json"] {
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(report["clean"], what == "clean");
            }
        }
        for _ in 0..2 {
            // The second time it is not empty, or nothing was extracted the first time either.
            assert_plain(&run([OsStr::new("--extract"), out.as_os_str(), image.as_os_str()]), what);
        }
    }
    let evil: std::ffi::OsString = arg(EVIL);
    for args in [&["--digest"][..], &["--list="], &["--threads"], &["--cert"], &["--packdir"], &["image"]] {
        let output = run(args.iter().map(OsStr::new).chain([evil.as_os_str()]));
        assert!(matches!(output.status.code(), Some(8 | 16)), "{args:?}: {}", output.status);
        assert_plain(&output, "arguments");
    }
    // As text, too: an argument that is no UTF-8 is refused before it is looked at.
    let text = "\x1b[2J\u{202e}\u{9b}";
    for args in
        [&["--digest", text, "image"][..], &["--threads", text, "image"], &[&format!("--{text}"), "image"]]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(16), "{args:?}");
        assert_plain(&output, "arguments");
    }
}
