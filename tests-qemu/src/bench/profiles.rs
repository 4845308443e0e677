// SPDX-License-Identifier: GPL-2.0
//! The profiles of mkfs that have a name, and squashfs beside them: the size of an image, reads of it by the user-mode kernel ([`read`]),
//! the bytes of an update, and the time of a build.

use std::process::Command;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Sample, Task};

use super::images::{self, Images, LEVEL};
use super::machine::MEMORY;
use super::packs::packed;
use super::packs::series::{self, Series};
use super::read::{self, Kernel};
use super::record::Measured;
use super::{build, Bench};
use crate::{run, trees};

/// The profiles, by the names that mkfs has for them; the others are compared with the first.
pub(super) const PROFILES: [&str; 3] = [DEFAULT, "small", "fast"];
/// The one that is taken unless one is named.
pub(super) const DEFAULT: &str = "default";
/// The rival.
pub(super) const SQUASHFS: &str = "squashfs";

/// Measures: bytes of an image, bytes to fetch of the next version, and seconds of a build; and two that the guest names.
pub(super) const IMAGE: &str = "image";
pub(super) const UPDATE: &str = "update";
pub(super) const BUILD: &str = "build";
pub(super) const RANDOM: &str = "random 4 KiB";
pub(super) const SMALL_FILES: &str = "small files";

/// The series whose updates are measured: the one that is most like the tree of the other figures, the Debian root.
const SERIES: &Series = &series::SERIES[0];

/// Runs of each builder that count.
const RUNS: usize = 3;

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let kernel = Kernel::prepare(bench, MEMORY)?;
    let mut samples = build(bench, &kernel)?;

    let images = images(&kernel)?;
    let manifest = trees::described(&bench.source)?;
    let mut plan = read::plan(bench, &images.systems, None, &manifest)?;
    let mut programs = build::programs(bench)?;
    programs.retain(|program| [build::OURS, build::MKSQUASHFS].contains(&&*program.name));
    for measure in [RANDOM, SMALL_FILES] {
        plan.filter = measure.to_owned();
        let log = format!("bench-profiles-{}", measure.replace(' ', "-"));
        let (read, program) = kernel.run(bench, &images, &plan, Task::Read, &log)?;
        // Others have names that begin so.
        samples.extend(read.into_iter().filter(|sample| sample.measure == measure));
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    samples.extend(updates(bench)?);

    let mut notes = read::circumstances(&plan, &images);
    notes.extend([
        format!("zstd level {LEVEL} for all; `--profile NAME` for those of tesserafs; {RUNS} builds of each that count, in turn"),
        format!(
            "{} pages from all files by their size and {} files of at most 64 KiB, the same ones for all",
            plan.pages.len(),
            plan.small.len()
        ),
        format!(
            "update: stored bytes of the chunks that a host lacks which has the version before, and the image file, in packs; median of \
             the steps between {} versions of: {}",
            series::VERSIONS,
            SERIES.about
        ),
    ]);
    Measured::new(bench, programs, notes, samples)
}

/// Builds the images, in turn; they stay.
fn build(bench: &Bench<'_>, kernel: &Kernel) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    // The first round fills the page cache, and is not counted.
    for run in 0..=RUNS {
        for system in PROFILES.into_iter().chain([SQUASHFS]) {
            let image = kernel.folder().join(system);
            let mut command = builder(bench, system, kernel);
            let built = build::once(system, &mut command, LEVEL, run, &image)?;
            eprintln!("run {run}: {system:10} {:7.2} s {:11} bytes", built.seconds, built.bytes);
            if run > 0 {
                samples.push(sample(BUILD, system, run, built.seconds));
            }
            if run == RUNS {
                samples.push(sample(IMAGE, system, run, built.bytes as f64));
            }
        }
    }
    Ok(samples)
}

/// The command that builds the image of a system.
fn builder(bench: &Bench<'_>, system: &str, kernel: &Kernel) -> Command {
    let image = kernel.folder().join(system);
    if system == SQUASHFS {
        return build::squashfs(bench, LEVEL, &image);
    }
    let mut command = build::tesserafs(bench, LEVEL, &image);
    command.arg(option(system));
    command
}

/// The option of mkfs that names a profile.
fn option(profile: &str) -> String {
    format!("--profile={profile}")
}

/// The images that were built, for the kernel that reads.
fn images(kernel: &Kernel) -> Result<Images> {
    let (mut systems, mut devices, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (index, name) in PROFILES.into_iter().chain([SQUASHFS]).enumerate() {
        let kind = if name == SQUASHFS { "squashfs" } else { "tesserafs" };
        systems.push(images::system(name, kind, images::device(index)));
        let image = kernel.folder().join(name);
        let metadata = image.metadata().with_context(|| format!("there is no {}", image.display()))?;
        sizes.push((name, metadata.len()));
        devices.push(image);
    }
    images::warm(&devices)?;
    Ok(Images { systems, sizes, devices, verity: String::new() })
}

/// Bytes that a host lacks of each version of a root from the second on.
fn updates(bench: &Bench<'_>) -> Result<Vec<Sample>> {
    let mut versions = series::open(bench, SERIES)?
        .with_context(|| format!("{}: this machine has no {}", SERIES.name, SERIES.needs))?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let at = |name: &str| scratch.path().join(name);
    for profile in PROFILES {
        std::fs::create_dir(at(profile)).context("failed to create a folder")?;
    }
    run::say(format_args!("updates: {} versions with each profile", series::VERSIONS));
    let mut samples = Vec::new();
    for version in 1..=series::VERSIONS {
        versions.fill(&at("tree"), version)?;
        for profile in PROFILES {
            let image = |version: usize| at(&format!("{profile}-{version}"));
            let before = (version > 1).then(|| image(version - 1));
            let packs = at(profile);
            let more = [&*option(profile)];
            let packed = packed(bench, &packs, before.as_deref(), &image(version), &at("tree"), &more)?;
            if before.is_some() {
                eprintln!("version {version}: {profile:10} {:11} bytes to fetch", packed.fetched);
                samples.push(sample(UPDATE, profile, version - 1, packed.fetched as f64));
            }
        }
    }
    Ok(samples)
}

/// One sample of a measure that is no reading.
pub(super) fn sample(measure: &str, system: &str, round: usize, value: f64) -> Sample {
    let (measure, system) = (measure.to_owned(), system.to_owned());
    Sample { measure, system, round, value, count: 1, bytes: 0, decoded: None }
}
