// SPDX-License-Identifier: GPL-2.0
//! Growth: trees of ever more files, and ever larger files: time and memory of mkfs and fsck, and the time of a mount and of stat of all
//! in the user-mode kernel ([`read`](super::read)).

mod input;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tesserafs_guest::reading::{Plan, Task};

use super::images::{self, Images, LEVEL, OURS};
use super::read::Kernel;
use super::record::{Measured, Program};
use super::{build, Bench};
use crate::run::{self, Cost};

pub(super) const MILLION: u64 = 1_000_000;
const THOUSAND: u64 = 1000;
const GB: u64 = 1_000_000_000;

/// The kinds of input that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A tree of small files, as an archive.
    Archive,
    /// The same as a directory.
    Directory,
    /// A file of holes.
    Sparse,
    /// A file of noise.
    Random,
    /// A file of text.
    Text,
}

/// The measures of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measure {
    Mkfs,
    MkfsMemory,
    Fsck,
    FsckMemory,
    Mount,
    Stat,
}

/// A sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Grown {
    pub(super) kind: Kind,
    /// Files of the tree, or bytes of the file.
    pub(super) size: u64,
    pub(super) measure: Measure,
    pub(super) round: usize,
    /// Seconds, or bytes of memory.
    pub(super) value: f64,
}

/// The sizes of each kind. A directory needs a block of the disk for each file, and differs from an archive in mkfs alone.
const CASES: [(Kind, &[u64]); 5] = [
    (Kind::Archive, &[10 * THOUSAND, 100 * THOUSAND, MILLION, 5 * MILLION]),
    (Kind::Directory, &[10 * THOUSAND, 100 * THOUSAND, MILLION]),
    (Kind::Sparse, &[GB, 10 * GB, 100 * GB]),
    (Kind::Random, &[GB, 10 * GB, 100 * GB]),
    (Kind::Text, &[GB, 10 * GB, 100 * GB]),
];

/// Runs of a program that count, unless they take longer than this together.
const RUNS: usize = 3;
const LONG: Duration = Duration::from_secs(60);

/// Memory of the kernel: with the inodes and names of all files there is room left, so that it need not give some up to go on.
const MEMORY: &str = "8G";

/// Rounds of the kernel that count, and of trees with more files than this: to look at all of these takes minutes.
const ROUNDS: usize = 3;
const ROUNDS_OF_MANY: usize = 1;
const MANY: u64 = MILLION;

/// The measures of the kernel.
const MOUNT: &str = "mount to first stat";
const STAT: &str = "stat of all";

/// Free bytes of the disk that are left to others.
const RESERVE: u64 = 1 << 30;

impl Kind {
    /// How cases and reports name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Directory => "directory",
            Self::Sparse => "sparse",
            Self::Random => "random",
            Self::Text => "text",
        }
    }

    /// Whether it is a tree of files.
    pub(super) const fn is_tree(self) -> bool {
        matches!(self, Self::Archive | Self::Directory)
    }

    /// A size in words.
    pub(super) fn size(self, size: u64) -> String {
        match (self.is_tree(), size) {
            (true, size) if size < MILLION => format!("{} thousand", size / THOUSAND),
            (true, size) => format!("{} million", size / MILLION),
            (false, size) => format!("{} GB", size / GB),
        }
    }

    /// Inodes of an image.
    pub(super) fn inodes(self, size: u64) -> u64 {
        if self.is_tree() {
            input::inodes(size)
        } else {
            2
        }
    }
}

/// One size of one kind.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    size: u64,
}

impl Case {
    fn name(self) -> String {
        format!("{}: {}", self.kind.name(), self.kind.size(self.size))
    }

    /// Bytes of the disk that it takes at most: mkfs keeps an archive from a pipe beside the image.
    fn room(self) -> u64 {
        let size = self.size;
        match self.kind {
            Kind::Archive => 2 * input::archive_bytes(size),
            Kind::Directory => size * 4096 + input::archive_bytes(size),
            Kind::Sparse => 2 * input::data_between_holes(size),
            // Noise is stored as it is, with its digests.
            Kind::Random => 2 * size + size / 50,
            Kind::Text => size + size / 2,
        }
    }
}

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Grown>> {
    let kernel = Kernel::prepare(bench, MEMORY)?;
    let mut growth = Growth {
        bench,
        image: kernel.folder().join("image"),
        tree: kernel.folder().join("tree"),
        kernel,
        samples: Vec::new(),
        programs: programs(bench)?,
    };
    let mut notes = notes();
    let cases =
        CASES.into_iter().flat_map(|(kind, sizes)| sizes.iter().map(move |&size| Case { kind, size }));
    for case in cases.filter(|case| case.name().starts_with(&bench.options.measure)) {
        let free = free(growth.kernel.folder())?;
        if free < case.room() + RESERVE {
            let [needed, free] = [case.room() + RESERVE, free].map(|bytes| bytes as f64 / 1e9);
            notes.push(format!(
                "{} was left out: it needs {needed:.0} GB of disk, and {free:.0} were free",
                case.name()
            ));
            continue;
        }
        run::say(format_args!("growth: {}", case.name()));
        growth.measure(case).with_context(|| case.name())?;
    }
    let Growth { samples, programs, .. } = growth;
    Measured::new(bench, programs, notes, samples)
}

/// Free bytes of the disk of a folder.
fn free(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder).context("failed to ask for the free space of the disk")?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The samples so far, and the programs that they are of.
struct Growth<'b> {
    bench: &'b Bench<'b>,
    kernel: Kernel,
    image: PathBuf,
    tree: PathBuf,
    samples: Vec<Grown>,
    programs: Vec<Program>,
}

impl Growth<'_> {
    /// One case; nothing of it stays on the disk.
    fn measure(&mut self, case: Case) -> Result<()> {
        match case.kind {
            Kind::Directory => input::folder(&self.tree, case.size)?,
            Kind::Sparse => input::sparse(&self.tree, case.size)?,
            Kind::Archive | Kind::Random | Kind::Text => (),
        }
        self.run(case, [Measure::Mkfs, Measure::MkfsMemory], |growth| growth.mkfs(case))?;
        // The image of a directory is that of the archive.
        if case.kind != Kind::Directory {
            let fsck = |growth: &Self| {
                run::measured(run::command(&growth.bench.tools.fsck).arg("--quiet").arg(&growth.image))
            };
            self.run(case, [Measure::Fsck, Measure::FsckMemory], fsck)?;
            self.mount(case)?;
        }
        std::fs::remove_file(&self.image).context("failed to remove an image")?;
        if self.tree.exists() {
            std::fs::remove_dir_all(&self.tree).context("failed to remove a tree")?;
        }
        Ok(())
    }

    /// Runs a program a few times: its time and its memory.
    fn run(
        &mut self,
        case: Case,
        measures: [Measure; 2],
        once: impl Fn(&Self) -> Result<Cost>,
    ) -> Result<()> {
        let begin = Instant::now();
        for round in 1..=RUNS {
            // Bytes that were written before go to the disk on their own time. The program then reads its input from
            // there, however small: an input that is larger than the memory always comes from there.
            rustix::fs::sync();
            std::fs::write("/proc/sys/vm/drop_caches", "3").context("failed to empty the page cache")?;
            let cost = once(self)?;
            let values = [cost.elapsed.as_secs_f64(), cost.peak as f64];
            eprintln!(
                "{} run {round}: {:?} {:9.3} s, peak {:5} MiB",
                case.name(),
                measures[0],
                values[0],
                cost.peak >> 20
            );
            for (measure, value) in measures.into_iter().zip(values) {
                self.add(case, measure, round, value);
            }
            if begin.elapsed() > LONG {
                break;
            }
        }
        Ok(())
    }

    /// Builds the image once.
    fn mkfs(&self, case: Case) -> Result<Cost> {
        let mut command = run::command(&self.bench.tools.mkfs);
        command.args(MKFS).arg(LEVEL.to_string()).args(&self.bench.options.mkfs);
        let archive = |command: &mut Command| {
            command.args(["--tar", "-"]).arg(&self.image);
        };
        match case.kind {
            Kind::Directory | Kind::Sparse => run::measured(command.arg(&self.image).arg(&self.tree)),
            Kind::Archive => {
                archive(&mut command);
                run::measured_fed(&mut command, |pipe| input::archive(pipe, case.size))
            }
            Kind::Random => {
                archive(&mut command);
                run::measured_fed(&mut command, |pipe| input::random(pipe, case.size))
            }
            Kind::Text => {
                archive(&mut command);
                run::measured_fed(&mut command, |pipe| input::text(pipe, case.size))
            }
        }
    }

    /// Mounts the image, and looks at all files.
    fn mount(&mut self, case: Case) -> Result<()> {
        let systems = vec![images::system(OURS, "tesserafs", images::device(0))];
        let devices = vec![self.image.clone()];
        let images = Images { systems, sizes: Vec::new(), devices, verity: String::new() };
        for (filter, measure) in [(MOUNT, Measure::Mount), (STAT, Measure::Stat)] {
            let plan = plan(&images, filter, case);
            let (read, program) = self.kernel.run(self.bench, &images, &plan, Task::Read, "bench-growth")?;
            // Others have names that begin so; and the first round fills the page cache of the host.
            for sample in read.iter().filter(|sample| sample.measure == filter && sample.round > 1) {
                self.add(case, measure, sample.round - 1, sample.value);
            }
            if !self.programs.contains(&program) {
                self.programs.push(program);
            }
        }
        Ok(())
    }

    fn add(&mut self, case: Case, measure: Measure, round: usize, value: f64) {
        self.samples.push(Grown { kind: case.kind, size: case.size, measure, round, value });
    }
}

/// One measure by the kernel, of the image of a case.
fn plan(images: &Images, filter: &str, case: Case) -> Plan {
    let rounds = if case.kind.is_tree() && case.size > MANY { ROUNDS_OF_MANY } else { ROUNDS };
    Plan {
        systems: images.systems.clone(),
        images: None,
        rounds: rounds + 1,
        filter: filter.to_owned(),
        // The measures that these are for do not begin so.
        leave_out: String::new(),
        big_directory: String::new(),
        large: String::new(),
        program: String::new(),
        program_pages: Vec::new(),
        pages: Vec::new(),
        small: Vec::new(),
    }
}

/// Options of mkfs; the level follows.
const MKFS: [&str; 3] = ["--quiet", "--force", "--level"];

/// The programs that build and check, with their versions.
fn programs(bench: &Bench<'_>) -> Result<Vec<Program>> {
    let mut programs = build::programs(bench)?;
    programs.retain(|program| program.name == build::OURS);
    for program in &mut programs {
        let options = MKFS.join(" ");
        program.command =
            format!("mkfs.tesserafs {options} {LEVEL} --tar - IMAGE, or with IMAGE DIRECTORY instead");
    }
    programs.push(Program {
        name: "fsck.tesserafs".to_owned(),
        version: run::version(&bench.tools.fsck, "--version", "fsck")?,
        command: "fsck.tesserafs --quiet IMAGE".to_owned(),
    });
    Ok(programs)
}

/// The circumstances of all samples.
fn notes() -> Vec<String> {
    vec![
        format!(
            "archive: a tar archive that is written to mkfs's standard input while it runs, {} files in each directory, some hundred \
             bytes of text in each, no two alike; mkfs keeps it in a file beside the image until that is complete; directory: the same \
             files on the disk, for mkfs alone",
            input::FILES
        ),
        "sparse: a directory with a file of holes, and 64 KiB of noise in each 64 MiB; holes are hashed as zeros in files of up to 8 GiB, \
         and not at all in larger ones; random: noise; text: phrases in random order; both in an archive that is written while mkfs \
         runs"
            .to_owned(),
        format!(
            "medians of {RUNS} runs of mkfs and of fsck, of fewer where these take more than {} s, each with an empty page cache at \
             first; times have that of whatever writes the archive, which is on one of the processors; memory is what the process \
             held at most (`ru_maxrss`)",
            LONG.as_secs()
        ),
        format!(
            "mount and stat: in the user-mode kernel, {MEMORY} of memory, after `drop_caches` and a fresh mount; medians of {ROUNDS} \
             rounds, or {ROUNDS_OF_MANY} of more than a million files, after one that is not counted"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_name_that_measures_are_filtered_by() {
        let names: Vec<String> = CASES
            .into_iter()
            .flat_map(|(kind, sizes)| sizes.iter().map(move |&size| Case { kind, size }.name()))
            .collect();
        for name in ["archive: 10 thousand", "archive: 5 million", "directory: 1 million", "text: 100 GB"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
    }

    #[test]
    fn an_archive_from_a_pipe_needs_room_twice() {
        let room = |kind, size| Case { kind, size }.room();
        assert!(room(Kind::Random, GB) > 2 * GB);
        assert!(room(Kind::Sparse, 100 * GB) < GB);
        assert!((5 * GB..15 * GB).contains(&room(Kind::Archive, 5 * MILLION)));
    }
}
