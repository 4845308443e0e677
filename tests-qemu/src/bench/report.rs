// SPDX-License-Identifier: GPL-2.0
//! BENCH.md: the targets, the tables, and everything that is needed to repeat them.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Sample, ONE_CPU, TWO_CPUS};

use super::build::{MKSQUASHFS, OURS as MKFS};
use super::images::{EROFS_VERITY, OURS, OURS_FILE, OURS_TRUSTED, SQUASHFS_VERITY};
use super::record::{summary, Built, Measured, Record, Summary};
use super::releases::EROFS_SHARED;
use super::scaling::PROGRAM;

/// What is compared with what, and what is wanted. `None` as a figure: nothing has measured it.
struct Target {
    what: &'static str,
    against: &'static str,
    wanted: Wanted,
    figure: Figure,
}

/// How a target's figure is found.
#[derive(Clone, Copy)]
enum Figure {
    /// In its own way.
    Own(fn(&Figures<'_>) -> Option<f64>),
    /// The time of a measure, as a multiple of that of the faster one of [`FASTER`].
    Fault(&'static str),
    /// Bytes that are decoded for each page of a measure, as a multiple of [`TWO_CHUNKS`].
    Decoded(&'static str),
}

/// Which side of a number is the good one.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

/// Who has to be beaten in page faults and in starts of programs: whoever is faster.
const FASTER: [&str; 2] = [EROFS_VERITY, SQUASHFS_VERITY];

/// The same, as the table of targets names it.
const THE_FASTER: &str = "the faster of EROFS and squashfs on dm-verity";

/// What a page may cost that lies across the border of two chunks: both, of the largest size that
/// mkfs.tesserafs makes by default.
const TWO_CHUNKS: f64 = 2.0 * 131_072.0;

const TARGETS: [Target; 34] = [
    target("mount to first stat, time", "EROFS", Wanted::AtMost(1.0), |f| {
        f.time("mount to first stat", "EROFS")
    }),
    target("stat of all, cold, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("stat of all", "EROFS")),
    target("stat of all, warm, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("stat of all, warm", "EROFS")),
    target("sequential, all files, verified, throughput", EROFS_VERITY, Wanted::AtLeast(1.3), |f| {
        f.throughput("sequential, all files", EROFS_VERITY)
    }),
    target("sequential, all files, trusted backing, throughput", "EROFS", Wanted::AtLeast(1.1), |f| {
        Some(1.0 / f.ratio("sequential, all files", OURS_TRUSTED, "EROFS")?)
    }),
    target("random 4 KiB, verified, time", EROFS_VERITY, Wanted::AtMost(0.6), |f| {
        f.time("random 4 KiB", EROFS_VERITY)
    }),
    target("random 4 KiB, verified, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("random 4 KiB", "EROFS")),
    target("small files, verified, time", EROFS_VERITY, Wanted::AtMost(0.8), |f| {
        f.time("small files", EROFS_VERITY)
    }),
    target("small files, verified, time", "squashfs", Wanted::AtMost(0.3), |f| {
        f.time("small files", "squashfs")
    }),
    target("image size", "squashfs", Wanted::AtMost(0.97), |f| f.size(MKSQUASHFS)),
    target("image size", "EROFS", Wanted::AtMost(0.88), |f| f.size("mkfs.erofs")),
    target("mkfs, time", MKSQUASHFS, Wanted::AtMost(0.5), |f| f.building(MKSQUASHFS)),
    target("memory, one release read", "EROFS", Wanted::AtMost(1.0), |f| f.time("memory: all", "EROFS")),
    target("memory, two releases read", EROFS_SHARED, Wanted::AtMost(0.8), |f| {
        f.of(&f.record.releases, "memory: all", OURS, EROFS_SHARED)
    }),
    target("two CPUs, one sequential reader, throughput", "itself on one", Wanted::AtLeast(1.6), |f| {
        f.of(&f.record.scaling, PROGRAM, ONE_CPU, TWO_CPUS)
    }),
    target("cold start of python3, time", EROFS_VERITY, Wanted::AtMost(1.0), |f| {
        f.of(&f.record.fault, "start of python3", OURS, EROFS_VERITY)
    }),
    fault("fault: 1 page of a large program"),
    fault("fault: 8 pages of a large program"),
    fault("fault: 32 pages of a large program"),
    fault("fault: 200 pages of all files"),
    fault("fault: 2000 pages of all files"),
    fault("fault: a large program, in order"),
    fault("start of cc1 --version"),
    fault("start of bash"),
    fault("start of python3"),
    fault("start of python3, ssl and json"),
    fault("start of perl"),
    fault("start of gcc, compiling a file"),
    fault("start of apt-get --version"),
    target(
        "faults and starts with two CPUs, the worst of all rows, time",
        THE_FASTER,
        Wanted::AtMost(1.0),
        |f| f.worst(&f.record.fault_two),
    ),
    decoded("fault: 1 page of a large program"),
    decoded("fault: 8 pages of a large program"),
    decoded("fault: 32 pages of a large program"),
    decoded("fault: 200 pages of all files"),
];

const fn target(
    what: &'static str,
    against: &'static str,
    wanted: Wanted,
    figure: fn(&Figures<'_>) -> Option<f64>,
) -> Target {
    Target { what, against, wanted, figure: Figure::Own(figure) }
}

const fn fault(measure: &'static str) -> Target {
    let (against, wanted) = (THE_FASTER, Wanted::AtMost(1.0));
    Target { what: measure, against, wanted, figure: Figure::Fault(measure) }
}

const fn decoded(measure: &'static str) -> Target {
    let (against, wanted) = ("two chunks of 128 KiB", Wanted::AtMost(1.0));
    Target { what: measure, against, wanted, figure: Figure::Decoded(measure) }
}

impl Target {
    /// What is compared, and which property of it.
    fn what(&self) -> String {
        match self.figure {
            Figure::Own(_) => self.what.to_owned(),
            Figure::Fault(measure) => format!("{measure}, time"),
            Figure::Decoded(measure) => format!("{measure}, bytes decoded for each"),
        }
    }

    /// What was measured.
    fn figure(&self, figures: &Figures<'_>) -> Option<f64> {
        match self.figure {
            Figure::Own(figure) => figure(figures),
            Figure::Fault(measure) => figures.of_faster(&figures.record.fault, measure),
            Figure::Decoded(measure) => figures.decoded(measure),
        }
    }
}

/// Level of the targets.
const LEVEL: u32 = 3;

/// Ratios of medians; or of minima, which other work on the machine disturbs least.
struct Figures<'r> {
    record: &'r Record,
    value: fn(&Summary) -> f64,
}

impl Figures<'_> {
    /// Of the driver against another system, where less is better.
    fn time(&self, measure: &str, other: &str) -> Option<f64> {
        self.ratio(measure, OURS, other)
    }

    fn ratio(&self, measure: &str, ours: &str, other: &str) -> Option<f64> {
        self.of(&self.record.read, measure, ours, other)
    }

    /// How many times that of `other` something is in a part.
    fn of(&self, part: &Option<Measured<Sample>>, measure: &str, one: &str, other: &str) -> Option<f64> {
        let samples = &part.as_ref()?.samples;
        Some((self.value)(&of(samples, measure, one)?) / (self.value)(&of(samples, measure, other)?))
    }

    /// How many times that of the faster one of [`FASTER`] something is; both must have been measured.
    fn of_faster(&self, part: &Option<Measured<Sample>>, measure: &str) -> Option<f64> {
        let [one, other] = FASTER.map(|system| self.of(part, measure, OURS, system));
        Some(one?.max(other?))
    }

    /// The largest of these figures of a part.
    fn worst(&self, part: &Option<Measured<Sample>>) -> Option<f64> {
        let measures = names(&part.as_ref()?.samples, |sample| &sample.measure);
        measures.into_iter().filter_map(|measure| self.of_faster(part, measure)).reduce(f64::max)
    }

    /// Bytes that were decoded for each page, in pairs of chunks.
    fn decoded(&self, measure: &str) -> Option<f64> {
        let samples = &self.record.fault.as_ref()?.samples;
        Some((self.value)(&decoded_of(samples, measure, OURS)?) / TWO_CHUNKS)
    }

    fn throughput(&self, measure: &str, other: &str) -> Option<f64> {
        Some(1.0 / self.time(measure, other)?)
    }

    fn size(&self, other: &str) -> Option<f64> {
        self.built(other, |built| built.bytes as f64)
    }

    fn building(&self, other: &str) -> Option<f64> {
        self.built(other, |built| built.seconds)
    }

    fn built(&self, other: &str, value: fn(&Built) -> f64) -> Option<f64> {
        let samples = &self.record.build.as_ref()?.samples;
        Some(
            of_builder(samples, LEVEL, MKFS, value)?.median
                / of_builder(samples, LEVEL, other, value)?.median,
        )
    }
}

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
    if let Some(build) = &record.build {
        building(&mut out, build)?;
    }
    Ok(out)
}

fn targets(out: &mut String, record: &Record) -> Result<()> {
    writeln!(out, "\n## Targets\n")?;
    writeln!(
        out,
        "| tesserafs | against | wanted | of medians | met | of minima |\n|---|---|---|---|---|---|"
    )?;
    for target in &TARGETS {
        let (sign, limit) = match target.wanted {
            Wanted::AtMost(limit) => ("≤", limit),
            Wanted::AtLeast(limit) => ("≥", limit),
        };
        let minima = target
            .figure(&Figures { record, value: |all| all.min })
            .map_or_else(String::new, |figure| format!("{figure:.3}"));
        let (figure, met) = match target.figure(&Figures { record, value: |all| all.median }) {
            None => ("not measured".to_owned(), ""),
            Some(figure) => {
                let met = match target.wanted {
                    Wanted::AtMost(limit) => figure <= limit,
                    Wanted::AtLeast(limit) => figure >= limit,
                };
                (format!("{figure:.3}"), if met { "yes" } else { "**no**" })
            }
        };
        writeln!(
            out,
            "| {} | {} | {sign} {limit} | {figure} | {met} | {minima} |",
            target.what(),
            target.against
        )?;
    }
    Ok(())
}

/// Lines of the README between which the figures stand.
const QUOTED: [&str; 2] = ["<!-- Written by `cargo xtask bench`: -->", "<!-- (end of what it writes) -->"];

/// The text with the figures of the targets between its marks.
pub(super) fn quoted(text: &str, record: &Record) -> Result<String> {
    let [begin, end] = QUOTED;
    let (before, rest) = text.split_once(begin).with_context(|| format!("there is no line {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("there is no line {end}"))?;
    let mut out = format!("{before}{begin}\n\n| tesserafs | against | times |\n|---|---|---|\n");
    // What is decoded says why the times are as they are: it stands in BENCH.md.
    for target in TARGETS.iter().filter(|target| !matches!(target.figure, Figure::Decoded(_))) {
        if let Some(figure) = target.figure(&Figures { record, value: |all| all.median }) {
            writeln!(out, "| {} | {} | {figure:.2} |", target.what(), target.against)?;
        }
    }
    write!(out, "\n{end}{after}")?;
    Ok(out)
}

/// A value with its unit: bytes of memory, or a time.
fn shown(measure: &str, value: f64) -> String {
    if measure.starts_with("memory") {
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

/// A part that is one table of medians.
fn comparison(out: &mut String, heading: &str, title: &str, part: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## {heading}\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of tesserafs it is (more than 1: tesserafs is faster, or takes less).\n"
    )?;
    medians(out, title, &part.samples)?;
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
mod tests {
    use super::*;

    fn sample(measure: &str, system: &str, value: f64) -> Sample {
        let (measure, system) = (measure.to_owned(), system.to_owned());
        Sample { measure, system, round: 1, value, count: 1, bytes: 0, decoded: None }
    }

    fn measured(samples: Vec<Sample>) -> Measured<Sample> {
        Measured {
            commit: String::new(),
            command: String::new(),
            machine: String::new(),
            programs: Vec::new(),
            notes: Vec::new(),
            samples,
        }
    }

    #[test]
    fn each_part_has_its_table_and_its_target() {
        let releases = vec![sample("memory: all", OURS, 3e6), sample("memory: all", EROFS_SHARED, 4e6)];
        let scaling = vec![sample(PROGRAM, ONE_CPU, 0.9), sample(PROGRAM, TWO_CPUS, 0.5)];
        let text = markdown(&Record {
            releases: Some(measured(releases)),
            scaling: Some(measured(scaling)),
            ..Record::default()
        })
        .unwrap();
        assert!(
            text.contains("two releases read | EROFS with inode_share | ≤ 0.8 | 0.750 | yes |"),
            "{text}"
        );
        assert!(text.contains("| memory: all | 3.0 MB | 4.0 MB (1.33) |"), "{text}");
        assert!(text.contains("itself on one | ≥ 1.6 | 1.800 | yes |"), "{text}");
        assert!(text.contains("one large program | 0.900 s (0.900 s – 0.900 s) | 0.500 s"), "{text}");
        assert!(text.contains("stat of all, cold, time | EROFS | ≤ 1 | not measured |"), "{text}");
    }

    #[test]
    fn the_readme_quotes_what_was_measured() {
        let samples = vec![sample("random 4 KiB", OURS, 3.0), sample("random 4 KiB", "EROFS", 4.0)];
        let record = Record { read: Some(measured(samples)), ..Record::default() };
        let [begin, end] = QUOTED;
        let readme = format!("# Before\n\n{begin}\nold\n{end}\n\nAfter\n");
        let text = quoted(&readme, &record).unwrap();
        assert!(text.starts_with("# Before\n") && text.ends_with(&format!("{end}\n\nAfter\n")), "{text}");
        assert!(text.contains("| random 4 KiB, verified, time | EROFS | 0.75 |"), "{text}");
        assert!(!text.contains("old") && !text.contains("not measured"), "{text}");
        assert_eq!(quoted(&text, &record).unwrap(), text);
    }

    #[test]
    fn a_fault_is_measured_against_the_faster_system() {
        let measure = "fault: 8 pages of a large program";
        let bytes = Sample { decoded: Some(10 * 131_072), count: 8, ..sample(measure, OURS, 2.0) };
        let others = [sample(measure, EROFS_VERITY, 4.0), sample(measure, SQUASHFS_VERITY, 2.5)];
        let fault = Some(measured([vec![bytes], others.to_vec()].concat()));
        let row = |measure, [ours, erofs, squashfs]: [f64; 3]| {
            let all = [(OURS, ours), (EROFS_VERITY, erofs), (SQUASHFS_VERITY, squashfs)];
            all.map(|(system, value)| sample(measure, system, value)).to_vec()
        };
        let rows = [row("start of bash", [1.0, 2.0, 4.0]), row("start of perl", [1.8, 3.0, 2.0])];
        let fault_two = Some(measured(rows.concat()));
        let text = markdown(&Record { fault, fault_two, ..Record::default() }).unwrap();
        let target = format!("| {measure}, time | {THE_FASTER} | ≤ 1 | 0.800 | yes | 0.800 |");
        assert!(text.contains(&target), "{text}");
        let target = format!("| {measure}, bytes decoded for each | two chunks of 128 KiB | ≤ 1 | 0.625 |");
        assert!(text.contains(&target), "{text}");
        assert!(text.contains(&format!("| {measure} | 160 |")), "{text}");
        assert!(text.contains(&format!("of all rows, time | {THE_FASTER} | ≤ 1 | 0.900 | yes |")), "{text}");
    }

    #[test]
    fn the_faster_system_is_not_known_before_both_are_measured() {
        let measure = "start of bash";
        let fault = measured(vec![sample(measure, OURS, 2.0), sample(measure, EROFS_VERITY, 4.0)]);
        let text = markdown(&Record { fault: Some(fault), ..Record::default() }).unwrap();
        assert!(text.contains(&format!("| {measure}, time | {THE_FASTER} | ≤ 1 | not measured |")), "{text}");
    }

    #[test]
    fn a_target_is_judged_by_its_side() {
        let samples = vec![
            sample("sequential, all files", OURS, 1.0),
            sample("sequential, all files", EROFS_VERITY, 1.5),
            sample("random 4 KiB", OURS, 3.0),
            sample("random 4 KiB", EROFS_VERITY, 1.5),
        ];
        let text = markdown(&Record { read: Some(measured(samples)), ..Record::default() }).unwrap();
        assert!(text.contains("throughput | EROFS on dm-verity | ≥ 1.3 | 1.500 | yes | 1.500 |"), "{text}");
        assert!(text.contains("time | EROFS on dm-verity | ≤ 0.6 | 2.000 | **no** | 2.000 |"), "{text}");
        assert!(text.contains("| random 4 KiB | 3.000 s | 1.500 s (0.50) |"), "{text}");
    }
}
