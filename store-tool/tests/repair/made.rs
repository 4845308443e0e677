// SPDX-License-Identifier: GPL-2.0-or-later

//! Images of a tree in two versions, in both forms and several profiles, and bundles from one to the other: made once for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mkfs_tesserafs::config::Config;
use mkfs_tesserafs::packs::SharedForm;
use tempfile::TempDir;
use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::SuperBlock;

use crate::support::{build_with, done, noise, signer};

/// The folder of all that.
pub(crate) struct Made {
    folder: TempDir,
}

/// The images, made by whichever test is first.
pub(crate) fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(Made::new)
}

impl Made {
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.at(name)).expect("a file")
    }

    /// `monday.tess` and `tuesday.tess` in one file, the latter signed, `monday` and `tuesday` over packs; of Tuesday's tree also `level.tess`
    /// at another level, `cut.tess` with other chunks, and `deep.tess` with hash blocks of two levels; `update` and `portable` make
    /// `tuesday.tess` of `monday.tess`, and `packs-update` makes `tuesday` of `monday`.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for name in ["root/usr/lib", "root/etc", "packs"] {
            fs::create_dir_all(path.join(name)).expect(name);
        }
        let write = |name: &str, bytes: &[u8]| fs::write(path.join("root").join(name), bytes).expect(name);
        let mut library = noise(1, 120_000);
        write("usr/lib/library", &library);
        write("usr/lib/same", &noise(2, 60_000));
        write("usr/lib/gone", &noise(3, 50_000));
        for number in 0..40 {
            write(&format!("etc/{number}"), format!("setting {number}\n").repeat(number + 5).as_bytes());
        }
        one_file(path, "monday.tess", |_| ());
        shared(path, "monday", &[]);

        for at in (0..library.len()).step_by(30_000) {
            library[at] ^= 1;
        }
        write("usr/lib/library", &library);
        write("usr/lib/come", &noise(5, 40_000));
        fs::remove_file(path.join("root/usr/lib/gone")).expect("removed");
        for number in (0..40).step_by(9) {
            write(&format!("etc/{number}"), format!("another setting {number}\n").repeat(30).as_bytes());
        }
        let signer = signer(path);
        one_file(path, "tuesday.tess", |config| config.signer = Some(signer));
        one_file(path, "unsigned.tess", |_| ());
        one_file(path, "level.tess", |config| config.profile.level = 9);
        one_file(path, "cut.tess", |config| {
            let profile = &mut config.profile;
            (profile.chunk_min, profile.chunk_avg, profile.chunk_max) = (8192, 16_384, 32_768);
            (profile.group_size, profile.small_max) = (4096, 2048);
        });
        one_file(path, "deep.tess", |config| {
            config.annotations.insert(b"org.example.large".to_vec(), noise(7, 1_400_000));
        });
        shared(path, "tuesday", &["monday"]);
        done(path, &["bundle", "-q", "-o", "update", "monday.tess", "tuesday.tess"]);
        done(path, &["bundle", "-q", "--portable", "-o", "portable", "monday.tess", "tuesday.tess"]);
        done(path, &["bundle", "-q", "--packdir", "packs", "-o", "packs-update", "monday", "tuesday"]);
        Self { folder }
    }
}

fn one_file(folder: &Path, name: &str, change: impl FnOnce(&mut Config)) {
    build_with(folder, |config| {
        config.image = folder.join(name);
        small(config);
        change(config);
    });
}

fn shared(folder: &Path, name: &str, parents: &[&str]) {
    build_with(folder, |config| {
        config.image = folder.join(name);
        small(config);
        config.shared = Some(SharedForm {
            dir: folder.join("packs"),
            parents: parents.iter().map(|parent| folder.join(parent)).collect(),
            rebase: false,
        });
    });
}

/// Many chunks of few bytes.
fn small(config: &mut Config) {
    let profile = &mut config.profile;
    (profile.chunk_min, profile.chunk_avg, profile.chunk_max) = (4096, 4096, 8192);
    (profile.group_size, profile.small_max) = (8192, 4096);
}

/// The superblock of an image.
pub(crate) fn superblock(image: &[u8]) -> SuperBlock {
    let block: &[u8; BLOCK_SIZE] = image.first_chunk().expect("a block");
    SuperBlock::parse(block).expect("a superblock")
}
