// SPDX-License-Identifier: GPL-2.0
//! What was measured, where, and with what: the contents of BENCH.json.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tesserafs_guest::reading;

use super::growth::Grown;
use super::packs::{Rule, Update, Version};
use super::pull::Pull;
use super::trees::TreeBuilt;
use super::Bench;
use crate::{kernel, run, tools};

/// One run of one builder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Built {
    pub(super) builder: String,
    pub(super) level: u32,
    pub(super) run: usize,
    pub(super) seconds: f64,
    /// Seconds of processors; older records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) processor: Option<f64>,
    /// Size of the image.
    pub(super) bytes: u64,
    /// Memory at most.
    pub(super) peak: u64,
}

/// A part of the benchmark with everything that is needed to repeat it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured<S> {
    /// Of the repository; `+` where it had changes that are in no commit.
    pub(super) commit: String,
    /// What was typed.
    pub(super) command: String,
    pub(super) machine: String,
    /// Programs: name, version, command line.
    pub(super) programs: Vec<Program>,
    /// About the input and the circumstances.
    pub(super) notes: Vec<String>,
    pub(super) samples: Vec<S>,
}

/// Something that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) command: String,
}

/// All parts; `None` is one that was not measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) read: Option<Measured<reading::Sample>>,
    /// Reading of a tree of sources.
    #[serde(default)]
    pub(super) sources: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) fault: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) fault_two: Option<Measured<reading::Sample>>,
    pub(super) releases: Option<Measured<reading::Sample>>,
    pub(super) scaling: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) fleet: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) fuse: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) packs: Option<Measured<Version>>,
    #[serde(default)]
    pub(super) nights: Option<Measured<Rule>>,
    #[serde(default)]
    pub(super) updates: Option<Measured<Update>>,
    #[serde(default)]
    pub(super) pull: Option<Measured<Pull>>,
    #[serde(default)]
    pub(super) metadata: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) profiles: Option<Measured<reading::Sample>>,
    #[serde(default)]
    pub(super) trees: Option<Measured<TreeBuilt>>,
    #[serde(default)]
    pub(super) growth: Option<Measured<Grown>>,
    pub(super) build: Option<Measured<Built>>,
}

impl Record {
    /// Reads what an earlier run wrote; nothing is no error.
    pub(super) fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not of this program: remove it", path.display()))
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).context("the samples cannot be written down")
    }
}

impl<S> Measured<S> {
    /// Of this machine.
    pub(super) fn new(
        bench: &Bench<'_>,
        programs: Vec<Program>,
        notes: Vec<String>,
        samples: Vec<S>,
    ) -> Result<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Ok(Self {
            commit: bench.commit.clone(),
            command: format!("cargo xtask {}", words.join(" ")),
            machine: machine()?,
            programs,
            notes,
            samples,
        })
    }
}

impl Measured<Built> {
    /// With the samples that `old` has of other levels, if they are of the same commit, programs and tree.
    ///
    /// High levels take an hour: they can be measured apart from the others.
    pub(super) fn with_levels_of(mut self, old: Option<Self>) -> Self {
        // Of changes that are in no commit nobody knows whether they are the same.
        let Some(old) = old.filter(|old| old.is_like(&self) && !self.commit.ends_with('+')) else {
            return self;
        };
        let measured: Vec<u32> = self.samples.iter().map(|sample| sample.level).collect();
        let kept: Vec<Built> =
            old.samples.into_iter().filter(|sample| !measured.contains(&sample.level)).collect();
        if !kept.is_empty() {
            self.command = format!("{}; {}", old.command, self.command);
            self.samples.splice(0..0, kept);
        }
        self
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.commit, &self.machine, &self.programs, &self.notes)
            == (&other.commit, &other.machine, &other.programs, &other.notes)
    }
}

/// The commit of the repository, as it is now.
pub(super) fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        run::capture(run::command("git").arg("-C").arg(tools::repository()).args(arguments))
    };
    let head = git(&["rev-parse", "HEAD"])?;
    // The report itself is written by the run, and does not count.
    let changes = git(&["status", "--porcelain", "--", ".", ":!BENCH.*", ":!README.md"])?;
    Ok(format!("{}{}", head.trim(), if changes.is_empty() { "" } else { "+" }))
}

fn machine() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("failed to read {path}"));
    let processor = read("/proc/cpuinfo")?
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()))
        .unwrap_or_else(|| "unknown".to_owned());
    let memory: u64 = read("/proc/meminfo")?
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{} processors ({processor}), {} GiB, Linux {}",
        kernel::processors(),
        memory >> 20,
        release.trim()
    ))
}

/// The samples of one thing in one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Sums up; `None` of nothing.
pub(super) fn summary(values: impl Iterator<Item = f64>) -> Option<Summary> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some(Summary { median, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(commit: &str, command: &str, levels: &[u32]) -> Measured<Built> {
        let sample = |&level: &u32| Built {
            builder: "b".to_owned(),
            level,
            run: 1,
            seconds: f64::from(level),
            processor: None,
            bytes: 1,
            peak: 1,
        };
        Measured {
            commit: commit.to_owned(),
            command: command.to_owned(),
            machine: String::new(),
            programs: Vec::new(),
            notes: Vec::new(),
            samples: levels.iter().map(sample).collect(),
        }
    }

    #[test]
    fn levels_that_were_not_measured_again_stay_if_nothing_else_changed() {
        let levels = |part: &Measured<Built>| part.samples.iter().map(|s| s.level).collect::<Vec<_>>();
        let merged = built("c", "new", &[15, 19]).with_levels_of(Some(built("c", "old", &[3, 15])));
        assert_eq!(levels(&merged), [3, 15, 19]);
        assert_eq!(merged.command, "old; new");
        let all_again = built("c", "new", &[3, 9]).with_levels_of(Some(built("c", "old", &[3])));
        assert_eq!((levels(&all_again), all_again.command.as_str()), (vec![3, 9], "new"));
        for (new, old) in [("c", "d"), ("c+", "c+")] {
            let merged = built(new, "new", &[9]).with_levels_of(Some(built(old, "old", &[3])));
            assert_eq!(levels(&merged), [9]);
        }
        assert_eq!(levels(&built("c", "new", &[9]).with_levels_of(None)), [9]);
    }

    #[test]
    fn a_record_of_fewer_parts_is_read() {
        let record: Record = serde_json::from_str(r#"{"read": null, "build": null}"#).unwrap();
        assert!(record.releases.is_none() && record.scaling.is_none());
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        let median = |values: &[f64]| summary(values.iter().copied()).unwrap().median;
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(summary(std::iter::empty()).is_none());
    }
}
