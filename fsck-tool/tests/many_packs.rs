// SPDX-License-Identifier: GPL-2.0-or-later

//! An image with more packs than the program may have files open at first. One test, as the limit is that of all threads.

use std::fs;
use std::process::Command;

use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

mod shared;

use shared::{pattern, Build, Folder};

const PACKS: u64 = 60;
const LIMIT: u64 = 40;

#[test]
fn more_packs_than_the_soft_limit_of_open_files() {
    let folder = Folder::new();
    let mut layers = Vec::new();
    for number in 0..PACKS {
        fs::remove_dir_all(folder.at("tree")).expect("removed");
        fs::create_dir(folder.at("tree")).expect("a directory");
        folder.write(&format!("{number}"), &pattern(5000, number));
        let name = format!("{number}.tess");
        folder.try_build(&name, &Build::default()).expect("built");
        layers.push(LayerPath { image: folder.at(&name), at: Vec::new() });
    }
    let output = folder.at("composed.tess");
    let annotations = Default::default();
    compose(&Composition { output, layers, partial: false, annotations, force: false }).expect("composed");
    assert_eq!(folder.packs().len() as u64, PACKS);

    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|maximum| maximum > 2 * PACKS), "{limit:?}");
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), ..limit }).expect("a limit");
    let mut fsck = Command::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
    fsck.arg("--packdir").args([folder.at("packs"), folder.at("composed.tess")]);
    let output = fsck.output().expect("fsck");
    assert!(output.status.success(), "{output:?}");
}
