// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask test`: every check of the project, cheap ones first.
//!
//! A run says at its end how many minutes each group took; two of them run at once. One of 33 minutes, emulated on two
//! processors, that had to make all kernels, roots and tools, too:
//!
//! | groups | minutes |
//! |---|---|
//! | `source` 17.4, `fuzz` 4.8: compiling, and tests without a kernel | 22.2 |
//! | `module` and `stock/module` 0.5, `image` 5.1: the driver for two kernels, images of a root | 5.6 |
//! | on the custom kernel: `races` 1.3, `fuse-cases` 1.1, `mutants` 0.8, five others 1.2 | 4.4 |
//! | on Debian's kernel: `compare` 1.8, `stores` 1.4, `readers` 1.2, `fuse` 1.0, six others 2.3 | 7.7 |
//! | programs of others: `registry` 5.6, `oci` 1.1 | 6.7 |
//! | booting from an image: `stock/boot` 2.4, `boot` 0.7, seven others 2.2 | 5.3 |

pub(crate) mod arm64;
mod flips;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::appliance::Appliance;
use crate::cache::Cache;
use crate::kernel::{self, Compilers, Flavour, Kernel, Toolchain};
use crate::lab::Lab;
use crate::module::{self, Lint};
use crate::qemu::Outcome;
use crate::report::Report;
use crate::setup::{self, Need};
use crate::stage::{self, Root, Stage};
use crate::stock::{self, Stock};
use crate::tools::{self, Tools};
use crate::verified_boot::VerifiedBoot;
use crate::{advice, container_images, fuzz, package, pulls, reproducible, rootfs, run, sign};

/// Groups of guest tests: each is one boot with one verdict.
const GROUPS: [&str; 18] = [
    "compare",
    "programs",
    "readers",
    "sharing",
    "api",
    "fstests",
    "backing",
    "packs",
    "stores",
    "races",
    "signatures",
    "privilege",
    "flips",
    "mutants",
    "fuse",
    "fuse-broken",
    "fuse-cases",
    "fuse-root",
];

/// Those of them that take long and run only where a filter is given: a daemon is started for each broken image, and each
/// file of a whole root is compared through two servers.
const NAMED_GROUPS: [&str; 2] = ["fuse-broken", "fuse-root"];

/// Groups that need features that only the debug kernel has.
const DEBUG_GROUPS: [&str; 1] = ["faults"];

/// Groups that need features that only Debian's own kernel has.
const STOCK_ONLY_GROUPS: [&str; 2] = ["security", "locked-down"];

/// Groups of tests in a machine that boots from an image; each is one boot.
const APPLIANCE_GROUPS: [&str; 5] = ["boot", "boot-from-file", "tampered", "containers", "policy"];

/// The groups that a kernel can run.
fn groups(flavour: Flavour) -> impl Iterator<Item = &'static str> {
    let (groups, more): (&[&str], &[&str]) = match flavour {
        Flavour::Plain => (&GROUPS, &[]),
        Flavour::Stock => (&GROUPS, &STOCK_ONLY_GROUPS),
        Flavour::Debug => (&GROUPS, &DEBUG_GROUPS),
        Flavour::Appliance => (&APPLIANCE_GROUPS, &[]),
        Flavour::Arm64 => (&arm64::GROUPS, &[]),
    };
    groups.iter().chain(more).copied()
}

/// Whether `--filter` can name this group, or a test of it.
#[cfg(test)]
pub(crate) fn is_group(filter: &str) -> bool {
    let (name, is_stock) = match filter.strip_prefix(STOCK_PREFIX) {
        Some(name) => (name, true),
        None => (filter, false),
    };
    let group = name.split('/').next().unwrap_or_default();
    let all = if is_stock {
        [&STOCK_GROUPS[..], &STOCK_BOOT_GROUPS, &["module"]].concat()
    } else {
        [
            &GROUPS[..],
            &APPLIANCE_GROUPS,
            &["source", "fuzz", container_images::GROUP, pulls::GROUP, "packages", "module", "image"],
        ]
        .concat()
    };
    all.contains(&group)
}

/// Groups that a run without a filter has on Debian's own kernel, which is what users have, and on no other: both kernels are
/// of one version, but Debian's has more filesystems for images to lie on, and security modules.
const STOCK_GROUPS: [&str; 10] = [
    "compare",
    "programs",
    "readers",
    "signatures",
    "backing",
    "packs",
    "stores",
    "fuse",
    "security",
    "locked-down",
];

/// Groups of tests in a machine that boots Debian's own kernel from an image; each is one boot.
const STOCK_BOOT_GROUPS: [&str; 3] = ["boot", "boot-from-file", "tampered"];

/// A run without a filter tries every so many of the images that are broken at random, of the bits to flip, and of the reads that go
/// wrong: all would take a quarter of its minutes. The tests without a kernel have all of them in every run.
const EVERY: usize = 4;

/// The prefix of the names of tests that run on the second kernel of a run.
const STOCK_PREFIX: &str = "stock/";

/// Tests that go on for as long as they are told.
const ENDLESS: &str = "races/storm-of-";

/// How many they are.
const ENDLESS_COUNT: u32 = 2;

/// Runs everything whose name begins with `filter`; tests that need a kernel run on one of this flavour.
pub(crate) fn test(filter: Option<String>, flavour: Flavour) -> Result<ExitCode> {
    run_tests(filter, flavour, None)
}

/// Runs the tests that could go on for ever, for this time.
pub(crate) fn soak(time: Duration, flavour: Flavour) -> Result<ExitCode> {
    run_tests(Some(ENDLESS.to_owned()), flavour, Some(time / ENDLESS_COUNT))
}

/// Something to do that reports tests.
type Job = Box<dyn FnOnce(&mut Report) + Send>;

/// `period`, if given, is how long each test takes that could go on for ever.
///
/// An emulated machine keeps hardly more than one processor busy, so two threads work: one begins with what needs no
/// machine, the other with what all machines need. Then both take the boots, one after the other.
fn run_tests(filter: Option<String>, flavour: Flavour, period: Option<Duration>) -> Result<ExitCode> {
    let cache = Cache::open()?;
    // Lints compile, too.
    setup::ensure(&cache, &[Need::Source])?;
    let mut report = Report::new(filter);
    let mut other = report.share();
    let (add, jobs) = mpsc::channel::<Job>();
    let jobs = Mutex::new(jobs);
    let without_machine = |report: &mut Report| {
        source::test(&cache, report);
        attempt(report, "preparation of the fuzz targets", &["fuzz"], |report| fuzz::test(&cache, report));
        attempt(report, "preparation of the container images", &[container_images::GROUP], |report| {
            container_images::test(&cache, report)
        });
        attempt(report, "preparation of the registries", &[pulls::GROUP], |report| {
            pulls::test(&cache, report)
        });
        // All programs are compiled twice, so only where the group is named.
        if report.filter().is_some() {
            attempt(report, "preparation of the packages", &["packages"], |report| {
                package::checks::test(&cache, report)
            });
        }
        work(&jobs, report);
    };
    let with_machine = |report: &mut Report, add: Sender<Job>| {
        if let Err(error) = machine(&cache, report, flavour, period, &add) {
            // It makes the run fail, and is no reason to end without a tally.
            report.failed("preparation", &advice::told(&error));
        }
        if flavour == Flavour::Plain {
            let own = cache.clone();
            let _ = add.send(Box::new(move |report| {
                attempt(report, "preparation of the appliance", &APPLIANCE_GROUPS, |report| {
                    appliance(&own, report)
                });
            }));
            let own = cache.clone();
            let _ = add.send(Box::new(move |report| {
                report.under(STOCK_PREFIX, |report| {
                    attempt(report, "preparation of the verified boot", &STOCK_BOOT_GROUPS, |report| {
                        verified_boot(&own, report)
                    });
                });
            }));
        }
        drop(add);
        work(&jobs, report);
    };
    run::both(|| without_machine(&mut other), || with_machine(&mut report, add))?;
    Ok(report.finish())
}

/// Does what is left to do.
fn work(jobs: &Mutex<Receiver<Job>>, report: &mut Report) {
    loop {
        // One waits for the next job, the other one for its turn.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(&mut report.share()),
            Err(_) => return,
        }
    }
}

/// Runs the tests of groups, if any of them is wanted; what cannot be prepared is a failure.
fn attempt(report: &mut Report, name: &str, groups: &[&str], tests: impl FnOnce(&mut Report) -> Result<()>) {
    if groups.iter().any(|group| report.wants_group(group)) {
        if let Err(error) = tests(report) {
            report.failed(name, &advice::told(&error));
        }
    }
}

/// Whether any of these groups is wanted on the second kernel of a run.
fn wants_stock(report: &mut Report, flavour: Flavour, groups: &[&str]) -> bool {
    flavour == Flavour::Plain
        && report.under(STOCK_PREFIX, |report| groups.iter().any(|group| report.wants_group(group)))
}

/// The drivers, the images, and what boots them.
fn machine(
    cache: &Cache,
    report: &mut Report,
    flavour: Flavour,
    period: Option<Duration>,
    boots: &Sender<Job>,
) -> Result<()> {
    let wants_guest = groups(flavour).any(|group| report.wants_group(group));
    let wants_stock_guest = wants_stock(report, flavour, &STOCK_GROUPS);
    let wants_image = report.wants_group("image") || wants_guest || wants_stock_guest;
    let wants_module = report.wants_group("module") || wants_guest;

    let built = if wants_module { Some(module(cache, report, flavour)?) } else { None };
    let stock = if wants_stock_guest || wants_stock(report, flavour, &["module"]) {
        report.under(STOCK_PREFIX, |report| match module(cache, report, Flavour::Stock) {
            Ok(built) => Some(built),
            // No reason not to test on the other kernel.
            Err(error) => {
                report.failed("preparation", &advice::told(&error));
                None
            }
        })
    } else {
        None
    };
    if !wants_image {
        return Ok(());
    }
    setup::ensure(cache, &[Need::Machine])?;
    let debian = rootfs::debian(cache)?;
    let signers = sign::signers(cache)?;
    let tools = Tools::of_tests()?;
    report.test("image/is-reproducible", || reproducible::check(cache, &tools, &debian));
    let stage = stage::prepare(cache, &tools, &debian, &signers, Root::Unsigned)?;
    report.test("image/fsck-accepts-the-whole-root", || {
        run::capture(run::command(&tools.fsck).arg(stage.path(&stage.plan.root.image))).map(|_| String::new())
    });
    report
        .test("image/fsck-names-every-flipped-bit", || flips::test(&tools, &stage, &signers.rsa.certificate));

    let stage = Arc::new(stage);
    let store = tools::static_store()?;
    let every = if report.filter().is_none() { EVERY } else { 1 };
    let lab = |built: Option<(Kernel, Result<PathBuf>)>| -> Result<Lab> {
        let (kernel, module) = built.context("the guest tests did not run: there is no kernel")?;
        let module = module.context("the guest tests did not run: there is no module")?;
        let mut lab = Lab::open(cache, &kernel, &module, &debian, Some(&store))?;
        lab.period = period.unwrap_or(lab.period);
        lab.every = every;
        Ok(lab)
    };
    if wants_guest {
        let lab = lab(built)?;
        let is_once = |group: &&str| flavour == Flavour::Plain && STOCK_GROUPS.contains(group);
        let is_left_out = |group: &&str| report.filter().is_none() && is_once(group);
        boot_all(boots, lab, &stage, "", groups(flavour).filter(|group| !is_left_out(group)));
    }
    if wants_stock_guest && stock.is_some() {
        boot_all(boots, lab(stock)?, &stage, STOCK_PREFIX, STOCK_GROUPS.into_iter());
    }
    Ok(())
}

/// The boots of those groups that are wanted.
fn boot_all(
    boots: &Sender<Job>,
    lab: Lab,
    stage: &Arc<Stage>,
    prefix: &'static str,
    groups: impl Iterator<Item = &'static str>,
) {
    let lab = Arc::new(lab);
    for group in groups {
        let (lab, stage) = (lab.clone(), stage.clone());
        let _ = boots.send(Box::new(move |report| {
            report.under(prefix, |report| {
                let is_left_out = NAMED_GROUPS.contains(&group) && report.filter().is_none();
                if report.wants_group(group) && !is_left_out {
                    boot(&lab, &stage, report, group);
                }
            });
        }));
    }
}

/// The tests that need a machine that boots from an image.
fn appliance(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Kernel, Need::Machine])?;
    let toolchain = Toolchain::find(cache)?;
    let appliance = Appliance::prepare(cache, &toolchain, &Tools::of_tests()?)?;
    for refused in &appliance.refused {
        report.test(&format!("boot/refuses-a-root-{}", refused.name), || appliance.refuse(refused));
    }
    for group in groups(Flavour::Appliance) {
        if report.wants_group(group) {
            let filter = report.filter().map(ToOwned::to_owned);
            let outcome = appliance.run(group, filter.as_deref(), |message| report.take(message));
            judge(report, group, outcome);
        }
    }
    Ok(())
}

/// The tests that need a machine which boots Debian's own kernel from an image.
fn verified_boot(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Stock, Need::Machine])?;
    let Stock { kernel, builder, .. } = stock::prepare(cache)?;
    let module = module::build(cache, &builder, &kernel.build, Lint::Plain)?;
    let machine = VerifiedBoot::prepare(cache, &Tools::of_tests()?, &kernel, &module)?;
    report.test("boot/hook-says-what-is-wrong", || machine.check_hook());
    report.test("boot/module-is-signed-by-its-owner", || machine.sign_module());
    for stopped in &machine.stopped {
        report.test(&format!("boot/stops-at-{}", stopped.name), || machine.stop(stopped));
    }
    for group in STOCK_BOOT_GROUPS {
        if report.wants_group(group) {
            let filter = report.filter().map(ToOwned::to_owned);
            let outcome = machine.run(group, filter.as_deref(), |message| report.take(message));
            judge(report, group, outcome);
        }
    }
    Ok(())
}

/// Kernel and module, with the tests of the latter; a module that does not build is a failed test, and the
/// images are tested all the same.
fn module(cache: &Cache, report: &mut Report, flavour: Flavour) -> Result<(Kernel, Result<PathBuf>)> {
    if flavour == Flavour::Stock {
        setup::ensure(cache, &[Need::Stock])?;
        let Stock { kernel, builder, .. } = stock::prepare(cache)?;
        let built = module_for(cache, report, &kernel, &builder);
        return Ok((kernel, built));
    }
    setup::ensure(cache, &[Need::Kernel])?;
    let toolchain = Toolchain::find(cache)?;
    let kernel = kernel::build(cache, &toolchain, flavour)?;
    run::say(format_args!("kernel {}", kernel.key));
    let built = module_for(cache, report, &kernel, &toolchain);
    report.test("module/lints", || {
        module::build(cache, &toolchain, &kernel.build, Lint::Clippy).map(|_| String::new())
    });
    Ok((kernel, built))
}

/// The module for a kernel, with the tests of its properties.
fn module_for(
    cache: &Cache,
    report: &mut Report,
    kernel: &Kernel,
    compilers: &dyn Compilers,
) -> Result<PathBuf> {
    let built = module::build(cache, compilers, &kernel.build, Lint::Plain);
    report.test("module/builds-without-a-warning", || match &built {
        Ok(_) => Ok(String::new()),
        Err(error) => bail!("{}", advice::told(error)),
    });
    let existing = || built.as_ref().map_err(|_| anyhow::anyhow!("there is no module"));
    match kernel.flavour {
        Flavour::Plain | Flavour::Appliance | Flavour::Stock => {
            report.test("module/cannot-panic", || {
                module::check_panic_free(compilers, existing()?).map(|()| String::new())
            });
            report.test("module/takes-little-stack", || module::check_frames(compilers, existing()?));
            report.test("module/names-no-path-of-its-builder", || {
                let (all, own) = (cache.folder("")?, tools::repository());
                // Debian's kernel has UBSAN, for which GCC notes the places of checks without any mapping.
                let folders: &[&Path] =
                    if kernel.flavour == Flavour::Stock { &[&own] } else { &[&all, &own] };
                module::check_paths(compilers, existing()?, folders)
            });
        }
        // The use of the stack is read from machine code, and only that of x86 can be read here.
        Flavour::Arm64 => report.test("module/cannot-panic", || {
            module::check_panic_free(compilers, existing()?).map(|()| String::new())
        }),
        // With debug assertions it can, and shall. But it must not lack the instrumentation that this kernel
        // is for.
        Flavour::Debug => report.test("module/is-instrumented", || {
            module::check_instrumented(compilers, existing()?).map(|()| String::new())
        }),
    }
    built
}

/// One boot: its tests are counted as they end.
fn boot(lab: &Lab, stage: &Stage, report: &mut Report, group: &str) {
    let filter = report.filter().map(ToOwned::to_owned);
    let outcome = lab.run(stage, group, filter.as_deref(), |message| report.take(message));
    judge(report, group, outcome);
}

/// A complaint about a boot as a whole counts as one more failure.
fn judge(report: &mut Report, group: &str, outcome: Result<Outcome>) {
    match outcome {
        Ok(outcome) if outcome.complaints.is_empty() => {}
        Ok(outcome) => report.failed(&format!("{group}/machine"), &outcome.complaints.join("\n")),
        Err(error) => report.failed(&format!("{group}/machine"), &advice::told(&error)),
    }
}
