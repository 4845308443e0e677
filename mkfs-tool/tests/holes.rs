// SPDX-License-Identifier: GPL-2.0-or-later

//! More holes than an image may have are refused before anybody digests their zeros, and no tree is that an image can hold.

#[path = "common/archive.rs"]
mod archive;
mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use archive::Archive;
use common::Sandbox;
use mkfs_tesserafs::error::{Error, Result};
use mkfs_tesserafs::source::dir::DirSource;
use mkfs_tesserafs::source::holes::HoleLimit;
use mkfs_tesserafs::source::{Filter, Source};

/// The largest file whose digest is over its holes, too. Eight are just too few to pass the limit.
const LONG: u64 = 1 << 33;

/// A file of a hole with bytes at its end.
fn sparse(sandbox: &Sandbox, name: &str, size: u64, end: &[u8]) -> File {
    sandbox.write(&format!("src/{name}"), "");
    let file = File::options().write(true).open(sandbox.path("src").join(name)).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(end, size - end.len() as u64).unwrap();
    file
}

/// Walks the tree, as a build does, and reads nothing but what the walk itself reads.
fn walk(sandbox: &Sandbox, other_bytes: u64) -> Result<()> {
    let source = DirSource::open(&sandbox.path("src"), Filter::default())?;
    HoleLimit::new(&source, 32 << 10, other_bytes).walk(&mut |_| Ok(())).map(drop)
}

#[test]
fn a_tree_above_the_limit_is_refused_by_the_walk() {
    let sandbox = Sandbox::new();
    for n in 0..8_u8 {
        sparse(&sandbox, &n.to_string(), LONG, &[n + 1]);
    }
    walk(&sandbox, 0).unwrap();
    // One more that others have too is none, whether its zeros are stored or not.
    sparse(&sandbox, "copy", LONG, &[1]).write_all_at(&[0; 8192], 1 << 20).unwrap();
    // Nor are longer ones, whose holes nobody digests.
    for n in 0..9 {
        sparse(&sandbox, &format!("longer{n}"), LONG + 1, &[n]);
    }
    walk(&sandbox, 0).unwrap();
    sparse(&sandbox, "new", LONG, b"xy");
    assert!(matches!(walk(&sandbox, 0), Err(Error::TooMany(_))));
    // A larger image may have more: by annotations,
    walk(&sandbox, LONG / 64 + 1).unwrap();
    // or by data. It is refused at the end, if the data come to less than they could.
    sandbox.write("src/data", vec![0; (LONG / 64) as usize]);
    walk(&sandbox, 0).unwrap();
}

#[test]
fn the_refusal_does_not_wait_for_the_zeros() {
    let sandbox = Sandbox::new();
    let mut archive = Archive::default();
    for n in 0..12_u8 {
        sparse(&sandbox, &n.to_string(), LONG, &[n + 1]);
        let (size, name) = (LONG.to_string(), n.to_string());
        let map: &[(&[u8], &[u8])] = &[
            (b"GNU.sparse.size", size.as_bytes()),
            (b"GNU.sparse.name", name.as_bytes()),
            (b"GNU.sparse.map", b"0,1"),
        ];
        archive.pax(b'x', map).file("short", &[n + 1]);
    }
    sandbox.write("a.tar", archive.end());
    for args in [["image", "src"].as_slice(), &["--tar", "a.tar", "image"]] {
        let started = Instant::now();
        let error = sandbox.refused(1, args);
        assert!(error.contains("bytes of holes in files of up to 8 GiB"), "{error}");
        // All zeros would take a minute of a processor.
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(!sandbox.path("image").exists());
    }
}
