// SPDX-License-Identifier: GPL-2.0
//! The part about versions of a tree: what they take, and what a host lacks of the next one.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::packs::{Rule, Version, CHUNKS, COMPOSE, DIFF, EROFS, LAYERS, PACKS, SQUASHFS};
use super::super::record::{summary, Measured, Summary};
use super::circumstances;

/// The section.
pub(super) fn packs(out: &mut String, part: &Measured<Version>) -> Result<()> {
    let versions = &part.samples;
    writeln!(out, "\n## Ten versions of a tree\n\n![Disk and bytes to fetch](BENCH-packs.svg)\n")?;
    writeln!(
        out,
        "Each cell: MB, and how many times that of tesserafs with packs it is (of chunks fetched: with chunks of packs).\n"
    )?;
    table(out, "all versions on one disk", versions, |series, form| disk(versions, series, form), PACKS)?;
    table(
        out,
        "to fetch with the version before",
        versions,
        |series, form| fetched(versions, series, form),
        CHUNKS,
    )?;
    writeln!(out, "\n| seconds, median | {} |", series(versions).join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(series(versions).len()))?;
    for form in names_of(versions) {
        write!(out, "| {form} |")?;
        for series in series(versions) {
            let seconds = of(versions, series, form).map(|version| version.seconds);
            match summary(seconds) {
                Some(all) => write!(out, " {:.2} |", all.median)?,
                None => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    circumstances(out, part)
}

/// The section about rules for packs.
pub(super) fn nights(out: &mut String, part: &Measured<Rule>) -> Result<()> {
    writeln!(out, "\n## Fifty nights, by rules for packs\n\nIn packs of the first build; dead bytes are those that the last image does not use.\n")?;
    writeln!(
        out,
        "| packs are | uploaded and kept | a new host fetches | of that dead | packs of an image, at most |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for Rule { rule, uploaded, fetched, dead, packs, base } in &part.samples {
        let of_base = |bytes: &u64| *bytes as f64 / *base as f64;
        writeln!(
            out,
            "| {rule} | {:.2} | {:.2} | {:.2} | {packs} |",
            of_base(uploaded),
            of_base(fetched),
            of_base(dead)
        )?;
    }
    circumstances(out, part)
}

fn table(
    out: &mut String,
    title: &str,
    versions: &[Version],
    value: impl Fn(&str, &str) -> Option<f64>,
    base: &str,
) -> Result<()> {
    writeln!(out, "\n| {title} | {} |", series(versions).join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(series(versions).len()))?;
    for form in names_of(versions).into_iter().filter(|form| ![DIFF, COMPOSE].contains(form)) {
        write!(out, "| {form} |")?;
        for series in series(versions) {
            match (value(series, form), value(series, base)) {
                (Some(own), Some(base)) => write!(out, " {:.1} ({:.2}) |", own / 1e6, own / base)?,
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The series, in their order.
pub(in super::super) fn series(versions: &[Version]) -> Vec<&str> {
    let mut all: Vec<&str> = versions.iter().map(|version| &*version.series).collect();
    all.dedup();
    all
}

fn names_of(versions: &[Version]) -> Vec<&str> {
    let mut forms: Vec<&str> = Vec::new();
    for version in versions {
        if !forms.contains(&&*version.form) {
            forms.push(&version.form);
        }
    }
    forms
}

fn of<'v>(versions: &'v [Version], series: &'v str, form: &'v str) -> impl Iterator<Item = &'v Version> {
    versions.iter().filter(move |version| version.series == series && version.form == form)
}

/// Bytes of all versions on one disk.
pub(in super::super) fn disk(versions: &[Version], series: &str, form: &str) -> Option<f64> {
    let all: u64 = of(versions, series, form).map(|version| version.disk).sum();
    (all > 0).then_some(all as f64)
}

/// Bytes that a host with the version before fetches, by median.
pub(in super::super) fn fetched(versions: &[Version], series: &str, form: &str) -> Option<f64> {
    let later = of(versions, series, form).filter(|version| version.version > 1);
    Some(summary(later.map(|version| version.fetched as f64))?.median)
}

/// Disk for all versions, of each series as a part of what the smallest rival takes that can be mounted.
pub(super) fn disk_ratios(versions: &[Version]) -> Option<Summary> {
    ratios(versions, |series| {
        let rivals = [SQUASHFS, EROFS].map(|form| disk(versions, series, form));
        Some(disk(versions, series, PACKS)? / rivals.into_iter().flatten().reduce(f64::min)?)
    })
}

/// Chunks to fetch, of each series as a part of a layer that was built again, by the better compressor.
pub(super) fn fetched_ratios(versions: &[Version]) -> Option<Summary> {
    ratios(versions, |series| {
        let layers = LAYERS.map(|form| fetched(versions, series, form));
        Some(fetched(versions, series, CHUNKS)? / layers.into_iter().flatten().reduce(f64::min)?)
    })
}

fn ratios(versions: &[Version], ratio: impl Fn(&str) -> Option<f64>) -> Option<Summary> {
    let series = series(versions);
    let all: Option<Vec<f64>> = series.into_iter().map(ratio).collect();
    summary(all?.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_of_each_series() {
        let version = |series: &str, version, form: &str, bytes| Version {
            series: series.to_owned(),
            version,
            form: form.to_owned(),
            disk: bytes,
            fetched: bytes,
            seconds: 1.0,
        };
        let mut all = Vec::new();
        for (series, packs) in [("a", 10), ("b", 20), ("c", 50)] {
            for number in 1..=2 {
                all.push(version(series, number, PACKS, packs));
                all.push(version(series, number, CHUNKS, packs / 2));
                all.push(version(series, number, "another", 90));
                all.push(version(series, number, SQUASHFS, 100));
                all.push(version(series, number, EROFS, 80));
                all.push(version(series, number, LAYERS[0], 200));
                all.push(version(series, number, LAYERS[1], 100));
            }
        }
        let disk = disk_ratios(&all).unwrap();
        assert_eq!((disk.min, disk.median, disk.max), (0.125, 0.25, 0.625));
        let fetched = fetched_ratios(&all).unwrap();
        assert_eq!((fetched.min, fetched.median, fetched.max), (0.05, 0.1, 0.25));
        assert!(disk_ratios(&[]).is_none());
    }
}
