// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask demo`: from a directory to a signed image that a kernel mounts, step by step; then a machine that
//! boots from one, and containers in it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tesserafs_guest::message::Message;

use crate::appliance::Appliance;
use crate::cache::Cache;
use crate::kernel::{self, Flavour, Toolchain};
use crate::lab::Lab;
use crate::module::{self, Lint};
use crate::qemu::Outcome;
use crate::setup::{self, Need};
use crate::stage::{self, Root};
use crate::tools::Tools;
use crate::{rootfs, run, sign};

/// Shows everything once.
pub(crate) fn demo() -> Result<ExitCode> {
    let cache = Cache::open()?;
    setup::ensure(&cache, &[Need::Kernel, Need::Machine])?;
    let tools = Tools::build()?;
    let debian = rootfs::debian(&cache)?;
    let signers = sign::signers(&cache)?;
    let toolchain = Toolchain::find(&cache)?;
    let kernel = kernel::build(&cache, &toolchain, Flavour::Plain)?;
    let module = module::build(&cache, &toolchain, &kernel.build, Lint::Plain)?;

    println!("\nA Debian root becomes one signed file:\n");
    let scratch = cache.folder("scratch")?;
    let folder = tempfile::tempdir_in(scratch).context("failed to make a scratch folder")?;
    let image = folder.path().join("root.tess");
    let mut mkfs = run::command(&tools.mkfs);
    mkfs.args(sign::options(&signers.rsa)?).arg(&image).arg(&debian);
    show(&mut mkfs)?;
    println!("\nA checker that needs no kernel:\n");
    let mut fsck = run::command(&tools.fsck);
    fsck.arg("--cert").arg(&signers.rsa.certificate).arg(&image);
    show(&mut fsck)?;
    drop(folder);

    println!("\nIn a virtual machine with Linux {}:\n", kernel.key);
    let stage = stage::prepare(&cache, &tools, &debian, &signers, Root::Signed)?;
    let lab = Lab::open(&cache, &kernel, &module, &debian)?;
    let mut steps = Steps::default();
    let outcome = lab.run(&stage, "demo", None, |message| steps.take(message))?;
    steps.end(outcome);

    let appliance = Appliance::prepare(&cache, &toolchain, &tools)?;
    println!("\nA machine whose kernel has the driver and the vendor's certificate built in boots from an image:\n");
    let outcome = appliance.run("demo", None, |message| steps.take(message))?;
    steps.end(outcome);
    println!("\nIt does not boot from other disks:\n");
    for refused in &appliance.refused {
        println!("  {}:", refused.name.replace('-', " "));
        match appliance.refuse(refused) {
            Ok(said) => steps.went_well(&said),
            Err(error) => steps.failures.push(format!("{}: {error:#}", refused.name)),
        }
    }
    println!("\nWhere a block of data was changed, its readers learn so:\n");
    let outcome = appliance.run("tampered", Some(TAMPERED), |message| {
        if let Message::Finished { error: None, note, .. } = message {
            println!("  {note}");
        }
        steps.take(message);
    })?;
    steps.end(outcome);
    Ok(steps.verdict())
}

/// The test of the group `tampered` that reads the changed block.
const TAMPERED: &str = "tampered/changed-block";

/// The steps that went well, and those that did not.
#[derive(Default)]
struct Steps {
    well: usize,
    failures: Vec<String>,
}

impl Steps {
    /// Takes a message of a machine.
    fn take(&mut self, message: &Message) {
        match message {
            Message::Say { text } => println!("  {text}"),
            Message::Finished { name, error: Some(error), .. } => {
                self.failures.push(format!("{name}: {error}"));
            }
            Message::Finished { error: None, .. } => self.well += 1,
            Message::Started { .. } | Message::Done { .. } => {}
        }
    }

    /// Takes the complaints about a machine as a whole.
    fn end(&mut self, outcome: Outcome) {
        self.failures.extend(outcome.complaints);
    }

    /// One step outside of a machine's tests.
    fn went_well(&mut self, said: &str) {
        println!("    {said}");
        self.well += 1;
    }

    fn verdict(self) -> ExitCode {
        if self.failures.is_empty() {
            println!("\nAll {} steps went as they should.", self.well);
            return ExitCode::SUCCESS;
        }
        for failure in self.failures {
            eprintln!("FAIL {failure}");
        }
        ExitCode::FAILURE
    }
}

/// Prints a command as one would type it, and runs it.
fn show(command: &mut std::process::Command) -> Result<()> {
    println!("$ {}", run::shown(command));
    run::run(command)
}
