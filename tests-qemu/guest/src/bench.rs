// SPDX-License-Identifier: GPL-2.0
//! The read benchmark: every measure on every system in turn, round after round.

mod measures;
mod memory;
mod walk;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::reading::{Line, Plan, Sample, System, IMAGES, MARK, PLAN};

use crate::mounts::{drop_caches, Mount};

use self::measures::{Cache, Measure, Subject, MEASURES};

/// Where a system is mounted.
const TARGET: &str = "/mnt/bench";

/// What a measure found: how much was done, how much was read, and what was found in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Work {
    count: u64,
    bytes: u64,
    /// Places of the string that was looked for.
    found: u64,
}

/// Runs the plan of the first root.
pub(crate) fn run() -> Result<()> {
    let text = std::fs::read(Path::new("/").join(PLAN)).context("failed to read the plan")?;
    let plan: Plan = serde_json::from_slice(&text).context("the plan is damaged")?;
    measures::allow_open_files()?;
    memory::touch().context("failed to touch all memory")?;
    let images = Mount::new(Path::new(&plan.images), Path::new(IMAGES), "ext4", MountFlags::RDONLY, "")
        .context("failed to mount the disk with images")?;
    for round in 1..=plan.rounds {
        for measure in MEASURES.iter().filter(|measure| measure.name.starts_with(&plan.filter)) {
            let mut work = None;
            // Another one begins each round: what the one before leaves behind meets all alike.
            let start = round % plan.systems.len();
            for system in plan.systems[start..].iter().chain(&plan.systems[..start]) {
                let done = sample(&plan, measure, system, round)
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
    images.unmount()?;
    say(&Line::Done)
}

/// Measures once, from a fresh mount and empty caches.
fn sample(plan: &Plan, measure: &Measure, system: &System, round: usize) -> Result<Work> {
    drop_caches()?;
    if measure.memory {
        // What the last mount left is freed by and by, and would count as less than nothing.
        std::thread::sleep(Duration::from_millis(300));
        drop_caches()?;
    }
    let before = memory::used()?;
    let start = Instant::now();
    let mount = mounted(system)?;
    let subject = Subject::new(measure, plan, mount.path())?;
    let (work, seconds) = match measure.cache {
        Cache::Unmounted => ((measure.run)(&subject)?, start.elapsed()),
        Cache::Cold => {
            drop_caches()?;
            timed(measure, &subject)?
        }
        Cache::Warm => {
            (measure.run)(&subject)?;
            timed(measure, &subject)?
        }
    };
    let report = |name: &str, value: f64| {
        say(&Line::Sample(Sample {
            measure: name.to_owned(),
            system: system.name.clone(),
            round,
            value,
            count: work.count,
            bytes: work.bytes,
        }))
    };
    report(measure.name, seconds.as_secs_f64())?;
    if measure.memory {
        let after = memory::used()?;
        report("memory: all", after.all - before.all)?;
        report("memory: page cache", after.cache - before.cache)?;
        report("memory: slab", after.slab - before.slab)?;
    }
    drop(subject);
    mount.unmount()?;
    Ok(work)
}

fn timed(measure: &Measure, subject: &Subject<'_>) -> Result<(Work, Duration)> {
    let start = Instant::now();
    let work = (measure.run)(subject)?;
    Ok((work, start.elapsed()))
}

fn say(line: &Line) -> Result<()> {
    println!("{MARK}{}", serde_json::to_string(line).context("a sample cannot be written down")?);
    Ok(())
}

fn mounted(system: &System) -> Result<Mount> {
    Mount::new(
        Path::new(&system.source),
        Path::new(TARGET),
        &system.kind,
        MountFlags::RDONLY,
        &system.options,
    )
    .with_context(|| format!("failed to mount {}", system.source))
}
