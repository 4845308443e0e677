// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs compose`: the tree is that of a build of the merged directories, and `fsck` finds nothing wrong with it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use fsck_tesserafs::{check, Options};
use mkfs_tesserafs::config::default_profile;
use mkfs_tesserafs::packs::SharedForm;
use rustix::fs::{mknodat, setxattr, FileType, Mode, XattrFlags, CWD};
use tempfile::TempDir;
use tesserafs_image::{superblock, Cancel, Silent, Source};

mod support;

use support::{build_with, TESSERAFS};

/// A folder with layers, each a directory and an image of it.
struct Layers {
    folder: TempDir,
}

impl Layers {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root makes whiteouts");
            return None;
        }
        fs::create_dir(folder.path().join("packs")).expect("a folder");
        Some(Self { folder })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a directory, and the image of it in the shared form.
    fn layer(&self, name: &str, fill: impl FnOnce(&Tree)) {
        let tree = self.tree(name, fill);
        self.build(name, &tree.0, 3);
    }

    fn tree(&self, name: &str, fill: impl FnOnce(&Tree)) -> Tree {
        let tree = Tree(self.at(&format!("{name}.d")));
        fs::create_dir(&tree.0).expect("a folder");
        fill(&tree);
        tree.still();
        tree
    }

    fn build(&self, name: &str, root: &Path, level: u32) {
        let form = SharedForm { dir: self.at("packs"), parents: Vec::new(), rebase: false };
        build_with(self.folder.path(), |config| {
            config.image = self.at(&format!("{name}.tess"));
            config.source = mkfs_tesserafs::config::SourcePath::Directory(root.to_owned());
            config.profile = default_profile(level);
            config.shared = Some(form);
        });
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TESSERAFS);
        command.current_dir(self.folder.path()).arg("compose").args(arguments).output().expect("tesserafs")
    }

    /// Composes `new.tess`; the report.
    fn compose(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[&["--json", "--force", "new.tess"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.check("new.tess");
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["never.tess"], arguments].concat());
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(!self.at("never.tess").exists());
        said
    }

    /// Proves that an image breaks no rule, with the bytes of its files.
    fn check(&self, image: &str) {
        let source = Source::open(&self.at(image)).expect("opened");
        let options = Options { pack_dir: Some(self.at("packs")), ..Options::default() };
        let report = check(&source, &options, &Silent, &Cancel::default());
        assert!(report.is_clean(), "{image}: {report:?}");
    }

    /// Proves that `new.tess` has the tree that a directory has.
    fn expect(&self, report: &serde_json::Value, name: &str, fill: impl FnOnce(&Tree)) {
        self.layer(name, fill);
        let built = self.tree_id(&format!("{name}.tess"));
        assert_eq!(report["tree_id"], format!("sha256:{built}"), "{}", self.diff(name));
    }

    fn tree_id(&self, image: &str) -> String {
        let source = Source::open(&self.at(image)).expect("opened");
        superblock::read(&source).expect("a superblock").tree_id.to_string()
    }

    fn diff(&self, name: &str) -> String {
        let image = format!("{name}.tess");
        let output = Command::new(TESSERAFS)
            .current_dir(self.folder.path())
            .args(["diff", &image, "new.tess"])
            .output();
        String::from_utf8(output.expect("tesserafs").stdout).expect("text")
    }
}

/// A directory that a layer is made of.
struct Tree(PathBuf);

impl Tree {
    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect(name);
        path
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect(name);
    }

    fn directory(&self, name: &str, mode: u32) {
        fs::create_dir_all(self.at(name)).expect(name);
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).expect(name);
    }

    fn whiteout(&self, name: &str) {
        mknodat(CWD, self.at(name), FileType::CharacterDevice, Mode::empty(), 0).expect(name);
    }

    fn set(&self, name: &str, xattr: &str, value: &str) {
        setxattr(self.at(name), xattr, value.as_bytes(), XattrFlags::empty()).expect(name);
    }

    /// Gives everything one time.
    fn still(&self) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut todo = vec![self.0.clone()];
        while let Some(path) = todo.pop() {
            let kind = path.symlink_metadata().expect("metadata");
            if kind.is_dir() {
                todo.extend(path.read_dir().expect("entries").map(|entry| entry.expect("an entry").path()));
            }
            if kind.is_dir() || kind.is_file() {
                File::open(&path).and_then(|file| file.set_modified(time)).expect("a time");
            } else {
                let time = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
                let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(CWD, &path, &times, flags).expect("a time");
            }
        }
    }
}

#[test]
fn upper_files_hide_lower_ones() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.file("etc/kept", "kept");
        tree.file("etc/replaced", "old");
        tree.file("etc/gone", "gone");
        tree.file("file", "a file");
        tree.file("folder/below", "below");
        tree.directory("mode", 0o755);
        tree.file("mode/of-base", "base");
        tree.file("was-link", "no link");
    });
    layers.layer("middle", |tree| {
        tree.file("etc/replaced", "new");
        tree.whiteout("etc/gone");
        tree.file("file/now-a-folder", "inside");
        tree.file("folder", "now a file");
        tree.directory("mode", 0o700);
    });
    layers.layer("top", |tree| {
        tree.file("etc/gone", "back again");
        tree.whiteout("etc/never-there");
        tree.file("folder/again", "a folder again");
        symlink("file", tree.at("was-link")).expect("a link");
    });
    let report = layers.compose(&["base.tess", "middle.tess", "top.tess"]);
    layers.expect(&report, "merged", |tree| {
        tree.file("etc/kept", "kept");
        tree.file("etc/replaced", "new");
        tree.file("etc/gone", "back again");
        tree.file("file/now-a-folder", "inside");
        tree.file("folder/again", "a folder again");
        tree.directory("mode", 0o700);
        tree.file("mode/of-base", "base");
        symlink("file", tree.at("was-link")).expect("a link");
    });
    assert_eq!(report["packs"].as_array().map(Vec::len), Some(3), "{report}");
    // The same images give the same bytes.
    let again = layers.compose(&["base.tess", "middle.tess", "top.tess"]);
    assert_eq!(again["image_id"], report["image_id"]);
    // One image is itself.
    let alone = layers.compose(&["base.tess"]);
    assert_eq!(alone["tree_id"], format!("sha256:{}", layers.tree_id("base.tess")));
    assert!(
        fs::read(layers.at("new.tess")).expect("read") == fs::read(layers.at("base.tess")).expect("read")
    );
}

#[test]
fn opaque_directories_hide_what_is_below() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.file("data/old", "old");
        tree.file("data/inner/old", "old");
        tree.file("kept/file", "kept");
    });
    layers.layer("top", |tree| {
        tree.file("data/new", "new");
        tree.whiteout("data/hides-nothing");
        tree.file("data/inner/new", "new");
        tree.set("data", "trusted.overlay.opaque", "y");
        tree.set("data/new", "trusted.overlay.origin", "a handle");
        tree.set("data/new", "user.own", "value");
        // The root of a layer hides nothing.
        tree.set(".", "trusted.overlay.opaque", "y");
    });
    let report = layers.compose(&["base.tess", "top.tess"]);
    layers.expect(&report, "merged", |tree| {
        tree.file("data/new", "new");
        tree.set("data/new", "user.own", "value");
        tree.file("data/inner/new", "new");
        tree.file("kept/file", "kept");
    });
}

#[test]
fn whiteouts_that_are_files_and_escaped_marks() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.file("a/gone", "gone");
        tree.file("b/stays", "stays");
    });
    layers.layer("top", |tree| {
        tree.file("a/gone", "");
        tree.set("a", "trusted.overlay.opaque", "x");
        tree.set("a/gone", "trusted.overlay.whiteout", "y");
        // In another directory it is a file.
        tree.file("b/stays", "");
        tree.set("b/stays", "trusted.overlay.whiteout", "y");
        tree.file("inner/file", "of an overlay in the layer");
        tree.set("inner", "trusted.overlay.overlay.opaque", "y");
    });
    let report = layers.compose(&["base.tess", "top.tess"]);
    layers.expect(&report, "merged", |tree| {
        tree.directory("a", 0o755);
        tree.file("b/stays", "");
        tree.file("inner/file", "of an overlay in the layer");
        tree.set("inner", "trusted.overlay.opaque", "y");
    });
}

#[test]
fn a_partial_result_hides_what_its_parts_hide() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.file("a/one", "1");
        tree.file("b/two", "2");
        tree.file("c", "3");
        tree.file("d/four", "4");
        tree.file("e/five", "5");
    });
    layers.layer("lower", |tree| {
        tree.whiteout("a");
        tree.file("b/more", "more");
        tree.set("b", "user.overlay.opaque", "y");
        tree.whiteout("c");
        tree.file("d", "no directory");
    });
    layers.layer("upper", |tree| {
        tree.file("a/new", "new");
        tree.file("b/most", "most");
        tree.file("d/new", "new");
        tree.whiteout("e");
    });
    let whole = layers.compose(&["base.tess", "lower.tess", "upper.tess"]);
    let partial = layers.compose(&["--partial", "lower.tess", "upper.tess"]);
    layers.expect(&partial, "layer", |tree| {
        for (name, file) in [("a", "a/new"), ("d", "d/new")] {
            tree.file(file, "new");
            tree.set(name, "trusted.overlay.opaque", "y");
            tree.set(name, "user.overlay.opaque", "y");
        }
        tree.file("b/more", "more");
        tree.file("b/most", "most");
        tree.set("b", "user.overlay.opaque", "y");
        tree.whiteout("c");
        tree.whiteout("e");
    });
    fs::rename(layers.at("new.tess"), layers.at("partial.tess")).expect("renamed");
    let again = layers.compose(&["base.tess", "partial.tess"]);
    assert_eq!(again["tree_id"], whole["tree_id"]);
}

/// A whiteout that is a file is one in directories that say so, and another name of it may be in one that does not.
#[test]
fn a_file_that_is_a_whiteout_by_one_name_is_a_file_by_another() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.file("a/gone", "gone");
        tree.file("b/hidden", "hidden");
    });
    layers.layer("top", |tree| {
        tree.file("a/gone", "");
        tree.set("a", "trusted.overlay.opaque", "x");
        tree.set("a/gone", "trusted.overlay.whiteout", "y");
        tree.set("a/gone", "user.own", "value");
        for name in ["a/gone-too", "b/hidden", "c"] {
            fs::hard_link(tree.at("a/gone"), tree.at(name)).expect("a link");
        }
    });
    let merged = |tree: &Tree| {
        tree.directory("a", 0o755);
        tree.file("b/hidden", "");
        tree.set("b/hidden", "user.own", "value");
        fs::hard_link(tree.at("b/hidden"), tree.at("c")).expect("a link");
    };
    let whole = layers.compose(&["base.tess", "top.tess"]);
    layers.expect(&whole, "merged", merged);
    let partial = layers.compose(&["--partial", "top.tess"]);
    layers.expect(&partial, "layer", |tree| {
        merged(tree);
        let mode = Mode::from_raw_mode(0o644);
        mknodat(CWD, tree.at("a/gone"), FileType::CharacterDevice, mode, 0).expect("a whiteout");
        fs::set_permissions(tree.at("a/gone"), fs::Permissions::from_mode(0o644)).expect("a mode");
        fs::hard_link(tree.at("a/gone"), tree.at("a/gone-too")).expect("a link");
    });
    fs::rename(layers.at("new.tess"), layers.at("partial.tess")).expect("renamed");
    assert_eq!(layers.compose(&["base.tess", "partial.tess"])["tree_id"], whole["tree_id"]);
}

#[test]
fn hard_links_stay_links_as_far_as_they_are_seen() {
    let Some(layers) = Layers::new() else { return };
    let fill = |tree: &Tree, names: &[&str]| {
        tree.file(names[0], "linked");
        for name in &names[1..] {
            fs::hard_link(tree.at(names[0]), tree.at(name)).expect("a link");
        }
    };
    layers.layer("base", |tree| fill(tree, &["a", "b/c", "d", "e"]));
    layers.layer("top", |tree| {
        tree.whiteout("a");
        tree.file("d", "linked");
    });
    let report = layers.compose(&["base.tess", "top.tess"]);
    layers.expect(&report, "merged", |tree| {
        fill(tree, &["e", "b/c"]);
        tree.file("d", "linked");
    });
}

#[test]
fn an_image_is_put_below_a_directory() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| {
        tree.directory("opt", 0o711);
        tree.file("opt/other", "other");
        tree.file("file", "a file");
        symlink("opt", tree.at("link")).expect("a link");
    });
    layers.layer("jdk", |tree| {
        tree.file("bin/java", "java");
        tree.directory(".", 0o750);
    });
    let report =
        layers.compose(&["base.tess", "--at", "/opt/jdk", "jdk.tess", "--at", "usr/share/jdk/", "jdk.tess"]);
    layers.expect(&report, "merged", |tree| {
        tree.directory("opt", 0o711);
        tree.file("opt/other", "other");
        tree.file("file", "a file");
        symlink("opt", tree.at("link")).expect("a link");
        for at in ["opt/jdk", "usr/share/jdk"] {
            tree.file(&format!("{at}/bin/java"), "java");
            tree.directory(at, 0o750);
        }
    });
    for (at, expected) in [("/file/jdk", "file is a"), ("/link", "link is a"), ("/link/jdk", "link is a")] {
        if at == "/link" {
            // The root of the image takes its place.
            layers.compose(&["base.tess", "--at", at, "jdk.tess"]);
            continue;
        }
        let said = layers.refused(&["base.tess", "--at", at, "jdk.tess"]);
        assert!(said.starts_with("tesserafs: base.tess: ") && said.contains(expected), "{said}");
    }
    assert!(layers.refused(&["base.tess", "--at", "/opt/../jdk", "jdk.tess"]).contains("--at"));
}

/// Images at directories are above all at the root, wherever they are said, and among themselves in the order in which they are.
#[test]
fn images_below_directories_are_composed_in_their_order() {
    let Some(layers) = Layers::new() else { return };
    for (name, file) in [("base", "at/file"), ("top", "at/file"), ("one", "file"), ("two", "file")] {
        layers.layer(name, |tree| {
            tree.file(file, name);
            tree.file(&file.replace("file", name), name);
        });
    }
    let mut trees = Vec::new();
    for (last, arguments) in [
        ("two", ["base.tess", "top.tess", "--at", "at", "one.tess", "--at", "at", "two.tess"]),
        ("two", ["--at", "at", "one.tess", "base.tess", "--at", "/at/", "two.tess", "top.tess"]),
        ("two", ["--at", "at", "one.tess", "--at", "./at", "two.tess", "base.tess", "top.tess"]),
        ("one", ["base.tess", "top.tess", "--at", "at", "two.tess", "--at", "at", "one.tess"]),
    ] {
        let report = layers.compose(&arguments);
        trees.push(report["tree_id"].clone());
        layers.expect(&report, &format!("merged-{}", trees.len()), |tree| {
            for name in ["base", "top", "one", "two"] {
                tree.file(&format!("at/{name}"), name);
            }
            tree.file("at/file", last);
        });
    }
    assert!(trees[0] == trees[1] && trees[1] == trees[2] && trees[2] != trees[3]);
    // One below the other, the higher one first or last.
    let at = |pairs: &[&str]| layers.compose(&[&["base.tess"], pairs].concat())["tree_id"].clone();
    let below = ["--at", "x", "one.tess", "--at", "x/y", "two.tess"];
    let above = ["--at", "x/y", "two.tess", "--at", "x", "one.tess"];
    assert_eq!(at(&below), at(&above), "they have no name in common");
    // At the root it is above the others.
    let (two, root) = (at(&["two.tess"]), at(&["--at", "/", "two.tess"]));
    assert!(two == root && at(&["--at", "/", "two.tess", "one.tess"]) != at(&["two.tess", "one.tess"]));
    assert_eq!(at(&["--at", "/", "two.tess", "one.tess"]), at(&["one.tess", "two.tess"]));
}

#[test]
fn what_cannot_be_composed_is_named() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| tree.file("file", "text"));
    let tree = layers.tree("other", |tree| tree.file("other", "text, too"));
    layers.build("other", &tree.0, 9);
    let said = layers.refused(&["base.tess", "other.tess"]);
    assert!(
        said.contains("other.tess: is cut or compressed otherwise") && said.contains("level 9"),
        "{said}"
    );
    build_with(layers.folder.path(), |config| {
        config.image = layers.at("one.tess");
        config.source = mkfs_tesserafs::config::SourcePath::Directory(tree.0.clone());
    });
    let said = layers.refused(&["base.tess", "one.tess"]);
    assert!(said.contains("tesserafs pack --packdir DIR SHARED.tess one.tess"), "{said}");
    // The command does what is said of it.
    layers.layer("same", |tree| tree.file("other", "text, too"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(TESSERAFS);
        let output = command.current_dir(layers.folder.path()).args(arguments).output().expect("tesserafs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["pack", "--quiet", "--packdir", "packs", "shared.tess", "one.tess"]);
    let converted = layers.compose(&["base.tess", "shared.tess"]);
    assert_eq!(converted["tree_id"], layers.compose(&["base.tess", "same.tess"])["tree_id"]);
    for (number, mark) in ["trusted.overlay.redirect", "user.overlay.metacopy"].iter().enumerate() {
        let name = format!("marked-{number}");
        layers.layer(&name, |tree| {
            tree.file("dir/file", "text");
            tree.set("dir", mark, "/elsewhere");
        });
        let said = layers.refused(&["base.tess", &format!("{name}.tess")]);
        assert!(said.contains(&format!("{name}.tess: dir has the xattr {mark}")), "{said}");
    }
    let mut broken = fs::read(layers.at("base.tess")).expect("read");
    broken[4200] ^= 1;
    fs::write(layers.at("broken.tess"), broken).expect("written");
    let said = layers.refused(&["base.tess", "broken.tess"]);
    assert!(said.starts_with("tesserafs: broken.tess: hash-block @"), "{said}");
    // The cause is said once.
    assert_eq!(said.matches("hash-block").count(), 1, "{said}");
    assert!(layers.refused(&["base.tess", "nothing.tess"]).contains("nothing.tess"));
}

#[test]
fn annotations_are_those_of_all_images() {
    let Some(layers) = Layers::new() else { return };
    layers.layer("base", |tree| tree.file("file", "text"));
    let mut file = File::create(layers.at("value")).expect("created");
    file.write_all(b"a value").expect("written");
    let first = layers.compose(&["base.tess", "--annotate", "org.example.key=value"]);
    let plain = layers.compose(&["base.tess"]);
    assert!(first["image_id"] != plain["image_id"] && first["tree_id"] == plain["tree_id"]);
    layers.compose(&["base.tess", "--annotate", "org.example.key=value"]);
    fs::rename(layers.at("new.tess"), layers.at("annotated.tess")).expect("renamed");
    assert_eq!(layers.compose(&["annotated.tess"])["image_id"], first["image_id"]);
}
