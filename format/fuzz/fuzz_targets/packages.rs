// SPDX-License-Identifier: GPL-2.0-or-later

//! Any bytes as a database of packages, or as metadata of one; the first of them says which file that is.
//!
//! Invariant: an error that can be printed, or an inventory, of which a document in JSON is made, the same in each run. No panic.
//! Memory is bounded by the length of the file; that of crates in a program, which is compressed, by a limit.

#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use tesserafs_fuzz::heap;
use tesserafs_image::sbom::{document, inventory, Files, Kind, Names, NodeIndex};
use tesserafs_image::Error;

/// Memory for a byte of a file, and for any: what a program names its crates in unpacks to 8 MiB.
const MEMORY_PER_BYTE: usize = 2048;
const MEMORY: usize = 256 << 20;

/// The files that are looked for, one of each kind.
const PATHS: [&str; 8] = [
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/python3/dist-packages/x-1.dist-info/METADATA",
    "node_modules/@scope/x/package.json",
    "src/Cargo.lock",
    "etc/os-release",
    "usr/bin/program",
];

/// A tree of one file.
struct One<'a>(&'a [u8]);

impl Files for One<'_> {
    type Error = Error;

    fn read(&self, _ino: u32, range: Range<u64>, buf: &mut Vec<u8>) -> Result<(), Error> {
        buf.extend_from_slice(&self.0[range.start as usize..range.end as usize]);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let path = PATHS[usize::from(*first) % PATHS.len()];
    let made = heap::bounded(MEMORY + MEMORY_PER_BYTE * bytes.len(), || make(path, bytes));
    assert_eq!(made, make(path, bytes));
});

fn make(path: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut names = Names::new(1);
    let mut at = NodeIndex::ROOT;
    let (dirs, name) = path.rsplit_once('/').expect("a directory");
    for (number, dir) in dirs.split('/').enumerate() {
        at = names.add(at, dir.as_bytes(), number as u32 + 2, 0o755, Kind::Directory);
    }
    names.add(at, name.as_bytes(), 100, 0o755, Kind::File(bytes.len() as u64));
    let made = inventory(&names, &One(bytes)).and_then(|inventory| document(&inventory));
    match made {
        Ok(document) => Some(document.json),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}
