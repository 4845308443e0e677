// SPDX-License-Identifier: GPL-2.0
//! Versions of a tree, pulled from a registry over lines of several kinds: what a host without any fetches, one that has the
//! version before, one that takes ten in turn, and twenty pulls at once; against layers, partial pulls of layers, and chunks.

mod form;
mod site;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

use super::packs::series::{Series, SERIES, VERSIONS};
use super::record::{Measured, Program};
use super::{build, Bench};
use crate::proxy::Speed;
use crate::run;

pub(super) use self::form::FORMS;
use self::form::{disk, Form, PUBLISHED};
use self::site::Site;

/// One pull, or as many as run at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pull {
    pub(super) series: String,
    /// The line, as [`Line::name`] has it.
    pub(super) line: String,
    pub(super) step: Step,
    /// What was pulled, and by what.
    pub(super) form: String,
    /// The version that the host has then.
    pub(super) version: usize,
    pub(super) seconds: f64,
    /// What the host got, with heads and documents.
    pub(super) bytes: u64,
    pub(super) requests: u64,
    /// Bytes of the host's disk afterwards.
    pub(super) disk: u64,
}

/// What the host has before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Nothing.
    First,
    /// All versions before.
    Next,
    /// Nothing, and as many pulls as [`AT_ONCE`] begin.
    AtOnce,
}

/// A line between host and registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) name: &'static str,
    milliseconds: u64,
    megabits: Option<u64>,
    /// Runs of the first pull and of one update: where nothing caps the bandwidth, times are short.
    rounds: usize,
    /// Whether ten versions in turn and many pulls at once are measured, too.
    has_all: bool,
}

/// The lines.
pub(super) const LINES: [Line; 4] = [
    Line { name: "0 ms", milliseconds: 0, megabits: None, rounds: 9, has_all: false },
    Line { name: "20 ms", milliseconds: 20, megabits: None, rounds: 9, has_all: false },
    Line { name: "5 ms, 200 Mbit/s", milliseconds: 5, megabits: Some(200), rounds: 1, has_all: true },
    Line { name: "50 ms, 20 Mbit/s", milliseconds: 50, megabits: Some(20), rounds: 1, has_all: false },
];

impl Line {
    fn speed(self) -> Speed {
        Speed {
            delay: Duration::from_millis(self.milliseconds),
            bits_per_second: self.megabits.map(|megabits| megabits * 1_000_000),
        }
    }
}

/// The series: a root, an application, and sources. All five would take hours, as each has ten versions in five forms.
const PULLED: [&str; 3] = ["Debian root", "Node application", "source releases"];

/// Pulls that begin at once.
pub(super) const AT_ONCE: usize = 20;

/// All series.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Pull>> {
    let mut samples = Vec::new();
    let mut notes = vec![
        "a proxy between host and registry delays each request, and shares its bandwidth among all connections; a version of a rival \
         is a layer with the whole tree, built again"
            .to_owned(),
        "skopeo keeps layers as they are, podman unpacks them; zstd:chunked with partial pulls; casync extracts with the version \
         before as its seed"
            .to_owned(),
        format!(
            "level {PUBLISHED} of zstd for tesserafs where the form does not say another one; skopeo takes 3 unless it is told; disk: \
             of all versions until then; {AT_ONCE} pulls at once share a store where there is one"
        ),
    ];
    let mut programs = build::programs(bench)?;
    programs.retain(|program| program.name == build::OURS);
    for series in SERIES.iter().filter(|series| PULLED.contains(&series.name)) {
        let label = |form: &Form| format!("{}: {}", series.name, form.name());
        let forms: Vec<Form> =
            FORMS.into_iter().filter(|form| label(form).starts_with(&bench.options.measure)).collect();
        if forms.is_empty() {
            continue;
        }
        let scratch = tempfile::tempdir_in(bench.cache.folder("scratch")?)
            .context("failed to make a scratch folder")?;
        let folder = scratch.path().canonicalize().context("no scratch folder")?;
        let Some(site) =
            Site::make(bench, series, &folder, &forms).with_context(|| series.name.to_owned())?
        else {
            notes.push(format!("{}: not measured, as this machine has no {}", series.name, series.needs));
            continue;
        };
        if samples.is_empty() {
            programs.extend(site.programs()?);
        }
        one(&site, series, &folder, &forms, &mut samples, &mut notes)
            .with_context(|| series.name.to_owned())?;
    }
    Measured::new(bench, programs, notes, samples)
}

/// One series, over all lines.
fn one(
    site: &Site<'_>,
    series: &Series,
    folder: &Path,
    forms: &[Form],
    samples: &mut Vec<Pull>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut add = |line: &Line, form: Form, (step, version): (Step, usize), taken: Taken| {
        let Taken { seconds, bytes, requests, disk } = taken;
        eprintln!(
            "{} {version}, {}: {:32} {step:?} {seconds:7.2} s {bytes:11} bytes {requests:5} requests {disk:11} on disk",
            series.name,
            line.name,
            form.name()
        );
        samples.push(Pull {
            series: series.name.to_owned(),
            line: line.name.to_owned(),
            step,
            form: form.name().to_owned(),
            version,
            seconds,
            bytes,
            requests,
            disk,
        });
    };
    for line in &LINES {
        let lines = site.behind(line.speed())?;
        for round in 0..line.rounds {
            // Each begins with another one.
            for form in forms.iter().cycle().skip(round % forms.len()).take(forms.len()).copied() {
                if form.is_slow() && round > 0 || !form.is_on(line) {
                    continue;
                }
                let has_all = line.has_all && form.has_all();
                let host = Host::new(folder)?;
                for version in 1..=if has_all { VERSIONS } else { 2 } {
                    let taken = match lines.take(form, &host.0, version) {
                        // A rival that fails at a later version has measured pulls before it, and is said to fail.
                        Err(error) if version > 2 && !form.is_own() => {
                            notes.push(format!("{}: {error:#}", series.name));
                            break;
                        }
                        taken => taken?,
                    };
                    add(line, form, (if version == 1 { Step::First } else { Step::Next }, version), taken);
                }
                drop(host);
                if has_all {
                    let host = Host::new(folder)?;
                    let taken = lines.at_once(form, &host.0)?;
                    add(line, form, (Step::AtOnce, 1), taken);
                }
            }
        }
    }
    Ok(())
}

/// The folder of a host.
struct Host(std::path::PathBuf);

impl Host {
    fn new(folder: &Path) -> Result<Self> {
        let host = folder.join("host");
        std::fs::create_dir(&host).context("failed to create a host")?;
        Ok(Self(host))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Trees of images have folders that nobody may write to, and roots of containers have attributes.
        let _ = run::quiet(run::command("rm").arg("-rf").arg(&self.0));
    }
}

/// The cost of a pull.
struct Taken {
    seconds: f64,
    bytes: u64,
    requests: u64,
    disk: u64,
}

impl site::Lines<'_> {
    /// One pull.
    fn take(&self, form: Form, host: &Path, version: usize) -> Result<Taken> {
        self.forget();
        let seconds =
            form.pull(self, host, version).with_context(|| format!("{}: {version}", form.name()))?;
        self.taken(seconds, host)
    }

    /// Many pulls of the first version.
    fn at_once(&self, form: Form, host: &Path) -> Result<Taken> {
        self.forget();
        let begin = Instant::now();
        let results: Vec<Result<f64>> = std::thread::scope(|scope| {
            let start = |number: usize| {
                scope.spawn(move || {
                    let place = if form.shares() { host.to_owned() } else { host.join(number.to_string()) };
                    std::fs::create_dir_all(&place).context("failed to create a host")?;
                    form.pull(self, &place, 1)
                })
            };
            let threads: Vec<_> = (0..AT_ONCE).map(start).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|end| end.map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
        });
        let seconds = begin.elapsed().as_secs_f64();
        for result in results {
            result.with_context(|| format!("{}, {AT_ONCE} at once", form.name()))?;
        }
        self.taken(seconds, host)
    }

    fn taken(&self, seconds: f64, host: &Path) -> Result<Taken> {
        let (bytes, requests) = self.passed();
        ensure!(requests > 0, "nothing passed the proxy");
        Ok(Taken { seconds, bytes, requests, disk: disk(host)? })
    }
}

/// A program, as the report names it.
fn program(name: &str, version: String, command: &str) -> Program {
    Program { name: name.to_owned(), version, command: command.to_owned() }
}
