// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask test`: every check of the project, cheap ones first.
//!
//! A run says at its end how many minutes each group took. One of 38 minutes, emulated on two processors, with all kernels
//! and roots in the cache, and other work beside it:
//!
//! | groups | minutes |
//! |---|---|
//! | `source`, `fuzz`: compiling, and tests without a kernel | 7.0 |
//! | `module`, `image`: the driver for two kernels, images of a root | 1.6 |
//! | on the custom kernel: `mutants` 3.4, `compare` 2.0, `flips` 1.9, `backing` 1.7, `races` 1.6, eight others 2.6 | 13.2 |
//! | on Debian's kernel: `stock/backing` 2.2, `stock/compare` 1.6, `stock/stores` 1.6, five others 2.2 | 7.6 |
//! | booting from an image: `stock/boot` 3.1, `boot` 1.6, six others 3.5 | 8.2 |

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::plan::Flip;

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
use crate::tools::{self, cargo, Tools};
use crate::verified_boot::VerifiedBoot;
use crate::{advice, audit, corrupt, fuzz, licences, package, readme, reproducible, rootfs, run, sign};

/// Groups of guest tests: each is one boot with one verdict.
const GROUPS: [&str; 13] = [
    "compare",
    "programs",
    "readers",
    "sharing",
    "api",
    "fstests",
    "backing",
    "stores",
    "races",
    "signatures",
    "privilege",
    "flips",
    "mutants",
];

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
        [&GROUPS[..], &APPLIANCE_GROUPS, &["source", "fuzz", "packages", "module", "image"]].concat()
    };
    all.contains(&group)
}

/// Groups that every run has on Debian's own kernel, too: kernels differ in how files are read, and in the
/// filesystems that they lie on.
const STOCK_GROUPS: [&str; 8] =
    ["compare", "programs", "readers", "signatures", "backing", "stores", "security", "locked-down"];

/// Groups of tests in a machine that boots Debian's own kernel from an image; each is one boot.
const STOCK_BOOT_GROUPS: [&str; 3] = ["boot", "boot-from-file", "tampered"];

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

/// `period`, if given, is how long each test takes that could go on for ever.
fn run_tests(filter: Option<String>, flavour: Flavour, period: Option<Duration>) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let mut report = Report::new(filter);
    source(&cache, &mut report);
    if report.wants_group("fuzz") {
        if let Err(error) = fuzz::test(&cache, &mut report) {
            report.failed("preparation of the fuzz targets", &advice::told(&error));
        }
    }
    // All programs are compiled twice, so only where the group is named.
    if report.filter().is_some() && report.wants_group("packages") {
        if let Err(error) = package::checks::test(&cache, &mut report) {
            report.failed("preparation of the packages", &advice::told(&error));
        }
    }
    let own = ["module", "image"].into_iter().chain(groups(flavour)).any(|group| report.wants_group(group));
    if own
        || wants_stock(&mut report, flavour, &STOCK_GROUPS)
        || wants_stock(&mut report, flavour, &["module"])
    {
        // A failed preparation makes the run fail; it is no reason to end without a tally.
        if let Err(error) = machine(&cache, &mut report, flavour, period) {
            report.failed("preparation", &advice::told(&error));
        }
    }
    if flavour == Flavour::Plain && groups(Flavour::Appliance).any(|group| report.wants_group(group)) {
        if let Err(error) = appliance(&cache, &mut report) {
            report.failed("preparation of the appliance", &advice::told(&error));
        }
    }
    if wants_stock(&mut report, flavour, &STOCK_BOOT_GROUPS) {
        report.under(STOCK_PREFIX, |report| {
            if let Err(error) = verified_boot(&cache, report) {
                report.failed("preparation of the verified boot", &advice::told(&error));
            }
        });
    }
    Ok(report.finish())
}

/// Formatting, lints, unit and integration tests: no kernel, no root.
fn source(cache: &Cache, report: &mut Report) {
    report.test("source/format", || {
        run::capture(cargo().args(["fmt", "--all", "--check"]))?;
        // Not --all, which would go through the packages that it uses again.
        run::capture(tools::fuzz_cargo().args(["fmt", "--check"]))?;
        // The module is no package of the workspace, and has the kernel's style.
        let module = tools::repository().join("kernel-module/main.rs");
        run::capture(run::command("rustfmt").arg("--check").arg(module)).map(|_| String::new())
    });
    report.test("source/lints", || {
        let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        run::capture(cargo().args(clippy))?;
        run::capture(tools::fuzz_cargo().args(clippy)).map(|_| String::new())
    });
    report.test("source/unsafe-blocks-have-reasons", audit::check);
    report.test("source/scripts", || {
        setup::ensure(cache, &[Need::Source])?;
        let scripts = scripts()?;
        let mut check = run::command("shellcheck");
        check.current_dir(tools::repository()).arg("--external-sources").args(&scripts);
        // Its findings are its output, and no errors of its own.
        let output = run::output(&mut check)?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        Ok(format!("{} scripts", scripts.len()))
    });
    report.test("source/licences", || {
        let packages = licences::check(&tools::repository())?;
        run::capture(run::command(setup::deny(cache)?).current_dir(tools::repository()).args([
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
        ]))
        .map(|_| format!("{packages} packages of this project"))
    });
    report.test("source/readme-is-typed", || readme::typed(&Tools::build()?));
    if report.wants("source/tests") {
        if let Err(error) = cargo_test(cache, report) {
            report.failed("source/tests", &advice::told(&error));
        }
    }
}

/// The shell scripts of the repository: the first lines of each say so, to the kernel or to shellcheck.
fn scripts() -> Result<Vec<String>> {
    let repository = tools::repository();
    let files = run::capture(run::command("git").current_dir(&repository).args(["ls-files", "-z"]))?;
    let mut scripts = Vec::new();
    for name in files.split_terminator('\0') {
        // A link may lead nowhere, and data is no text: neither is a script.
        let Ok(bytes) = std::fs::read(repository.join(name)) else { continue };
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let first = head.lines().next().unwrap_or_default();
        let says = head.lines().any(|line| line.starts_with("# shellcheck shell="));
        if says || (first.starts_with("#!") && first.split_whitespace().any(|word| word.ends_with("sh"))) {
            scripts.push(name.to_owned());
        }
    }
    ensure!(!scripts.is_empty(), "git knows no shell script in {}", repository.display());
    Ok(scripts)
}

/// The tests of all packages, each counted as one.
fn cargo_test(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Source])?;
    run::say("cargo test --workspace");
    let output = run::output(cargo().args(["test", "--workspace", "--release", "--no-fail-fast"]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let log = cache.folder("logs")?.join("cargo-test.log");
    std::fs::write(&log, [&output.stdout[..], &output.stderr].concat())
        .with_context(|| format!("failed to write {}", log.display()))?;
    let (passed, failed) = tally(&text);
    report.add_passed("source/tests", passed);
    for name in failures(&text) {
        report.failed(&format!("source/tests/{name}"), &format!("see {}", log.display()));
    }
    // A test program that dies has no result line.
    if failed == 0 && (!output.status.success() || passed == 0) {
        bail!("{}", run::tail(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

/// Names in the lines `test some::name ... FAILED`.
fn failures(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
}

/// Sums up the lines `test result: ok. 12 passed; 0 failed; …`.
fn tally(text: &str) -> (usize, usize) {
    let number = |line: &str, word: &str| -> usize {
        line.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            .unwrap_or(0)
    };
    text.lines().filter(|line| line.starts_with("test result:")).fold((0, 0), |(passed, failed), line| {
        (passed + number(line, "passed"), failed + number(line, "failed"))
    })
}

/// Whether any of these groups is wanted on the second kernel of a run.
fn wants_stock(report: &mut Report, flavour: Flavour, groups: &[&str]) -> bool {
    flavour == Flavour::Plain
        && report.under(STOCK_PREFIX, |report| groups.iter().any(|group| report.wants_group(group)))
}

/// Everything that needs a kernel, root, or both.
fn machine(cache: &Cache, report: &mut Report, flavour: Flavour, period: Option<Duration>) -> Result<()> {
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
    let tools = Tools::build()?;
    report.test("image/is-reproducible", || reproducible::check(cache, &tools, &debian));
    run::say("building the images of the guest");
    let stage = stage::prepare(cache, &tools, &debian, &signers, Root::Unsigned)?;
    report.test("image/fsck-accepts-the-whole-root", || {
        run::capture(run::command(&tools.fsck).arg(stage.path(&stage.plan.root.image))).map(|_| String::new())
    });
    report
        .test("image/fsck-names-every-flipped-bit", || fsck_flips(&tools, &stage, &signers.rsa.certificate));

    let lab = |built: Option<(Kernel, Result<PathBuf>)>| -> Result<Lab> {
        let (kernel, module) = built.context("the guest tests did not run: there is no kernel")?;
        let module = module.context("the guest tests did not run: there is no module")?;
        Lab::open(cache, &kernel, &module, &debian)
    };
    if wants_guest {
        let mut lab = lab(built)?;
        lab.period = period.unwrap_or(lab.period);
        boot_all(&lab, &stage, report, groups(flavour));
    }
    if wants_stock_guest && stock.is_some() {
        let lab = lab(stock)?;
        report.under(STOCK_PREFIX, |report| boot_all(&lab, &stage, report, STOCK_GROUPS.into_iter()));
    }
    Ok(())
}

/// The boots of those groups that are wanted.
fn boot_all(lab: &Lab, stage: &Stage, report: &mut Report, groups: impl Iterator<Item = &'static str>) {
    for group in groups {
        if report.wants_group(group) {
            boot(lab, stage, report, group);
        }
    }
}

/// The tests that need a machine that boots from an image.
fn appliance(cache: &Cache, report: &mut Report) -> Result<()> {
    setup::ensure(cache, &[Need::Kernel, Need::Machine])?;
    let toolchain = Toolchain::find(cache)?;
    let appliance = Appliance::prepare(cache, &toolchain, &Tools::build()?)?;
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
    let machine = VerifiedBoot::prepare(cache, &Tools::build()?, &kernel, &module)?;
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

/// fsck must find each flipped bit, and nothing in the image as it was.
fn fsck_flips(tools: &Tools, stage: &Stage, certificate: &Path) -> Result<String> {
    let image = stage.path(&stage.plan.signed.good[0].image);
    let bytes = std::fs::read(&image).with_context(|| format!("failed to read {}", image.display()))?;
    let check = |path: &Path| -> Result<(Option<i32>, String)> {
        let output = run::output(run::command(&tools.fsck).arg("--cert").arg(certificate).arg(path))?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (code, said) = check(&image)?;
    if code != Some(0) {
        bail!("fsck ends with {code:?} for the image itself: {said}");
    }
    let flips = &stage.plan.flips;
    let half = flips.len().div_ceil(kernel::processors());
    let missed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            flips.chunks(half).map(|flips| scope.spawn(|| missed(flips, &bytes, &check))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a checking thread panicked"))?)
            .collect::<Result<Vec<_>>>()
            .map(|lists| lists.concat())
    })?;
    if !missed.is_empty() {
        let shown: Vec<&str> = missed.iter().take(20).map(String::as_str).collect();
        bail!("{} of {} are not named:\n{}", missed.len(), flips.len(), shown.join("\n"));
    }
    Ok(format!("{} flips", flips.len()))
}

/// Flips that fsck does not answer with "errors left" and a reason.
fn missed(
    flips: &[Flip],
    bytes: &[u8],
    check: &(impl Fn(&Path) -> Result<(Option<i32>, String)> + Sync),
) -> Result<Vec<String>> {
    const ERRORS_LEFT: i32 = 4;
    let folder = crate::trees::in_memory()?;
    let path = folder.path().join("flipped.tess");
    let mut bytes = bytes.to_vec();
    let mut missed = Vec::new();
    for flip in flips {
        corrupt::flip(&mut bytes, flip)?;
        std::fs::write(&path, &bytes).context("failed to write a damaged image")?;
        let (code, said) = check(&path)?;
        if code != Some(ERRORS_LEFT) || said.trim().is_empty() {
            missed.push(format!("{flip:?}: exit {code:?} {}", said.trim()));
        }
        corrupt::flip(&mut bytes, flip)?;
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_of_all_test_programs_are_added() {
        let text = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test result: FAILED. 10 passed; 2 failed; 0 ignored\n";
        assert_eq!(super::tally(text), (13, 2));
        let text = "test a::b ... ok\ntest c::d ... FAILED\n";
        assert_eq!(super::failures(text).collect::<Vec<_>>(), ["c::d"]);
    }
}
