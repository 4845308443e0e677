// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs repair`: 200 damaged places of each kind, good bytes from each kind of file, and what must be refused.

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod damage;
mod donors;
mod hostile;
mod lost;
mod made;
mod packs;
mod places;

use std::fs;
use std::path::{Path, PathBuf};

use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::repair::{repair, RepairReport, RepairRequest};
use tempfile::TempDir;

use made::made;

/// Damaged places of each kind.
const PLACES: usize = 200;

/// A folder of its own for a damaged image.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// In memory where that can be: each file is forced to the disk, and there are thousands.
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.expect("a folder") }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the damaged image.
    fn damaged(&self, bytes: &[u8]) -> PathBuf {
        let path = self.at("damaged");
        fs::write(&path, bytes).expect("written");
        path
    }

    /// Copies the packs of the fixture.
    fn packs(&self) -> PathBuf {
        let packs = self.at("packs");
        fs::create_dir(&packs).expect("a folder");
        for pack in made().at("packs").read_dir().expect("packs") {
            let pack = pack.expect("a pack");
            fs::copy(pack.path(), packs.join(pack.file_name())).expect("copied");
        }
        packs
    }
}

/// A request to repair an image by these files of the fixture, or others.
fn request(image: &Path, from: &[&Path]) -> RepairRequest {
    let from = from.iter().map(|from| made().at("").join(from)).collect();
    RepairRequest { image: image.to_owned(), from, ..RepairRequest::default() }
}

/// Repairs an image; it is whole then.
fn repaired(request: &RepairRequest) -> RepairReport {
    let report = repair(request, &Silent).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    assert_eq!(report.failure(), None, "{report:?}");
    assert!(report.repaired, "{report:?}");
    report
}

/// Damages an image, repairs it, and compares it with the one that it was.
fn mends(good: &[u8], bad: &[u8], from: &[&str], change: impl FnOnce(&mut RepairRequest)) -> RepairReport {
    let bench = Bench::new();
    let image = bench.damaged(bad);
    let from: Vec<&Path> = from.iter().map(Path::new).collect();
    let mut request = request(&image, &from);
    change(&mut request);
    if bad == good {
        let report = repair(&request, &Silent).expect("a report");
        assert!(!report.damaged && !report.repaired && report.failure().is_none(), "{report:?}");
        return report;
    }
    let report = repaired(&request);
    assert!(fs::read(&image).expect("the image") == good, "another image: {report:?}");
    assert_eq!(bench.folder.path().read_dir().expect("files").count(), 1, "something is left behind");
    report
}
