// SPDX-License-Identifier: GPL-2.0
//! The part about profiles: a row for each, in BENCH.md and in the README.

use std::fmt::Write as _;

use anyhow::Result;
use tesserafs_guest::reading::Sample;

use super::super::profiles::{BUILD, DEFAULT, IMAGE, PROFILES, RANDOM, SMALL_FILES, SQUASHFS, UPDATE};
use super::super::record::Measured;
use super::{circumstances, of};

/// Lines of the README between which the table stands.
pub(super) const QUOTED: [&str; 2] =
    ["<!-- Written by `cargo xtask bench --only profiles`: -->", "<!-- (end of the profiles) -->"];

/// The columns: a measure, its heading, and how many of its units a number has.
const COLUMNS: [(&str, &str, f64); 5] = [
    (IMAGE, "image, MB", 1e-6),
    (RANDOM, "random 4 KiB, cold, ms", 1e3),
    (SMALL_FILES, "small files, cold, ms", 1e3),
    (UPDATE, "update, MB", 1e-6),
    (BUILD, "build, s", 1.0),
];

/// The meaning of a cell.
const CELLS: &str = "Each cell: median, and how many times that of the profile `default` it is";

/// The section.
pub(super) fn profiles(out: &mut String, part: &Measured<Sample>) -> Result<()> {
    writeln!(out, "\n## Profiles\n\n{CELLS} (less is better).\n")?;
    out.push_str(&table(&part.samples)?);
    circumstances(out, part)
}

/// The lines of the README.
pub(super) fn quoted(part: &Measured<Sample>) -> Result<String> {
    Ok(format!(
        "The profiles of `mkfs.tesserafs --profile`, on the same root, and squashfs in the same run. {CELLS}; less is better. \
         [BENCH.md](BENCH.md#profiles) says how many reads a time is of, and which updates.\n\n{}",
        table(&part.samples)?
    ))
}

/// A row for each profile, and for squashfs, which has no updates.
fn table(samples: &[Sample]) -> Result<String> {
    let headings = COLUMNS.map(|(_, heading, _)| heading).join(" | ");
    let mut out =
        format!("| profile | {headings} | image, of squashfs |\n|---|{}\n", "---|".repeat(COLUMNS.len() + 1));
    for system in PROFILES.into_iter().chain([SQUASHFS]) {
        let name = if system == SQUASHFS { system.to_owned() } else { format!("`{system}`") };
        write!(out, "| {name} |")?;
        for (measure, _, units) in COLUMNS {
            match (of(samples, measure, system), of(samples, measure, DEFAULT)) {
                (Some(own), Some(_)) if system == DEFAULT => write!(out, " {:.1} |", own.median * units)?,
                (Some(own), Some(default)) => {
                    write!(out, " {:.1} ({:.2}) |", own.median * units, own.median / default.median)?;
                }
                _ => write!(out, " |")?,
            }
        }
        match (of(samples, IMAGE, system), of(samples, IMAGE, SQUASHFS)) {
            (Some(own), Some(squashfs)) => writeln!(out, " {:.3} |", own.median / squashfs.median)?,
            _ => writeln!(out, " |")?,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::super::record::Record;
    use super::super::tests::{measured, sample};
    use super::super::{markdown, quoted, targets};
    use super::*;

    fn record() -> Record {
        let row = |system, [image, random, small, build]: [f64; 4]| {
            let measures = [(IMAGE, image), (RANDOM, random), (SMALL_FILES, small), (BUILD, build)];
            measures.map(|(measure, value)| sample(measure, system, value))
        };
        let mut samples = [
            row(DEFAULT, [200e6, 0.2, 0.1, 4.0]),
            row("small", [190e6, 0.3, 0.12, 5.0]),
            row("fast", [210e6, 0.1, 0.08, 4.0]),
            row(SQUASHFS, [250e6, 0.6, 0.5, 8.0]),
        ]
        .concat();
        samples.extend([1e6, 4e6, 2e6].map(|bytes| sample(UPDATE, DEFAULT, bytes)));
        samples.extend([2e6, 3e6, 9e6].map(|bytes| sample(UPDATE, "small", bytes)));
        Record { profiles: Some(measured(samples)), ..Record::default() }
    }

    #[test]
    fn each_profile_has_its_row() {
        let text = markdown(&record()).unwrap();
        for row in [
            "## Profiles\n",
            "| `default` | 200.0 | 200.0 | 100.0 | 2.0 | 4.0 | 0.800 |\n",
            "| `small` | 190.0 (0.95) | 300.0 (1.50) | 120.0 (1.20) | 3.0 (1.50) | 5.0 (1.25) | 0.760 |\n",
            // Its updates were not measured.
            "| `fast` | 210.0 (1.05) | 100.0 (0.50) | 80.0 (0.80) | | 4.0 (1.00) | 0.840 |\n",
            "| squashfs | 250.0 (1.25) | 600.0 (3.00) | 500.0 (5.00) | | 8.0 (2.00) | 1.000 |\n",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let kept: Record = serde_json::from_slice(&record().to_json().unwrap()).unwrap();
        assert_eq!(markdown(&kept).unwrap(), text);
    }

    #[test]
    fn the_readme_has_the_table_when_it_was_measured() {
        let lines = |[begin, end]: [&str; 2]| format!("{begin}\n{end}\n");
        let readme = format!("{}\nBetween\n\n{}\nAfter\n", lines(targets::QUOTED), lines(QUOTED));
        let before = quoted(&readme, &Record::default()).unwrap();
        assert!(before.ends_with(&format!("\nBetween\n\n{}\nAfter\n", lines(QUOTED))), "{before}");
        let text = quoted(&before, &record()).unwrap();
        let [begin, end] = QUOTED;
        assert!(text.contains(&format!("\nBetween\n\n{begin}\n\nThe profiles of ")), "{text}");
        assert!(text.contains("| `small` | 190.0 (0.95) |"), "{text}");
        assert!(text.ends_with(&format!("| 1.000 |\n\n{end}\n\nAfter\n")), "{text}");
        assert_eq!(quoted(&text, &record()).unwrap(), text);
        // A table that was measured and has no place is an error, as another's is.
        let error = quoted(&lines(targets::QUOTED), &record()).unwrap_err().to_string();
        assert!(error.contains(begin), "{error}");
    }
}
