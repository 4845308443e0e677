// SPDX-License-Identifier: GPL-2.0-or-later

//! The standard output: one file, lists in all forms, archives; and how far the work is.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{text, Bench};
use common::{pattern, Draft};

fn sample() -> Bench {
    Bench::new(&Draft::sample().image())
}

/// Runs a program with `input`; `None` where it is not installed.
fn pipe(program: &str, args: &[&str], dir: &Path, input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: no {program} here");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written").ok();
    Some(output)
}

#[test]
fn one_file_is_printed_through_symlinks() {
    let mut draft = Draft::sample();
    // /link leads to a file now, /a/b/link2 to the root.
    let at = draft.targets.windows(10).position(|bytes| bytes == b"a/b/target").expect("the target");
    draft.targets[at..at + 10].copy_from_slice(b"./a/small2");
    draft.seal();
    let bench = Bench::new(&draft.image());
    for path in ["small1", "/small1", "a/hard", "./a/../small1", "a/b/link2/small1", "../../small1"] {
        assert_eq!(bench.run(["--cat", path]).stdout, b"first small file\n", "{path}");
    }
    assert_eq!(bench.run(["--cat", "link"]).stdout, b"second\n");
    let hole = [pattern(4096, 3), vec![0; 8192], pattern(100, 4)].concat();
    assert_eq!(bench.run(["--cat", "hole"]).stdout, hole);
    let refusals = [
        ("none", "none: is not in the image"),
        ("a/none/x", "a/none/x: a/none is not in the image"),
        ("small1/", "small1/: small1 is not a directory"),
        ("big/x", "big/x: big is not a directory"),
        ("a", "a: is not a regular file"),
        ("wh", "wh: is not a regular file"),
    ];
    for (path, why) in refusals {
        let output = bench.run(["--cat", path]);
        assert_eq!(output.status.code(), Some(8), "{path}");
        assert!(text(&output.stderr).contains(why), "{path}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{path}");
    }
}

#[test]
fn a_broken_file_is_not_printed_as_if_it_were_whole() {
    let mut image = Draft::sample().image();
    image[4096] ^= 1;
    let bench = Bench::new(&image);
    let output = bench.run(["--cat", "big"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("chunk-digest @ chunk 0 (/big)"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let output = bench.run(["--tar"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("the archive is not complete"), "{}", text(&output.stderr));
    assert!(!output.stdout.ends_with(&[0; 1024]), "an archive without an end");
}

#[test]
fn lists_have_times_links_and_xattrs() {
    let bench = sample();
    let full = text(&bench.run(["--list=full"]).stdout);
    let line = full.lines().find(|line| line.ends_with(" a/hard")).expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..5], ["-rw-r--r--", "2", "0:0", "17", "1969-12-31T23:59:55.999999999Z"], "{line}");
    assert!(full.contains("\n    user.a=value\n"), "{full}");
    assert_eq!(text(&bench.run(["--list=names"]).stdout).lines().next(), Some("."));
    let names = bench.run(["--list=names0", "--path=a"]).stdout;
    assert_eq!(names, b".\0b\0b/link2\0copy\0hard\0small2\0");
    let one = text(&bench.run(["--list=names", "--path=a/b/link2"]).stdout);
    assert_eq!(one, "link2\n");
}

#[test]
fn json_lines_say_all_of_each_file() {
    let bench = sample();
    let lines = text(&bench.run(["--list=json"]).stdout);
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), 15);
    let find = |path: &str| lines.iter().find(|line| line["path"] == path).expect(path);
    assert!(lines.iter().all(|line| line["version"] == 1));
    let a = find("a");
    assert_eq!(
        (a["type"].as_str(), a["mode"].as_str(), a["nlink"].as_u64()),
        (Some("directory"), Some("0755"), Some(3))
    );
    assert_eq!(a["xattrs"]["user.a"], "value");
    let capability: String = common::CAPABILITY.iter().map(|byte| format!("\\{byte:03o}")).collect();
    assert_eq!(a["xattrs"]["security.capability"], capability);
    assert_eq!(a["mtime"], serde_json::json!({ "sec": -5, "nsec": 999_999_999 }));
    assert_eq!(find("small1")["ino"], find("a/hard")["ino"]);
    assert_eq!(find("small1")["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(find("link")["target"], "a/b/target");
    assert_eq!(find("wh")["type"], "whiteout");
    let report: serde_json::Value = serde_json::from_slice(&bench.run(["--json"]).stdout).expect("JSON");
    assert_eq!(report["version"], 2);
    assert_eq!(report["profile"]["chunk_avg"], 16384);
    assert_eq!(report["profile"]["zstd_version"], 10507);
}

#[test]
fn bsdtar_reads_the_manifest() {
    let mut draft = Draft::sample();
    draft.dirents[4].name = b"h #*=\xff\n".to_vec();
    draft.seal();
    let bench = Bench::new(&draft.image());
    let manifest = bench.run(["--list=mtree"]).stdout;
    assert!(text(&manifest).starts_with("#mtree\n. type=dir mode=0755 "), "{}", text(&manifest));
    assert!(text(&manifest).contains("\n./h\\040\\043\\052\\075\\377\\012 type=file"), "{}", text(&manifest));
    let Some(output) = pipe("bsdtar", &["-tvf", "-"], bench.dir.path(), &manifest) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    // All but the socket, which it has no word for.
    assert_eq!(text(&output.stdout).lines().count(), 14, "{}", text(&output.stdout));
}

#[test]
fn tar_restores_what_the_image_holds() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut draft = Draft::sample();
    draft.xattr_sets.clear();
    draft.xattr_entries.clear();
    draft.xattr_set(&[(b"trusted.t=%", b"\0\n\xff"), (b"user.a", b"value")]);
    draft.xattr_set(&[(b"user.b", b"")]);
    draft.inodes[1].uid = 3_000_000_000.into();
    draft.inodes[2].mode = 0o6751.into();
    // Neither in the field of a name, nor ASCII: of the whiteout.
    draft.dirents[8].name = "\u{e4}".repeat(120).into_bytes();
    let bench = Bench::new(&draft.image());
    let output = bench.run(["--tar"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("/sock: a tar archive has no sockets"), "{}", text(&output.stderr));
    let out = bench.path("out");
    fs::create_dir(&out).expect("a directory");
    let args = ["-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-f", "-"];
    let Some(tar) = pipe("tar", &args, &out, &output.stdout) else { return };
    assert!(tar.status.success(), "{}", text(&tar.stderr));
    // The same by the other way.
    let direct = bench.path("direct");
    let direct_run = bench.run(["--extract", direct.to_str().expect("text")]);
    assert!(direct_run.status.success(), "{}", text(&direct_run.stderr));
    fs::remove_file(direct.join("sock")).expect("removed");
    let listing = |dir: &Path| {
        let script =
            "find . -mindepth 1 -printf '%p %y %m %U %G %n %l %s %T@\\n' | sort; getfattr -Rhd -m - . 2>&1 | sort";
        text(&Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("sh").stdout)
    };
    assert_eq!(listing(&out), listing(&direct));
    assert_eq!(fs::read(out.join("hole")).expect("hole"), fs::read(direct.join("hole")).expect("hole"));
}

#[test]
fn progress_goes_where_it_is_asked_for() {
    let bench = sample();
    let log = bench.path("log");
    let script = format!(
        "{} -C 3 {1} 3>{2}",
        env!("CARGO_BIN_EXE_fsck-tesserafs"),
        bench.image.display(),
        log.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = fs::read_to_string(&log).expect("the log");
    let image = bench.image.to_str().expect("text");
    assert_eq!(lines.lines().next(), Some(format!("1 0 100 {image}").as_str()));
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words[0].parse::<u32>().is_ok() && words[1].parse::<u32>().is_ok_and(|n| n <= 100), "{line}");
        assert_eq!(words[2..], ["100", image]);
    }
    assert!(lines.lines().last().is_some_and(|line| line.contains(" 100 100 ")), "{lines}");
    let said = text(&bench.run(["--progress=plain"]).stderr);
    assert!(said.contains("fsck.tesserafs: metadata: 0 % after 0 s"), "{said}");
    assert!(bench.run(["--list", "--progress=none"]).stderr.is_empty());
}

#[test]
fn a_number_that_nobody_opened_is_no_way_to_write_to_the_image() {
    let bench = sample();
    let before = fs::read(&bench.image).expect("the image");
    for fd in 3..10 {
        let output = bench.run([format!("-C{fd}")]);
        assert_eq!(output.status.code(), Some(0), "{fd}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("no progress on file descriptor"), "{}", text(&output.stderr));
    }
    // Nor one that leads to it.
    let script = format!("{} -C 3 {1} 3>>{1}", env!("CARGO_BIN_EXE_fsck-tesserafs"), bench.image.display());
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read(&bench.image).expect("the image"), before);
}

/// An archive that nobody took to its end was a success.
#[test]
fn a_reader_that_goes_away_is_an_error_of_archives_only() {
    let bench = sample();
    for arguments in [&["--list"][..], &["--list=json"], &["--cat", "small1"]] {
        let output = bench.run_unread(arguments);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
    let output = bench.run_unread(&["--tar"]);
    let errors = text(&output.stderr);
    // And the socket of the sample has no place in an archive.
    assert_eq!(output.status.code(), Some(8 | 64), "{errors}");
    assert!(errors.contains("the archive is not complete") && errors.contains("Broken pipe"), "{errors}");
}
