// SPDX-License-Identifier: GPL-2.0
//! The packages on a machine: a clean Debian with its own kernel and systemd, at whose shell ([`shell`]) a user types
//! what [`steps`] and [`upgrade`] have. What is installed stays on its disk ([`disk`]) from one boot to the next.

pub(super) mod disk;
mod shell;
mod steps;
pub(super) mod upgrade;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::checks::Packages;
use super::list;
use crate::cache::Cache;
use crate::qemu::{self, Accelerator};
use crate::report::Report;
use crate::setup::{self, Need};
use crate::stock::Stock;
use crate::{disk as data, run, tools};
use disk::Release;
use shell::{Machine, Start};

/// The group of these tests.
const GROUP: &str = "packages/machine";

/// A machine between its boots: its disk, and another with what a user has downloaded.
struct Installed {
    folder: tempfile::TempDir,
    accelerator: Accelerator,
    logs: PathBuf,
}

impl Installed {
    /// A clean machine, and files in the folder that it mounts at `/downloads`.
    fn new(cache: &Cache, release: &Release<'_>, downloads: &[&Path]) -> Result<Self> {
        let clean = disk::clean(cache, release)?;
        let folder = tempfile::Builder::new()
            .prefix("package-machine-")
            .tempdir_in(cache.folder("scratch")?)
            .context("failed to make a scratch folder")?;
        let [kernel, _] = disk::load(&clean, folder.path())?;
        let accelerator = qemu::accelerator(&kernel, &tools::guest()?)?;
        let machine = Self { folder, accelerator, logs: cache.folder("logs")? };
        let copy = ["--sparse=always", "--reflink=auto"];
        run::capture(run::command("cp").args(copy).args([&clean, &machine.at("root")]))?;
        let given = machine.at("downloads");
        fs::create_dir(&given).context("failed to create a folder")?;
        for file in downloads {
            let to = given.join(file.file_name().context("a package without a name")?);
            fs::copy(file, to).with_context(|| format!("failed to copy {}", file.display()))?;
        }
        data::write(&machine.at("given"), &given)?;
        Ok(machine)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Boots the kernel and the initramfs that a boot loader finds on the disk; the console has this name.
    fn boot(&self, name: &str) -> Result<Machine> {
        let (root, given) = (self.at("root"), self.at("given"));
        let [kernel, initramfs] = disk::load(&root, self.folder.path())?;
        run::say(format_args!("booting a machine: {name}"));
        Machine::boot(&Start {
            kernel: &kernel,
            initramfs: &initramfs,
            root: &root,
            given: &given,
            accelerator: self.accelerator,
            log: self.logs.join(format!("package-{name}.log")),
        })
    }
}

/// Everything that a user does from `apt install` to `apt purge`.
pub(super) fn test(cache: &Cache, report: &mut Report, packages: &Packages, stock: &Stock) -> Result<()> {
    if !report.wants_group(GROUP) {
        return Ok(());
    }
    setup::ensure(cache, &[Need::Machine])?;
    let release = Release { name: &stock.kernel.key, version: &stock.version };
    let downloads: Vec<&Path> = packages.all.iter().map(PathBuf::as_path).collect();
    let machine = Installed::new(cache, &release, &downloads)?;
    let mut boots = steps::Boots::new(GROUP, report);
    boots.run(|| machine.boot("installation"), &steps::INSTALLATION.each_ref(), steps::REBOOT);
    boots.run(|| machine.boot("use"), &steps::USE.each_ref(), steps::POWER_OFF);
    Ok(())
}
