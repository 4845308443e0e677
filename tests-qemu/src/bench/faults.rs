// SPDX-License-Identifier: GPL-2.0
//! Page faults and starts of programs in the test machine, which has two processors.
//!
//! The user-mode kernel of the other measures has one by construction.

use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{FaultsTwo, Plan, Sample, Task};

use super::images::{self, Loops};
use super::record::{Measured, Program};
use super::{build, machine, read, Bench};
use crate::kernel::{self, Toolchain};
use crate::module::{self, Lint};
use crate::qemu::{self, Accelerator};
use crate::{run, tools, trees};

/// Memory of the machine, in MiB: at its start it holds all images twice.
const MEMORY: u32 = 4096;

/// How long a round may take in an emulated machine that others use, too.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let toolchain = Toolchain::find(&bench.cache)?;
    let kernel = kernel::build(&bench.cache, &toolchain, kernel::Flavour::Plain)?;
    let module = module::build(&bench.cache, &toolchain, &kernel.build, Lint::Plain)?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let images = images::prepare_loops(bench, scratch.path())?;
    let plan = read::plan(bench, &images.systems, None, &trees::described(&bench.source)?)?;

    let accelerator = qemu::accelerator(&kernel.image, &tools::guest()?)?;
    let task = Task::FaultsTwo(FaultsTwo { plan: plan.clone(), loops: images.loops.clone() });
    let initramfs = machine::initramfs(scratch.path(), &task, Some(&module), &images.files)?;
    let command =
        qemu::machine(accelerator, &kernel.image, Some(&initramfs), "loglevel=4 guest.bench", MEMORY);
    let shown = run::shown(&command).replace(&format!("{}/", scratch.path().display()), "");
    let shown = shown.replace(&format!("{}", kernel.image.display()), "bzImage");
    run::say(format_args!("page faults with two processors: {} rounds", plan.rounds));
    let limit = LIMIT * plan.rounds.max(1) as u32;
    let samples = machine::samples(command, bench, "bench-faults-two", limit)?;

    let mut programs = build::programs(bench)?;
    let qemu = run::capture(run::command("qemu-system-x86_64").arg("--version"))?;
    let qemu = qemu.lines().next().unwrap_or_default();
    programs.push(Program {
        name: "QEMU".to_owned(),
        version: format!("{qemu}, Linux {}, {}", kernel.key, machine::versions(&toolchain)),
        command: shown,
    });
    programs.push(images::veritysetup());
    Measured::new(bench, programs, notes(&plan, &images, accelerator), samples)
}

fn notes(plan: &Plan, images: &Loops, accelerator: Accelerator) -> Vec<String> {
    let executed = match accelerator {
        Accelerator::Kvm => "by the processor (KVM)",
        Accelerator::Tcg => "emulated (TCG, a thread of the host for each)",
    };
    let mut notes = vec![
        format!(
            "one machine with two processors, {executed}; {} rounds; each sample after `drop_caches` and a fresh mount; the \
             clock is the guest's `CLOCK_MONOTONIC`",
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
