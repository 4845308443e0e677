// SPDX-License-Identifier: GPL-2.0
//! A kernel, a guest and a module, ready to boot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::message::Message;

use crate::cache::Cache;
use crate::cross::Userland;
use crate::initramfs::{self, Contents};
use crate::kernel::{Flavour, Kernel};
use crate::qemu::{self, Accelerator, Boot, Outcome};
use crate::stage::Stage;
use crate::{drivers, run, tools};

/// How long one boot may take on a processor; emulation gets more, and so does a kernel that checks more.
const LIMIT: Duration = Duration::from_secs(150);

/// See [`Lab::period`].
const PERIOD: Duration = Duration::from_secs(10);

/// Words for the kernel's command line that a group needs.
fn words(group: &str) -> &'static str {
    match group {
        "security" => "security=selinux",
        "locked-down" => "lockdown=integrity",
        _ => "",
    }
}

/// Where boots happen.
pub(crate) struct Lab {
    kernel: PathBuf,
    flavour: Flavour,
    initramfs: PathBuf,
    accelerator: Accelerator,
    logs: PathBuf,
    /// How long a test takes that could go on for ever; no group has more than two of them.
    pub(crate) period: Duration,
    /// Of the cases that a group has by the hundred, every so many are tried.
    pub(crate) every: usize,
    _scratch: tempfile::TempDir,
}

impl Lab {
    /// Packs the first root, with the program that mounts by FUSE if there is one, and finds out how to run it.
    pub(crate) fn open(
        cache: &Cache,
        kernel: &Kernel,
        module: &Path,
        debian: &Path,
        store: Option<&Path>,
    ) -> Result<Self> {
        let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
        let init = tools::guest()?;
        let mut files = match &kernel.modules {
            Some(modules) => drivers::unpack(modules, scratch.path())?,
            None => Vec::new(),
        };
        if let Some(store) = store {
            // Without the lines of its source it has a fifth of the bytes, which each boot unpacks.
            let stripped = scratch.path().join("tesserafs");
            run::capture(run::command("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(store))?;
            files.push(("bin/tesserafs".to_owned(), stripped));
        }
        let contents = Contents { init: &init, module: Some(module), debian: Some(debian), files: &files };
        let accelerator = qemu::accelerator(&kernel.image, &init)?;
        Self::with(cache, kernel, accelerator, &contents, scratch)
    }

    /// The same for arm64, with programs from another root than the one that is made into images.
    pub(crate) fn open_arm64(
        cache: &Cache,
        kernel: &Kernel,
        module: &Path,
        userland: &Userland,
    ) -> Result<Self> {
        let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
        let contents =
            Contents { init: &userland.init, module: Some(module), debian: None, files: &userland.files };
        Self::with(cache, kernel, Accelerator::TcgArm64, &contents, scratch)
    }

    /// Writes the first root into a scratch folder, which goes with the result.
    fn with(
        cache: &Cache,
        kernel: &Kernel,
        accelerator: Accelerator,
        contents: &Contents<'_>,
        scratch: tempfile::TempDir,
    ) -> Result<Self> {
        let initramfs = scratch.path().join("initramfs.cpio");
        initramfs::write(&initramfs, contents)?;
        Ok(Self {
            accelerator,
            kernel: kernel.image.clone(),
            flavour: kernel.flavour,
            initramfs,
            logs: cache.folder("logs")?,
            period: PERIOD,
            every: 1,
            _scratch: scratch,
        })
    }

    /// Boots one group of guest tests.
    pub(crate) fn run(
        &self,
        stage: &Stage,
        group: &str,
        filter: Option<&str>,
        show: impl FnMut(&Message),
    ) -> Result<Outcome> {
        // Warnings and errors of the kernel reach the console, its chatter does not.
        let (flavour, accelerator) = (self.flavour, self.accelerator);
        let mut arguments = format!(
            "{} {} {} loglevel=5 guest.group={group} guest.seconds={} guest.every={}",
            accelerator.kernel_parameters(flavour.slowness()),
            flavour.parameters(),
            words(group),
            self.period.as_secs(),
            self.every
        );
        if let Some(filter) = filter {
            arguments.push_str(&format!(" guest.filter={filter}"));
        }
        qemu::boot(
            &Boot {
                kernel: &self.kernel,
                initramfs: Some(&self.initramfs),
                disks: &stage.disks,
                scratch: &stage.scratch,
                arguments: &arguments,
                memory: flavour.memory(),
                limit: LIMIT * accelerator.patience() * flavour.slowness() + 2 * self.period,
                log: &self.logs.join(format!("{}{group}.log", flavour.log_prefix())),
                accelerator,
            },
            show,
        )
    }
}
