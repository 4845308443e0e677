// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask demo`: from a directory to a signed image that a kernel mounts, step by step.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tesserafs_guest::message::Message;

use crate::cache::Cache;
use crate::kernel::{self, Flavour, Toolchain};
use crate::lab::Lab;
use crate::module::{self, Lint};
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
    let mut failures = Vec::new();
    let outcome = lab.run(&stage, "demo", None, |message| match message {
        Message::Say { text } => println!("  {text}"),
        Message::Finished { name, error: Some(error), .. } => failures.push(format!("{name}: {error}")),
        _ => {}
    })?;
    failures.extend(outcome.complaints);
    if failures.is_empty() {
        println!("\nAll {} steps went as they should.", outcome.finished);
        return Ok(ExitCode::SUCCESS);
    }
    for failure in failures {
        eprintln!("FAIL {failure}");
    }
    Ok(ExitCode::FAILURE)
}

/// Prints a command as one would type it, and runs it.
fn show(command: &mut std::process::Command) -> Result<()> {
    println!("$ {}", run::shown(command));
    run::run(command)
}
