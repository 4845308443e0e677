// SPDX-License-Identifier: GPL-2.0-or-later

//! Any bytes as a tar archive for mkfs.
//!
//! Invariant: an error that can be printed, and no file, or an image in which fsck finds nothing; nothing else in the
//! folder of the image is touched. No panic. Memory is bounded by the length of the archive; time by it and by the bytes of the files,
//! holes included, all of which a build hashes: where these are too many for a fuzzer, it does not build.

#![no_main]

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::{check, Options};
use libfuzzer_sys::fuzz_target;
use mkfs_tesserafs::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};
use mkfs_tesserafs::error::Error;
use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::source::tar::TarSource;
use mkfs_tesserafs::source::{Devices, Filter, Source as _};
use rustix::process::{setrlimit, Resource, Rlimit};
use tesserafs_fuzz::heap;

/// Bytes of files that are waited for.
const PATIENCE: u64 = 16 << 20;

/// Bytes that a compressed archive may unpack to, and that an image may have.
const FILE_MAX: u64 = 1 << 20;

/// Memory for a tree: for a byte of an archive, for a directory that only a path names (two bytes there), and
/// for any tree.
const MEMORY_PER_BYTE: usize = 64;
const MEMORY_PER_DIRECTORY: usize = 1024;
const MEMORY: usize = 4 << 20;

/// A folder with nothing but the archive in it.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let most = Rlimit { current: Some(FILE_MAX), maximum: Some(FILE_MAX) };
    setrlimit(Resource::Fsize, most).expect("a limit");
    let caught = Arc::<AtomicBool>::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, caught).expect("a handler");
    // The caller says where, by TMPDIR, and removes the folder: a program that dies does not.
    tempfile::tempdir().expect("a folder").keep()
});

fuzz_target!(|data: &[u8]| {
    let archive = FOLDER.join("archive.tar");
    fs::write(&archive, with_checksums(data)).expect("written");
    let filter = Filter { devices: Devices::Skip, ..Filter::default() };
    let too_large = heap::bounded(most_memory(data), || is_too_large(&archive, filter.clone()));
    if !too_large {
        build(&archive, filter);
    }
    assert_eq!(names(), ["archive.tar"]);
});

/// The archive, with a right checksum wherever a header of a newer kind than that of 1979 is.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for header in archive.chunks_exact_mut(512).filter(|header| &header[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// Memory that indexing an archive may take. Of a compressed one, the file that it unpacks to is bounded.
fn most_memory(data: &[u8]) -> usize {
    // gzip, a zstd frame, a skippable one.
    if matches!(data, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) {
        return MEMORY + MEMORY_PER_DIRECTORY * FILE_MAX as usize;
    }
    let directories = data.iter().filter(|byte| **byte == b'/').count();
    MEMORY + MEMORY_PER_BYTE * data.len() + MEMORY_PER_DIRECTORY * directories
}

/// Whether the archive has files of more bytes than a fuzzer waits for. The build says what is wrong with the
/// archive.
fn is_too_large(archive: &Path, filter: Filter) -> bool {
    let Ok(source) = TarSource::open(archive, &FOLDER, filter) else { return false };
    let mut left = PATIENCE;
    let mut is_too_large = false;
    let _ = source.walk(&mut |task| match left.checked_sub(task.size) {
        Some(less) => {
            left = less;
            Ok(())
        }
        None => {
            is_too_large = true;
            Err(Error::Stopped)
        }
    });
    is_too_large
}

fn build(archive: &Path, filter: Filter) {
    let image = FOLDER.join("image");
    let config = Config {
        image: image.clone(),
        source: SourcePath::Tar(archive.to_owned()),
        filter,
        profile: default_profile(DEFAULT_LEVEL),
        threads: NonZeroUsize::MIN,
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: false,
        dry_run: false,
    };
    match mkfs_tesserafs::build(&config, &Silent) {
        Ok(_) => {
            let source = fsck_tesserafs::Source::open(&image).expect("opened");
            let options = Options { threads: 1, ..Options::default() };
            let report = check(&source, &options, &fsck_tesserafs::progress::Silent, &Cancel::default());
            assert!(report.error.is_none() && report.is_clean(), "{:?} {:?}", report.error, report.findings);
            fs::remove_file(&image).expect("removed");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The names in the folder.
fn names() -> Vec<String> {
    let entries = fs::read_dir(&*FOLDER).expect("the folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
