// SPDX-License-Identifier: GPL-2.0
//! The part about growth: a table for trees of ever more files, and one for ever larger files.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::growth::{Grown, Kind, Measure};
use super::super::record::{summary, Measured, Summary};
use super::circumstances;

/// The columns: a measure, its heading, and how many of its units a number has.
const COLUMNS: [(Measure, &str, f64); 6] = [
    (Measure::Mkfs, "mkfs, s", 1.0),
    (Measure::MkfsMemory, "mkfs, MiB", MIB),
    (Measure::Fsck, "fsck, s", 1.0),
    (Measure::FsckMemory, "fsck, MiB", MIB),
    (Measure::Mount, "mount to first stat, ms", 1e3),
    (Measure::Stat, "stat of all, ms", 1e3),
];
const MIB: f64 = 1.0 / (1 << 20) as f64;

/// Measures of time, and of memory.
pub(super) const TIMES: [Measure; 4] = [Measure::Mkfs, Measure::Fsck, Measure::Mount, Measure::Stat];
pub(super) const MEMORY: [Measure; 2] = [Measure::MkfsMemory, Measure::FsckMemory];

/// The section.
pub(super) fn growth(out: &mut String, part: &Measured<Grown>) -> Result<()> {
    writeln!(out, "\n## Growth\n\n![Time and memory by the size of the input](BENCH-growth.svg)\n")?;
    writeln!(
        out,
        "Each cell: median, and how many times that of the next smaller input it is; input: how many times that input it is. Bytes an \
         inode: the memory that is more than for the next smaller tree, divided by the inodes that are more.\n"
    )?;
    table(out, &part.samples, true)?;
    writeln!(out)?;
    table(out, &part.samples, false)?;
    circumstances(out, part)
}

/// A row for each size of each kind.
fn table(out: &mut String, samples: &[Grown], trees: bool) -> Result<()> {
    let headings = COLUMNS.map(|(measure, heading, _)| match measure {
        Measure::MkfsMemory if trees => format!("{heading} | bytes an inode"),
        _ => heading.to_owned(),
    });
    writeln!(out, "| {} | input | {} |", if trees { "files" } else { "bytes" }, headings.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(1 + COLUMNS.len() + usize::from(trees)))?;
    for kind in kinds(samples).into_iter().filter(|kind| kind.is_tree() == trees) {
        let mut before = None;
        for size in sizes(samples, kind) {
            write!(out, "| {}, {} |", kind.name(), kind.size(size))?;
            match before {
                Some(before) => write!(out, " {:.1} |", size as f64 / before as f64)?,
                None => write!(out, " |")?,
            }
            for (measure, _, units) in COLUMNS {
                let at = |size| of(samples, kind, size, measure).map(|all| all.median);
                match (at(size), before.and_then(at)) {
                    (Some(own), Some(before)) => {
                        write!(out, " {} ({:.2}) |", digits(own * units), own / before)?
                    }
                    (Some(own), None) => write!(out, " {} |", digits(own * units))?,
                    _ => write!(out, " |")?,
                }
                if trees && measure == Measure::MkfsMemory {
                    match bytes_an_inode(samples, kind, size, |all| all.median) {
                        Some(bytes) => write!(out, " {bytes:.0} |")?,
                        None => write!(out, " |")?,
                    }
                }
            }
            writeln!(out)?;
            before = Some(size);
        }
    }
    Ok(())
}

/// A number with as many digits as it needs to be compared.
fn digits(number: f64) -> String {
    if number < 100.0 {
        format!("{number:.2}")
    } else {
        format!("{number:.0}")
    }
}

/// The kinds, in the order in which they were measured.
pub(in super::super) fn kinds(samples: &[Grown]) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for sample in samples {
        if !kinds.contains(&sample.kind) {
            kinds.push(sample.kind);
        }
    }
    kinds
}

/// The sizes of a kind, the smallest first.
pub(in super::super) fn sizes(samples: &[Grown], kind: Kind) -> Vec<u64> {
    let mut sizes: Vec<u64> =
        samples.iter().filter(|sample| sample.kind == kind).map(|sample| sample.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The samples of a measure.
pub(in super::super) fn of(samples: &[Grown], kind: Kind, size: u64, measure: Measure) -> Option<Summary> {
    let matches = |s: &&Grown| (s.kind, s.size, s.measure) == (kind, size, measure);
    summary(samples.iter().filter(matches).map(|sample| sample.value))
}

/// The largest factor of these measures from one size to the next, for trees or for files, where a step that is not tenfold counts
/// as a part of one that is.
pub(super) fn largest(
    samples: &[Grown],
    trees: bool,
    measures: &[Measure],
    value: fn(&Summary) -> f64,
) -> Option<f64> {
    let mut factors = Vec::new();
    for kind in kinds(samples).into_iter().filter(|kind| kind.is_tree() == trees) {
        for pair in sizes(samples, kind).windows(2) {
            let input = pair[1] as f64 / pair[0] as f64;
            for measure in measures {
                let at = |size| of(samples, kind, size, *measure).map(|all| value(&all));
                if let (Some(before), Some(after)) = (at(pair[0]), at(pair[1])) {
                    factors.push(after / before / input * 10.0);
                }
            }
        }
    }
    factors.into_iter().reduce(f64::max)
}

/// Memory of mkfs for each inode that a tree of this size has more than the next smaller one: a fixed part does not count.
pub(super) fn bytes_an_inode(
    samples: &[Grown],
    kind: Kind,
    size: u64,
    value: fn(&Summary) -> f64,
) -> Option<f64> {
    let before = sizes(samples, kind).into_iter().rfind(|smaller| *smaller < size)?;
    let at = |size| of(samples, kind, size, Measure::MkfsMemory).map(|all| value(&all));
    Some((at(size)? - at(before)?) / (kind.inodes(size) - kind.inodes(before)) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::super::plot;
    use super::super::super::record::Record;
    use super::super::markdown;
    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    fn sample(kind: Kind, size: u64, measure: Measure, value: f64) -> Grown {
        Grown { kind, size, measure, round: 1, value }
    }

    fn record() -> Record {
        let row = |kind, size, values: [f64; 6]| {
            let measures = COLUMNS.map(|(measure, ..)| measure).into_iter();
            measures.zip(values).map(move |(measure, value)| sample(kind, size, measure, value))
        };
        let mut samples: Vec<Grown> = Vec::new();
        samples.extend(row(Kind::Archive, 1_000_000, [10.0, 300.0 * MIB, 2.0, 100.0 * MIB, 0.002, 4.0]));
        samples.extend(row(Kind::Archive, 5_000_000, [60.0, 1200.0 * MIB, 9.0, 400.0 * MIB, 0.002, 21.0]));
        samples.push(sample(Kind::Directory, 100_000, Measure::MkfsMemory, 50e6));
        samples.push(sample(Kind::Directory, 1_000_000, Measure::MkfsMemory, 50e6 + 180.0 * 900_900.0));
        samples.extend(row(Kind::Text, 1_000_000_000, [4.0, 80.0 * MIB, 1.0, 40.0 * MIB, 0.002, 0.001]));
        samples.extend(row(Kind::Text, 10_000_000_000, [38.0, 88.0 * MIB, 9.0, 44.0 * MIB, 0.004, 0.001]));
        let part = Measured {
            commit: String::new(),
            command: String::new(),
            machine: String::new(),
            programs: Vec::new(),
            notes: vec!["random: 100 GB was left out".to_owned()],
            samples,
        };
        Record { growth: Some(part), ..Record::default() }
    }

    #[test]
    fn each_size_has_its_row_with_the_factor_of_its_input() {
        let text = markdown(&record()).unwrap();
        for row in [
            "## Growth\n",
            "| files | input | mkfs, s | mkfs, MiB | bytes an inode | fsck, s |",
            "| archive, 1 million | | 10.00 | 300 | | 2.00 | 100 | 2.00 | 4000 |\n",
            "| archive, 5 million | 5.0 | 60.00 (6.00) | 1200 (4.00) | 236 | 9.00 (4.50) | 400 (4.00) | 2.00 (1.00) | 21000 (5.25) |\n",
            // The others are those of the archive.
            "| directory, 1 million | 10.0 | | 202 (4.24) | 180 | | | | |\n",
            "| bytes | input | mkfs, s | mkfs, MiB | fsck, s |",
            "| text, 10 GB | 10.0 | 38.00 (9.50) | 88.00 (1.10) | 9.00 (9.00) | 44.00 (1.10) | 4.00 (2.00) | 1.00 (1.00) |\n",
            "* random: 100 GB was left out\n",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let kept: Record = serde_json::from_slice(&record().to_json().unwrap()).unwrap();
        assert_eq!(markdown(&kept).unwrap(), text);
    }

    #[test]
    fn nothing_may_grow_faster_than_its_input() {
        let text = markdown(&record()).unwrap();
        for target in [
            "| growth, ten times the files: the largest factor of time | the files | ≤ 10 | 12.000 | **no** | 12.000 |",
            "| growth, ten times the files: the largest factor of memory | the files | ≤ 10 | 8.000 | yes | 8.000 |",
            "| growth, ten times the bytes: the largest factor of time | the bytes | ≤ 10 | 9.500 | yes | 9.500 |",
            "| growth, ten times the bytes: the largest factor of memory | the bytes | ≤ 10 | 1.100 | yes | 1.100 |",
            "5 million files | 200 | ≤ 200 | 235.",
            "from a directory, bytes of memory an inode, 1 million files | 200 | ≤ 200 | 180.000 | yes |",
            // There is no smaller one.
            "from an archive, bytes of memory an inode, 1 million files | 200 | ≤ 200 | not measured |",
        ] {
            assert!(text.contains(target), "{target}: {text}");
        }
    }

    #[test]
    fn the_plot_has_a_line_for_each_measure_of_each_kind() {
        assert!(plot::growth(&Record::default()).is_none());
        let drawing = plot::growth(&record()).unwrap();
        // Two kinds of one measure at least, and the dashed line of what grows as its input, in each of four graphs.
        assert_eq!(drawing.matches("<polyline").count(), 4 + 3 + 4 + 2);
        assert_eq!(drawing.matches("as the input").count(), 4);
        for label in
            ["1 million", "10 million", "1 GB", "10 GB", "1 ms", "100 s", "100 MiB", "1000 MiB", "fsck"]
        {
            assert!(drawing.contains(&format!(">{label}</text>")), "{label}: {drawing}");
        }
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    }
}
