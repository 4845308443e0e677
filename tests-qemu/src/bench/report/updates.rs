// SPDX-License-Identifier: GPL-2.0
//! The part about updates as files.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::packs::{bundle, patch, Update, LAYERS, LEVELS, PORTABLE};
use super::super::record::{summary, Measured, Summary};
use super::circumstances;

/// The section.
pub(super) fn updates(out: &mut String, part: &Measured<Update>) -> Result<()> {
    let all = &part.samples;
    let series = series(all);
    writeln!(out, "\n## Updates as files\n\nFrom a version to the next one. Each cell: MB, and what part that is of the smaller layer of the new version.\n")?;
    writeln!(out, "| file | {} |", series.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(series.len()))?;
    for form in forms(all) {
        write!(out, "| {form} |")?;
        for series in &series {
            match (bytes(all, series, form), layer(all, series)) {
                (Some(own), Some(layer)) => write!(out, " {:.2} ({:.3}) |", own / 1e6, own / layer)?,
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "\n| s to make, MB of memory; s to apply, MB of memory | {} |", series.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(series.len()))?;
    for form in forms(all) {
        if all.iter().any(|update| update.form == form && update.apply.is_none()) {
            continue;
        }
        write!(out, "| {form} |")?;
        for series in &series {
            let steps = || steps(all, series, form);
            let make = summary(steps().map(|update| update.make.seconds));
            let apply = summary(steps().filter_map(|update| update.apply).map(|apply| apply.seconds));
            let memory = steps().map(|update| update.make.memory).max();
            let apply_memory = steps().filter_map(|update| update.apply).map(|apply| apply.memory).max();
            match (make, apply, memory, apply_memory) {
                (Some(make), Some(apply), Some(memory), Some(apply_memory)) => write!(
                    out,
                    " {:.1}, {:.0}; {:.2}, {:.0} |",
                    make.median,
                    memory as f64 / 1e6,
                    apply.median,
                    apply_memory as f64 / 1e6
                )?,
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    several(out, all)?;
    circumstances(out, part)
}

/// The worth of one file for hosts with any version: it would have at least what the first one lacks.
fn several(out: &mut String, all: &[Update]) -> Result<()> {
    let form = bundle(LEVELS[0]);
    writeln!(
        out,
        "\n| to the last version, {form}: MB | from the one before | from the first | from each, together |\n|---|---|---|---|"
    )?;
    let last = all.iter().map(|update| update.to).max();
    for series in series(all) {
        let to_last: Vec<&Update> = all
            .iter()
            .filter(|update| update.series == series && update.form == form && Some(update.to) == last)
            .collect();
        let of = |update: Option<&&Update>| update.map_or(0.0, |update| update.bytes as f64 / 1e6);
        writeln!(
            out,
            "| {series} | {:.2} | {:.2} | {:.2} |",
            of(to_last.iter().max_by_key(|update| update.from)),
            of(to_last.iter().min_by_key(|update| update.from)),
            to_last.iter().map(|update| update.bytes as f64 / 1e6).sum::<f64>()
        )?;
    }
    Ok(())
}

fn series(all: &[Update]) -> Vec<&str> {
    let mut series: Vec<&str> = all.iter().map(|update| &*update.series).collect();
    series.dedup();
    series
}

fn forms(all: &[Update]) -> Vec<&str> {
    let mut forms: Vec<&str> = Vec::new();
    for update in all {
        if !forms.contains(&&*update.form) {
            forms.push(&update.form);
        }
    }
    forms
}

/// Steps from a version to the next one.
fn steps<'a>(all: &'a [Update], series: &'a str, form: &'a str) -> impl Iterator<Item = &'a Update> {
    all.iter()
        .filter(move |update| update.series == series && update.form == form && update.from + 1 == update.to)
}

fn bytes(all: &[Update], series: &str, form: &str) -> Option<f64> {
    Some(summary(steps(all, series, form).map(|update| update.bytes as f64))?.median)
}

fn layer(all: &[Update], series: &str) -> Option<f64> {
    LAYERS.into_iter().filter_map(|form| bytes(all, series, form)).reduce(f64::min)
}

/// Bundles of a level, as a part of what zstd makes of the whole trees: of each step, and of each series the median of its steps.
pub(super) fn of_patch(all: &[Update], level: u32) -> Option<Summary> {
    ratios(all, |series| {
        let (own, patch) = (bundle(level), patch(level));
        let pairs = steps(all, series, &own).zip(steps(all, series, &patch));
        Some(summary(pairs.map(|(own, patch)| own.bytes as f64 / patch.bytes as f64))?.median)
    })
}

/// Bundles of the lower level, of each series as a part of the smaller layer.
pub(super) fn of_layer(all: &[Update]) -> Option<Summary> {
    ratios(all, |series| Some(bytes(all, series, &bundle(LEVELS[0]))? / layer(all, series)?))
}

/// Bundles of the lower level, of each series as a part of the portable one, step by step: the largest part.
pub(super) fn of_portable(all: &[Update]) -> Option<f64> {
    let of = |form: &str| -> Vec<f64> {
        let series = series(all);
        series
            .into_iter()
            .flat_map(|series| steps(all, series, form))
            .map(|update| update.bytes as f64)
            .collect()
    };
    let (own, portable) = (of(&bundle(LEVELS[0])), of(PORTABLE));
    own.iter().zip(portable).map(|(own, portable)| own / portable).reduce(f64::max)
}

fn ratios(all: &[Update], ratio: impl Fn(&str) -> Option<f64>) -> Option<Summary> {
    let ratios: Option<Vec<f64>> = series(all).into_iter().map(ratio).collect();
    summary(ratios?.into_iter())
}

#[cfg(test)]
mod tests {
    use super::super::super::packs::Spent;
    use super::*;

    #[test]
    fn ratios_are_taken_of_steps() {
        let update = |from, to, form: &str, bytes| Update {
            series: "a".to_owned(),
            from,
            to,
            form: form.to_owned(),
            bytes,
            make: Spent::default(),
            apply: None,
        };
        let mut all = Vec::new();
        // Medians of both sides would be those of different steps.
        for (to, bytes, patch_bytes) in [(2, 10, 40), (6, 20, 25), (10, 90, 180)] {
            all.push(update(to - 1, to, &bundle(9), bytes));
            all.push(update(to - 1, to, &patch(9), patch_bytes));
            all.push(update(to - 1, to, PORTABLE, 100));
            all.push(update(to - 1, to, LAYERS[0], 400));
            all.push(update(to - 1, to, LAYERS[1], 200));
        }
        all.push(update(1, 10, &bundle(9), 1000));
        let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
        assert_eq!((median(of_patch(&all, 9)), median(of_layer(&all))), (Some(0.5), Some(0.1)));
        assert_eq!((of_portable(&all), median(of_patch(&all, 19))), (Some(0.9), None));
        let mut out = String::new();
        several(&mut out, &all).expect("text");
        assert!(out.contains("| a | 0.00 | 0.00 | 0.00 |"), "{out}");
    }
}
