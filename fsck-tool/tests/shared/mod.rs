// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree that is built again and again, in either form.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use fsck_tesserafs::{check, Options};
use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use mkfs_tesserafs::error::Error;
use mkfs_tesserafs::packs::{PacksReport, SharedForm};
use mkfs_tesserafs::report::Report;
use tesserafs_format::superblock::Layout;
use tesserafs_image::{Cancel, Silent, Source};

#[path = "../../../format/tests/common/mod.rs"]
mod common;

pub(crate) use common::pattern;

/// A directory with a tree, images of it and their packs.
pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
}

/// Parts of a build that tests change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Build<'a> {
    pub(crate) parents: &'a [&'a str],
    pub(crate) rebase: bool,
    pub(crate) level: Option<u32>,
    pub(crate) threads: Option<usize>,
    pub(crate) in_one_file: bool,
    pub(crate) dry_run: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self { dir: tempfile::tempdir().expect("a directory") };
        for name in ["tree/many", "packs"] {
            fs::create_dir_all(folder.at(name)).expect(name);
        }
        for n in 0..200_u64 {
            folder.write(&format!("many/{n:03}"), &pattern((n * 97 % 5000 + 1) as usize, n % 100));
        }
        folder.write("large", &pattern(3_000_000, 1));
        folder.write("text", "the same line again and again\n".repeat(20_000).as_bytes());
        folder.write("zeros", &[0; 300_001]);
        folder
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at("tree").join(name), bytes).expect(name);
    }

    pub(crate) fn try_build(&self, image: &str, build: &Build<'_>) -> Result<Report, Error> {
        let form = SharedForm {
            dir: self.at("packs"),
            parents: build.parents.iter().map(|name| self.at(name)).collect(),
            rebase: build.rebase,
        };
        let config = Config {
            image: self.at(image),
            source: SourcePath::Directory(self.at("tree")),
            filter: Default::default(),
            profile: default_profile(build.level.unwrap_or(3)),
            threads: NonZeroUsize::new(build.threads.unwrap_or(1)).expect("a thread"),
            annotations: Default::default(),
            signer: None,
            signed_data: None,
            sbom: false,
            shared: (!build.in_one_file).then_some(form),
            force: true,
            dry_run: build.dry_run,
        };
        mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent)
    }

    /// Builds an image, and proves that it is clean.
    pub(crate) fn build(&self, image: &str, build: &Build<'_>) -> (Report, PacksReport) {
        let report = self.try_build(image, build).expect(image);
        self.check(image);
        let packs = report.shared.clone().unwrap_or_default();
        (report, packs)
    }

    /// Proves that an image is clean, and canonical.
    pub(crate) fn check(&self, image: &str) {
        let report = self.report(image, true);
        assert!(report.is_clean() && report.difference.is_none(), "{image}: {report:?}");
    }

    pub(crate) fn report(&self, image: &str, canonical: bool) -> fsck_tesserafs::Report {
        let options = Options { pack_dir: Some(self.at("packs")), canonical, ..Options::default() };
        let source = Source::open(&self.at(image)).expect("opened");
        check(&source, &options, &Silent, &Cancel::default())
    }

    pub(crate) fn packs(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.at("packs")).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    }

    /// An image that says otherwise in its map region, with all digests right.
    pub(crate) fn forge(&self, new: &str, image: &str, change: impl FnOnce(&mut [u8], &Layout)) {
        let mut image = fs::read(self.at(image)).expect(image);
        let layout = common::layout(&image);
        change(&mut image, &layout);
        let [start, end] = [layout.tree_offset, layout.hash_offset].map(|at| at as usize);
        let (hashes, root) = common::merkle(&image[start..end], 0);
        image[end..end + hashes.len()].copy_from_slice(&hashes);
        common::superblock(&mut image, |sb| sb.merkle_root = root);
        fs::write(self.at(new), image).expect(new);
    }

    pub(crate) fn image_len(&self, image: &str) -> u64 {
        fs::metadata(self.at(image)).expect(image).len()
    }
}

pub(crate) fn names(packs: &PacksReport) -> BTreeSet<String> {
    packs.packs.iter().map(|pack| pack.digest.clone()).collect()
}

pub(crate) fn with_parents<'a>(parents: &'a [&'a str]) -> Build<'a> {
    Build { parents, ..Build::default() }
}
