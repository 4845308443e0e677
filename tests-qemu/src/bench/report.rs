// SPDX-License-Identifier: GPL-2.0
//! BENCH.md: the targets, the tables, and everything that is needed to repeat them.

mod floor;
pub(super) mod growth;
pub(super) mod packs;
mod profiles;
mod pulls;
mod targets;
mod trees;
mod updates;

use std::fmt::Write as _;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Sample, ONE_CPU, TWO_CPUS};

use super::build::OURS as MKFS;
use super::fuse::{MEMORY, PROCESSOR};
use super::images::{OURS, OURS_FILE};
use super::profiles::IMAGE;
use super::record::{summary, Built, Measured, Record, Summary};

use self::targets::targets;

/// The samples of a measure on a system.
pub(super) fn of(samples: &[Sample], measure: &str, system: &str) -> Option<Summary> {
    summary(samples.iter().filter(|s| s.measure == measure && s.system == system).map(|s| s.value))
}

/// Bytes that were decoded for each thing that a measure does on a system.
fn decoded_of(samples: &[Sample], measure: &str, system: &str) -> Option<Summary> {
    let samples = samples.iter().filter(|s| s.measure == measure && s.system == system);
    summary(samples.filter_map(|s| Some(s.decoded? as f64 / s.count.max(1) as f64)))
}

/// The samples of a builder at a level.
fn of_builder(samples: &[Built], level: u32, builder: &str, value: fn(&Built) -> f64) -> Option<Summary> {
    summary(samples.iter().filter(|s| s.level == level && s.builder == builder).map(value))
}

/// Values in the order in which they first appear: measures and systems. Rounds begin with another
/// system each, so the driver is put first and its rivals follow by name.
pub(super) fn names(samples: &[Sample], name: fn(&Sample) -> &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&name(sample)) {
            names.push(name(sample));
        }
    }
    names
}

/// The systems: the driver first, those with a file last.
pub(super) fn systems(samples: &[Sample]) -> Vec<&str> {
    let mut systems = names(samples, |sample| &sample.system);
    systems.sort_by_key(|system| (system.ends_with(", file"), !system.starts_with(OURS), *system));
    systems
}

/// What a system is measured against: the driver with the same kind of backing.
pub(super) fn baseline(system: &str) -> &'static str {
    if system.ends_with(", file") {
        OURS_FILE
    } else {
        OURS
    }
}

/// The whole report.
pub(super) fn markdown(record: &Record) -> Result<String> {
    let mut out = String::from(
        "# Benchmark\n\nMade by `cargo xtask bench`; every sample is in [BENCH.json](BENCH.json). Medians; ratios are of medians.\n",
    );
    targets(&mut out, record)?;
    if let Some(read) = &record.read {
        reading(&mut out, read)?;
    }
    if let Some(sources) = &record.sources {
        comparison(&mut out, "Reading sources", "cold unless said", sources)?;
    }
    if let Some(fault) = &record.fault {
        faults(&mut out, "Page faults, and starts of programs", fault)?;
    }
    if let Some(fault) = &record.fault_two {
        faults(&mut out, "Page faults, and starts of programs, with two processors", fault)?;
    }
    if let Some(releases) = &record.releases {
        comparison(&mut out, "Two releases, both mounted and read", "cold", releases)?;
    }
    if let Some(scaling) = &record.scaling {
        two_cpus(&mut out, scaling)?;
    }
    if let Some(fleet) = &record.fleet {
        let title = "containers with an overlay each";
        comparison(&mut out, "A hundred containers from ten images", title, fleet)?;
    }
    if let Some(fuse) = &record.fuse {
        by_fuse(&mut out, fuse)?;
    }
    if let Some(part) = &record.packs {
        packs::packs(&mut out, part)?;
    }
    if let Some(part) = &record.nights {
        packs::nights(&mut out, part)?;
    }
    if let Some(part) = &record.updates {
        updates::updates(&mut out, part)?;
    }
    if let Some(part) = &record.pull {
        pulls::pulls(&mut out, part)?;
    }
    if let Some(part) = &record.metadata {
        writeln!(out, "\n## Comparing, composing and checking\n")?;
        medians(&mut out, "images of 100,000 files", &part.samples)?;
        circumstances(&mut out, part)?;
    }
    if let Some(part) = &record.profiles {
        profiles::profiles(&mut out, part)?;
    }
    if let Some(part) = &record.growth {
        growth::growth(&mut out, part)?;
    }
    if let Some(build) = &record.build {
        building(&mut out, build)?;
    }
    if let Some(part) = &record.trees {
        trees::trees(&mut out, part)?;
    }
    Ok(out)
}

/// The text of the README with the figures between the marks that are there for them.
pub(super) fn quoted(text: &str, record: &Record) -> Result<String> {
    let text = replaced(text, targets::QUOTED, &targets::table(record)?)?;
    match &record.profiles {
        Some(part) => replaced(&text, profiles::QUOTED, &profiles::quoted(part)?),
        None => Ok(text),
    }
}

/// The text with other lines between two marks.
fn replaced(text: &str, [begin, end]: [&str; 2], lines: &str) -> Result<String> {
    let (before, rest) = text.split_once(begin).with_context(|| format!("there is no line {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("there is no line {end}"))?;
    Ok(format!("{before}{begin}\n\n{lines}\n{end}{after}"))
}

/// A value with its unit: bytes of memory, or a time.
fn shown(measure: &str, value: f64) -> String {
    if measure.starts_with("memory") || measure == IMAGE {
        format!("{:.1} MB", value / 1e6)
    } else if value < 0.1 {
        format!("{:.2} ms", value * 1e3)
    } else {
        format!("{value:.3} s")
    }
}

fn reading(out: &mut String, read: &Measured<Sample>) -> Result<()> {
    let samples = &read.samples;
    writeln!(out, "\n## Reading\n\n![Times of the others, as a multiple of tesserafs](BENCH.svg)\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of tesserafs it is (more than 1: tesserafs is faster, or takes less); \
         a system with a file is compared with tesserafs on a file.\n"
    )?;
    medians(out, "cold unless said", samples)?;
    floor::table(out, samples)?;
    extremes(out, samples)?;
    circumstances(out, read)
}

/// Of each measure on each system, how far its samples lie apart.
fn extremes(out: &mut String, samples: &[Sample]) -> Result<()> {
    let (measures, systems) = (names(samples, |sample| &sample.measure), systems(samples));
    writeln!(
        out,
        "\n### Extremes\n\n| measure | system | min | median | max | per second |\n|---|---|---|---|---|---|"
    )?;
    for measure in &measures {
        for system in &systems {
            let Some(all) = of(samples, measure, system) else { continue };
            let work = samples.iter().find(|s| s.measure == *measure && s.system == *system);
            let rate = match work {
                _ if measure.starts_with("memory") => String::new(),
                Some(work) if work.bytes > 1 << 20 => {
                    format!("{:.1} MB", work.bytes as f64 / 1e6 / all.median)
                }
                Some(work) if work.count > 1 => format!("{:.0}", work.count as f64 / all.median),
                _ => String::new(),
            };
            writeln!(
                out,
                "| {measure} | {system} | {} | {} | {} | {rate} |",
                shown(measure, all.min),
                shown(measure, all.median),
                shown(measure, all.max)
            )?;
        }
    }
    Ok(())
}

/// A row for each measure, a column for each system.
fn medians(out: &mut String, title: &str, samples: &[Sample]) -> Result<()> {
    let (measures, systems) = (names(samples, |sample| &sample.measure), systems(samples));
    writeln!(out, "| {title} | {} |", systems.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(systems.len()))?;
    for measure in &measures {
        write!(out, "| {measure} |")?;
        for system in &systems {
            let ours = of(samples, measure, baseline(system));
            match (of(samples, measure, system), ours) {
                (Some(theirs), Some(ours)) if system == &baseline(system) => {
                    let _ = ours;
                    write!(out, " {} |", shown(measure, theirs.median))?;
                }
                (Some(theirs), Some(ours)) => {
                    write!(out, " {} ({:.2}) |", shown(measure, theirs.median), theirs.median / ours.median)?;
                }
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Page faults and starts: times, and what was decoded for them.
fn faults(out: &mut String, heading: &str, part: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## {heading}\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of tesserafs it is (more than 1: tesserafs is faster); a system with a \
         file is compared with tesserafs on a file.\n"
    )?;
    medians(out, "cold", &part.samples)?;
    let systems = systems(&part.samples);
    let counted = |system: &&&str| part.samples.iter().any(|s| s.system == ***system && s.decoded.is_some());
    let systems: Vec<&str> = systems.iter().filter(counted).copied().collect();
    writeln!(out, "\n| decoded, KiB for each page or start | {} |", systems.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(systems.len()))?;
    for measure in names(&part.samples, |sample| &sample.measure) {
        write!(out, "| {measure} |")?;
        for system in &systems {
            match decoded_of(&part.samples, measure, system) {
                Some(bytes) => write!(out, " {:.0} |", bytes.median / 1024.0)?,
                None => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    extremes(out, &part.samples)?;
    circumstances(out, part)
}

/// A part that is a table of medians, and one of times above the floor where it has one.
fn comparison(out: &mut String, heading: &str, title: &str, part: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## {heading}\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of tesserafs it is (more than 1: tesserafs is faster, or takes less).\n"
    )?;
    medians(out, title, &part.samples)?;
    floor::table(out, &part.samples)?;
    circumstances(out, part)
}

/// Servers for FUSE: times, processors' times and memory, a table each.
fn by_fuse(out: &mut String, part: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## By FUSE, on the machine itself\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of tesserafs it is (more than 1: tesserafs is faster, or takes less).\n"
    )?;
    let (other, times): (Vec<Sample>, Vec<Sample>) = part
        .samples
        .iter()
        .cloned()
        .partition(|sample| [PROCESSOR, MEMORY].iter().any(|kind| sample.measure.starts_with(kind)));
    let (memory, processors): (Vec<Sample>, Vec<Sample>) =
        other.into_iter().partition(|sample| sample.measure.starts_with(MEMORY));
    medians(out, "cold, time", &times)?;
    writeln!(out)?;
    medians(out, "server and reader, seconds of processors", &processors)?;
    writeln!(out)?;
    medians(out, "server, memory at most", &memory)?;
    extremes(out, &times)?;
    circumstances(out, part)
}

fn two_cpus(out: &mut String, scaling: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## Two processors\n")?;
    writeln!(
        out,
        "| tesserafs | {ONE_CPU}: median (min – max) | {TWO_CPUS}: median (min – max) | times the throughput | of minima |\n\
         |---|---|---|---|---|"
    )?;
    for measure in names(&scaling.samples, |sample| &sample.measure) {
        let all = |system| of(&scaling.samples, measure, system);
        let (Some(one), Some(two)) = (all(ONE_CPU), all(TWO_CPUS)) else { continue };
        let shown = |all: &Summary| {
            let [median, min, max] = [all.median, all.min, all.max].map(|value| shown(measure, value));
            format!("{median} ({min} – {max})")
        };
        writeln!(
            out,
            "| {measure} | {} | {} | {:.2} | {:.2} |",
            shown(&one),
            shown(&two),
            one.median / two.median,
            one.min / two.min
        )?;
    }
    circumstances(out, scaling)
}

fn building(out: &mut String, build: &Measured<Built>) -> Result<()> {
    let samples = &build.samples;
    writeln!(out, "\n## Building\n")?;
    writeln!(
        out,
        "| zstd level | builder | seconds | min – max | times {MKFS} | image, MB | times {MKFS} | peak memory, MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    let mut levels: Vec<u32> = samples.iter().map(|sample| sample.level).collect();
    levels.sort_unstable();
    levels.dedup();
    for level in levels {
        for builder in build.programs.iter().map(|program| program.name.as_str()) {
            let all = |name, value| of_builder(samples, level, name, value);
            let (time, size) = (|built: &Built| built.seconds, |built: &Built| built.bytes as f64);
            let (Some(seconds), Some(bytes), Some(peak)) =
                (all(builder, time), all(builder, size), all(builder, |built| built.peak as f64))
            else {
                continue;
            };
            let (Some(our_seconds), Some(our_bytes)) = (all(MKFS, time), all(MKFS, size)) else { continue };
            writeln!(
                out,
                "| {level} | {builder} | {:.2} | {:.2} – {:.2} | {:.2} | {:.1} | {:.3} | {:.0} |",
                seconds.median,
                seconds.min,
                seconds.max,
                seconds.median / our_seconds.median,
                bytes.median / 1e6,
                bytes.median / our_bytes.median,
                peak.median / f64::from(1 << 20)
            )?;
        }
    }
    circumstances(out, build)
}

fn circumstances<S>(out: &mut String, part: &Measured<S>) -> Result<()> {
    writeln!(out, "\n`{}` at commit {}; {}.\n", part.command, part.commit, part.machine)?;
    for note in &part.notes {
        writeln!(out, "* {note}")?;
    }
    for program in &part.programs {
        writeln!(out, "* {}: {}; `{}`", program.name, program.version, program.command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
