// SPDX-License-Identifier: GPL-2.0
//! Page faults and starts of programs in the test machine, which has two processors.
//!
//! The user-mode kernel of the other measures has one by construction.

use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{FaultsTwo, Plan, Sample, Task};

use super::images::{self, Loops};
use super::machine::{Emulated, Start};
use super::record::Measured;
use super::{build, read, Bench};
use crate::{run, trees};

/// Memory of the machine, in MiB: at its start it holds all images twice.
const MEMORY: u32 = 4096;

/// How long a round may take in an emulated machine that others use, too.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let machine = Emulated::prepare(bench)?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let images = images::prepare_loops(bench, scratch.path())?;
    let plan = read::plan(bench, &images.systems, None, &trees::described(&bench.source)?)?;
    run::say(format_args!("page faults with two processors: {} rounds", plan.rounds));
    let start = Start {
        scratch: scratch.path(),
        task: Task::FaultsTwo(FaultsTwo { plan: plan.clone(), loops: images.loops.clone() }),
        files: &images.files,
        memory: MEMORY,
        log: "bench-faults-two",
        limit: LIMIT * plan.rounds.max(1) as u32,
    };
    let (samples, qemu) = machine.run(bench, &start)?;
    let mut programs = build::programs(bench)?;
    programs.extend([qemu, images::veritysetup()]);
    Measured::new(bench, programs, notes(&plan, &images, &machine), samples)
}

fn notes(plan: &Plan, images: &Loops, machine: &Emulated) -> Vec<String> {
    let mut notes = vec![
        format!(
            "one machine with two processors, {}; {} rounds; each sample after `drop_caches` and a fresh mount; the \
             clock is the guest's `CLOCK_MONOTONIC`",
            machine.executed(),
            plan.rounds
        ),
        "the images are files in the machine's memory; all systems mount a loop device with theirs, those on dm-verity over \
         two, and that with a file the file itself"
            .to_owned(),
        read::sizes_of(&images.sizes),
    ];
    notes.extend(read::about_faults(plan));
    notes
}
