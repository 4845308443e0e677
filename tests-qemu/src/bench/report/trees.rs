// SPDX-License-Identifier: GPL-2.0
//! The part about trees: what builders take for each.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::build::OURS;
use super::super::record::{summary, Built, Measured, Summary};
use super::super::trees::TreeBuilt;
use super::circumstances;

/// The samples of a builder on a tree.
pub(super) fn of_tree(
    samples: &[TreeBuilt],
    tree: &str,
    builder: &str,
    value: fn(&Built) -> Option<f64>,
) -> Option<Summary> {
    let samples = samples.iter().filter(|s| s.tree == tree && s.built.builder == builder);
    summary(samples.filter_map(|s| value(&s.built)))
}

/// Values of a sample.
pub(super) fn seconds(built: &Built) -> Option<f64> {
    Some(built.seconds)
}
pub(super) fn bytes(built: &Built) -> Option<f64> {
    Some(built.bytes as f64)
}

/// The section.
pub(super) fn trees(out: &mut String, part: &Measured<TreeBuilt>) -> Result<()> {
    let samples = &part.samples;
    writeln!(out, "\n## Building from trees of one kind\n")?;
    writeln!(
        out,
        "| tree | files | MB | builder | seconds | min – max | times {OURS} | seconds of processors | times {OURS} | image, MB | times {OURS} |"
    )?;
    writeln!(out, "|{}", "---|".repeat(11))?;
    let mut rows: Vec<&TreeBuilt> = Vec::new();
    for sample in samples {
        if !rows.iter().any(|row| row.tree == sample.tree && row.built.builder == sample.built.builder) {
            rows.push(sample);
        }
    }
    for TreeBuilt { tree, files, data, built } in rows {
        let of = |builder, value| of_tree(samples, tree, builder, value);
        let compared = |value| Some((of(&built.builder, value)?, of(OURS, value)?));
        let (Some((time, our_time)), Some((processor, our_processor)), Some((size, our_size))) =
            (compared(seconds), compared(|built| built.processor), compared(bytes))
        else {
            continue;
        };
        writeln!(
            out,
            "| {tree} | {files} | {:.1} | {} | {:.2} | {:.2} – {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.3} |",
            *data as f64 / 1e6,
            built.builder,
            time.median,
            time.min,
            time.max,
            time.median / our_time.median,
            processor.median,
            processor.median / our_processor.median,
            size.median / 1e6,
            size.median / our_size.median
        )?;
    }
    circumstances(out, part)
}

#[cfg(test)]
mod tests {
    use super::super::super::build::MKSQUASHFS;
    use super::super::super::record::Record;
    use super::super::super::trees::{SOURCES, STATIC, TINY};
    use super::super::{markdown, targets};
    use super::*;

    fn sample(tree: &str, builder: &str, [seconds, processor, megabytes]: [f64; 3]) -> TreeBuilt {
        let built = Built {
            builder: builder.to_owned(),
            level: 3,
            run: 1,
            seconds,
            processor: Some(processor),
            bytes: (megabytes * 1e6) as u64,
            peak: 1,
        };
        TreeBuilt { tree: tree.to_owned(), files: 7, data: 300_000_000, built }
    }

    fn record() -> Record {
        let samples = vec![
            sample(STATIC, OURS, [1.0, 2.0, 102.0]),
            sample(STATIC, MKSQUASHFS, [4.0, 8.0, 100.0]),
            sample(STATIC, OURS, [1.5, 2.5, 102.0]),
            sample(STATIC, MKSQUASHFS, [6.0, 9.0, 100.0]),
            sample(STATIC, OURS, [3.0, 2.1, 102.0]),
            sample(STATIC, MKSQUASHFS, [4.0, 8.2, 100.0]),
            sample(STATIC, "mkfs.erofs", [9.0, 8.4, 153.0]),
            sample(TINY, OURS, [0.9, 1.0, 2.0]),
            sample(TINY, MKSQUASHFS, [1.0, 1.5, 1.0]),
        ];
        let (commit, command, machine) = Default::default();
        let (programs, notes) = Default::default();
        Record {
            trees: Some(Measured { commit, command, machine, programs, notes, samples }),
            ..Record::default()
        }
    }

    #[test]
    fn each_builder_of_each_tree_has_its_row() {
        let text = markdown(&record()).unwrap();
        for row in [
            "| static libraries | 7 | 300.0 | mkfs.tesserafs | 1.50 | 1.00 – 3.00 | 1.00 | 2.10 | 1.00 | 102.0 | 1.000 |\n",
            "| static libraries | 7 | 300.0 | mksquashfs | 4.00 | 4.00 – 6.00 | 2.67 | 8.20 | 3.90 | 100.0 | 0.980 |\n",
            "| static libraries | 7 | 300.0 | mkfs.erofs | 9.00 | 9.00 – 9.00 | 6.00 | 8.40 | 4.00 | 153.0 | 1.500 |\n",
            "| tiny files | 7 | 300.0 | mksquashfs | 1.00 | 1.00 – 1.00 | 1.11 | 1.50 | 1.50 | 1.0 | 0.500 |\n",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        let kept: Record = serde_json::from_slice(&record().to_json().unwrap()).unwrap();
        assert_eq!(markdown(&kept).unwrap(), text);
        assert!(!markdown(&Record::default()).unwrap().contains("## Building from trees"));
    }

    #[test]
    fn each_tree_has_its_targets() {
        let text = markdown(&record()).unwrap();
        for row in [
            "| build, static libraries, time | mksquashfs | ≤ 0.5 | 0.375 | yes | 0.250 |\n",
            "| build, static libraries, image | squashfs | ≤ 1 | 1.020 | **no** | 1.020 |\n",
            "| build, tiny files, time | mksquashfs | ≤ 0.8 | 0.900 | **no** | 0.900 |\n",
            "| build, sources, time | mksquashfs | ≤ 0.5 | not measured |  |  |\n",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
        // The image of tiny files is names and metadata: no target.
        assert!(!text.contains("build, tiny files, image"), "{text}");
        let quoted = targets::table(&record()).unwrap();
        assert!(quoted.contains("| build, static libraries, time | mksquashfs | 0.38 |\n"), "{quoted}");
        assert!(!quoted.contains(SOURCES), "{quoted}");
    }
}
