// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask fuzz`: runs the targets of `format/fuzz`, each of which states an invariant that must hold
//! for any input.
//!
//! The first inputs are made anew each time; those that reached more code are kept in the cache, and so are those
//! that broke something. In `cargo xtask test` each target has a short run: as many inputs each time, from the same first
//! ones and the same seed. (Not the same to the last: libFuzzer learns from comparisons, and some are of addresses.)

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::cache::Cache;
use crate::report::Report;
use crate::setup::{self, Need};
use crate::{run, tools, trees};

/// The targets, and inputs in a test of each: two or three seconds.
const TARGETS: [(&str, u32); 10] = [
    ("superblock", 200_000),
    ("merkle", 100_000),
    ("records", 200_000),
    ("walk", 40_000),
    ("verified", 15_000),
    ("check", 3_000),
    ("frame", 20_000),
    ("x86", 500_000),
    ("mkfs_tar", 5_000),
    ("packages", 10_000),
];

/// Bytes of an input: with more of them each run is slow, and finds no more.
const INPUT_MAX: usize = 32 << 10;

/// Seconds after which one input counts as one that never ends; none takes a tenth of a second.
const HANG: u64 = 60;

/// Seconds that a program may take to end after its time.
const GRACE: u64 = 120;

/// The targets to fuzz, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Minutes for all targets together
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Only this target
    #[arg(value_parser = TARGETS.map(|(name, _)| name))]
    target: Option<String>,
}

/// Runs the targets in turn.
pub(crate) fn fuzz(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let fuzzer = Fuzzer::prepare(&cache)?;
    let wants = |name: &str| options.target.as_ref().is_none_or(|target| target == name);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).filter(|name| wants(name)).collect();
    let share = (options.minutes * 60 / names.len() as u64).max(1);
    let mut broken = 0;
    for name in names {
        let start = Instant::now();
        match fuzzer.run(name, Length::Seconds(share)) {
            Ok(figures) => println!("{name:10}  {figures}, {:.0} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                broken += 1;
                println!("{name:10}  BROKEN: {error:#}");
            }
        }
    }
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A short run of each target, from the same inputs each time.
pub(crate) fn test(cache: &Cache, report: &mut Report) -> Result<()> {
    let fuzzer = Fuzzer::prepare(cache)?;
    for (name, runs) in TARGETS {
        report.test(&format!("fuzz/{name}"), || {
            fuzzer.run(name, Length::Runs(runs)).map(|figures| figures.to_string())
        });
    }
    Ok(())
}

/// How long a target runs.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// So many seconds, with all inputs of earlier runs, and with luck.
    Seconds(u64),
    /// So many inputs, from the first ones only.
    Runs(u32),
}

/// The targets, built, and their first inputs.
struct Fuzzer<'a> {
    cache: &'a Cache,
    programs: Vec<PathBuf>,
    /// A folder for each target; vanishes with the value.
    seeds: tempfile::TempDir,
}

impl<'a> Fuzzer<'a> {
    fn prepare(cache: &'a Cache) -> Result<Self> {
        setup::ensure(cache, &[Need::Fuzz])?;
        run::say("building the fuzz targets");
        let programs = tools::fuzz()?;
        let seeds = scratch(cache)?;
        let corpus = tools::find(&programs, "corpus")?;
        run::capture(run::command(corpus).arg(seeds.path()).env("TMPDIR", seeds.path()))?;
        Ok(Self { cache, programs, seeds })
    }

    fn run(&self, name: &str, length: Length) -> Result<Figures> {
        let program = tools::find(&self.programs, name)?;
        let crashes = self.cache.folder("fuzz/crashes")?;
        // The files that a target leaves when it dies go with this.
        let scratch = scratch(self.cache)?;
        let mut command = run::command(&program);
        command.env("TMPDIR", scratch.path()).args(["-print_final_stats=1", &format!("-timeout={HANG}")]);
        command.arg(format!("-max_len={INPUT_MAX}"));
        command.arg(format!("-artifact_prefix={}/{name}-", crashes.display()));
        // New inputs go to the first folder.
        let (found, limit) = match length {
            Length::Seconds(seconds) => {
                command.arg(format!("-max_total_time={seconds}"));
                (self.cache.folder(&format!("fuzz/corpus/{name}"))?, seconds + GRACE)
            }
            Length::Runs(runs) => {
                command.args(["-seed=1", &format!("-runs={runs}")]);
                let found = scratch.path().join("found");
                std::fs::create_dir(&found).context("failed to make a folder for inputs")?;
                (found, 5 * GRACE)
            }
        };
        command.arg(found).arg(self.seeds.path().join(name));
        let output = run::output_within(&mut command, Duration::from_secs(limit))?;
        let log = self.cache.folder("logs")?.join(format!("fuzz-{name}.log"));
        std::fs::write(&log, &output.stderr).with_context(|| format!("failed to write {}", log.display()))?;
        judge(&command, &output, &log)
    }
}

/// A folder in memory, where there is such a thing: targets that need files write thousands of them.
fn scratch(cache: &Cache) -> Result<tempfile::TempDir> {
    trees::in_memory().or_else(|_| {
        tempfile::tempdir_in(cache.folder("scratch")?).context("failed to make a scratch folder")
    })
}

/// The figures of a target; an error with the input that broke its invariant.
fn judge(command: &Command, output: &Output, log: &Path) -> Result<Figures> {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Figures::parse(&said).with_context(|| format!("no figures in {}", log.display()));
    }
    let reason = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    let reason =
        reason.or_else(|| said.lines().find_map(|line| line.split_once("ERROR: ").map(|(_, why)| why)));
    let reason = reason.unwrap_or("it died");
    match said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path)) {
        Some(input) => {
            let program = command.get_program().to_string_lossy();
            bail!("{reason}\n  input:  {input}\n  replay: {program} {input}\n  log:    {}", log.display())
        }
        None => bail!("{reason}; {}: see {}", output.status, log.display()),
    }
}

/// The figures that libFuzzer prints at its end.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    runs: u64,
    coverage: u64,
    inputs: u64,
}

impl Figures {
    /// Reads the last lines of a run. A target without coverage is built without its flags, and tries blindly.
    fn parse(said: &str) -> Result<Self> {
        let done = said.lines().rfind(|line| line.contains("DONE")).context("it did not end")?;
        let field = |name| {
            let (_, value) = done.split_once(name)?;
            value.trim_start().split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
        };
        let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        let runs = runs.context("no number of runs")?.trim().parse().context("no number of runs")?;
        let coverage = field("cov:").context("no coverage")?;
        ensure!(coverage > 0, "the target is not instrumented");
        Ok(Self { runs, coverage, inputs: field("corp:").context("no corpus")? })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, coverage, inputs } = self;
        write!(f, "{runs} runs, coverage {coverage}, corpus {inputs}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn each_target_has_a_test() {
        let manifest = std::fs::read_to_string(tools::repository().join("format/fuzz/Cargo.toml")).unwrap();
        let paths = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
        let names: Vec<&str> = paths.filter_map(|path| path.strip_suffix(".rs\"")).collect();
        assert_eq!(names, TARGETS.map(|(name, _)| name));
    }

    #[test]
    fn figures_are_those_of_the_end() {
        let said = "#8\tINITED cov: 49 ft: 73 corp: 6/192b exec/s: 0 rss: 27Mb\n\
                    #365989\tDONE   cov: 55 ft: 297 corp: 168/53Kb lim: 2631 exec/s: 52284 rss: 27Mb\n\
                    stat::number_of_executed_units: 365989\n";
        let figures = Figures::parse(said).unwrap();
        assert_eq!(figures, Figures { runs: 365_989, coverage: 55, inputs: 168 });
        assert!(Figures::parse(&said.replace("cov: 55", "cov: 0")).is_err());
        assert!(Figures::parse("").is_err());
    }

    #[test]
    fn a_broken_invariant_is_told_with_its_input() {
        let said = "thread '<unnamed>' panicked at walk.rs:1:2:\nanother beginning\n\
                    ==5== ERROR: libFuzzer: deadly signal\n\
                    artifact_prefix='c/walk-'; Test unit written to c/walk-crash-12\n";
        let output = |said: &str| Output {
            status: ExitStatus::from_raw(77 << 8),
            stdout: Vec::new(),
            stderr: said.as_bytes().to_vec(),
        };
        let told =
            |said| judge(&Command::new("walk"), &output(said), Path::new("log")).unwrap_err().to_string();
        let error = told(said);
        assert!(error.starts_with("another beginning\n"), "{error}");
        assert!(error.contains("replay: walk c/walk-crash-12\n"), "{error}");
        assert!(told("==5== ERROR: libFuzzer: timeout after 60 seconds\n").starts_with("libFuzzer: timeout"));
    }
}
