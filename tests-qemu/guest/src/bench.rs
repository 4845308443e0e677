// SPDX-License-Identifier: GPL-2.0
//! The benchmark: every measure on every system in turn, round after round.

mod decoded;
mod faults;
mod fleet;
mod helper;
mod loops;
mod measures;
mod memory;
mod releases;
mod scaling;
mod walk;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::reading::{Line, Plan, Sample, System, Task, IMAGES, MARK, PLAN};

use crate::boot;
use crate::mounts::{drop_caches, Mount};

pub(crate) use self::helper::helper;

use self::decoded::Decoded;
use self::faults::FAULTS;
use self::loops::Devices;
use self::measures::{Cache, Measure, Subject, BIG_DIRECTORY, MEASURES};

/// Where a system is mounted.
const TARGET: &str = "/mnt/bench";

/// The work of a measure: how much was done, how much was read, and how much was found in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Work {
    count: u64,
    bytes: u64,
    /// Places of the string that was looked for.
    found: u64,
}

/// Runs the task in `folder`.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let text = std::fs::read(folder.join(PLAN)).context("failed to read the task")?;
    match serde_json::from_slice(&text).context("the task is damaged")? {
        Task::Read(plan) => read(&plan, &MEASURES)?,
        Task::Faults(plan) => read(&plan, &FAULTS)?,
        Task::FaultsTwo(task) => {
            boot::load()?;
            let _devices = Devices::make(&task.loops)?;
            read(&task.plan, &FAULTS)?;
        }
        Task::Releases(plan) => releases::run(&plan)?,
        Task::Scaling(plan) => scaling::run(&plan)?,
        Task::Fleet(plan) => fleet::run(&plan)?,
    }
    say(&Line::Done)
}

/// Reads one tree in many ways.
fn read(plan: &Plan, measures: &[Measure]) -> Result<()> {
    measures::allow_open_files()?;
    memory::touch().context("failed to touch all memory")?;
    let mount = |disk| Mount::new(Path::new(disk), Path::new(IMAGES), "ext4", MountFlags::RDONLY, "");
    let images =
        plan.images.as_ref().map(mount).transpose().context("failed to mount the disk with images")?;
    for round in 1..=plan.rounds {
        let is_wanted = |measure: &&Measure| {
            let is_there = measure.name != BIG_DIRECTORY || !plan.big_directory.is_empty();
            is_there && measure.name.starts_with(&plan.filter)
        };
        for measure in measures.iter().filter(is_wanted) {
            let mut work = None;
            // Another one begins each round, so that the leftovers of the one before meet all alike.
            let start = round % plan.systems.len();
            for system in plan.systems[start..].iter().chain(&plan.systems[..start]) {
                let done = sample(plan, measure, system, round)
                    .with_context(|| format!("in {} on {}", measure.name, system.name))?;
                // All systems hold the same tree: one that reads less has not read it.
                anyhow::ensure!(
                    *work.get_or_insert(done) == done,
                    "{} on {}: {done:?} instead of {work:?}",
                    measure.name,
                    system.name
                );
            }
        }
    }
    images.map_or(Ok(()), Mount::unmount)
}

/// Measures once, from a fresh mount and empty caches.
fn sample(plan: &Plan, measure: &Measure, system: &System, round: usize) -> Result<Work> {
    drop_caches()?;
    if measure.memory {
        memory::settle()?;
    }
    let before = memory::used()?;
    let start = Instant::now();
    let mount = mounted(system, &system.source, TARGET)?;
    let subject = Subject::new(measure, plan, mount.path())?;
    let (work, time, decoded) = match measure.cache {
        Cache::Unmounted => ((measure.run)(&subject)?, start.elapsed(), None),
        Cache::Cold => {
            drop_caches()?;
            timed(measure, system, &subject)?
        }
        Cache::Warm => {
            (measure.run)(&subject)?;
            timed(measure, system, &subject)?
        }
    };
    let sample = new_sample(measure.name, &system.name, round, time.as_secs_f64(), work);
    say(&Line::Sample(Sample { decoded, ..sample }))?;
    if measure.memory {
        memory::report(&before, &system.name, round, work)?;
    }
    subject.end()?;
    mount.unmount()?;
    Ok(work)
}

/// Runs a measure; returns how long it took, and the bytes that were decoded for it where that is counted.
fn timed(measure: &Measure, system: &System, subject: &Subject<'_>) -> Result<(Work, Duration, Option<u64>)> {
    let decoded = Decoded::start(system, subject.root)?;
    let start = Instant::now();
    let work = (measure.run)(subject)?;
    let time = start.elapsed();
    Ok((work, time, decoded.map(|decoded| decoded.bytes()).transpose()?))
}

/// Tells the host of one sample.
fn report(measure: &str, system: &str, round: usize, value: f64, work: Work) -> Result<()> {
    say(&Line::Sample(new_sample(measure, system, round, value, work)))
}

fn new_sample(measure: &str, system: &str, round: usize, value: f64, work: Work) -> Sample {
    Sample {
        measure: measure.to_owned(),
        system: system.to_owned(),
        round,
        value,
        count: work.count,
        bytes: work.bytes,
        decoded: None,
    }
}

fn say(line: &Line) -> Result<()> {
    println!("{MARK}{}", serde_json::to_string(line).context("a sample cannot be written down")?);
    Ok(())
}

/// Mounts `source` as this system does.
fn mounted(system: &System, source: &str, target: &str) -> Result<Mount> {
    Mount::new(Path::new(source), Path::new(target), &system.kind, MountFlags::RDONLY, &system.options)
        .with_context(|| format!("failed to mount {source}"))
}
