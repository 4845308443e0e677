// SPDX-License-Identifier: GPL-2.0
//! The group `source`: formatting, lints, unit and integration tests. No kernel, no root.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::cache::Cache;
use crate::report::Report;
use crate::tools::{self, cargo, Tools};
use crate::{advice, audit, licences, readme, run, setup};

/// Runs them.
pub(super) fn test(cache: &Cache, report: &mut Report) {
    report.test("source/format", || {
        run::capture(cargo().args(["fmt", "--all", "--check"]))?;
        // Not --all, which would go through the packages that it uses again.
        run::capture(tools::fuzz_cargo().args(["fmt", "--check"]))?;
        // The module is no package of the workspace, and has the kernel's style.
        let module = tools::repository().join("kernel-module/main.rs");
        run::capture(run::command("rustfmt").arg("--check").arg(module)).map(|_| String::new())
    });
    report.test("source/lints", || {
        // Libraries in C, and what runs in the compiler, are then those of the tests.
        let clippy =
            ["clippy", "--release", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        run::capture(cargo().args(clippy))?;
        run::capture(tools::fuzz_cargo().args(clippy)).map(|_| String::new())
    });
    report.test("source/unsafe-blocks-have-reasons", audit::check);
    report.test("source/scripts", || {
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
    report.test("source/readme-is-typed", || readme::typed(&Tools::of_tests()?));
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

/// How long the tests without a kernel may be compiled, and run.
const COMPILING: Duration = Duration::from_secs(2700);
const TESTING: Duration = Duration::from_secs(1800);

/// The tests of all packages, each counted as one.
fn cargo_test(cache: &Cache, report: &mut Report) -> Result<()> {
    run::say("cargo test --workspace");
    // To compile everything takes long where kernels are compiled beside.
    let compiled =
        run::output_within(cargo().args(["test", "--workspace", "--release", "--no-run"]), COMPILING)?;
    if !compiled.status.success() {
        bail!("{}", run::tail(&String::from_utf8_lossy(&compiled.stderr)));
    }
    let output =
        run::output_within(cargo().args(["test", "--workspace", "--release", "--no-fail-fast"]), TESTING)?;
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
