// SPDX-License-Identifier: GPL-2.0-or-later

//! Layers of container images: random ones against a model of what the OCI specification says, and each as an image of its own, composed.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;
#[path = "common/container.rs"]
mod container;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use archive::Archive;
use common::{noise, read_image, Item, Sandbox};
use container::{sha256, Container};
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::convert::{convert, Conversion, Form};
use mkfs_tesserafs::progress::Silent;

/// Numbers that look random, the same for the same seed.
struct Random(Vec<u8>);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        let number = self.0.pop().expect("more numbers");
        usize::from(number) % limit
    }
}

/// A file of the model.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    /// With its mode.
    Directory(u16),
    /// With its bytes.
    File(Vec<u8>),
}

/// A tree: paths, and what is there.
type Tree = BTreeMap<String, Entry>;

/// The paths that layers have: three levels of two names.
fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for top in ["a", "b"] {
        paths.push(top.to_owned());
        for middle in ["a", "b"] {
            paths.push(format!("{top}/{middle}"));
            paths.extend(["a", "b"].map(|name| format!("{top}/{middle}/{name}")));
        }
    }
    paths
}

fn is_below(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// A layer: what it hides, and its entries, in their order. No entry lies below one of the same layer that is no directory.
#[derive(Default)]
struct Layer {
    /// The mode of the root, where it has an entry.
    root: Option<u16>,
    hidden: BTreeSet<String>,
    emptied: BTreeSet<String>,
    entries: Vec<(String, Entry)>,
}

impl Layer {
    fn random(random: &mut Random, number: usize) -> Self {
        let mut layer = Self::default();
        for path in paths() {
            let above = |entries: &[(String, Entry)]| {
                entries.iter().any(|(at, entry)| matches!(entry, Entry::File(_)) && is_below(&path, at))
            };
            match random.below(9) {
                _ if above(&layer.entries) => {}
                0 | 1 => layer.entries.push((path, Entry::Directory(0o700 + number as u16))),
                2 | 3 => {
                    let bytes = format!("{path} of layer {number}");
                    layer.entries.push((path, Entry::File(bytes.into())));
                }
                4 => drop(layer.hidden.insert(path)),
                5 => drop(layer.emptied.insert(path)),
                _ => {}
            }
        }
        if random.below(20) == 0 {
            layer.emptied.insert(String::new());
        }
        layer.root = (random.below(3) == 0).then_some(0o710 + number as u16);
        // Nothing is in a file.
        let is_in_file = |path: &str| {
            layer
                .entries
                .iter()
                .any(|(at, entry)| matches!(entry, Entry::File(_)) && (at == path || is_below(path, at)))
        };
        let emptied = layer.emptied.iter().filter(|path| !is_in_file(path)).cloned().collect();
        let hidden = layer.hidden.iter().filter(|path| !is_in_file(path)).cloned().collect();
        Self { emptied, hidden, ..layer }
    }

    /// As an archive, the marks before, between or behind the entries.
    fn archive(&self, random: &mut Random) -> Archive {
        let mut archive = Archive::default();
        if let Some(mode) = self.root {
            archive.raw(b"./", b'5', b"", b"", |header| {
                header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
            });
        }
        let marks_at = random.below(self.entries.len() + 1);
        for number in 0..=self.entries.len() {
            if number == marks_at {
                for path in &self.hidden {
                    let (dir, name) =
                        path.rsplit_once('/').map_or(("", &path[..]), |(dir, name)| (dir, name));
                    archive.file(&format!("{dir}/.wh.{name}"), b"");
                }
                for path in &self.emptied {
                    archive.file(&format!("{path}/.wh..wh..opq"), b"");
                }
            }
            match self.entries.get(number) {
                None => {}
                Some((path, Entry::File(bytes))) => drop(archive.file(path, bytes).end()),
                Some((path, Entry::Directory(mode))) => {
                    let mode = format!("{mode:07o}");
                    archive.raw(path.as_bytes(), b'5', b"", b"", |header| {
                        header[100..107].copy_from_slice(mode.as_bytes());
                    });
                }
            }
        }
        archive
    }

    /// Puts it over a tree, as the specification says: what it hides goes first.
    fn apply(&self, tree: &mut Tree) {
        if let Some(mode) = self.root {
            tree.insert(String::new(), Entry::Directory(mode));
        }
        for path in &self.hidden {
            tree.retain(|at, _| at != path && !is_below(at, path));
        }
        for path in &self.emptied {
            tree.retain(|at, _| at.is_empty() || !is_below(at, path));
        }
        let marked = self.hidden.iter().filter_map(|path| path.rsplit_once('/').map(|(dir, _)| dir));
        let marked = marked.chain(self.emptied.iter().map(String::as_str)).filter(|dir| !dir.is_empty());
        // A mark implies the directory that it stands in.
        let implied: Vec<String> = marked.map(str::to_owned).collect();
        for dir in implied {
            make(tree, &dir);
        }
        for (path, entry) in &self.entries {
            if let Some((dir, _)) = path.rsplit_once('/') {
                make(tree, dir);
            }
            if let Entry::File(_) = entry {
                tree.retain(|at, _| !is_below(at, path));
            }
            tree.insert(path.clone(), entry.clone());
        }
    }
}

/// A directory without an entry.
const IMPLIED: Entry = Entry::Directory(0o755);

/// Makes a directory, and those above it.
fn make(tree: &mut Tree, dir: &str) {
    let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
    for end in ends {
        let at = &dir[..end];
        if !matches!(tree.get(at), Some(Entry::Directory(_))) {
            tree.insert(at.to_owned(), IMPLIED);
        }
    }
}

/// The tree of an image.
fn tree(items: &BTreeMap<String, Item>) -> Tree {
    let mut tree = Tree::new();
    for (path, item) in items {
        let entry = match item.kind {
            'd' => Entry::Directory(item.mode),
            'f' => Entry::File(item.bytes.clone()),
            kind => panic!("{path} is of kind {kind}"),
        };
        tree.insert(path.trim_start_matches('/').to_owned(), entry);
    }
    tree
}

/// Composes all layers in the order of the report; the tree ID of what they make.
fn composed(sandbox: &Sandbox, report: &serde_json::Value) -> String {
    let images = report["images"].as_array().expect("images");
    let layers = images
        .iter()
        .map(|image| LayerPath { image: sandbox.path(image.as_str().expect("a path")), at: Vec::new() });
    let composition = Composition {
        output: sandbox.path("composed.tess"),
        layers: layers.collect(),
        partial: false,
        annotations: Default::default(),
        force: true,
    };
    compose(&composition).expect("they compose").tree_id
}

const LAYERS: [&str; 6] = ["--oci", "layout", "--packdir", "packs", "--layers", "layers"];

#[test]
fn random_layers_make_the_tree_of_the_specification() {
    for seed in 0..80 {
        let mut random = Random(noise(seed + 1, 4000));
        let mut model = Tree::from([(String::new(), IMPLIED)]);
        let mut archives = Vec::new();
        for number in 0..2 + random.below(4) {
            let layer = Layer::random(&mut random, number);
            layer.apply(&mut model);
            archives.push(layer.archive(&mut random));
        }
        let sandbox = Sandbox::new();
        Container::new(&archives.iter().collect::<Vec<_>>()).layout(&sandbox.path("layout"));
        sandbox.mkfs(["--oci", "layout", "image"]);
        let read = read_image(&sandbox.path("image"));
        assert_eq!(tree(&read.items), model, "seed {seed}");
        // And an image of each layer, put together.
        fs::create_dir(sandbox.path("packs")).unwrap();
        let report = sandbox.report(LAYERS);
        let tree_id = format!("sha256:{}", read.superblock.tree_id);
        assert_eq!(composed(&sandbox, &report), tree_id, "seed {seed}");
    }
}

fn container() -> Container {
    let (mut base, mut second, mut third) = (Archive::default(), Archive::default(), Archive::default());
    base.dir("d").file("d/f", &noise(1, 300_000)).file("d/g", b"g").file("a", b"a").link(b'1', "a2", "a");
    second.file("d/.wh.g", b"").file("d/new", &noise(2, 200_000));
    third.link(b'1', "link", "d/f").link(b'1', "again", "d/f").link(b'1', "one", "a");
    Container::new(&[&base, &second, &third])
}

#[test]
fn layers_are_built_once() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    let whole = container();
    let lower = Container { layers: whole.layers[..2].to_vec(), ..whole.clone() };
    lower.layout(&sandbox.path("layout"));
    let first = sandbox.report(LAYERS);
    assert_eq!((first["images"].as_array().unwrap().len(), first["built"].as_array().unwrap().len()), (2, 2));
    let diff_id = |number: usize| format!("sha256:{}", sha256(&whole.layers[number]));
    let chain = sha256(format!("{} {}", diff_id(0), diff_id(1)).as_bytes());
    let path = |name: &str| format!("layers/{name}.tess");
    assert_eq!(first["images"][0], path(&sha256(&whole.layers[0])));
    assert_eq!(first["images"][1], path(&sha256(&lower.config())));
    fs::remove_dir_all(sandbox.path("layout")).unwrap();
    whole.layout(&sandbox.path("layout"));
    let report = sandbox.report(LAYERS);
    let images: Vec<_> = report["images"].as_array().unwrap().clone();
    assert_eq!(images, [path(&sha256(&whole.layers[0])), path(&chain), path(&sha256(&whole.config()))]);
    assert_eq!(report["built"].as_array().unwrap().len(), 2);
    // The chunks of the middle layer are those of the uppermost one of the other image.
    let packs = fs::read_dir(sandbox.path("packs")).unwrap().count();
    assert_eq!(packs, 3);
    let text = sandbox.mkfs(LAYERS);
    assert!(
        text.contains("3 layers were there") && text.contains("tesserafs compose IMAGE layers/"),
        "{text}"
    );
    let error = sandbox.refused(1, [&LAYERS[..], &["--level", "9"]].concat());
    assert!(error.contains("exists, and is the image sha256:"), "{error}");
    sandbox.mkfs([&LAYERS[..], &["--level", "9", "--force", "--quiet"]].concat());
    let error = sandbox.refused(2, ["--oci", "layout", "--layers", "layers"]);
    assert!(error.contains("--packdir"), "{error}");
    for options in [
        &["--layers", "--packdir", "packs", "layers", "layout"][..],
        &["--strip", "1", "--oci", "layout", "image"],
        &["--prefix", "x", "--oci", "layout", "image"],
        &["--platform", "linux/amd64", "image", "layout"],
        &["--platform", "linux/amd64", "--tar", "x.tar", "image"],
    ] {
        let error = sandbox.refused(2, options);
        assert!(error.contains("cannot be used with"), "{error}");
    }
    let error = sandbox.refused(2, ["--oci", "layout", "--packdir", "packs", "--layers", "-"]);
    assert!(error.contains("name a directory"), "{error}");
}

#[test]
fn what_is_there_is_taken_only_where_it_is_the_same() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    container().layout(&sandbox.path("layout"));
    let report = sandbox.report(LAYERS);
    let built = |options: &[&str]| -> usize {
        let report = sandbox.report(LAYERS.iter().chain(options));
        report["built"].as_array().unwrap().len()
    };
    assert_eq!(built(&[]), 0);
    // Packs that are lacking are made again.
    fs::remove_dir_all(sandbox.path("packs")).unwrap();
    fs::create_dir(sandbox.path("packs")).unwrap();
    assert_eq!(built(&[]), 0);
    assert_eq!(fs::read_dir(sandbox.path("packs")).unwrap().count(), 3);
    // Other options make other images.
    for options in [["--uid", "7"], ["--exclude", "d"], ["--annotate", "k=layout/index.json"]] {
        let error = sandbox.refused(1, LAYERS.iter().chain(&options));
        assert!(error.contains("exists, and is the image sha256:"), "{options:?}: {error}");
    }
    // Something else under a name of a layer.
    let first = sandbox.path(report["images"][0].as_str().unwrap());
    fs::write(&first, b"text").unwrap();
    let error = sandbox.refused(1, LAYERS);
    assert!(error.contains("layers/"), "{error}");
    fs::remove_file(&first).unwrap();
    assert_eq!(built(&[]), 1);
    // An error of the last layer is one before the first.
    let key = "org.opencontainers.image.config=layout/index.json";
    let error =
        sandbox.refused(2, ["--annotate", key, "--oci", "layout", "--packdir", "packs", "--layers", "other"]);
    assert!(error.contains("the container image has that itself"), "{error}");
    assert_eq!(sandbox.names(), ["layers", "layout", "packs"]);
    Container::new(&[]).layout(&sandbox.path("empty"));
    let error = sandbox.refused(1, ["--oci", "empty", "--packdir", "packs", "--layers", "other"]);
    assert!(error.contains("empty: has no layers"), "{error}");
    let output = sandbox.run(LAYERS.iter().chain(&["--exclude", "nothing-has-it", "--force"]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'nothing-has-it' matches nothing"));
}

/// The tree ID of an image of all layers; that of their composition is the same.
fn both(layers: &[&Archive]) -> String {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    Container::new(layers).layout(&sandbox.path("layout"));
    sandbox.mkfs(["--oci", "layout", "image"]);
    let tree_id = format!("sha256:{}", read_image(&sandbox.path("image")).superblock.tree_id);
    assert_eq!(composed(&sandbox, &sandbox.report(LAYERS)), tree_id);
    tree_id
}

#[test]
fn a_layer_takes_from_those_below_what_it_does_not_say() {
    let acl: (&[u8], &[u8]) =
        (b"SCHILY.acl.default", b"user::rwx,user:joe:r-x,group::r-x,mask::r-x,other::---");
    let owner: (&[u8], &[u8]) = (b"uname", b"joe");
    let (mut base, mut upper) = (Archive::default(), Archive::default());
    base.pax(b'x', &[(b"SCHILY.xattr.user.k", b"v"), (b"uid", b"5"), acl]).dir("./");
    base.pax(b'x', &[acl, (b"SCHILY.xattr.user.k", b"v")]).dir("d").file("d/f", b"f");
    upper.file("d/new", b"new").pax(b'x', &[owner]).file("of-joe", b"");
    both(&[&base, &upper]);
    // Whatever hides what is in it.
    upper.file("d/.wh..wh..opq", b"").file("d/.wh..wh..opq", b"").file(".wh.of-joe", b"");
    both(&[&base, &upper]);
    upper.file(".wh..wh..opq", b"").file(".wh..wh..opq", b"");
    both(&[&base, &upper]);
}

#[test]
fn an_entry_hides_what_an_earlier_one_of_its_layer_replaced() {
    let (mut base, mut upper) = (Archive::default(), Archive::default());
    base.dir("d").file("d/a", b"a").file("e", b"e");
    upper.file("d", b"file").dir("d").file("d/b", b"b").dir("e").file("e", b"again");
    let first = both(&[&base, &upper]);
    let mut expected = Archive::default();
    expected.dir("d").file("d/b", b"b").file("e", b"again");
    assert_eq!(first, both(&[&expected]));
}

#[test]
fn nothing_lies_below_a_hard_link() {
    let (mut base, mut upper) = (Archive::default(), Archive::default());
    base.file("a", b"a");
    upper.link(b'1', "l", "a").file("l/x", b"x");
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    Container::new(&[&base, &upper]).layout(&sandbox.path("layout"));
    for options in [&["--oci", "layout", "image"][..], &LAYERS] {
        let error = sandbox.refused(1, options);
        assert!(error.contains("l/x: lies below l, which is a file"), "{error}");
    }
    // But below a file of a lower layer.
    let mut upper = Archive::default();
    upper.file("a/x", b"x");
    both(&[&base, &upper]);
}

#[test]
fn marks_of_overlayfs_are_no_marks_of_layers() {
    let entries: [fn(&mut Archive) -> &mut Archive; 4] = [
        |archive| archive.link(b'3', "a", ""),
        |archive| archive.pax(b'x', &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")]).dir("d"),
        |archive| archive.pax(b'x', &[(b"SCHILY.xattr.user.overlay.redirect", b"/x")]).dir("d"),
        |archive| archive.pax(b'x', &[(b"SCHILY.xattr.trusted.overlay.metacopy", b"")]).file("f", b""),
    ];
    for add in entries {
        let (mut base, mut upper) = (Archive::default(), Archive::default());
        base.file("a", b"a").dir("d").file("d/a", b"a");
        add(&mut upper);
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("packs")).unwrap();
        Container::new(&[&base, &upper]).layout(&sandbox.path("layout"));
        // They are what they are in one image,
        sandbox.mkfs(["--oci", "layout", "image"]);
        assert!(read_image(&sandbox.path("image")).items.contains_key("d/a"));
        // and would hide something where images are composed.
        let error = sandbox.refused(1, LAYERS);
        assert!(error.contains("means something to overlayfs"), "{error}");
    }
}

#[test]
fn a_layer_without_a_byte_has_no_entry() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    let mut container = container();
    container.layers.insert(1, Vec::new());
    container.layout(&sandbox.path("layout"));
    sandbox.mkfs(["--oci", "layout", "image"]);
    assert!(read_image(&sandbox.path("image")).items.contains_key("link"));
    assert_eq!(sandbox.report(LAYERS)["images"].as_array().unwrap().len(), 4);
}

#[test]
fn a_hard_link_across_layers_is_a_file_of_the_upper_one() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("packs")).unwrap();
    container().layout(&sandbox.path("layout"));
    let report = sandbox.report(LAYERS);
    composed(&sandbox, &report);
    let conversion = Conversion {
        output: sandbox.path("unpacked.tess"),
        image: sandbox.path("composed.tess"),
        pack_dir: Some(sandbox.path("packs")),
        form: Form::OneFile,
        force: false,
    };
    convert(&conversion, &Silent).expect("it unpacks");
    let read = read_image(&conversion.output);
    // Of the merged tree, these are one file with d/f, and with a and a2.
    assert_eq!(read.item("link").ino, read.item("again").ino);
    assert_ne!(read.item("link").ino, read.item("d/f").ino);
    assert_eq!((read.item("link").nlink, read.item("one").nlink, read.item("a").nlink), (2, 1, 2));
    assert_eq!(read.item("link").size, 300_000);
    assert!(!read.items.contains_key("d/g"));
}
