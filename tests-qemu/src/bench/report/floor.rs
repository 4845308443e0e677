// SPDX-License-Identifier: GPL-2.0
//! Reading above the floor: the time that a system takes more than one that neither decompresses nor verifies.
//!
//! System calls, page cache and path lookup take the same on all systems, and more on the user-mode kernel of this benchmark than
//! elsewhere. Where a system call costs a fiftieth, what is left is the difference that users see.

use std::fmt::Write as _;

use anyhow::Result;
use tesserafs_guest::reading::Sample;

use super::super::images::{EROFS_UNCOMPRESSED, EROFS_VERITY, OURS};
use super::super::record::Summary;
use super::{baseline, names, of, systems};

/// Measures that read files for the first time; of the others nothing is above the floor.
const MEASURES: [&str; 7] = [
    "sequential, all files",
    "grep -r, mapped files",
    "sequential, one large file",
    "random 4 KiB",
    "random 4 KiB, four readers",
    "small files",
    "small files, four readers",
];

/// The table.
pub(super) fn table(out: &mut String, samples: &[Sample]) -> Result<()> {
    // Those with a file have another floor.
    let mut systems = systems(samples);
    systems.retain(|system| baseline(system) == OURS && *system != EROFS_UNCOMPRESSED);
    let measures = names(samples, |sample| &sample.measure);
    let measures: Vec<&str> = MEASURES.into_iter().filter(|name| measures.contains(name)).collect();
    if measures.is_empty() || of(samples, measures[0], EROFS_UNCOMPRESSED).is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "\n### Above the floor\n\nThe floor is what {EROFS_UNCOMPRESSED} takes: system calls, page cache and path lookup, and neither \
         decompression nor verification. Each cell: the median less that of the floor, in µs for each file or page (in ms for a large \
         file), and how many times that of {EROFS_VERITY} it is.\n"
    )?;
    writeln!(out, "| cold | floor | {} |", systems.join(" | "))?;
    writeln!(out, "|---|---|{}", "---|".repeat(systems.len()))?;
    for measure in measures {
        let count = samples.iter().find(|sample| sample.measure == measure).map_or(1, |s| s.count.max(1));
        let shown = |seconds: f64| match count {
            1 => format!("{:.1} ms", seconds * 1e3),
            _ => format!("{:.1}", seconds * 1e6 / count as f64),
        };
        let Some(floor) = of(samples, measure, EROFS_UNCOMPRESSED) else { continue };
        write!(out, "| {measure} | {} |", shown(floor.median))?;
        for system in &systems {
            let median = |all: &Summary| all.median;
            match (of(samples, measure, system), ratio(samples, measure, system, median)) {
                (Some(all), Some(ratio)) => {
                    write!(out, " {} ({ratio:.2}) |", shown(all.median - floor.median))?;
                }
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many times that of EROFS on dm-verity the time of a system above the floor is.
pub(super) fn ratio(
    samples: &[Sample],
    measure: &str,
    system: &str,
    value: fn(&Summary) -> f64,
) -> Option<f64> {
    let of = |system: &str| Some(value(&of(samples, measure, system)?));
    let floor = of(EROFS_UNCOMPRESSED)?;
    let theirs = of(EROFS_VERITY)? - floor;
    // Below the floor there is no ratio.
    (theirs > 0.0).then_some((of(system)? - floor) / theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(system: &str, value: f64, count: u64) -> Sample {
        Sample {
            measure: "small files".to_owned(),
            system: system.to_owned(),
            round: 1,
            value,
            count,
            bytes: 0,
            decoded: None,
        }
    }

    #[test]
    fn times_are_less_that_of_the_floor() {
        let mut all = vec![sample(OURS, 0.050, 1000), sample(EROFS_VERITY, 0.040, 1000)];
        let mut out = String::new();
        table(&mut out, &all).unwrap();
        assert_eq!(out, "");
        all.push(sample(EROFS_UNCOMPRESSED, 0.030, 1000));
        table(&mut out, &all).unwrap();
        assert!(out.ends_with("| small files | 30.0 | 20.0 (2.00) | 10.0 (1.00) |\n"), "{out}");
        let of = |system| ratio(&all, "small files", system, |all| all.median);
        assert!(of(OURS).is_some_and(|ratio| (ratio - 2.0).abs() < 1e-9));
        assert_eq!(of("squashfs"), None);
        all.push(sample(EROFS_UNCOMPRESSED, 0.050, 1000));
        all.push(sample(EROFS_UNCOMPRESSED, 0.050, 1000));
        assert_eq!(ratio(&all, "small files", OURS, |all| all.median), None);
    }
}
