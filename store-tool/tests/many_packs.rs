// SPDX-License-Identifier: GPL-2.0-or-later

//! Images with more packs than a program may have files open at first. One test, as the limit is that of all threads.

mod support;

use std::fs;

use mkfs_tesserafs::config::SourcePath;
use mkfs_tesserafs::packs::SharedForm;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use support::{build_with, noise, tesserafs, text, Mount};

const PACKS: u64 = 60;
const LIMIT: u64 = 40;

#[test]
fn more_packs_than_the_soft_limit_of_open_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("packs")).expect("a directory");
    let mut layers = Vec::new();
    for number in 0..PACKS {
        let root = at(&format!("{number}"));
        fs::create_dir(&root).expect("a directory");
        fs::write(root.join(format!("file-{number}")), noise(number, 5000)).expect("a file");
        layers.push(at(&format!("{number}.tess")));
        build_with(folder.path(), |config| {
            config.image = layers[number as usize].clone();
            config.source = SourcePath::Directory(root);
            config.shared = Some(SharedForm { dir: at("packs"), parents: Vec::new(), rebase: false });
        });
    }
    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|maximum| maximum > 2 * PACKS), "{limit:?}");
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), ..limit }).expect("a limit");

    let succeeds = |arguments: &[&str]| {
        let output = tesserafs(arguments);
        assert!(output.status.success(), "{}", support::error(&output));
    };
    let (composed, packs, whole) = (at("composed.tess"), at("packs"), at("whole.tess"));
    let layers: Vec<&str> = layers.iter().map(|layer| text(layer)).collect();
    succeeds(&[&["compose", "-q", text(&composed)], &layers[..]].concat());
    succeeds(&["unpack", "-q", "--packdir", text(&packs), text(&whole), text(&composed)]);
    if support::folder().is_none() {
        return;
    }
    let mount = Mount::new(&composed, &["--packdir", text(&packs)]);
    for number in 0..PACKS {
        let bytes = fs::read(mount.path(&format!("file-{number}"))).expect("a file");
        assert!(bytes == noise(number, 5000), "{number}");
    }
}
