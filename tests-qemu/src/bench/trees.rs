// SPDX-License-Identifier: GPL-2.0
//! mkfs against the builders of squashfs and EROFS on trees of one kind each.
//!
//! The Debian root of [`super::build`] has 100,000 tiny files, whose names cost more than their bytes: its figure says little of other trees.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use tesserafs_guest::tree::is_file;

use super::build::{self, MKSQUASHFS, OURS};
use super::images::LEVEL;
use super::record::{Built, Measured};
use super::Bench;
use crate::cache::{key, Cache};
use crate::debian::Suite;
use crate::rootfs::{self, SUITE};
use crate::{kernel, run, trees};

/// One run of one builder on one tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TreeBuilt {
    pub(super) tree: String,
    /// Regular files of the tree.
    pub(super) files: u64,
    /// Bytes in them.
    pub(super) data: u64,
    #[serde(flatten)]
    pub(super) built: Built,
}

/// The trees, as the report names them.
pub(super) const ORDINARY: &str = "ordinary files";
pub(super) const TINY: &str = "tiny files";
pub(super) const LARGE: &str = "large programs and libraries";
pub(super) const STATIC: &str = "static libraries";
pub(super) const SOURCES: &str = "sources";

/// A tree to build from.
struct Tree {
    name: &'static str,
    origin: Origin,
}

/// Where a tree is from.
#[derive(Clone, Copy)]
enum Origin {
    /// The Debian root of the tests, without what it has for them.
    Root,
    /// A directory of that root.
    Directory(&'static str),
    /// Of these packages the files that begin with these bytes.
    Packages(&'static [&'static str], &'static [u8]),
    /// The source of the kernel that the tests run, without its drivers: two thirds of its bytes are theirs.
    Kernel,
}

const TREES: [Tree; 5] = [
    Tree { name: ORDINARY, origin: Origin::Root },
    Tree { name: TINY, origin: Origin::Directory(rootfs::BIG_DIRECTORY) },
    Tree {
        name: LARGE,
        origin: Origin::Packages(
            &["cpp-12", "libclang-cpp16", "libllvm16", "libnode108", "libstd-rust-1.63", "qemu-system-x86"],
            b"\x7fELF",
        ),
    },
    Tree {
        name: STATIC,
        origin: Origin::Packages(
            &["libc6-dev", "libgrpc-dev", "libicu-dev", "libssl-dev", "llvm-16-dev"],
            b"!<arch>\n",
        ),
    },
    Tree { name: SOURCES, origin: Origin::Kernel },
];

/// Left out of the Debian root: what the tests need, the tiny files among it.
const CASES: &str = "srv/cases";
/// Left out of the kernel's source.
const DRIVERS: &str = "drivers";

/// A tree that is there.
struct Prepared {
    folder: PathBuf,
    excluded: Option<&'static str>,
    /// For the report.
    about: String,
}

/// Makes an image, at a level.
type Builder = fn(&Bench<'_>, u32, &Path) -> Command;

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<TreeBuilt>> {
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let image = scratch.path().join("image");
    let runs = bench.options.runs;
    let mut samples = Vec::new();
    let mut notes = vec![format!(
        "zstd level {LEVEL} for all; {runs} runs of {OURS} and {MKSQUASHFS} in turn, after one that fills the page cache; one of {EROFS}, \
         for the size"
    )];
    for Tree { name, origin } in &TREES {
        let Prepared { folder, excluded, about } = prepare(bench, name, *origin)?;
        run::say(format_args!("{name}: {about}"));
        let bench = Bench { excluded, ..bench.of(&folder) };
        let (files, data) = counted(&folder, excluded)?;
        let mut build = |builder: &str, command: Builder, run: usize| -> Result<()> {
            let built = build::once(builder, &mut command(&bench, LEVEL, &image), LEVEL, run, &image)?;
            eprintln!(
                "{name}, run {run}: {builder:15} {:7.2} s, {:7.2} s of processors, {:11} bytes",
                built.seconds,
                built.processor.unwrap_or_default(),
                built.bytes
            );
            if run > 0 {
                samples.push(TreeBuilt { tree: (*name).to_owned(), files, data, built });
            }
            Ok(())
        };
        for run in 0..=runs {
            build(OURS, build::tesserafs, run)?;
            build(MKSQUASHFS, build::squashfs, run)?;
        }
        build(EROFS, |bench, level, image| build::erofs(bench, Some(level), image), 1)?;
        notes.push(format!("{name}: {about}"));
    }
    let shown = Bench { excluded: None, ..bench.clone() };
    Measured::new(bench, build::programs(&shown)?, notes, samples)
}

/// The third builder.
const EROFS: &str = "mkfs.erofs";

/// The tree of sources, its part that is left out, and what it is.
pub(super) fn sources(bench: &Bench<'_>) -> Result<(PathBuf, &'static str, String)> {
    let Prepared { folder, about, .. } = prepare(bench, SOURCES, Origin::Kernel)?;
    Ok((folder, DRIVERS, about))
}

/// Finds a tree, or makes it.
fn prepare(bench: &Bench<'_>, name: &str, origin: Origin) -> Result<Prepared> {
    let cache = &bench.cache;
    Ok(match origin {
        Origin::Root => Prepared {
            folder: rootfs::debian(cache)?,
            excluded: Some(CASES),
            about: format!("the Debian root of the tests, without {}", CASES),
        },
        Origin::Directory(path) => Prepared {
            folder: rootfs::debian(cache)?.join(path),
            excluded: None,
            about: format!("{path} of that root"),
        },
        Origin::Packages(packages, magic) => {
            let folder = unpacked(cache, name, packages, magic)?;
            let list = std::fs::read_to_string(folder.join(VERSIONS)).context("failed to read a list")?;
            let about = format!("from packages of Debian {SUITE}: {}", list.trim_end().replace('\n', ", "));
            Prepared { folder: folder.join("tree"), excluded: None, about }
        }
        Origin::Kernel => {
            let folder = kernel::source(cache)?;
            let version = kernel::version(&folder)?;
            let about = format!("the source of Linux {version}, without {DRIVERS}");
            Prepared { folder, excluded: Some(DRIVERS), about }
        }
    })
}

/// The list of packages beside a tree.
const VERSIONS: &str = "packages";

/// The folder with the tree of packages, made once.
fn unpacked(cache: &Cache, name: &str, packages: &[&str], magic: &[u8]) -> Result<PathBuf> {
    let key = key(&[SUITE.as_bytes(), packages.join(" ").as_bytes(), magic]);
    let prefix = format!("bench-tree-{}-", name.replace(' ', "-"));
    let folder = cache.once(&format!("{prefix}{key}"), |folder| {
        run::say(format_args!("fetching packages: {name}"));
        let tree = folder.join("tree");
        let lists = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
        let suite = Suite::fetch(lists.path(), SUITE, false)?;
        let mut versions = String::new();
        for package in packages {
            let version = suite.version(package)?;
            let file = suite.download(package, Some(&version))?;
            run::quiet(run::command("dpkg-deb").arg("-x").arg(file).arg(&tree))?;
            versions.push_str(&format!("{package} {version}\n"));
        }
        keep(&tree, magic)?;
        ensure!(tree.exists(), "no file of {} is one of {name}", packages.join(", "));
        std::fs::write(folder.join(VERSIONS), versions).context("failed to write a list")
    })?;
    cache.forget_others(&folder, &prefix)?;
    Ok(folder)
}

/// Removes everything but regular files that begin with these bytes, and the directories of those.
fn keep(folder: &Path, magic: &[u8]) -> Result<()> {
    let mut is_empty = true;
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("failed to list {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type().context("failed to stat a file")?);
        if kind.is_dir() {
            keep(&path, magic)?;
        } else if !kind.is_file() || !begins_with(&path, magic)? {
            std::fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
        }
        is_empty &= !path.exists();
    }
    if is_empty {
        std::fs::remove_dir(folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    Ok(())
}

fn begins_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    file.take(magic.len() as u64).read_to_end(&mut start).context("failed to read a file")?;
    Ok(start == magic)
}

/// Regular files of a tree, and bytes in them, without a directory of it.
fn counted(folder: &Path, excluded: Option<&str>) -> Result<(u64, u64)> {
    let mut manifest = trees::described(folder)?;
    if let Some(excluded) = excluded {
        manifest.entries.retain(|entry| !Path::new(&entry.below(Path::new(""))).starts_with(excluded));
    }
    let files = manifest.entries.iter().filter(|entry| is_file(entry.mode)).count();
    Ok((files as u64, manifest.data_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_packages_has_files_of_one_kind() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for folder in ["lib/deep", "doc"] {
            std::fs::create_dir_all(tree.join(folder)).unwrap();
        }
        for (name, text) in [
            ("lib/one.a", "!<arch>\nmember"),
            ("lib/deep/two.a", "!<arch>\n"),
            ("lib/short", "!<a"),
            ("lib/one.h", "text of a header"),
            ("doc/copyright", "text"),
        ] {
            std::fs::write(tree.join(name), text).unwrap();
        }
        for (target, name) in [("one.a", "lib/link.a"), ("nowhere", "doc/dangling")] {
            std::os::unix::fs::symlink(target, tree.join(name)).unwrap();
        }
        keep(&tree, b"!<arch>\n").unwrap();
        let manifest = trees::described(&tree).unwrap();
        let paths: Vec<&[u8]> = manifest.entries.iter().map(|entry| &entry.path[..]).collect();
        assert_eq!(paths, [&b""[..], b"lib", b"lib/deep", b"lib/deep/two.a", b"lib/one.a"]);
        // Names are compared, not their beginnings.
        assert_eq!(counted(&tree, None).unwrap(), (2, 22));
        assert_eq!(counted(&tree, Some("lib/deep")).unwrap(), (1, 14));
        assert_eq!(counted(&tree, Some("li")).unwrap(), (2, 22));
        keep(&tree, b"\x7fELF").unwrap();
        assert!(!tree.exists());
    }
}
