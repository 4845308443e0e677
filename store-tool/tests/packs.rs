// SPDX-License-Identifier: GPL-2.0-or-later

//! Packs where the disk fails.

mod support;

use std::fs;
use std::path::Path;

use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use mkfs_tesserafs::packs::SharedForm;
use support::{noise, without_disk};

/// Builds an image with a pack of the folder `root`.
fn build(folder: &Path) -> Result<(), String> {
    let form = SharedForm { dir: folder.join("packs"), parents: Vec::new(), rebase: false };
    let config = Config {
        image: folder.join("image.tess"),
        source: SourcePath::Directory(folder.join("root")),
        filter: Default::default(),
        profile: default_profile(3),
        threads: std::num::NonZeroUsize::MIN,
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: Some(form),
        force: false,
        dry_run: false,
    };
    let built = mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent);
    built.map(drop).map_err(|error| error.to_string())
}

#[test]
fn no_pack_has_a_name_before_it_is_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for name in ["root", "packs"] {
        fs::create_dir(folder.join(name)).expect("a directory");
    }
    fs::write(folder.join("root/file"), noise(1, 100_000)).expect("a file");
    let packs = || folder.join("packs").read_dir().expect("packs").count();
    let error = without_disk(|| build(folder)).expect_err("an image whose pack may be gone");
    assert!(error.contains("cannot force to the disk") && error.contains("packs/"), "{error}");
    assert_eq!((packs(), folder.join("image.tess").exists()), (0, false));
    build(folder).expect("an image");
    assert_eq!(packs(), 1);
}
