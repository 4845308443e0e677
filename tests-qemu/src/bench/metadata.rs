// SPDX-License-Identifier: GPL-2.0
//! Verbs on images of 100,000 files: `tesserafs diff` and `tesserafs compose`, which read metadata alone, and `tesserafs sbom --check`, which
//! reads every file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::Sample;

use super::images::{LEVEL, OURS};
use super::record::Measured;
use super::Bench;
use crate::{rootfs, run};

/// Directories, and files in each.
const DIRECTORIES: usize = 1000;
const FILES: usize = 100;

/// One file of so many is another one in the second tree: 500 in all.
const ONE_OF: usize = 200;

/// Two trees that differ in a few hundred files; two that differ in all times; and one over the other.
pub(super) const DIFF: &str = "diff, 500 of 100,000 files changed";
const DIFF_OF_TIMES: &str = "diff, the times of all 100,000 files changed";
pub(super) const COMPOSE: &str = "compose, 500 files over 100,000";
/// A tree of packages, as dpkg lists them.
pub(super) const CHECK: &str = "sbom --check, 100,000 files of packages";

/// Bytes of a file of a package.
const PACKAGE_FILE: usize = 1900;

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("packs")).context("failed to create a folder")?;
    for name in ["before", "changed", "later", "layer", PACKAGES] {
        fill(&at("tree"), name)?;
        if name == PACKAGES {
            list(&at("tree"))?;
        }
        let mut mkfs = run::command(&bench.tools.mkfs);
        mkfs.args(["--quiet", "--level", &LEVEL.to_string(), "--packdir"]).arg(at("packs"));
        run::capture(mkfs.arg(at(name)).arg(at("tree")))?;
        fs::remove_dir_all(at("tree")).context("failed to remove a tree")?;
    }
    let mut samples = Vec::new();
    for round in 1..=bench.options.rounds {
        for (measure, arguments, status) in [
            (DIFF, &["diff", "before", "changed"][..], 1),
            (DIFF_OF_TIMES, &["diff", "before", "later"], 1),
            (COMPOSE, &["compose", "--quiet", "--force", "composed", "before", "layer"], 0),
            (CHECK, &["sbom", "--check", "--json", "--packdir", "packs", PACKAGES], 0),
        ] {
            let begin = Instant::now();
            let output =
                run::output(run::command(&bench.tools.store).current_dir(scratch.path()).args(arguments))?;
            let value = begin.elapsed().as_secs_f64();
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(status), "{arguments:?}: {}: {said}", output.status);
            let count = (DIRECTORIES * FILES) as u64;
            let (measure, system) = (measure.to_owned(), OURS.to_owned());
            samples.push(Sample { measure, system, round, value, count, bytes: 0, decoded: None });
        }
    }
    let notes = vec![format!(
        "{DIRECTORIES} directories of {FILES} files, some bytes each; of packages, one a directory, {PACKAGE_FILE} bytes each"
    )];
    // The images are made beside, by our program alone.
    Measured::new(bench, Vec::new(), notes, samples)
}

/// The tree of packages.
const PACKAGES: &str = "packages";

/// Adds the database of dpkg, with a package for each directory.
fn list(tree: &Path) -> Result<()> {
    let script = "find directory-* -type f -print0 | sort -z | xargs -0 md5sum";
    let digests = run::capture(run::command("sh").current_dir(tree).args(["-c", script]))?;
    let info = tree.join("var/lib/dpkg/info");
    fs::create_dir_all(&info).context("failed to create a folder")?;
    let (mut status, mut lists) = (String::new(), BTreeMap::new());
    for line in digests.lines() {
        let (folder, _) =
            line.split_once("  ").and_then(|(_, path)| path.split_once('/')).context("no digest")?;
        let (list, sums): &mut (String, String) = lists.entry(folder).or_default();
        let path = &line[34..];
        list.push_str(&format!("/{path}\n"));
        sums.push_str(&format!("{line}\n"));
    }
    for (package, (list, sums)) in lists {
        status.push_str(&format!(
            "Package: {package}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nDescription: one of many\n\n"
        ));
        fs::write(info.join(format!("{package}.list")), list).context("failed to write a list")?;
        fs::write(info.join(format!("{package}.md5sums")), sums).context("failed to write a list")?;
    }
    fs::write(tree.join("var/lib/dpkg/status"), status).context("failed to write a database")
}

/// Makes a tree of this name.
fn fill(tree: &Path, name: &str) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(name == "later"));
    for number in 0..DIRECTORIES * FILES {
        let is_other = number % ONE_OF == 0;
        if name == "layer" && !is_other {
            continue;
        }
        let folder = tree.join(format!("directory-{:04}", number / FILES));
        if !folder.exists() {
            fs::create_dir_all(&folder).context("failed to create a folder")?;
        }
        let path = folder.join(format!("file-{number}"));
        let version = if is_other && name != "before" && name != "later" { 2 } else { 1 };
        let bytes = match name {
            PACKAGES => rootfs::prose(number as u64, PACKAGE_FILE),
            _ => format!("version {version} of {number}\n").into(),
        };
        fs::write(&path, bytes).context("failed to write a file")?;
        set_time(&path, time)?;
    }
    // A directory has the time of its last entry.
    for entry in tree.read_dir().context("failed to list a tree")? {
        set_time(&entry.context("failed to list a tree")?.path(), time)?;
    }
    set_time(tree, time)
}

fn set_time(path: &Path, time: SystemTime) -> Result<()> {
    let set = File::open(path).and_then(|file| file.set_modified(time));
    set.with_context(|| format!("failed to set the time of {}", path.display()))
}
