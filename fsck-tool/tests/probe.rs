// SPDX-License-Identifier: GPL-2.0-or-later

//! The facts that udev is told of an image, and the rule that asks.

use std::fs;
use std::path::Path;
use std::process::Command;

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{run, text, Bench};
use common::Draft;

/// The rules as they are in the tree.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../mkfs-tool/61-tesserafs.rules");

#[test]
fn udev_is_told_the_type_and_the_uuid_that_a_mount_has() {
    let bench = Bench::new(&Draft::sample().image());
    let output = bench.run(["--probe"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let value = |key: &str| {
        let mut found =
            said.lines().filter_map(|line| line.split_once('=')).filter(|(found, _)| *found == key);
        let value = found.next().unwrap_or_else(|| panic!("{key} in {said}")).1;
        assert!(found.next().is_none(), "{key} twice in {said}");
        value
    };
    assert_eq!(
        (value("ID_FS_TYPE"), value("ID_FS_USAGE"), value("ID_FS_VERSION")),
        ("tesserafs", "filesystem", "1")
    );
    let report = bench.run(["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["image_id"], value("ID_TESSERAFS_IMAGE"));
    // But for the version and the variant, the digits of the UUID are those that the ID begins with.
    let uuid = value("ID_FS_UUID");
    let digits = uuid.replace('-', "");
    let id = value("ID_TESSERAFS_IMAGE").strip_prefix("sha256:").expect("a SHA-256");
    let differ: Vec<usize> = (0..32).filter(|at| digits.as_bytes()[*at] != id.as_bytes()[*at]).collect();
    assert!(differ.iter().all(|at| [12, 16].contains(at)) && &digits[12..13] == "8", "{uuid} {id}");
    assert_eq!(value("ID_FS_UUID_ENC"), uuid);
    let size = fs::metadata(&bench.image).expect("an image").len().to_string();
    assert_eq!((value("ID_FS_SIZE"), value("ID_FS_BLOCKSIZE")), (&*size, "4096"));
    // Each line is a key and a value that need no quotes.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=:-".contains(c);
    assert!(said.lines().all(|line| line.starts_with("ID_") && line.chars().all(plain)), "{said}");
}

#[test]
fn what_is_no_image_gives_udev_nothing() {
    let image = Draft::sample().image();
    let mut flipped = image.clone();
    flipped[0x60] ^= 1;
    let mut newer = image.clone();
    newer[8] = 2;
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("short", b"TESSRAFS"),
        ("zeros", &[0; 8192]),
        ("another filesystem", &[0x53; 8192]),
        ("a flipped bit", &flipped),
        ("another version", &newer),
        ("cut off", &image[..4096]),
    ] {
        let bench = Bench::new(bytes);
        let output = bench.run(["--probe"]);
        assert_eq!(output.status.code(), Some(4), "{what}");
        assert_eq!(text(&output.stdout), "", "{what}");
        assert!(text(&output.stderr).starts_with("fsck.tesserafs: "), "{what}: {}", text(&output.stderr));
        assert!(bench.run(["--probe", "-q"]).stderr.is_empty(), "{what}");
    }
    let output = run(["--probe", "/dev/null"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(8), String::new()));
}

#[test]
fn a_probe_reads_nothing_but_the_superblock() {
    // Everything else may be anything, and is not looked at: a check is another request.
    let mut image = Draft::sample().image();
    image[4096..].fill(0xff);
    let bench = Bench::new(&image);
    assert_eq!(bench.run(["--probe"]).status.code(), Some(0));
    for also in [&["--list"][..], &["--tar"], &["--json"], &["--metadata-only"]] {
        assert_eq!(bench.run(["--probe"].iter().chain(also)).status.code(), Some(16), "{also:?}");
    }
}

#[test]
fn the_rule_asks_this_program_and_links_what_it_says() {
    let rules = fs::read_to_string(RULES).expect("the rules");
    let import = rules.lines().find_map(|line| line.strip_prefix("IMPORT{program}=\"")).expect("an import");
    let mut words = import.trim_end_matches('"').split(' ');
    assert!(words.next().expect("a program").ends_with("/fsck.tesserafs"), "{import}");
    let bench = Bench::new(&Draft::sample().image());
    let words = words.map(|word| if word == "$devnode" { bench.image.as_os_str() } else { word.as_ref() });
    let output = run(words);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let linked = rules.lines().find(|line| line.contains("SYMLINK")).expect("a link");
    let wanted = linked.split("ENV{").skip(1).chain(linked.split("$env{").skip(1));
    let keys: Vec<&str> = wanted.filter_map(|rest| rest.split('}').next()).collect();
    assert!(keys.contains(&"ID_FS_UUID_ENC"), "{linked}");
    for key in keys {
        assert!(said.lines().any(|line| line.starts_with(&format!("{key}="))), "{key} in {said}");
    }
    let labels = |key: &str| {
        let mut labels: Vec<&str> = rules
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(&format!("{key}=\""))?.1.split('"').next())
            .collect();
        labels.dedup();
        labels
    };
    assert_eq!(labels("GOTO"), labels("LABEL"));
}

#[test]
fn udevadm_finds_nothing_wrong_with_the_rules() {
    let verify =
        Command::new("udevadm").args(["verify", "--resolve-names=never"]).arg(Path::new(RULES)).output();
    // Only systemd 254 and later have it, and not each machine has udev.
    let Ok(output) = verify else { return };
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() || said.contains("Unknown"), "{said}");
}
