// SPDX-License-Identifier: GPL-2.0-or-later

//! Trees with databases of packages.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use base64::prelude::{Engine as _, BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};

use crate::rpm::{database, header, Value};

/// Writes a file, and the directories above it.
pub(crate) fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect(name);
    fs::write(path, bytes).expect(name);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5(bytes: &str) -> String {
    hex(&md5::Md5::digest(bytes))
}

/// A Debian root with merged `/usr`: two packages, a conffile, a diversion, alternatives.
pub(crate) fn debian(root: &Path) {
    write(root, "usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian\"\n");
    write(root, "usr/bin/one", "one\n");
    write(root, "usr/bin/sh", "the shell of two\n");
    write(root, "usr/bin/sh.distrib", "the shell of one\n");
    write(root, "etc/one.conf", "as it came\n");
    write(root, "usr/bin/mawk", "awk\n");
    symlink("usr/bin", root.join("bin")).expect("a link");
    symlink("../usr/lib/os-release", root.join("etc/os-release")).expect("a link");
    symlink("one", root.join("usr/bin/uno")).expect("a link");
    fs::create_dir_all(root.join("etc/alternatives")).expect("a directory");
    symlink("/usr/bin/mawk", root.join("etc/alternatives/awk")).expect("a link");
    symlink("/etc/alternatives/awk", root.join("usr/bin/awk")).expect("a link");
    let status = format!(
        "Package: one\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1:1.0+b~1\n\
         Maintainer: Somebody <a@b.example>\nHomepage: https://one.example/\nConffiles:\n /etc/one.conf {}\n\
         Description: the first\n more of it\n\nPackage: two\nStatus: install ok installed\nArchitecture: all\n\
         Source: zwei (2)\nVersion: 2\n\nPackage: gone\nStatus: purge ok not-installed\n\n",
        md5("as it came\n")
    );
    write(root, "var/lib/dpkg/status", status);
    write(
        root,
        "var/lib/dpkg/info/one:amd64.list",
        "/.\n/bin\n/bin/one\n/bin/sh\n/bin/uno\n/etc\n/etc/one.conf\n/etc/os-release\n/usr\n/usr/lib\n/usr/lib/os-release\n/usr/bin/mawk\n",
    );
    let sums = format!("{}  bin/one\n{}  bin/sh\n", md5("one\n"), md5("the shell of one\n"));
    write(root, "var/lib/dpkg/info/one:amd64.md5sums", sums);
    write(root, "var/lib/dpkg/info/two.list", "/.\n/bin\n/bin/sh\n");
    write(root, "var/lib/dpkg/info/two.md5sums", format!("{}  bin/sh\n", md5("the shell of two\n")));
    write(root, "var/lib/dpkg/diversions", "/bin/sh\n/bin/sh.distrib\ntwo\n");
    write(root, "var/lib/dpkg/alternatives/awk", "auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n\n");
}

/// An Alpine root.
pub(crate) fn alpine(root: &Path) {
    write(root, "etc/os-release", "ID=alpine\nVERSION_ID=3.22\n");
    write(root, "bin/busybox", "busybox\n");
    symlink("/bin/busybox", root.join("bin/sh")).expect("a link");
    let digest = |bytes: &str| BASE64_STANDARD.encode(sha1::Sha1::digest(bytes));
    let installed = format!(
        "C:Q1abc=\nP:busybox\nV:1.37-r1\nA:x86_64\nL:GPL-2.0-only\nm:S <s@example>\nT:many tools\nF:bin\nR:busybox\n\
         a:0:0:755\nZ:Q1{}\nR:sh\nZ:Q1{}\nF:etc\nR:os-release\n\n",
        digest("busybox\n"),
        digest("/bin/busybox")
    );
    write(root, "lib/apk/db/installed", installed);
}

/// A Fedora root, where the database is not where it was.
pub(crate) fn fedora(root: &Path) {
    write(root, "usr/lib/os-release", "ID=fedora\nVERSION_ID=44\n");
    write(root, "usr/bin/tool", "tool\n");
    symlink("tool", root.join("usr/bin/other")).expect("a link");
    write(root, "etc/tool.conf", "as it came\n");
    fs::create_dir_all(root.join("usr/lib/sysimage/rpm")).expect("a directory");
    let digest = |bytes: &str| hex(&Sha256::digest(bytes));
    let (tool, conf) = (digest("tool\n"), digest("as it came\n"));
    let package = header(&[
        (1000, Value::Text("tool")),
        (1001, Value::Text("1.0")),
        (1002, Value::Text("3.fc44")),
        (1003, Value::Numbers(&[2])),
        (1004, Value::Text("a tool")),
        (1011, Value::Text("Fedora Project")),
        (1014, Value::Text("MIT AND BSD-3-Clause")),
        (1022, Value::Text("x86_64")),
        (1030, Value::Modes(&[0o100_755, 0o120_777, 0o100_644, 0o100_644, 0o100_644])),
        (1035, Value::Texts(&[&tool, "", &conf, "", ""])),
        (1036, Value::Texts(&["", "tool", "", "", ""])),
        // The last but one is a ghost, which need not be there.
        (1037, Value::Numbers(&[0, 0, 1, 64, 0])),
        (1044, Value::Text("tool-1.0-3.fc44.src.rpm")),
        (1116, Value::Numbers(&[0, 0, 1, 1, 2])),
        (1117, Value::Texts(&["tool", "other", "tool.conf", "ghost", "os-release"])),
        (1118, Value::Texts(&["/usr/bin/", "/etc/", "/usr/lib/"])),
        (5011, Value::Numbers(&[8])),
    ]);
    // Longer than a page of the database.
    let long = "long ".repeat(5000);
    let other = header(&[
        (1000, Value::Text("big")),
        (1001, Value::Text("1")),
        (1002, Value::Text("1")),
        (1014, Value::Text("Some licence of our own")),
        (1004, Value::Text(&long)),
    ]);
    let key =
        header(&[(1000, Value::Text("gpg-pubkey")), (1001, Value::Text("1")), (1002, Value::Text("1"))]);
    database(&root.join("usr/lib/sysimage/rpm/rpmdb.sqlite"), &[package, other, key]);
}

/// Packages of Python, Node and Rust.
pub(crate) fn languages(root: &Path) {
    let site = "usr/lib/python3/site-packages";
    write(root, &format!("{site}/thing/__init__.py"), "thing\n");
    write(root, "usr/bin/thing", "run\n");
    let metadata =
        "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 3.1\nLicense-Expression: BSD-3-Clause\n\ntext\n";
    write(root, &format!("{site}/some_thing-3.1.dist-info/METADATA"), metadata);
    let digest = |bytes: &str| BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
    let record = format!(
        "thing/__init__.py,sha256={},6\n../../../bin/thing,sha256={},4\nsome_thing-3.1.dist-info/METADATA,,\n\
         some_thing-3.1.dist-info/RECORD,,\nthing/__pycache__/__init__.cpython-313.pyc,,\n",
        digest("thing\n"),
        digest("run\n")
    );
    write(root, &format!("{site}/some_thing-3.1.dist-info/RECORD"), record);
    // As `pip install --target` puts it.
    write(root, "srv/flat/flat-2.0.dist-info/METADATA", "Name: flat\nVersion: 2.0\n");
    write(
        root,
        "srv/flat/flat-2.0.dist-info/RECORD",
        "flat-2.0.dist-info/METADATA,,\nflat-2.0.dist-info/RECORD,,\n",
    );
    let json = r#"{"name": "@scope/left", "version": "1.2.3", "license": "MIT", "author": {"name": "A"}}"#;
    write(root, "srv/app/node_modules/@scope/left/package.json", json);
    write(root, "srv/app/node_modules/@scope/left/lib/index.js", "x");
    write(root, "srv/app/node_modules/right/package.json", r#"{"name": "right", "version": "1.0.0"}"#);
    write(root, "srv/other/node_modules/right/package.json", r#"{"name": "right", "version": "1.0.0"}"#);
    write(root, "srv/app/node_modules/broken/package.json", "{");
    let digest = "ab".repeat(32);
    let lock = format!(
        "version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\nchecksum = \"{digest}\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\n"
    );
    write(root, "srv/app/Cargo.lock", lock);
    let crates = r#"{"packages":[{"name":"program","version":"0.1.0","source":"local","root":true},
        {"name":"libc","version":"0.2.1","source":"crates.io"}]}"#;
    write(root, "usr/local/bin/program", program(crates.as_bytes()));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("usr/local/bin/program"), mode).expect("a mode");
}

/// A program of nothing but a section `.dep-v0`, and one with the names.
fn program(crates: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(crates).expect("memory");
    let section = encoder.finish().expect("memory");
    let names = b"\0.dep-v0\0.shstrtab\0";
    let (section_at, names_at) = (64, 64 + section.len());
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2_u16, 62].iter().flat_map(|number| number.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0, 0, table_at as u64].iter().flat_map(|number: &u64| number.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 0, 64, 3, 2].iter().flat_map(|number| number.to_le_bytes()));
    elf.extend(&section);
    elf.extend(names);
    elf.resize(table_at, 0);
    let headers = [(0, 0, 0, 0), (1, 1, section_at, section.len()), (9, 3, names_at, names.len())];
    for (name, kind, offset, len) in headers {
        elf.extend([name as u32, kind as u32].iter().flat_map(|number| number.to_le_bytes()));
        let numbers = [0, 0, offset as u64, len as u64];
        elf.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        elf.extend([0_u32; 2].iter().flat_map(|number| number.to_le_bytes()));
        elf.extend([1_u64, 0].iter().flat_map(|number| number.to_le_bytes()));
    }
    elf
}
