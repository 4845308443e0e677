// SPDX-License-Identifier: GPL-2.0
//! Ten versions of a tree, one after the other, as images that share packs: what they take on a disk, what a host lacks that has the version
//! before, and how long it takes to build and to compare them; against what others make of the same trees.

mod nights;
mod rivals;
pub(super) mod series;
mod updates;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(super) use self::nights::Rule;
pub(super) use self::rivals::{CASYNC, EROFS, LAYERS, SQUASHFS};
use self::series::{Series, SERIES};
#[cfg(test)]
pub(super) use self::updates::Spent;
pub(super) use self::updates::{bundle, measure as updates, patch, Update, LEVELS, PORTABLE};
use super::images::LEVEL;
use super::record::{Measured, Program};
use super::{build, Bench};
use crate::{run, trees};

/// One version in one form: bytes on a disk, bytes that a host lacks that has the version before, and seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    /// The series.
    pub(super) series: String,
    /// From 1.
    pub(super) version: usize,
    /// What it was made into.
    pub(super) form: String,
    /// Bytes that it adds on the disk of a host with all versions.
    pub(super) disk: u64,
    /// Bytes that a host with the version before fetches; all of the first one.
    pub(super) fetched: u64,
    /// To make it.
    pub(super) seconds: f64,
}

/// Our forms: packs, fetched whole or chunk by chunk; and one file for each version.
pub(super) const PACKS: &str = "tesserafs, packs";
pub(super) const CHUNKS: &str = "tesserafs, chunks of packs";
pub(super) const ONE_FILE: &str = "tesserafs, one file";
/// What is measured beside.
pub(super) const DIFF: &str = "tesserafs diff";
pub(super) const COMPOSE: &str = "tesserafs compose";

/// All series.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Version>> {
    let mut samples = Vec::new();
    let mut notes = vec![
        format!(
            "level {LEVEL} of zstd for all; `disk` is what all ten versions take on one host; `fetched` is the median over the versions \
             from the second on"
        ),
        "chunks of packs: the stored bytes of the chunks that a host lacks, and the image file; packs: whole packs that it lacks, and \
         that file"
            .to_owned(),
    ];
    for series in &SERIES {
        let Some(about) = one(bench, series, &mut samples).with_context(|| series.name.to_owned())? else {
            notes.push(format!("{}: not measured, as this machine has no {}", series.name, series.needs));
            continue;
        };
        notes.push(format!("{}: {about}", series.name));
    }
    Measured::new(bench, programs(bench)?, notes, samples)
}

/// The rule for packs, over many nights.
pub(super) fn nights(bench: &Bench<'_>) -> Result<Measured<Rule>> {
    let rules = nights::measure(bench)?.context("there is no python3, which fetches the tree")?;
    let notes = vec![format!(
        "{}, first version; each night one file of fifty has the bytes of another version",
        series::PYTHON.about
    )];
    Measured::new(bench, Vec::new(), notes, rules)
}

fn programs(bench: &Bench<'_>) -> Result<Vec<Program>> {
    let mut programs = build::programs(bench)?;
    programs.extend(rivals::programs()?);
    Ok(programs)
}

/// One series; none where the machine has not what its versions are fetched with.
fn one(bench: &Bench<'_>, series: &Series, samples: &mut Vec<Version>) -> Result<Option<String>> {
    let Some(mut versions) = series::open(bench, series)? else { return Ok(None) };
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("packs")).context("failed to create a folder")?;
    let mut store = rivals::Casync::new(&at("casync"))?;
    let mut about = String::new();
    for version in 1..=series::VERSIONS {
        let tree = at("tree");
        versions.fill(&tree, version)?;
        if version == series::VERSIONS {
            let all = trees::described(&tree)?;
            about = format!(
                "{}; the last version has {} names and {:.1} MB in files",
                series.about,
                all.entries.len(),
                all.data_bytes() as f64 / 1e6
            );
        }
        let mut add = |form: &str, disk: u64, fetched: u64, seconds: f64| {
            eprintln!(
                "{} {version}: {form:28} {disk:11} on disk {fetched:11} fetched {seconds:7.2} s",
                series.name
            );
            samples.push(Version {
                series: series.name.to_owned(),
                version,
                form: form.to_owned(),
                disk,
                fetched,
                seconds,
            });
        };
        let (image, before) = (at(&format!("{version}.tess")), at(&format!("{}.tess", version - 1)));
        let parent = (version > 1).then_some(&*before);
        let Packed { disk, fetched, seconds } = packed(bench, &at("packs"), parent, &image, &tree, &[])?;
        add(PACKS, disk, disk, seconds);
        add(CHUNKS, disk, fetched, seconds);
        if version > 1 {
            let mut diff = run::command(&bench.tools.store);
            let begin = Instant::now();
            // It says by its status that there are differences.
            run::output(diff.arg("diff").arg(&before).arg(&image))?;
            add(DIFF, 0, 0, begin.elapsed().as_secs_f64());
            let mut compose = run::command(&bench.tools.store);
            compose.args(["compose", "--quiet", "--force"]).arg(at("composed.tess")).arg(&before).arg(&image);
            add(COMPOSE, 0, 0, timed(&mut compose)?.0);
        }
        let file = at("file");
        let (seconds, _) = timed(
            run::command(&bench.tools.mkfs)
                .args(["--quiet", "--force", "--level", &LEVEL.to_string()])
                .arg(&file)
                .arg(&tree),
        )?;
        let bytes = self::len(&file)?;
        add(ONE_FILE, bytes, bytes, seconds);
        rivals::measure(&bench.of(&tree), &tree, &file, &mut store, &mut add)?;
    }
    Ok(Some(about))
}

/// An image in packs that was built.
pub(super) struct Packed {
    /// Bytes of the image, and of its new packs.
    disk: u64,
    /// Bytes of the image, and of chunks that a host lacks which has the parent.
    pub(super) fetched: u64,
    /// To build it.
    seconds: f64,
}

/// Builds a tree in packs, with more arguments for mkfs.
pub(super) fn packed(
    bench: &Bench<'_>,
    packs: &Path,
    parent: Option<&Path>,
    image: &Path,
    tree: &Path,
    more: &[&str],
) -> Result<Packed> {
    let mut mkfs = run::command(&bench.tools.mkfs);
    mkfs.args(["--quiet", "--json", "--level", &LEVEL.to_string()]).args(more).arg("--packdir").arg(packs);
    if let Some(parent) = parent {
        mkfs.arg("--parent").arg(parent);
    }
    let (seconds, report) = timed(mkfs.arg(image).arg(tree))?;
    let (len, new) = (len(image)?, new_packs(&report)?);
    let lacking = match parent {
        Some(parent) => lacking(bench, parent, image)?,
        None => new,
    };
    Ok(Packed { disk: len + new, fetched: len + lacking, seconds })
}

/// How long a command takes, and what it prints.
fn timed(command: &mut std::process::Command) -> Result<(f64, String)> {
    let begin = Instant::now();
    let said = run::capture(command)?;
    Ok((begin.elapsed().as_secs_f64(), said))
}

fn len(path: &Path) -> Result<u64> {
    let metadata = path.metadata().with_context(|| format!("there is no {}", path.display()))?;
    Ok(metadata.len())
}

/// Bytes of the packs that a build wrote.
fn new_packs(report: &str) -> Result<u64> {
    let report: serde_json::Value =
        serde_json::from_str(report).context("mkfs reported what is no report")?;
    let packs = report["shared"]["packs"].as_array().context("mkfs reports no packs")?;
    let new = packs.iter().filter(|pack| pack["new"] == true);
    Ok(new.filter_map(|pack| pack["bytes"].as_u64()).sum())
}

/// Stored bytes of the chunks that the second image has and the first has not.
fn lacking(bench: &Bench<'_>, before: &Path, image: &Path) -> Result<u64> {
    let mut diff = run::command(&bench.tools.store);
    let output = run::output(diff.args(["diff", "--stat", "--json"]).arg(before).arg(image))?;
    let stat: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("diff said what is no object")?;
    stat["needs"]["chunk_bytes"].as_u64().context("diff says nothing of chunks")
}
