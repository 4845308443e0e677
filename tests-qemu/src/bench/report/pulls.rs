// SPDX-License-Identifier: GPL-2.0
//! The part about pulls from a registry.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::pull::{Pull, Step, AT_ONCE, FORMS, LINES};
use super::super::record::{summary, Measured, Summary};
use super::circumstances;

/// Our forms; the others are rivals.
const OURS: &str = "tesserafs pull";
const OURS_WITH_DELTA: &str = "tesserafs pull, with deltas";
const OURS_SMALL: &str = "tesserafs pull, small, level 19";

/// The rivals that fetch a layer and no more, of which the smaller one counts.
const LAYERS: [&str; 2] = ["skopeo, tar.gz", "skopeo, tar.zst"];

/// The layer at the level that ours has, which nobody gets unless he asks for it.
const SAME_LEVEL: &str = "skopeo, tar.zst, level 9";

/// The line over which all forms are measured: bytes are the same over each.
const ALL_FORMS: &str = LINES[0].name;

/// The section.
pub(super) fn pulls(out: &mut String, part: &Measured<Pull>) -> Result<()> {
    let all = &part.samples;
    writeln!(out, "\n## Pulls from a registry")?;
    let cell = "Each cell: seconds; MB on the wire; requests.";
    for (step, heading) in [
        (Step::First, "A host with nothing"),
        (Step::Next, "A host with the version before"),
        (Step::AtOnce, "At once, by a host with nothing"),
    ] {
        let title = if step == Step::AtOnce { format!("{AT_ONCE} pulls at once") } else { "line".to_owned() };
        writeln!(out, "\n### {heading}\n\n{cell}\n")?;
        header(out, &format!("{title} | pulled by"), all, 2)?;
        for line in &LINES {
            for form in FORMS {
                let of = |series: &str| taken(all, series, line.name, step, form.name());
                if series(all).iter().all(|series| of(series).is_none()) {
                    continue;
                }
                write!(out, "| {} | {} |", line.name, form.name())?;
                for series in series(all) {
                    match of(series) {
                        Some(taken) => write!(
                            out,
                            " {:.2}; {:.2}; {:.0} |",
                            taken.seconds,
                            taken.bytes / 1e6,
                            taken.requests
                        )?,
                        None => write!(out, " |")?,
                    }
                }
                writeln!(out)?;
            }
        }
    }
    in_turn(out, all)?;
    circumstances(out, part)
}

fn header(out: &mut String, title: &str, all: &[Pull], columns: usize) -> Result<()> {
    writeln!(out, "| {title} | {} |", series(all).join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(columns + series(all).len()))?;
    Ok(())
}

/// All versions one after the other, where a line has them.
fn in_turn(out: &mut String, all: &[Pull]) -> Result<()> {
    writeln!(
        out,
        "\n### All versions in turn\n\nEach cell: seconds; MB on the wire; requests; MB on the disk of a host that keeps all.\n"
    )?;
    header(out, "line | pulled by", all, 2)?;
    for line in LINES.iter().filter(|line| all.iter().any(|pull| pull.line == line.name && pull.version > 2))
    {
        for form in FORMS {
            let of = |series: &str| -> Vec<&Pull> {
                let is_one = |pull: &&Pull| {
                    pull.series == series
                        && pull.line == line.name
                        && pull.form == form.name()
                        && pull.step != Step::AtOnce
                };
                all.iter().filter(is_one).collect()
            };
            if series(all).iter().all(|series| of(series).is_empty()) {
                continue;
            }
            write!(out, "| {} | {} |", line.name, form.name())?;
            for series in series(all) {
                let pulls = of(series);
                let Some(last) = pulls.last() else {
                    write!(out, " |")?;
                    continue;
                };
                write!(
                    out,
                    " {:.1}; {:.1}; {}; {:.1} |",
                    pulls.iter().map(|pull| pull.seconds).sum::<f64>(),
                    pulls.iter().map(|pull| pull.bytes).sum::<u64>() as f64 / 1e6,
                    pulls.iter().map(|pull| pull.requests).sum::<u64>(),
                    last.disk as f64 / 1e6
                )?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

fn series(all: &[Pull]) -> Vec<&str> {
    let mut series: Vec<&str> = all.iter().map(|pull| &*pull.series).collect();
    series.dedup();
    series
}

/// Medians of a step: over rounds, and over versions where there are several.
struct Taken {
    seconds: f64,
    bytes: f64,
    requests: f64,
}

fn taken(all: &[Pull], series: &str, line: &str, step: Step, form: &str) -> Option<Taken> {
    let pulls = || {
        all.iter().filter(move |pull| {
            pull.series == series && pull.line == line && pull.step == step && pull.form == form
        })
    };
    Some(Taken {
        seconds: summary(pulls().map(|pull| pull.seconds))?.median,
        bytes: summary(pulls().map(|pull| pull.bytes as f64))?.median,
        requests: summary(pulls().map(|pull| pull.requests as f64))?.median,
    })
}

/// Ratios for each series and line; nothing where one of them lacks anything.
fn ratios(all: &[Pull], ratio: impl Fn(&str, &str) -> Option<f64>) -> Option<Summary> {
    let mut found = Vec::new();
    for series in series(all) {
        for line in
            LINES.iter().filter(|line| all.iter().any(|pull| pull.series == series && pull.line == line.name))
        {
            found.push(ratio(series, line.name)?);
        }
    }
    summary(found.into_iter())
}

/// Ours against the best of the rivals.
fn against_best(all: &[Pull], value: fn(&Taken) -> f64) -> Option<Summary> {
    ratios(all, |series, line| Some(first(all, series, line, OURS, value)? / best(all, series, line, value)?))
}

/// A value of the first pull of a form.
fn first(all: &[Pull], series: &str, line: &str, form: &str, value: fn(&Taken) -> f64) -> Option<f64> {
    Some(value(&taken(all, series, line, Step::First, form)?))
}

/// The least value among the rivals.
fn best(all: &[Pull], series: &str, line: &str, value: fn(&Taken) -> f64) -> Option<f64> {
    let is_rival = |form: &&str| !form.starts_with(OURS) && *form != SAME_LEVEL;
    let rivals = FORMS.iter().map(|form| form.name()).filter(is_rival);
    rivals.filter_map(|form| first(all, series, line, form, value)).reduce(f64::min)
}

/// Bytes of the first pull.
pub(super) fn first_bytes(all: &[Pull]) -> Option<Summary> {
    against_best(all, |taken| taken.bytes)
}

/// The same of the smallest form.
pub(super) fn first_bytes_small(all: &[Pull]) -> Option<Summary> {
    ratios(all, |series, _| {
        let bytes = |taken: &Taken| taken.bytes;
        Some(first(all, series, ALL_FORMS, OURS_SMALL, bytes)? / best(all, series, ALL_FORMS, bytes)?)
    })
}

/// Bytes of the first pull against those of a layer of the same level.
pub(super) fn first_bytes_at_one_level(all: &[Pull]) -> Option<Summary> {
    ratios(all, |series, _| {
        let of = |form: &str| first(all, series, ALL_FORMS, form, |taken| taken.bytes);
        Some(of(OURS)? / of(SAME_LEVEL)?)
    })
}

/// Seconds of the first pull.
pub(super) fn first_seconds(all: &[Pull]) -> Option<Summary> {
    against_best(all, |taken| taken.seconds)
}

/// Bytes of an update without a delta, against those of the smaller layer.
pub(super) fn next_bytes(all: &[Pull]) -> Option<Summary> {
    against_layers(all, OURS)
}

/// The same with a delta.
pub(super) fn next_bytes_with_delta(all: &[Pull]) -> Option<Summary> {
    against_layers(all, OURS_WITH_DELTA)
}

fn against_layers(all: &[Pull], form: &str) -> Option<Summary> {
    ratios(all, |series, line| {
        let of = |form: &str| Some(taken(all, series, line, Step::Next, form)?.bytes);
        Some(of(form)? / LAYERS.into_iter().filter_map(of).reduce(f64::min)?)
    })
}

/// Bytes of many pulls at once, against those of one.
pub(super) fn at_once(all: &[Pull]) -> Option<Summary> {
    let is_one = |pull: &&Pull| pull.step == Step::AtOnce && pull.form == OURS;
    let mut found = Vec::new();
    for many in all.iter().filter(is_one) {
        let one = taken(all, &many.series, &many.line, Step::First, OURS)?.bytes;
        found.push(many.bytes as f64 / one);
    }
    summary(found.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(line: &str, step: Step, form: &str, (seconds, bytes): (f64, u64)) -> Pull {
        Pull {
            series: "a".to_owned(),
            line: line.to_owned(),
            step,
            form: form.to_owned(),
            version: if step == Step::Next { 2 } else { 1 },
            seconds,
            bytes,
            requests: 3,
            disk: 5_000_000,
        }
    }

    #[test]
    fn names_are_those_of_forms() {
        let names = FORMS.map(|form| form.name());
        for name in [OURS, OURS_WITH_DELTA, OURS_SMALL, SAME_LEVEL].iter().chain(&LAYERS) {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn pulls_are_compared_with_the_best_rival_of_each_line() {
        let [fast, slow] = [LINES[0].name, LINES[2].name];
        let mut all = Vec::new();
        for (line, seconds) in [(fast, 1.0), (slow, 3.0)] {
            all.push(pull(line, Step::First, OURS, (seconds, 100)));
            all.push(pull(line, Step::First, LAYERS[0], (2.0, 200)));
            all.push(pull(line, Step::First, "casync", (4.0, 80)));
            all.push(pull(line, Step::Next, OURS, (1.0, 20)));
            all.push(pull(line, Step::Next, LAYERS[0], (1.0, 200)));
            all.push(pull(line, Step::Next, LAYERS[1], (1.0, 100)));
        }
        assert_eq!(first_bytes(&all).map(|all| all.max), Some(1.25));
        assert_eq!(first_seconds(&all).map(|all| (all.min, all.max)), Some((0.5, 1.5)));
        assert_eq!(next_bytes(&all).map(|all| all.median), Some(0.2));
        assert!(next_bytes_with_delta(&all).is_none() && at_once(&all).is_none());
        all.push(pull(slow, Step::AtOnce, OURS, (1.0, 110)));
        assert_eq!(at_once(&all).map(|all| all.median), Some(1.1));
        let part = Measured {
            commit: String::new(),
            command: String::new(),
            machine: String::new(),
            programs: Vec::new(),
            notes: Vec::new(),
            samples: all,
        };
        let mut out = String::new();
        pulls(&mut out, &part).unwrap();
        assert!(out.contains(&format!("| {fast} | tesserafs pull | 1.00; 0.00; 3 |")), "{out}");
        assert!(out.contains("### All versions in turn"), "{out}");
    }
}
