// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs compose` of random layers: the tree is the one that overlayfs shows. A model of overlayfs is asked always; the kernel's own,
//! over the directories and over mounts of the images, where it can be mounted.

#[path = "../support/mod.rs"]
mod support;

mod kernel;
mod layer;
mod model;

use std::fs;
use std::path::{Path, PathBuf};

use fsck_tesserafs::{check, Options};
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::config::SourcePath;
use mkfs_tesserafs::packs::SharedForm;
use mkfs_tesserafs::source::exclude::Exclude;
use mkfs_tesserafs::source::Devices;
use tempfile::TempDir;
use tesserafs_image::{superblock, Cancel, Silent, Source};

use kernel::Overlay;
use layer::{Generator, Layer, Marks, Random};
use model::{merge, Counts};
use support::{build_with, Mount};

/// Sets of layers of each kind of marks.
const SETS: u64 = 14;

/// One set of so many is mounted by FUSE.
const MOUNTED: u64 = 5;

/// Layers, each a directory and an image of it.
struct Set {
    folder: TempDir,
    seed: u64,
    layers: Vec<Layer>,
}

impl Set {
    fn new(seed: u64, marks: Marks) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("packs")).expect("a folder");
        let count = 2 + Random::new(!seed).below(5);
        let mut generator = Generator::new(seed, marks, rustix::process::geteuid().is_root());
        let mut set = Self { folder, seed, layers: Vec::new() };
        for number in 0..count {
            let mut layer = generator.layer();
            layer.write(&set.directory(number));
            set.build(&set.directory(number), number, &[]);
            layer.remove_devices(&set.directory(number));
            set.layers.push(layer);
        }
        set
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn directory(&self, layer: usize) -> PathBuf {
        self.at(&format!("{layer}"))
    }

    fn image(&self, name: impl std::fmt::Display) -> PathBuf {
        self.at(&format!("{name}.tess"))
    }

    /// Builds an image; the tree ID.
    fn build(&self, root: &Path, name: impl std::fmt::Display, exclude: &[String]) -> String {
        let form = SharedForm { dir: self.at("packs"), parents: Vec::new(), rebase: false };
        build_with(self.folder.path(), |config| {
            config.image = self.image(&name);
            config.source = SourcePath::Directory(root.to_owned());
            config.filter.devices = Devices::Skip;
            config.filter.exclude = Exclude::new(exclude).expect("patterns");
            config.shared = Some(form);
        });
        let source = Source::open(&self.image(&name)).expect("opened");
        superblock::read(&source).expect("a superblock").tree_id.to_string()
    }

    /// Composes images; the tree ID.
    fn compose(&self, name: &str, images: &[PathBuf], partial: bool) -> String {
        let layers = images.iter().map(|image| LayerPath { image: image.clone(), at: Vec::new() });
        let composition = Composition {
            output: self.image(name),
            layers: layers.collect(),
            partial,
            annotations: Default::default(),
            force: true,
        };
        let report = compose(&composition).unwrap_or_else(|error| panic!("set {}: {error}", self.seed));
        let source = Source::open(&self.image(name)).expect("opened");
        let options = Options { pack_dir: Some(self.at("packs")), threads: 1, ..Options::default() };
        let found = check(&source, &options, &Silent, &Cancel::default());
        assert!(found.is_clean(), "set {}: {name}: {found:?}", self.seed);
        report.tree_id.replace("sha256:", "")
    }

    fn images(&self) -> Vec<PathBuf> {
        (0..self.layers.len()).map(|number| self.image(number)).collect()
    }

    /// Fails unless two trees are one.
    fn expect(&self, name: &str, (composed, expected): (&str, &str)) {
        if composed != expected {
            let [a, b] = [self.image(name), self.image("composed")];
            let diff = support::tesserafs(&["diff", support::text(&a), support::text(&b)]);
            let diff = String::from_utf8_lossy(&diff.stdout).into_owned();
            panic!("set {}: {name}, then composed:\n{diff}", self.seed);
        }
    }

    /// Composes all layers; the tree ID, which is that of the model.
    fn composed(&self, counts: &mut Counts) -> String {
        let composed = self.compose("composed", &self.images(), false);
        merge(&self.layers, counts).write(&self.at("model"));
        let model = self.build(&self.at("model"), "model", &[]);
        self.expect("model", (&composed, &model));
        composed
    }

    /// Composes parts of the layers, and the results with the rest.
    fn composed_by_parts(&self, whole: &str) {
        let mut random = Random::new(self.seed);
        let images = self.images();
        for round in 0..3 {
            // The rest has a layer below at least, so that the tree can be the same.
            let first = 1 + random.below(images.len() - 1);
            let end = first + 1 + random.below(images.len() - first);
            let mut parts =
                vec![images[..first].to_vec(), images[first..end].to_vec(), images[end..].to_vec()];
            self.compose("part", &parts[1], true);
            parts[1] = vec![self.image("part")];
            if round == 2 {
                // All above the lowest one: a part of a part.
                let above = [&images[1..first], &parts[1][..], &parts[2][..]].concat();
                self.compose("part-of-parts", &above, true);
                parts = vec![vec![images[0].clone()], vec![self.image("part-of-parts")]];
            }
            let tree = self.compose("composed-by-parts", &parts.concat(), false);
            self.expect("composed-by-parts", (whole, &tree));
        }
    }

    /// Fails unless overlayfs shows the tree.
    fn expect_overlay(&self, name: &str, overlay: &Overlay, whole: &str) -> usize {
        let without_a_file = overlay.names_without_a_file();
        let tree = self.build(&overlay.path(), name, &without_a_file);
        self.expect(name, (whole, &tree));
        without_a_file.len()
    }
}

/// Whether this kernel has an overlayfs that can be asked.
fn overlayfs() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let layers = ["a", "b"].map(|name| folder.path().join(name));
    layers.iter().for_each(|layer| fs::create_dir(layer).expect("a folder"));
    Overlay::new(&layers, true).map(drop).map_err(|error| error.to_string())
}

/// Whether images can be mounted here.
fn fuse() -> Result<(), String> {
    fs::File::options().read(true).write(true).open("/dev/fuse").map(drop).map_err(|error| error.to_string())
}

/// Runs the sets of one kind of marks; what happened in them, and their trees.
fn run(marks: Marks, seeds: std::ops::Range<u64>) -> (Counts, std::collections::BTreeSet<String>) {
    let (mut counts, mut trees) = (Counts::default(), std::collections::BTreeSet::new());
    let (has_overlay, has_fuse) = (overlayfs().is_ok() && marks != Marks::Mixed, fuse().is_ok());
    for seed in seeds {
        let set = Set::new(seed, marks);
        let whole = set.composed(&mut counts);
        set.composed_by_parts(&whole);
        if has_overlay {
            let directories: Vec<_> = (0..set.layers.len()).map(|layer| set.directory(layer)).collect();
            let overlay = Overlay::new(&directories, marks == Marks::User).expect("an overlay");
            let without_a_file = set.expect_overlay("overlay", &overlay, &whole);
            *counts.0.entry("a whiteout that hides nothing").or_default() += without_a_file as u64;
            *counts.0.entry("overlayfs").or_default() += 1;
        }
        if has_overlay && has_fuse && seed % MOUNTED == 0 {
            let packs = set.at("packs");
            let mut mounts = Vec::new();
            for image in set.images() {
                let folder = image.with_extension("mounted");
                fs::create_dir(&folder).expect("a folder");
                fs::copy(&image, folder.join("image.tess")).expect("copied");
                mounts.push(Mount::new(&folder.join("image.tess"), &["--packdir", support::text(&packs)]));
            }
            let directories: Vec<_> = mounts.iter().map(|mount| mount.dir.clone()).collect();
            let overlay = Overlay::new(&directories, marks == Marks::User).expect("an overlay");
            set.expect_overlay("overlay-of-mounts", &overlay, &whole);
            *counts.0.entry("overlayfs over mounts of images").or_default() += 1;
        }
        trees.insert(whole);
    }
    (counts, trees)
}

#[test]
fn random_layers_are_composed_as_overlayfs_shows_them() {
    let is_root = rustix::process::geteuid().is_root();
    // Only root makes marks that are not those of users.
    let user = [(Marks::User, 1000), (Marks::User, 1100), (Marks::User, 1200)];
    let all = if is_root { [(Marks::Trusted, 0), (Marks::User, 1000), (Marks::Mixed, 2000)] } else { user };
    let mut counts = Counts::default();
    let mut trees = std::collections::BTreeSet::new();
    std::thread::scope(|scope| {
        let halves = all.iter().flat_map(|(marks, seed)| {
            [seed + 1..seed + SETS / 2, seed + SETS / 2..seed + SETS + 1].map(|seeds| (*marks, seeds))
        });
        let threads: Vec<_> = halves.map(|(marks, seeds)| scope.spawn(move || run(marks, seeds))).collect();
        for thread in threads {
            let (counted, made) = thread.join().expect("a thread");
            counts.add(&counted);
            trees.extend(made);
        }
    });
    let times = |what: &str| counts.0.get(what).copied().unwrap_or_default();
    println!("{} sets, each compared with the model; {counts:#?}", all.len() as u64 * SETS);
    for what in [
        "a whiteout hides a file",
        "a whiteout that is a file hides a file",
        "an opaque directory hides a file",
        "a file hides another one",
        "a directory hides a file",
        "a file below a directory hides a file below it",
        "a directory of several",
        "a hard link is seen by several names",
        "a hard link is not seen by all of its names",
        "a mark of an overlay in a layer",
    ] {
        assert!(times(what) >= 4, "{what}: {} times", times(what));
    }
    assert_eq!(trees.len() as u64, all.len() as u64 * SETS, "trees that are equal");
    match overlayfs() {
        // The sets with marks of both kinds are for the model alone.
        Ok(()) => assert_eq!(times("overlayfs"), 2 * SETS),
        Err(error) => eprintln!("SKIPPED: overlayfs of this kernel ({error}); the model was asked alone"),
    }
    match overlayfs().and_then(|()| fuse()) {
        Ok(()) => assert!(times("overlayfs over mounts of images") >= 2 * (SETS / MOUNTED)),
        Err(error) => eprintln!("SKIPPED: overlayfs over mounts of images ({error})"),
    }
}
