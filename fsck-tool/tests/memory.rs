// SPDX-License-Identifier: GPL-2.0-or-later

//! How much memory a check takes for each inode, which the help says. One test, as it counts what all threads allocate.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Source};
use mkfs_tesserafs::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};
use peak_alloc::PeakAlloc;

#[path = "../../mkfs-tool/tests/common/archive.rs"]
mod archive;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MANY: usize = 40_000;
const FEW: usize = 1_000;

/// Bytes for an inode with a content of its own that are allowed, beside the metadata that is kept.
const EACH: usize = 80;

/// An image of so many files of a few bytes, no two alike.
fn image(at: &Path, files: usize) -> PathBuf {
    let (tar, image) = (at.join("a.tar"), at.join(format!("{files}.tess")));
    let mut archive = archive::Archive::default();
    for number in 0..files {
        archive
            .file(&format!("directory-{:03}/file-{number:06}", number / 1000), number.to_string().as_bytes());
    }
    fs::write(&tar, archive.end()).expect("an archive");
    let config = Config {
        image: image.clone(),
        source: SourcePath::Tar(tar),
        filter: Default::default(),
        profile: default_profile(DEFAULT_LEVEL),
        threads: NonZeroUsize::MIN,
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: true,
        dry_run: false,
    };
    mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent).expect("an image");
    image
}

/// The most that a check has allocated at a time, and the bytes of metadata.
fn peak(image: &Path) -> (usize, usize) {
    let source = Source::open(image).expect("an image");
    let options = Options { threads: 2, ..Options::default() };
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let report = check(&source, &options, &Silent, &Cancel::default());
    let peak = HEAP.peak_usage() - before;
    assert!(report.is_clean());
    let metadata = report.regions.iter().filter(|region| ["tree", "map", "hash"].contains(&region.name));
    (peak, metadata.map(|region| region.length as usize).sum())
}

#[test]
fn a_check_takes_so_much_memory_for_an_inode() {
    let folder = tempfile::tempdir().expect("a folder");
    let (few, few_metadata) = peak(&image(folder.path(), FEW));
    let (many, many_metadata) = peak(&image(folder.path(), MANY));
    let (all, kept) = (many - few, many_metadata - few_metadata);
    let each = all.saturating_sub(kept) / (MANY - FEW);
    println!("{} bytes an inode with metadata, {each} beside it; {few} for any image", all / (MANY - FEW));
    assert!(each <= EACH, "{each} bytes an inode");
}
