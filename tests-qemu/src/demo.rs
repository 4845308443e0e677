// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask demo`: from a directory to a signed image that Debian's own kernel mounts, step by step; then a
//! machine that boots from one, and a container in it. No kernel is compiled.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{mpsc, Arc};

use anyhow::{Context, Result};
use tesserafs_guest::message::Message;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::kernel::Kernel;
use crate::lab::Lab;
use crate::module::{self, Lint};
use crate::qemu::Outcome;
use crate::setup::{self, Need};
use crate::stage::{self, Root, Stage};
use crate::stock::{self, Stock};
use crate::tools::Tools;
use crate::verified_boot::VerifiedBoot;
use crate::{advice, rootfs, run, sign};

/// Shows everything once.
pub(crate) fn demo() -> Result<ExitCode> {
    let cache = Cache::open()?;
    let clock = Clock::start()?;
    let mut steps = Steps::default();
    clock.part("packages of this machine", || setup::ensure(&cache, &[Need::Stock, Need::Machine]))?;
    // The driver leads to a boot, the tools to images and mounts: one waits for the network where the other computes. A boot
    // is long, so that all that is short follows in the other thread. What does not come, because it failed, is nothing to
    // wait for.
    let (driver_is_ready, driver) = mpsc::channel();
    let (tools_are_ready, tools) = mpsc::channel();
    let (machine_is_ready, machine) = mpsc::channel();
    let boot = |tools: mpsc::Receiver<Tools>| -> Result<Option<Steps>> {
        // Nothing is on the screen until there are tools and an image.
        let driver = clock.part("the driver", || run::after_others(|| Driver::build(&cache)));
        let driver = Arc::new(driver?);
        let _ = driver_is_ready.send(driver.clone());
        let Ok(tools) = tools.recv() else { return Ok(None) };
        let machine = clock.part("a machine for verified boot", || {
            VerifiedBoot::prepare(&cache, &tools, &driver.kernel, &driver.module)
        });
        let machine = Arc::new(machine?);
        let _ = machine_is_ready.send(machine.clone());
        clock.part("a verified boot", || verified_boot(&machine)).map(Some)
    };
    let mount = || -> Result<Option<Steps>> {
        let (tools, debian) = run::both(
            || clock.part("the tools", Tools::build),
            || clock.part("a Debian root", || rootfs::debian(&cache)),
        )?;
        let tools = tools?;
        let _ = tools_are_ready.send(tools.clone());
        let images = clock.part("images", || images(&cache, &tools, debian?))?;
        let Ok(driver) = driver.recv() else { return Ok(None) };
        println!("\nIn a virtual machine with Linux {}:\n", driver.kernel.key);
        let outcome = clock.part("mounts", || {
            let lab = Lab::open(&cache, &driver.kernel, &driver.module, &images.debian, None)?;
            lab.run(&images.stage, "demo", None, |message| steps.take(message))
        })?;
        println!("\n  ({} after the start)", clock.elapsed());
        steps.end(outcome);
        let Ok(machine) = machine.recv() else { return Ok(None) };
        clock.part("a boot that is refused", || refused_boot(&machine)).map(Some)
    };
    let (booted, refused) = run::both(|| boot(tools), mount)?;
    let refused = refused?;
    for later in [booted?, refused].into_iter().flatten() {
        steps.append(later);
    }

    println!("\nTimes, of which some overlap:\n");
    for line in clock.stop()? {
        println!("  {line}");
    }
    println!("\n{NEXT}");
    Ok(steps.verdict())
}

/// Where to go from here.
const NEXT: &str = "Next:

  cargo xtask install --prefix /usr/local        the tools, for images of your own
  cargo xtask module --stock --output FILE       the driver for this kernel
  README.md, \"Five minutes\"                    what to type then
  SIGNING.md                                     keys, policy, verified boot";

/// Debian's kernel, and the driver for it.
struct Driver {
    kernel: Kernel,
    module: PathBuf,
}

impl Driver {
    fn build(cache: &Cache) -> Result<Self> {
        let Stock { kernel, builder, .. } = stock::prepare(cache)?;
        let module = module::build(cache, &builder, &kernel.build, Lint::Plain)?;
        Ok(Self { kernel, module })
    }
}

/// The tree, and the images that the machine mounts.
struct Images {
    debian: PathBuf,
    stage: Stage,
}

/// Makes them, and shows how.
fn images(cache: &Cache, tools: &Tools, debian: PathBuf) -> Result<Images> {
    let signers = sign::signers(cache)?;
    println!("\nA Debian root becomes one signed file:\n");
    let scratch = cache.folder("scratch")?;
    let folder = tempfile::tempdir_in(scratch).context("failed to make a scratch folder")?;
    let image = folder.path().join("root.tess");
    let mut mkfs = run::command(&tools.mkfs);
    mkfs.args(sign::options(&signers.rsa)?).arg(&image).arg(&debian);
    show(&mut mkfs)?;
    by_fuse(tools, &signers.rsa.certificate, &image, folder.path())?;
    println!("\nA checker that needs no kernel:\n");
    let mut fsck = run::command(&tools.fsck);
    fsck.arg("--cert").arg(&signers.rsa.certificate).arg(&image);
    show(&mut fsck)?;
    println!();
    let stage = stage::prepare(cache, tools, &debian, &signers, Root::Signed)?;
    Ok(Images { debian, stage })
}

/// Mounts it here, where no driver is needed.
fn by_fuse(tools: &Tools, certificate: &Path, image: &Path, folder: &Path) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        println!("\n(There is no /dev/fuse here: it is not mounted without the driver.)");
        return Ok(());
    }
    println!("\nMounted with no driver:\n");
    let target = folder.join("mnt");
    std::fs::create_dir(&target).context("failed to make a folder")?;
    show(
        run::command(&tools.store)
            .args(["mount", "--fuse", "--cert"])
            .arg(certificate)
            .arg(image)
            .arg(&target),
    )?;
    let read = show(run::command("head").args(["-n", "2"]).arg(target.join("usr/lib/os-release")));
    show(run::command(&tools.store).arg("umount").arg(&target)).and(read)
}

/// Boots from an image; what it shows is kept.
fn verified_boot(machine: &VerifiedBoot) -> Result<Steps> {
    let mut steps = Steps::kept();
    steps.show("\nA machine whose initramfs has the vendor's certificate boots from an image:\n");
    let outcome = machine.run("demo", None, |message| steps.take(message))?;
    steps.end(outcome);
    Ok(steps)
}

/// Does not boot from another image; what it shows is kept.
fn refused_boot(machine: &VerifiedBoot) -> Result<Steps> {
    let mut steps = Steps::kept();
    steps.show("\nIt does not boot from another disk:\n");
    let stopped = machine.stopped.first().context("there is no disk that is refused")?;
    steps.show(&format!("  {}:", stopped.name.replace('-', " ")));
    match machine.stop(stopped) {
        Ok(said) => {
            steps.show(&format!("    {said}"));
            steps.well += 1;
        }
        Err(error) => steps.failures.push(advice::told(&error)),
    }
    Ok(steps)
}

/// The steps that went well, and those that did not.
#[derive(Default)]
struct Steps {
    well: usize,
    failures: Vec<String>,
    /// The lines, where they are to be shown later.
    lines: Option<Vec<String>>,
}

impl Steps {
    /// Steps whose lines are kept.
    fn kept() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Shows a line, now or later.
    fn show(&mut self, line: &str) {
        match &mut self.lines {
            Some(lines) => lines.push(line.to_owned()),
            None => println!("{line}"),
        }
    }

    /// Takes a message of a machine.
    fn take(&mut self, message: &Message) {
        match message {
            Message::Say { text } => self.show(&format!("  {text}")),
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

    /// Takes later steps, and shows the lines that they kept.
    fn append(&mut self, later: Self) {
        self.well += later.well;
        self.failures.extend(later.failures);
        for line in later.lines.unwrap_or_default() {
            self.show(&line);
        }
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
