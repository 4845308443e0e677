// SPDX-License-Identifier: GPL-2.0-or-later

//! Rust's crates: those that a program says it was built from (`cargo auditable`), and those of a `Cargo.lock`.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use super::package::{Hash, Manager, Package};
use super::{Wrong, METADATA_MAX};

/// The section of a program that names its crates.
pub(super) const SECTION: &[u8] = b".dep-v0";

#[derive(Deserialize)]
struct Audited {
    packages: Vec<AuditedPackage>,
}

#[derive(Deserialize)]
struct AuditedPackage {
    name: String,
    version: String,
    source: Option<String>,
    kind: Option<String>,
}

/// The crates in a section of the program at `place`, without those that only built it.
pub(super) fn audited(section: &[u8], place: &[u8]) -> Result<Vec<Package>, Wrong> {
    let at = || "its section .dep-v0".to_owned();
    let mut json = Vec::new();
    let read = ZlibDecoder::new(section).take(METADATA_MAX + 1).read_to_end(&mut json);
    read.map_err(|error| Wrong::new(at(), error.to_string(), "zlib data"))?;
    if json.len() as u64 > METADATA_MAX {
        return Err(Wrong::new(at(), "more than 8 MiB", "8 MiB at most"));
    }
    let audited: Audited = serde_json::from_slice(&json)
        .map_err(|error| Wrong::new(at(), error.to_string(), "JSON that lists packages"))?;
    let used = audited.packages.into_iter().filter(|package| package.kind.as_deref() != Some("build"));
    Ok(used
        .map(|package| {
            let mut found = Package::new(Manager::Cargo, package.name, package.version, place);
            found.source = package.source.filter(|source| source != "crates.io");
            found
        })
        .collect())
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// The registry that needs no name.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The crates of the `Cargo.lock` at `place`.
pub(super) fn locked(text: &[u8], place: &[u8]) -> Result<Vec<Package>, Wrong> {
    let at = || "as TOML".to_owned();
    let text = std::str::from_utf8(text).map_err(|error| Wrong::new(at(), error.to_string(), "UTF-8"))?;
    let lock: Lock =
        toml::from_str(text).map_err(|error| Wrong::new(at(), error.message(), "a list of packages"))?;
    Ok(lock
        .package
        .into_iter()
        .map(|package| {
            let mut found = Package::new(Manager::Cargo, package.name, package.version, place);
            found.source = package.source.filter(|source| source != CRATES_IO);
            let is_digest =
                |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            found.hash = package.checksum.filter(is_digest).map(|digest| Hash::Sha256(digest.to_lowercase()));
            found
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::ZlibEncoder;
    use flate2::Compression;

    use super::*;

    fn packed(json: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(json).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn programs_name_their_crates() {
        let json = br#"{"packages":[{"name":"a","version":"1.0.0","source":"crates.io"},
            {"name":"b","version":"2.0.0","source":"local","root":true},{"name":"c","version":"1.0.0","kind":"build","source":"git"}]}"#;
        let all = audited(&packed(json), b"bin/b").expect("a section");
        let names: Vec<_> = all.iter().map(|package| (&*package.name, package.source.as_deref())).collect();
        assert_eq!(names, [("a", None), ("b", Some("local"))]);
        let whole = packed(json);
        for end in 0..whole.len() {
            assert!(audited(&whole[..end], b"").is_err());
        }
        assert!(audited(b"nonsense", b"").is_err() && audited(&packed(b"[]"), b"").is_err());
        let bomb = audited(&packed(&vec![b' '; 20 << 20]), b"").expect_err("a bomb");
        assert!(bomb.text().contains("8 MiB"), "{}", bomb.text());
    }

    #[test]
    fn locks_have_digests() {
        let digest = "ab".repeat(32);
        let text = format!(
            "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{CRATES_IO}\"\nchecksum = \"{digest}\"\n\
             dependencies = [\"b\"]\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n"
        );
        let all = locked(text.as_bytes(), b"Cargo.lock").expect("a lock");
        assert_eq!(all[0].hash, Some(Hash::Sha256(digest)));
        assert_eq!((all.len(), all[1].hash.clone(), all[0].source.clone()), (2, None, None));
        assert!(locked(b"[[package]]\nname = 1\n", b"").is_err() && locked(b"\xff", b"").is_err());
        assert!(locked("a = [".repeat(10_000).as_bytes(), b"").is_err());
        assert_eq!(locked(b"", b""), Ok(Vec::new()));
    }
}
