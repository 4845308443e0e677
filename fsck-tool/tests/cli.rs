// SPDX-License-Identifier: GPL-2.0-or-later

//! The command: exit codes, reports, listings, extraction.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{run, text, Bench};
use common::{pattern, Draft, Piece};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn exit_codes_are_those_of_fsck() {
    let bench = Bench::new(&Draft::sample().image());
    let code = |output: Output| output.status.code();
    let none: [&str; 0] = [];
    assert_eq!(code(bench.run(none)), Some(0));
    for options in [&["-a"][..], &["-p", "-f"], &["-n"], &["-y"], &["-C0"], &["-a", "-C", "3"]] {
        assert_eq!(code(bench.run(options)), Some(0), "{options:?}");
    }
    assert_eq!(code(bench.run(["--metadata-only", "--threads=2"])), Some(0));
    assert_eq!(code(bench.run(["--no-such-option"])), Some(16));
    assert_eq!(code(run(none)), Some(16));
    assert_eq!(code(bench.run(["--digest=sha256:12"])), Some(16));
    assert_eq!(code(run(["--help"])), Some(0));
    assert_eq!(code(run(["-V"])), Some(0));
    assert_eq!(code(run([bench.path("nothing")])), Some(8));
    assert_eq!(code(run([bench.dir.path()])), Some(8));
    assert_eq!(code(bench.run(["--cert", "/dev/null"])), Some(8));
    assert_eq!(code(bench.run(["--annotation", "nothing"])), Some(8));

    let mut broken = Draft::sample().image();
    broken[4096] ^= 1;
    assert_eq!(code(Bench::new(&broken).run(none)), Some(4));
    assert_eq!(code(Bench::new(&broken).run(["--metadata-only"])), Some(0));
    assert_eq!(code(Bench::new(b"").run(none)), Some(4));
    assert_eq!(code(Bench::new(b"TESSRAFS").run(none)), Some(4));
    assert_eq!(code(Bench::new(&broken[..5000]).run(none)), Some(4));
}

#[test]
fn findings_are_lines_with_rule_place_and_path() {
    let mut broken = Draft::sample().image();
    broken[4096] ^= 1;
    let bench = Bench::new(&broken);
    let output = bench.run(["--quiet"]);
    let lines = text(&output.stdout);
    assert!(lines.contains(": error: chunk-digest @ chunk 0 (/big): found "), "{lines}");
    assert!(lines.contains(": error: pack-digest @ pack 0: found "), "{lines}");
    assert_eq!(lines.lines().count(), 2, "{lines}");

    let report: serde_json::Value =
        serde_json::from_slice(&bench.run(["--json"]).stdout).expect("the report is JSON");
    assert_eq!(report["clean"], false);
    assert_eq!(report["exit_code"], 4);
    assert_eq!(report["findings"][1]["rule"], "chunk-digest");
    assert_eq!(report["findings"][1]["place"], "chunk 0");
    assert_eq!(report["findings"][1]["path"], "/big");
    assert_eq!(report["totals"]["chunk-digest"], 1);
}

#[test]
fn regions_tile_the_image() {
    let mut image = Draft::sample().image();
    common::attach(&mut image, b"signature");
    let bench = Bench::new(&image);
    let report: serde_json::Value =
        serde_json::from_slice(&bench.run(["--json"]).stdout).expect("the report is JSON");
    assert_eq!(report["signed"], true);
    let image_id = format!("sha256:{}", tesserafs_format::Digest(common::sha256(&image[..512])));
    assert_eq!(report["image_id"], image_id);
    assert_eq!(bench.run(["--digest", &image_id]).status.code(), Some(0));
    let regions = report["regions"].as_array().expect("regions");
    let names: Vec<_> = regions.iter().map(|region| region["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["superblock", "pack", "tree", "map", "hash", "signature"]);
    let mut at = 0_u64;
    for region in regions {
        assert_eq!(region["offset"].as_u64(), Some(at));
        at = (at + region["length"].as_u64().expect("a length")).next_multiple_of(4096);
    }
    assert_eq!(at, image.len() as u64);
    assert_eq!(regions[5]["length"], 9);
}

#[test]
fn annotations_are_printed() {
    let bench = Bench::new(&Draft::sample().image());
    assert_eq!(bench.run(["--annotation", "spdx"]).stdout, b"tag-value");
    assert_eq!(bench.run(["--annotation", "oci.config"]).stdout, b"{}");
}

#[test]
fn a_long_listing_has_a_line_for_each_name() {
    let bench = Bench::new(&Draft::sample().image());
    let lines = text(&bench.run(["--list"]).stdout);
    let words: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 15, "{lines}");
    let find = |path: &str| words.iter().find(|words| words[4] == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(find(".")[..4], ["drwxr-xr-x", "0:0", "9", "-"]);
    assert_eq!(find("wh")[..4], ["w---------", "0:0", "0", "-"]);
    assert_eq!(find("link")[4..], ["link", "->", "a/b/target"]);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(find("empty")[..4], ["-rw-r--r--", "0:0", "0", empty]);
    assert_eq!(find("a/hard")[..4], find("small1")[..4]);
}

/// A tree of names that listings, shells and terminals stumble over.
const NAMES: &[&[u8]] = &[
    b" space ",
    b"\x01\x1b[31mred",
    b"\n",
    b"back\\slash",
    b"cr\r",
    b"line\nfeed\\n",
    b"\xc3\xa4",
    b"\xff\xfe",
    b"*",
    b"-rf",
];

fn names() -> Draft {
    let mut draft = Draft::empty();
    let mut sorted: Vec<&[u8]> = NAMES.to_vec();
    sorted.sort_unstable();
    draft.directory(1, sorted.len() as u64, 2, 0);
    for (n, name) in sorted.iter().enumerate() {
        let bytes = pattern(100 + n, n as u64);
        let content = draft.content(&[Piece::Data(&bytes)], &bytes);
        draft.regular(content, bytes.len() as u64, 1, 0);
        draft.dirent(name, n as u32 + 2, 1);
    }
    draft.seal();
    draft
}

#[test]
fn sha256sum_accepts_the_listing() {
    let bench = Bench::new(&names().image());
    let out = bench.path("out");
    assert!(bench.run([OsStr::new("--extract"), out.as_os_str()]).status.success());
    let sums = bench.path("sums");
    let listing = bench.run(["--list=sha256"]).stdout;
    fs::write(&sums, &listing).expect("written");
    let mut command = Command::new("sha256sum");
    let check =
        command.args(["--check", "--strict"]).arg(&sums).current_dir(&out).output().expect("sha256sum");
    assert!(check.status.success(), "{}{}", text(&check.stdout), text(&check.stderr));
    let ok = check.stdout.windows(4).filter(|bytes| bytes == b": OK").count();
    assert_eq!(ok, NAMES.len(), "{}", text(&check.stdout));

    // sha256sum itself prints the same, line by line.
    let mut own: Vec<Vec<u8>> = Vec::new();
    for name in NAMES {
        let mut command = Command::new("sha256sum");
        let output =
            command.arg("--").arg(OsStr::from_bytes(name)).current_dir(&out).output().expect("sha256sum");
        own.push(output.stdout);
    }
    let theirs = own.concat();
    let mut theirs: Vec<&[u8]> = theirs.split_inclusive(|byte| *byte == b'\n').collect();
    let mut ours: Vec<&[u8]> = listing.split_inclusive(|byte| *byte == b'\n').collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, theirs);
}

#[test]
fn no_control_byte_is_printed() {
    let bench = Bench::new(&names().image());
    let listing = bench.run(["--list"]).stdout;
    assert!(listing.iter().all(|byte| *byte == b'\n' || *byte >= b' '), "{}", text(&listing));
    assert_eq!(listing.iter().filter(|byte| **byte == b'\n').count(), NAMES.len() + 1);
    let mut draft = names();
    draft.chunk_digests.iter_mut().for_each(|digest| digest[0] ^= 1);
    let report = Bench::new(&draft.image()).run(["--quiet"]).stdout;
    assert!(report.iter().all(|byte| *byte == b'\n' || *byte >= b' '), "{}", text(&report));
    assert!(text(&report).contains("(/\\001\\033[31mred)"), "{}", text(&report));
}

#[test]
fn extraction_restores_the_tree() {
    if !is_root() {
        eprintln!("skipped: only root can restore owners, whiteouts and trusted xattrs");
        return;
    }
    let mut draft = Draft::sample();
    draft.inodes[1].mode = 0o1555.into();
    draft.inodes[2].uid = 1234.into();
    draft.inodes[2].gid = 4321.into();
    draft.inodes[2].mode = 0o6751.into();
    draft.inodes[4].mode = 0o600.into();
    draft.inodes[12].mode = 0.into();
    // security.capability has a form that the kernel checks.
    let capability = [&[1, 0, 0, 2][..], &0x400_u32.to_le_bytes(), &[0; 12]].concat();
    draft.xattr_sets.clear();
    draft.xattr_entries.clear();
    draft.xattr_set(&[(b"security.capability", &capability), (b"trusted.a", b"value")]);
    draft.xattr_set(&[(b"trusted.b", b"")]);
    let bench = Bench::new(&draft.image());
    let out = bench.path("out");
    let output = bench.run([OsStr::new("--extract"), out.as_os_str()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));

    let stat = |path: &str| fs::symlink_metadata(out.join(path)).expect(path);
    for path in ["", "a", "big", "empty", "fifo", "hole", "link", "small1", "sock", "wh", "a/b", "a/b/link2"]
    {
        let metadata = stat(path);
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-5, 999_999_999), "{path}");
    }
    assert_eq!(stat("a").mode() & 0o7777, 0o1555);
    assert_eq!((stat("big").uid(), stat("big").gid(), stat("big").mode() & 0o7777), (1234, 4321, 0o6751));
    assert_eq!(stat("fifo").permissions().mode() & 0o7777, 0o600);
    assert_eq!(stat("a/small2").mode() & 0o7777, 0);
    assert!(stat("fifo").file_type().is_fifo() && stat("sock").file_type().is_socket());
    assert!(stat("wh").file_type().is_char_device() && stat("wh").rdev() == 0);
    assert_eq!(stat("small1").ino(), stat("a/hard").ino());
    assert_eq!(stat("small1").nlink(), 2);
    assert_eq!(fs::read_link(out.join("link")).expect("a link"), Path::new("a/b/target"));
    let big = [pattern(5000, 1), pattern(4096, 2)].concat();
    assert_eq!(fs::read(out.join("big")).expect("big"), big);
    assert_eq!(fs::read(out.join("a/copy")).expect("copy"), big);
    let hole = [pattern(4096, 3), vec![0; 8192], pattern(100, 4)].concat();
    assert_eq!(fs::read(out.join("hole")).expect("hole"), hole);
    assert!(stat("hole").blocks() * 512 <= 8192, "the hole is a hole");
    assert_eq!(fs::read(out.join("a/small2")).expect("small2"), b"second\n");
    let xattr = |path: &str, name: &str| {
        let mut value = vec![0; 100];
        let len = rustix::fs::lgetxattr(out.join(path), name, &mut value[..]).expect(name);
        value.truncate(len);
        value
    };
    assert_eq!(xattr("a", "trusted.a"), b"value");
    assert_eq!(xattr("a/copy", "security.capability"), capability);
    assert_eq!(xattr("big", "trusted.b"), b"");
}

#[test]
fn extraction_refuses_a_directory_in_use() {
    let bench = Bench::new(&Draft::sample().image());
    let out = bench.path("out");
    fs::create_dir(&out).expect("a directory");
    fs::write(out.join("file"), b"precious").expect("written");
    let output = bench.run([OsStr::new("--extract"), out.as_os_str()]);
    assert_eq!(output.status.code(), Some(8));
    assert!(text(&output.stderr).contains("is not empty"), "{}", text(&output.stderr));
    assert_eq!(fs::read(out.join("file")).expect("still there"), b"precious");
}

#[test]
fn extraction_leaves_a_broken_file_out_and_says_so() {
    let mut image = names().image();
    // The first chunk, of the first file.
    image[4096] ^= 1;
    let bench = Bench::new(&image);
    let out = bench.path("out");
    let output = bench.run([OsStr::new("--extract"), out.as_os_str()]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("chunk-digest @ chunk 0 (/\\001\\033[31mred)"));
    assert!(text(&output.stderr).contains("not complete"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(&out).expect("a directory").count(), NAMES.len() - 1);
}

#[test]
fn nothing_is_extracted_from_a_broken_tree() {
    let mut draft = Draft::sample();
    draft.dirents[8].file_type = 1;
    let bench = Bench::new(&draft.image());
    let out = bench.path("out");
    let output = bench.run([OsStr::new("--extract"), out.as_os_str()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(!out.exists());
    assert!(text(&output.stderr).contains("nothing was extracted"), "{}", text(&output.stderr));
    let listing = bench.run(["--list"]);
    assert_eq!(listing.status.code(), Some(4));
    assert!(listing.stdout.is_empty());
}

#[test]
fn who_is_not_root_gets_all_but_owners() {
    if !is_root() {
        return;
    }
    let mut draft = names();
    draft.inodes[1].mode = 0o4755.into();
    draft.inodes[1].uid = 5.into();
    let bench = Bench::new(&draft.image());
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o777)).expect("open to all");
    let program = bench.path("fsck");
    fs::copy(env!("CARGO_BIN_EXE_fsck-tesserafs"), &program).expect("copied");
    let out = bench.path("out");
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    command.arg("--extract").args([&out, &bench.image]);
    let output = loop {
        match command.output() {
            // Another test forked while the copy was open for writing; its child will exec, and close it.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.expect("fsck runs"),
        }
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("not root: the owners"), "{}", text(&output.stderr));
    let mut sorted: Vec<&[u8]> = NAMES.to_vec();
    sorted.sort_unstable();
    let metadata = fs::metadata(out.join(OsStr::from_bytes(sorted[0]))).expect("the first file");
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (65534, 0o755));
}

/// An image whose check takes longer than a test: it has the digest of 8 GiB of zeros.
fn slow() -> Bench {
    let mut draft = Draft::empty();
    draft.directory(1, 1, 2, 0);
    draft.dirent(b"zeros", 2, 1);
    let content = draft.content_of_digest(&[Piece::Hole(1 << 33)], [0; 32]);
    draft.regular(content, 1 << 33, 1, 0);
    draft.seal();
    Bench::new(&draft.image())
}

#[test]
fn an_interrupt_ends_the_check_with_its_own_code() {
    let bench = slow();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
    let child = command.arg(&bench.image).stderr(Stdio::piped()).spawn().expect("fsck runs");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let output = child.wait_with_output().expect("fsck ends");
    assert_eq!(output.status.code(), Some(32), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted"));
}

#[test]
fn a_signal_that_is_ignored_ends_nothing() {
    let bench = slow();
    // As nohup starts it.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$0\" \"$1\"", env!("CARGO_BIN_EXE_fsck-tesserafs")])
        .arg(&bench.image);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("fsck runs");
    let pid = rustix::process::Pid::from_child(&child);
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::TERM] {
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(child.try_wait().expect("fsck").is_none(), "it ended before {signal:?}");
        rustix::process::kill_process(pid, signal).expect("sent");
    }
    assert_eq!(child.wait().expect("fsck ends").code(), Some(32));
}
