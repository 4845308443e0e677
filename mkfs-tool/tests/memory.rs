// SPDX-License-Identifier: GPL-2.0-or-later

//! How much memory a build takes for each inode, which the help says. One test, as it counts what all threads allocate.

#[path = "common/archive.rs"]
mod archive;

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use archive::Archive;
use mkfs_tesserafs::build;
use mkfs_tesserafs::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};
use mkfs_tesserafs::progress::Silent;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes for an inode with a content of its own that are allowed. Growing tables are counted with the copies that growing makes,
/// which the system need not: the help has what it took in fact.
const MOST: usize = 320;

/// How many files of a few bytes there are in a small tree and in a large one: what both take is taken for any tree. To make files
/// in a directory takes much longer than to write them to an archive. All are a little less than a power of two, so that tables that
/// double have as much room to spare in one tree as in the other.
const IN_DIRECTORY: [usize; 2] = [2_000, 16_000];
const IN_ARCHIVE: [usize; 2] = [4_000, 64_000];

fn name(number: usize) -> String {
    format!("directory-{:03}/file-{number:06}", number / 1000)
}

fn bytes(number: usize) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn directory(at: &Path, files: usize) -> SourcePath {
    let root = at.join(format!("root-{files}"));
    for number in 0..files {
        let path = root.join(name(number));
        if number % 1000 == 0 {
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        }
        fs::write(path, bytes(number)).expect("a file");
    }
    SourcePath::Directory(root)
}

fn archive(at: &Path, files: usize) -> SourcePath {
    let path = at.join(format!("{files}.tar"));
    let mut archive = Archive::default();
    for number in 0..files {
        archive.file(&name(number), &bytes(number));
    }
    fs::write(&path, archive.end()).expect("an archive");
    SourcePath::Tar(path)
}

/// The most that a build has allocated at a time.
fn peak(at: &Path, source: SourcePath) -> usize {
    let config = Config {
        image: at.join("image"),
        source,
        filter: Default::default(),
        profile: default_profile(DEFAULT_LEVEL),
        threads: NonZeroUsize::new(2).expect("two"),
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: true,
        dry_run: false,
    };
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    build(&config, &Silent).expect("an image");
    HEAP.peak_usage() - before
}

#[test]
fn a_build_takes_so_much_memory_for_an_inode() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    type Make = fn(&Path, usize) -> SourcePath;
    let sources: [(&str, Make, [usize; 2]); 2] =
        [("archive", archive, IN_ARCHIVE), ("directory", directory, IN_DIRECTORY)];
    for (what, make, files) in sources {
        let [few, many] = files.map(|files| peak(at, make(at, files)));
        let each = (many - few) / (files[1] - files[0]);
        println!("{what}: {each} bytes an inode beside {few}");
        assert!(each <= MOST, "{what}: {each} bytes an inode");
    }
}
