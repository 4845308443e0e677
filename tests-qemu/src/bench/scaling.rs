// SPDX-License-Identifier: GPL-2.0
//! One sequential reader in the test machine, with one processor and with two.
//!
//! The user-mode kernel of the other measures has one processor by construction.

use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::reading::{Sample, Scaling, Task, IMAGE};
use tesserafs_guest::tree;

use super::images::LEVEL;
use super::machine::{Emulated, Start};
use super::record::Measured;
use super::{build, Bench};
use crate::{run, trees};

/// Memory of the machine, in MiB.
const MEMORY: u32 = 2048;

/// Runs with each number of processors, for each round of reading: one takes a second or two.
const RUNS: usize = 4;

/// How long a run may take on a slow machine that others use, too.
const LIMIT: Duration = Duration::from_secs(60);

/// What is read: the name of the measure, and where in the root the files are of which it is the largest.
const FILES: [(&str, &str); 2] = [(LARGE, ""), (PROGRAM, "usr/")];

/// The large file of the other measures.
const LARGE: &str = "sequential, one large file";
/// The measure of the target: what systems read from such images is programs.
pub(super) const PROGRAM: &str = "sequential, one large program";

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let machine = Emulated::prepare(bench)?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).context("failed to create a folder")?;
    let manifest = trees::described(&bench.source)?;
    let mut files = Vec::new();
    let mut sizes = Vec::new();
    for (index, (measure, folder)) in FILES.into_iter().enumerate() {
        let Some(largest) = largest(&manifest, folder) else { continue };
        let name = format!("file-{index}");
        std::fs::copy(largest.below(&bench.source), root.join(&name)).context("failed to copy a file")?;
        sizes.push(largest.size);
        files.push((measure.to_owned(), name));
    }
    let image = scratch.path().join(IMAGE);
    run::capture(&mut build::tesserafs(&bench.of(&root), LEVEL, &image))?;

    let runs = RUNS * bench.options.rounds;
    run::say(format_args!("one reader on one processor and on two: {runs} runs"));
    let start = Start {
        scratch: scratch.path(),
        task: Task::Scaling(Scaling { files, runs }),
        files: &[(IMAGE.to_owned(), image)],
        memory: MEMORY,
        log: "bench-scaling",
        limit: LIMIT * runs.max(1) as u32,
    };
    let (samples, qemu) = machine.run(bench, &start)?;
    let mut programs = build::programs(bench)?;
    programs.retain(|program| program.name == build::OURS);
    programs.push(qemu);
    Measured::new(bench, programs, notes(&sizes, &machine, runs), samples)
}

fn notes(sizes: &[u64], machine: &Emulated, runs: usize) -> Vec<String> {
    let sizes: Vec<String> = sizes.iter().map(|size| format!("{:.1} MB", *size as f64 / 1e6)).collect();
    vec![
        format!(
            "one machine with two processors, {}; for one CPU the second is switched off, by turns in each of {runs} runs",
            machine.executed()
        ),
        format!(
            "the large file is the largest of the Debian root, a package list, the large program the largest below `usr` ({}), both \
             in one image that lies in the machine's memory; each sample after `drop_caches`; one thread reads 128 KiB at a time; \
             readers at random are threads that read 256 parts in all, each from places of its own",
            sizes.join(" and ")
        ),
        "two threads that compute checksums and share nothing say what the second processor was worth on this host; a run in \
         which that was too little has a name of its own in the table, does not count for the target, and is made up for by \
         another one, twice as many at most"
            .to_owned(),
    ]
}

/// The largest regular file of a tree whose path begins so.
fn largest<'m>(manifest: &'m Manifest, folder: &str) -> Option<&'m Entry> {
    manifest
        .entries
        .iter()
        .filter(|entry| tree::is_file(entry.mode) && entry.path.starts_with(folder.as_bytes()))
        .filter(|entry| !super::read::is_left_out(entry))
        .max_by_key(|entry| entry.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_is_one_that_the_distribution_brings() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["srv/cases", "usr/bin"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (name, length) in [("list", 5), ("usr/bin/program", 3), ("usr/small", 1), ("srv/cases/larger", 9)]
        {
            std::fs::write(root.path().join(name), vec![b'x'; length]).unwrap();
        }
        let manifest = trees::described(root.path()).unwrap();
        let path = |folder| largest(&manifest, folder).unwrap().path.as_slice();
        assert_eq!((path(""), path("usr/")), (&b"list"[..], &b"usr/bin/program"[..]));
        assert!(largest(&manifest, "opt/").is_none());
    }
}
