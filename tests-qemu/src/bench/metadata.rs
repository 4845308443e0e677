// SPDX-License-Identifier: GPL-2.0
//! The verbs that read metadata alone, on images of 100,000 files: `tesserafs diff` and `tesserafs compose`.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::Sample;

use super::images::{LEVEL, OURS};
use super::record::Measured;
use super::Bench;
use crate::run;

/// Directories, and files in each.
const DIRECTORIES: usize = 1000;
const FILES: usize = 100;

/// One file of so many is another one in the second tree: 500 in all.
const ONE_OF: usize = 200;

/// Two trees that differ in a few hundred files; two that differ in all times; and one over the other.
pub(super) const DIFF: &str = "diff, 500 of 100,000 files changed";
const DIFF_OF_TIMES: &str = "diff, the times of all 100,000 files changed";
pub(super) const COMPOSE: &str = "compose, 500 files over 100,000";

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("packs")).context("failed to create a folder")?;
    for name in ["before", "changed", "later", "layer"] {
        fill(&at("tree"), name)?;
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
    let notes = vec![format!("{DIRECTORIES} directories of {FILES} files, some bytes each")];
    // The images are made beside, by our program alone.
    Measured::new(bench, Vec::new(), notes, samples)
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
        fs::write(&path, format!("version {version} of {number}\n")).context("failed to write a file")?;
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
