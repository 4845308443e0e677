// SPDX-License-Identifier: GPL-2.0
//! The settings of a verified boot, as the script of the initramfs reads them; what it does with them, machines try.

use std::path::Path;
use std::process::Command;

const SCRIPT: &str = include_str!("../../packaging/initramfs-tools/scripts/tesserafs");
const SETTINGS: &str = include_str!("../../packaging/initramfs-tools/initramfs.conf");

/// What the script says of a command line, or that it goes on.
fn read(folder: &Path, settings: &str, words: &str) -> String {
    let file = folder.join("initramfs.conf");
    std::fs::write(&file, settings).unwrap();
    let script = SCRIPT.replace("/etc/tesserafs/initramfs.conf", file.to_str().unwrap());
    assert!(script != SCRIPT);
    // What init has and the kernel says.
    let stubs = r#"panic() { echo "$*"; exit 0; }; cat() { echo "$WORDS"; }"#;
    let script =
        format!("{stubs}\n{script}\ntesserafs_read_settings; echo \"goes on: $TESSERAFS_PACKDIR\"\n");
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("WORDS", words)
        .env("ROOT", "/dev/vda")
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_directory_of_packs_is_no_other_option() {
    let folder = tempfile::tempdir().unwrap();
    let words = "root=/dev/vda tesserafs_file=/root.tess";
    let with = |packs: &str| read(folder.path(), SETTINGS, &format!("{words} tesserafs_packdir={packs}"));
    assert_eq!(with("/packs"), "goes on: /packs");
    let refused = "tesserafs: the boot stops: found tesserafs_packdir=/packs,private_pages, expected a path without a comma";
    assert!(with("/packs,private_pages").starts_with(refused));
    let set = SETTINGS.replace("TESSERAFS_PACKDIR=\n", "TESSERAFS_PACKDIR=/packs,private_pages\n");
    assert!(set != SETTINGS && read(folder.path(), &set, words).starts_with(refused));
}
