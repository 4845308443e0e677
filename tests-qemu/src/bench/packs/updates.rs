// SPDX-License-Identifier: GPL-2.0
//! Updates as files: what a host with one version of a tree needs to make another one, as bundles, and as others make such files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::super::images::LEVEL;
use super::super::record::{Measured, Program};
use super::super::{build, Bench};
use super::rivals::{self, Casync};
use super::series::{self, Series, SERIES, VERSIONS};
use super::{len, CASYNC};
use crate::run;

/// A file by which one version becomes another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Update {
    /// The series.
    pub(in super::super) series: String,
    /// The version that there is, and the one that is made.
    pub(in super::super) from: usize,
    pub(in super::super) to: usize,
    /// The form of the file.
    pub(in super::super) form: String,
    pub(in super::super) bytes: u64,
    /// To make it, and to apply it, where that was measured.
    pub(in super::super) make: Spent,
    pub(in super::super) apply: Option<Spent>,
}

/// Time and memory of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Spent {
    pub(in super::super) seconds: f64,
    /// Bytes of memory, at most.
    pub(in super::super) memory: u64,
}

/// Levels of zstd that are compared.
pub(in super::super) const LEVELS: [u32; 2] = [9, 19];
/// Our form that no version of zstd is needed for.
pub(in super::super) const PORTABLE: &str = "bundle, portable";
/// The other program that makes a difference of two files.
pub(in super::super) const XDELTA: &str = "xdelta3 -9";

/// Our form.
pub(in super::super) fn bundle(level: u32) -> String {
    format!("bundle, level {level}")
}

/// The form of zstd.
pub(in super::super) fn patch(level: u32) -> String {
    format!("zstd -{level} --patch-from")
}

/// Steps from one version to the next that are measured: the first, one in the middle, and the last.
const STEPS: [usize; 3] = [2, VERSIONS.div_ceil(2) + 1, VERSIONS];

/// All series.
pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Measured<Update>> {
    let mut samples = Vec::new();
    let mut notes = vec![
        format!(
            "bundles between images in one file of level {LEVEL}; `zstd` and `xdelta3` between archives of the whole trees, each with a \
             window over all of the old one; layers are the whole new tree"
        ),
        format!(
            "the steps to versions {} of each series: medians of bytes and seconds, and the most memory of one; single runs",
            STEPS.map(|step| step.to_string()).join(", ")
        ),
    ];
    for series in &SERIES {
        if !one(bench, series, &mut samples).with_context(|| series.name.to_owned())? {
            notes.push(format!("{}: not measured, as this machine has no {}", series.name, series.needs));
        }
    }
    Measured::new(bench, programs(bench)?, notes, samples)
}

/// The programs, beside those of the builders.
fn programs(bench: &Bench<'_>) -> Result<Vec<Program>> {
    let mut programs = build::programs(bench)?;
    programs.extend(rivals::programs()?);
    let said = run::output(run::command("xdelta3").arg("-V"))?;
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    programs.push(Program {
        name: XDELTA.to_owned(),
        version: said.lines().next().unwrap_or_default().to_owned(),
        command: "xdelta3 -e -9 -S lzma -B BYTES -s OLD NEW FILE".to_owned(),
    });
    Ok(programs)
}

/// The files of a series that is being measured.
struct Step<'a> {
    bench: &'a Bench<'a>,
    series: &'a Series,
    folder: &'a Path,
    samples: &'a mut Vec<Update>,
}

/// One series; whether this machine has what its versions are fetched with.
fn one(bench: &Bench<'_>, series: &Series, samples: &mut Vec<Update>) -> Result<bool> {
    let Some(mut versions) = series::open(bench, series)? else { return Ok(false) };
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let mut step = Step { bench, series, folder: scratch.path(), samples };
    let mut store = None;
    for version in 1..=VERSIONS {
        let tree = step.at("tree");
        versions.fill(&tree, version)?;
        step.build(&tree, version)?;
        if let Some(store) = store.take().filter(|_| STEPS.contains(&version)) {
            step.compare(&tree, version, store)?;
        }
        if STEPS.contains(&(version + 1)) {
            let new = store.insert(Casync::new(&step.at(&format!("casync-{version}")))?);
            new.add(&tree)?;
        }
        // The archive of the version before is of no more use.
        if version > 1 {
            std::fs::remove_file(step.archive(version - 1)).context("failed to remove an archive")?;
        }
    }
    // From each of the others to the last one.
    for from in 1..VERSIONS - 1 {
        step.bundle((from, VERSIONS), &bundle(LEVELS[0]), &["--level", &LEVELS[0].to_string()])?;
    }
    Ok(true)
}

impl Step<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn image(&self, version: usize) -> PathBuf {
        self.at(&format!("{version}.tess"))
    }

    fn archive(&self, version: usize) -> PathBuf {
        self.at(&format!("{version}.tar"))
    }

    /// Makes an image and an archive of a version.
    fn build(&self, tree: &Path, version: usize) -> Result<()> {
        let level = LEVEL.to_string();
        let mut mkfs = run::command(&self.bench.tools.mkfs);
        run::quiet(mkfs.args(["--quiet", "--level", &level]).arg(self.image(version)).arg(tree))?;
        let mut tar = run::command("tar");
        tar.args(["--sort=name", "--numeric-owner", "-C"])
            .arg(tree)
            .arg("-cf")
            .arg(self.archive(version))
            .arg(".");
        run::quiet(&mut tar)
    }

    fn add(&mut self, (from, to): (usize, usize), form: &str, bytes: u64, make: Spent, apply: Option<Spent>) {
        eprintln!("{} {from} to {to}: {form:24} {bytes:11} bytes {:7.2} s", self.series.name, make.seconds);
        self.samples.push(Update {
            series: self.series.name.to_owned(),
            from,
            to,
            form: form.to_owned(),
            bytes,
            make,
            apply,
        });
    }

    /// All forms of a step; `store` has the chunks of the version before.
    fn compare(&mut self, tree: &Path, version: usize, mut store: Casync) -> Result<()> {
        let step = (version - 1, version);
        for level in LEVELS {
            self.bundle(step, &bundle(level), &["--level", &level.to_string()])?;
        }
        self.bundle(step, PORTABLE, &["--portable"])?;
        let [old, new, file, again] =
            [self.archive(step.0), self.archive(step.1), self.at("file"), self.at("again")];
        for level in LEVELS {
            let from = format!("--patch-from={}", old.display());
            let mut make = run::command("zstd");
            make.args(["-q", "-f", "--long=31", &format!("-{level}"), &from]).arg(&new).arg("-o").arg(&file);
            let mut apply = run::command("zstd");
            apply.args(["-q", "-f", "-d", "--long=31", &from]).arg(&file).arg("-o").arg(&again);
            self.file(step, &patch(level), &mut make, &mut apply, &file)?;
        }
        let window = len(&old)?.next_power_of_two().to_string();
        let mut make = run::command("xdelta3");
        make.args(["-e", "-f", "-9", "-S", "lzma", "-B", &window, "-s"]).args([&old, &new, &file]);
        let mut apply = run::command("xdelta3");
        apply.args(["-d", "-f", "-B", &window, "-s"]).args([&old, &file, &again]);
        self.file(step, XDELTA, &mut make, &mut apply, &file)?;
        let mut layers = Vec::new();
        rivals::layers(tree, |form, bytes, seconds| layers.push((form.to_owned(), bytes, seconds)))?;
        for (form, bytes, seconds) in layers {
            self.add(step, &form, bytes, Spent { seconds, memory: 0 }, None);
        }
        let (bytes, seconds) = store.add(tree)?;
        self.add(step, CASYNC, bytes, Spent { seconds, memory: 0 }, None);
        Ok(())
    }

    fn bundle(&mut self, step: (usize, usize), form: &str, arguments: &[&str]) -> Result<()> {
        let [old, new, file, again] =
            [self.image(step.0), self.image(step.1), self.at("file"), self.at("again")];
        let mut make = run::command(&self.bench.tools.store);
        make.args(["bundle", "--quiet", "--force", "--output"]).arg(&file).args(arguments).args([&old, &new]);
        let mut apply = run::command(&self.bench.tools.store);
        apply.args(["apply", "--quiet", "--force"]).args([&old, &file, &again]);
        self.file(step, form, &mut make, &mut apply, &file)
    }

    fn file(
        &mut self,
        step: (usize, usize),
        form: &str,
        make: &mut Command,
        apply: &mut Command,
        file: &Path,
    ) -> Result<()> {
        let [make, apply] = [spent(make)?, spent(apply)?];
        let bytes = len(file)?;
        self.add(step, form, bytes, make, Some(apply));
        Ok(())
    }
}

/// Runs a program, and tells what it took.
fn spent(command: &mut Command) -> Result<Spent> {
    let cost = run::measured(command)?;
    Ok(Spent { seconds: cost.elapsed.as_secs_f64(), memory: cost.peak })
}
