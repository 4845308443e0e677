// SPDX-License-Identifier: GPL-2.0
//! Servers of images for FUSE, on this machine: `tesserafs mount --fuse` against those of EROFS and squashfs.
//!
//! Nothing is emulated. A sample is one measure of a fresh mount, while nothing of the image is in the page cache. Besides the time
//! it takes the processors' time of server and reader, which other work on the machine disturbs less, and the server's memory.

mod cold;
mod images;
mod reader;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::{Done, Sample};

use super::images::LEVEL;
use super::record::{Measured, Program};
use super::{build, read, Bench};
use crate::{erofs, run, tools, trees};

use self::images::Images;
use self::reader::Reader;
use self::server::Server;

/// The server that the others are measured against: the name that [`super::images`] has for the driver, as tables put it first.
pub(super) use super::images::OURS;
/// The others. Neither verifies what it reads.
pub(super) const EROFS: &str = "erofsfuse";
pub(super) const SQUASHFS: &str = "squashfuse_ll";

/// The measures, by the names that the guest has for them.
const MEASURES: [&str; 7] = [
    "sequential, all files",
    "random 4 KiB",
    "random 4 KiB, four readers",
    "small files",
    "small files, four readers",
    "stat of all",
    "start of python3",
];

/// How the names of samples begin that are of something else than the time.
pub(super) const PROCESSOR: &str = "processors: ";
pub(super) const MEMORY: &str = "memory: ";

/// The programs that serve.
struct Programs {
    tesserafs: PathBuf,
    erofs: PathBuf,
    versions: [String; 3],
}

/// One that is compared.
struct System<'a> {
    name: &'static str,
    image: &'a Path,
    command: fn(&Programs, &Path, &Path) -> Command,
}

impl Programs {
    fn find(bench: &Bench<'_>) -> Result<Self> {
        let tesserafs = bench.tools.store.clone();
        let (erofs, erofs_version) = erofs::fuse(&bench.cache)?;
        let version = run::capture(run::command(&tesserafs).arg("--version"))?.trim().to_owned();
        let squashfs_version = run::version(Path::new(SQUASHFS), "--help", "squashfuse ")?;
        Ok(Self { tesserafs, erofs, versions: [version, erofs_version, squashfs_version] })
    }

    fn systems<'a>(&self, images: &'a Images) -> [System<'a>; 3] {
        [
            System { name: OURS, image: &images.tesserafs, command: tesserafs },
            System { name: EROFS, image: &images.erofs, command: erofsfuse },
            System { name: SQUASHFS, image: &images.squashfs, command: squashfuse },
        ]
    }
}

fn tesserafs(programs: &Programs, image: &Path, target: &Path) -> Command {
    let mut command = run::command(&programs.tesserafs);
    command.args(["mount", "--fuse", "--foreground", "--quiet"]).args([image, target]);
    command
}

fn erofsfuse(programs: &Programs, image: &Path, target: &Path) -> Command {
    let mut command = run::command(&programs.erofs);
    command.arg("-f").args([image, target]);
    command
}

fn squashfuse(_: &Programs, image: &Path, target: &Path) -> Command {
    let mut command = run::command(SQUASHFS);
    command.arg("-f").args([image, target]);
    command
}

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    crate::setup::require_root("enter a mounted root, as the starts of programs do")?;
    let programs = Programs::find(bench)?;
    let guest = tools::guest()?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let images = images::provide(bench, scratch.path())?;
    let systems = programs.systems(&images);
    let plan = read::plan(bench, &[], None, &trees::described(&bench.source)?)?;
    let path = scratch.path().join("plan.json");
    std::fs::write(&path, serde_json::to_vec(&plan).context("the plan cannot be written down")?)
        .context("failed to write the plan")?;
    let target = scratch.path().join("mnt");
    std::fs::create_dir(&target).context("failed to create a folder")?;

    run::say(format_args!("serving by FUSE: {} rounds", plan.rounds));
    let log = bench.cache.log("bench-fuse")?;
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for measure in MEASURES.iter().filter(|name| name.starts_with(&plan.filter)) {
            let mut work = None;
            // Another one begins each round, so that the leftovers of the one before meet all alike.
            let start = round % systems.len();
            for system in systems[start..].iter().chain(&systems[..start]) {
                let command = (system.command)(&programs, system.image, &target);
                let once =
                    once(system, command, &target, &log, || Reader::start(&guest, &path, measure, &target))
                        .with_context(|| format!("in {measure} on {}", system.name))?;
                let done = (once.done.count, once.done.bytes, once.done.found);
                // All images hold the same tree: a server that delivers less has not served it.
                ensure!(
                    *work.get_or_insert(done) == done,
                    "{measure} on {}: {done:?} instead of {work:?}",
                    system.name
                );
                eprintln!(
                    "round {round}: {measure:28} {:14} {:8.3} s, processors {:8.3} s, memory {:6.1} MiB",
                    system.name,
                    once.done.seconds,
                    once.processor,
                    once.memory as f64 / f64::from(1 << 20)
                );
                samples.extend(once.samples(measure, system.name, round));
            }
        }
    }
    let all = [build::programs(bench)?, programs.described(&systems)].concat();
    Measured::new(bench, all, notes(&plan, &images)?, samples)
}

/// One measure on one system.
struct Once {
    done: Done,
    /// Seconds of processors, of server and reader.
    processor: f64,
    /// Memory of the server at most, without what is in the page cache anyway.
    memory: u64,
}

/// Mounts, reads, unmounts.
fn once(
    system: &System<'_>,
    command: Command,
    target: &Path,
    log: &Path,
    reader: impl FnOnce() -> Result<Reader>,
) -> Result<Once> {
    cold::forget(system.image)?;
    let server = Server::start(command, target, log)?;
    let reader = reader()?;
    // The server has read its tables, and the reader may have opened files.
    cold::forget(system.image)?;
    let before = server.processor_seconds()?;
    let done = reader.read()?;
    let processor = server.processor_seconds()? - before + done.processor;
    let memory = server.memory()?;
    server.end()?;
    Ok(Once { done, processor, memory })
}

impl Once {
    fn samples(&self, measure: &str, system: &str, round: usize) -> [Sample; 3] {
        let Done { count, bytes, .. } = self.done;
        [("", self.done.seconds), (PROCESSOR, self.processor), (MEMORY, self.memory as f64)].map(
            |(kind, value)| Sample {
                measure: format!("{kind}{measure}"),
                system: system.to_owned(),
                round,
                value,
                count,
                bytes,
                decoded: None,
            },
        )
    }
}

impl Programs {
    /// As reports name them, without the folders of this machine.
    fn described(&self, systems: &[System<'_>]) -> Vec<Program> {
        let described = |(system, version): (&System<'_>, &String)| {
            let shown = run::shown(&(system.command)(self, Path::new("IMAGE"), Path::new("DIR")));
            let (program, arguments) = shown.split_once(' ').unwrap_or((&shown, ""));
            let program = program.rsplit('/').next().unwrap_or(program);
            Program {
                name: if system.name == OURS { "tesserafs mount".to_owned() } else { system.name.to_owned() },
                version: version.clone(),
                command: format!("{program} {arguments}"),
            }
        };
        systems.iter().zip(&self.versions).map(described).collect()
    }
}

fn notes(plan: &tesserafs_guest::reading::Plan, images: &Images) -> Result<Vec<String>> {
    Ok(vec![
        format!(
            "on the machine itself, as root, with the processors and the disk that it has; {} rounds, in each of which every server \
             takes its turn in each measure; images of one tree, zstd level {LEVEL}",
            plan.rounds
        ),
        "each sample is of a fresh mount; the pages of the image are dropped from the page cache before it is mounted and before the \
         clock starts (`posix_fadvise`, until `fincore` finds none): the image is read from the disk"
            .to_owned(),
        "processors: seconds of user and system that server and reader took; memory: `VmHWM` of the server less its `RssFile`, the \
         pages of files that it maps"
            .to_owned(),
        "tesserafs compares the digest of each chunk and of each block of metadata; the other two verify nothing".to_owned(),
        format!(
            "{} pages from all files by their size and {} files of at most 64 KiB, the same ones for all; the files of the pages \
             are open before the clock starts; four readers are four threads with a quarter each; walks leave `{}` out; python3 \
             runs `pass` in a chroot",
            plan.pages.len(),
            plan.small.len(),
            plan.leave_out
        ),
        read::sizes_of(&images.sizes()?),
    ])
}
