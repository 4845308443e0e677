// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask test --arch aarch64`: the driver and the tools on another architecture, cross-built and emulated.
//!
//! The images are those of the x86 runs, made by this machine's `mkfs.tesserafs`: an image is the same everywhere. The
//! group `tools` shows that the arm64 `mkfs.tesserafs` makes the same bytes.
//!
//! Continuous integration does not run this. All of it took a developer's machine of two processors 23 minutes, with the
//! kernel to compile and other work beside it; libraries and images were in the cache. On an idle one, with the kernel there,
//! too, group by group:
//!
//! | group | tests | minutes |
//! |---|---|---|
//! | `compare` | 9 | 3.8 |
//! | `signatures` | 14 | 0.1 |
//! | `mutants`: the 10383 images of the x86 runs | 3 | 4.7 |
//! | `tools` | 5 | 1.5 |

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{boot, module_for};
use crate::cache::Cache;
use crate::kernel::{self, Arch, Flavour, Toolchain};
use crate::lab::Lab;
use crate::report::Report;
use crate::setup::{self, Need};
use crate::stage::{self, Root};
use crate::tools::Tools;
use crate::{advice, cross, rootfs, run, sign};

/// The groups that run there: they start no program of the root that is in the images.
pub(super) const GROUPS: [&str; 4] = ["compare", "signatures", "mutants", "tools"];

/// Runs everything whose name begins with `filter`.
pub(crate) fn test(filter: Option<String>) -> Result<ExitCode> {
    let mut report = Report::new(filter);
    if let Err(error) = run_tests(&mut report) {
        report.failed("preparation", &advice::told(&error));
    }
    Ok(report.finish())
}

fn run_tests(report: &mut Report) -> Result<()> {
    let wants_guest = GROUPS.iter().any(|group| report.wants_group(group));
    if !wants_guest && !report.wants_group("module") {
        return Ok(());
    }
    let cache = Cache::open()?;
    setup::ensure(&cache, &[Need::Kernel, Need::Machine, Need::Arm64])?;
    let toolchain = Toolchain::find_for(&cache, Arch::Arm64)?;
    let kernel = kernel::build(&cache, &toolchain, Flavour::Arm64)?;
    run::say(format_args!("kernel {}, arm64", kernel.key));
    let module = module_for(&cache, report, &kernel, &toolchain);
    if !wants_guest {
        return Ok(());
    }
    let module = module.context("the guest tests did not run: there is no module")?;
    let userland = cross::userland(&cache)?;
    let stage = stage::prepare(
        &cache,
        &Tools::of_tests()?,
        &rootfs::debian(&cache)?,
        &sign::signers(&cache)?,
        Root::Unsigned,
    )?;
    let lab = Lab::open_arm64(&cache, &kernel, &module, &userland)?;
    for group in GROUPS {
        if report.wants_group(group) {
            boot(&lab, &stage, report, group);
        }
    }
    Ok(())
}
