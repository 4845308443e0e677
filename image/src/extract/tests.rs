// SPDX-License-Identifier: GPL-2.0-or-later

//! The cost of an extraction, counted and not timed.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::process::Command;

use mkfs_tesserafs::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};

use super::*;
use crate::finding::Findings;
use crate::{superblock, Cancel, Silent, Source, VerifiedMetadata};

/// Extracts directories in directories, so many, with a file in the last; how many directories were opened.
fn opened(levels: usize) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let (archive, image, out) =
        (folder.path().join("a.tar"), folder.path().join("image"), folder.path().join("out"));
    let mut tar = ::tar::Builder::new(File::create(&archive).expect("an archive"));
    let mut header = ::tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "d/".repeat(levels) + "file", &b"x"[..]).expect("a file");
    tar.into_inner().expect("an archive");
    let config = Config {
        image: image.clone(),
        source: SourcePath::Tar(archive),
        filter: Default::default(),
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
    mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent).expect("an image");

    let source = Source::open(&image).expect("an image");
    let sb = superblock::read(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &sb);
    let (findings, cancel) = (Findings::default(), Cancel::default());
    let context = Context::new(&metadata, &findings, &Silent, &cancel);
    let tree = walk::walk(&context).expect("a tree");
    assert_eq!((findings.count(), tree.directories.len()), (0, levels + 1));
    let scope = Scope::whole(&tree);
    let mut extraction = Extraction::default();
    let extractor = Extractor::new(&context, &tree, &scope, Options::default(), &out, &mut extraction)
        .expect("a directory");
    extractor.run().expect("a tree");
    let opened = extractor.directories.lock().expect("no panic").opened;
    // Deeper than what removes a temporary folder can go.
    assert!(fs::metadata(out.join("d")).expect("there").is_dir());
    assert!(Command::new("rm").arg("-rf").arg(&out).status().expect("rm runs").success());
    opened
}

#[test]
fn a_deep_tree_opens_a_number_of_directories_that_grows_with_it() {
    let (some, many) = (opened(600), opened(3000));
    // By opening each from the root it would be 4.5 million, 25 times as many as of the other.
    assert!(many < 10 * 3000, "{many}");
    assert!(many < some * 8, "{some}, {many}");
}
