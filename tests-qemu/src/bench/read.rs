// SPDX-License-Identifier: GPL-2.0
//! Reading: one start of the user-mode kernel measures everything, and prints a line for each sample.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::reading::{Page, Plan, Sample, System, Task};
use tesserafs_guest::tree;

use super::images::{self, Images};
use super::machine::{self, MEMORY};
use super::profiles::{sample, IMAGE};
use super::record::{Measured, Program};
use super::uml::{self, Uml};
use super::{build, Bench};
use crate::kernel::Toolchain;
use crate::{rootfs, run, trees};

/// The special cases: noise, holes and a directory of 100,000 files are not what a root is made of.
pub(super) const LEAVE_OUT: &str = "srv/cases";

/// Random pages and small files.
const PAGES: usize = 2000;
const SMALL_FILES: usize = 1000;

/// Bytes that a small file has at most, and a page has.
const SMALL: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// How long a round may take on a slow machine that others use, too.
const LIMIT: Duration = Duration::from_secs(600);

/// Where the programs lie of which one is the large one.
const PROGRAMS: &str = "usr/";

/// Random pages of the large program.
const PROGRAM_PAGES: usize = 32;

/// Reads the tree in many ways.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    Ok(in_user_mode(bench, Task::Read, "bench", notes)?.0)
}

/// Reads a tree of sources in the same ways: small files that are text.
pub(super) fn sources(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let (folder, excluded, about) = super::trees::sources(bench)?;
    let bench = Bench {
        excluded: Some(excluded),
        left_out: excluded,
        images: "bench-source-images",
        ..bench.of(&folder)
    };
    let (mut measured, images) = in_user_mode(&bench, Task::Read, "bench-sources", notes)?;
    measured.notes.insert(0, about);
    let is_system = |name: &str| images.systems.iter().any(|system| system.name == name);
    let sizes = images.sizes.iter().filter(|(name, _)| is_system(name));
    measured.samples.extend(sizes.map(|(system, bytes)| sample(IMAGE, system, 1, *bytes as f64)));
    Ok(measured)
}

/// Page faults in the tree, and starts of programs.
pub(super) fn faults(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    Ok(in_user_mode(bench, Task::Faults, "bench-faults", fault_notes)?.0)
}

/// Runs a task in the user-mode kernel, on all systems.
fn in_user_mode(
    bench: &Bench<'_>,
    task: fn(Plan) -> Task,
    log: &str,
    notes: fn(&Plan, &Images) -> Vec<String>,
) -> Result<(Measured<Sample>, Images)> {
    let kernel = Kernel::prepare(bench, MEMORY)?;
    let images = images::prepare(bench, kernel.folder())?;
    let manifest = trees::described(&bench.source)?;
    let disk = images::device(images.devices.len() - 1);
    let plan = plan(bench, &images.systems, Some(disk), &manifest)?;
    let (samples, program) = kernel.run(bench, &images, &plan, task, log)?;

    let mut programs = build::programs(bench)?;
    programs.push(program);
    programs.push(images::veritysetup());
    Ok((Measured::new(bench, programs, notes(&plan, &images), samples)?, images))
}

/// The user-mode kernel, in a folder that has room for the images, too.
pub(super) struct Kernel {
    toolchain: Toolchain,
    linux: Uml,
    scratch: TempDir,
    memory: &'static str,
}

impl Kernel {
    /// Builds it where that was not done; when it runs, it has so much memory.
    pub(super) fn prepare(bench: &Bench<'_>, memory: &'static str) -> Result<Self> {
        let toolchain = Toolchain::find(&bench.cache)?;
        let scratch = tempfile::tempdir_in(bench.cache.folder("scratch")?)
            .context("failed to make a scratch folder")?;
        let linux = uml::build(&bench.cache, &toolchain, scratch.path())?;
        Ok(Self { toolchain, linux, scratch, memory })
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts it once with these images: all that it measured, and what it is, as reports name it.
    pub(super) fn run(
        &self,
        bench: &Bench<'_>,
        images: &Images,
        plan: &Plan,
        task: fn(Plan) -> Task,
        log: &str,
    ) -> Result<(Vec<Sample>, Program)> {
        let initramfs = machine::initramfs(self.folder(), &task(plan.clone()), None, &[])?;
        let (program, devices) = (&self.linux.program, &images.devices);
        let command = machine::user_mode(bench, program, self.memory, &initramfs, devices, &images.verity);
        let shown = run::shown(&command).replace(&format!("{}/", self.folder().display()), "");
        run::say(format_args!("reading: {} rounds of up to two minutes", plan.rounds));
        let samples = machine::samples(command, bench, log, LIMIT * plan.rounds.max(1) as u32)?;
        Ok((samples, machine::program(&self.linux, &self.toolchain, shown)))
    }
}

/// What holds for all that the user-mode kernel measures.
pub(super) fn circumstances(plan: &Plan, images: &Images) -> Vec<String> {
    vec![
        format!(
            "one process, a kernel for one processor, bound by `taskset`, {MEMORY} of memory; {} rounds; each sample after \
             `drop_caches` and a fresh mount; the clock is the guest's `CLOCK_MONOTONIC`",
            plan.rounds
        ),
        match plan.images {
            Some(_) => "systems with a file mount it from an ext4 on such a device; all others mount the device (`ubd`)",
            None => "each image is a block device (`ubd`)",
        }
        .to_owned(),
        "the images are in the host's page cache: cold means that the guest has nothing in its own".to_owned(),
        "user-mode Linux hashes by the processor's SHA instructions, as patched for this (dm-verity as tesserafs), has no \
         large folios (no huge pages), and a system call costs some µs: compare systems with each other, verified with \
         verified, and not with other machines"
            .to_owned(),
        sizes_of(&images.sizes),
    ]
}

/// How large the images are.
pub(super) fn sizes_of(sizes: &[(&str, u64)]) -> String {
    let sizes: Vec<String> =
        sizes.iter().map(|(name, bytes)| format!("{name} {:.1}", *bytes as f64 / 1e6)).collect();
    format!("images, MB: {}", sizes.join(", "))
}

fn notes(plan: &Plan, images: &Images) -> Vec<String> {
    let mut notes = circumstances(plan, images);
    if !plan.big_directory.is_empty() {
        notes.push(format!(
            "walks and random reads leave `{LEAVE_OUT}` out, where the tests keep noise, holes and a directory of 100,000 \
             files; that directory has a row of its own"
        ));
    }
    notes.extend([
        format!(
            "{} pages from all files by their size and {} files of at most 64 KiB, the same ones for all; the files of the pages \
             are open before the clock starts; four readers are four threads of one process with a quarter each; the large file \
             is `{}`",
            plan.pages.len(),
            plan.small.len(),
            plan.large
        ),
        "`grep -r` maps each file in turn and looks for a string in all of it, as `rg --mmap` does".to_owned(),
    ]);
    notes
}

fn fault_notes(plan: &Plan, images: &Images) -> Vec<String> {
    let mut notes = circumstances(plan, images);
    notes.extend(about_faults(plan));
    notes
}

/// What is meant by a fault, and by a start.
pub(super) fn about_faults(plan: &Plan) -> [String; 3] {
    [
        format!(
            "a fault: a file that is open already is mapped as a whole (`MAP_PRIVATE`, read-only) when its first page is wanted, \
             and one byte of the page is read; pages at random are the same for all systems, from all files by their size \
             without `{LEAVE_OUT}`, or from the large program, `{}`",
            plan.program
        ),
        "a start: fork, chroot, execve and the end of the program, which reads its libraries and files from the mount; python3 \
         runs `pass` unless said, perl loads POSIX, gcc compiles a file of two lines that includes `stdio.h`, to a tmpfs"
            .to_owned(),
        "decoded: what the counter `decoded_bytes` of the mount has grown by, for each page of a fault, or for all of a start"
            .to_owned(),
    ]
}

/// Whether an entry is one of the special cases.
pub(super) fn is_left_out(entry: &Entry) -> bool {
    entry.path.starts_with(LEAVE_OUT.as_bytes())
}

/// Decides what is read: the same for all systems, and the same at every run on the same tree.
/// `images` is the device with images as files.
pub(super) fn plan(
    bench: &Bench<'_>,
    systems: &[System],
    images: Option<String>,
    manifest: &Manifest,
) -> Result<Plan> {
    let inside = |entry: &&Entry| !entry.path.starts_with(bench.left_out.as_bytes());
    let name = |entry: &Entry| String::from_utf8(entry.path.clone()).ok();
    // Names that are no text are in the folder that is left out.
    let files: Vec<(String, u64)> = manifest
        .entries
        .iter()
        .filter(inside)
        .filter(|entry| tree::is_file(entry.mode) && entry.size > 0)
        .filter_map(|entry| Some((name(entry)?, entry.size)))
        .collect();
    let large = largest(&files, "").context("the tree has no files")?;
    let program = largest(&files, PROGRAMS).unwrap_or(large);
    let has_big_directory =
        manifest.entries.iter().any(|entry| entry.path == rootfs::BIG_DIRECTORY.as_bytes());
    let mut small: Vec<String> =
        files.iter().filter(|(_, size)| *size <= SMALL).map(|(name, _)| name.clone()).collect();
    let mut random = Random::new(1);
    random.shuffle(&mut small);
    small.truncate(SMALL_FILES);
    let all_pages = pages(&files, PAGES, &mut random);
    Ok(Plan {
        systems: systems.to_vec(),
        images,
        rounds: bench.options.rounds,
        filter: bench.options.measure.clone(),
        leave_out: bench.left_out.to_owned(),
        big_directory: if has_big_directory { rootfs::BIG_DIRECTORY.to_owned() } else { String::new() },
        large: large.0.clone(),
        program: program.0.clone(),
        program_pages: pages(std::slice::from_ref(program), PROGRAM_PAGES, &mut random),
        pages: all_pages,
        small,
    })
}

/// The largest of the files whose names begin so.
fn largest<'f>(files: &'f [(String, u64)], folder: &str) -> Option<&'f (String, u64)> {
    files.iter().filter(|(name, _)| name.starts_with(folder)).max_by_key(|(_, size)| *size)
}

/// Draws whole pages from all of the files' data.
fn pages(files: &[(String, u64)], count: usize, random: &mut Random) -> Vec<Page> {
    let mut ends = Vec::with_capacity(files.len());
    let mut total = 0;
    for (_, size) in files {
        total += size / PAGE;
        ends.push(total);
    }
    if total == 0 {
        return Vec::new();
    }
    (0..count)
        .map(|_| {
            let drawn = random.below(total);
            let index = ends.partition_point(|end| *end <= drawn);
            let (path, size) = &files[index];
            let first = ends[index] - size / PAGE;
            Page { path: path.clone(), offset: (drawn - first) * PAGE }
        })
        .collect()
}

/// Numbers that look random and are the same at every run.
struct Random {
    words: std::vec::IntoIter<u8>,
    seed: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { words: Vec::new().into_iter(), seed }
    }

    fn below(&mut self, limit: u64) -> u64 {
        if self.words.len() < 8 {
            self.words = rootfs::noise(self.seed, 1 << 16).into_iter();
            self.seed += 1;
        }
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(&mut self.words) {
            *place = byte;
        }
        u64::from_le_bytes(word) % limit
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_drawn_by_size_and_inside_their_files() {
        let files = [("a".to_owned(), 100), ("b".to_owned(), 3 * PAGE + 5), ("c".to_owned(), 97 * PAGE)];
        let drawn = pages(&files, 5000, &mut Random::new(7));
        assert!(drawn.iter().all(|page| page.path != "a"));
        for page in &drawn {
            let pages = if page.path == "b" { 3 } else { 97 };
            assert!(page.offset % PAGE == 0 && page.offset < pages * PAGE, "{page:?}");
        }
        let of_b = drawn.iter().filter(|page| page.path == "b").count();
        assert!((75..300).contains(&of_b), "{of_b} of 150");
        assert_eq!(drawn, pages(&files, 5000, &mut Random::new(7)));
    }
}
