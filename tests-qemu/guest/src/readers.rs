// SPDX-License-Identifier: GPL-2.0
//! Eight processes read everything at once, and one reads with little processor time.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::cgroups::{self, Groups};
use crate::compare::mounted;
use crate::mounts::{drop_caches, on_disk};
use crate::suite::Suite;

const READERS: usize = 8;

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("eight-at-once-twice", || {
        let mount = mounted(&on_disk(&plan.root.image))?;
        let manifest = on_disk(&plan.root.manifest);
        for round in 1..=2 {
            drop_caches()?;
            read_at_once(&manifest, mount.path()).with_context(|| format!("in round {round}"))?;
        }
        let bytes = Manifest::load(&manifest)?.data_bytes();
        mount.unmount()?;
        Ok(format!("{READERS} x 2 x {} MB", bytes / 1_000_000))
    });
    // The custom kernels give control groups no processor time.
    if cgroups::has("cpu").unwrap_or(true) {
        suite.test("helpers-work-while-their-reader-does", || little_processor_time(plan));
    }
}

/// The helpers of a reader that has a fifth of a processor are charged to nobody; but together with it they take no
/// more time than all processors have while the reader runs.
fn little_processor_time(plan: &Plan) -> Result<String> {
    // Not the largest file, which is a hole.
    let is_program = |entry: &&Entry| tree::is_file(entry.mode) && entry.mode & 0o111 != 0;
    let root = Manifest::load(&on_disk(&plan.root.manifest))?;
    let largest = root.entries.iter().filter(is_program).max_by_key(|entry| entry.size);
    let largest = largest.context("the root has no program")?;
    let groups = Groups::mount("cpu")?;
    let group = groups.make("slow", "cpu.max", "20000 100000")?;
    let mount = mounted(&on_disk(&plan.root.image))?;
    drop_caches()?;
    let file = File::open(largest.below(mount.path())).context("failed to open the largest program")?;

    let before = busy()?;
    let status = Command::new("/proc/self/exe")
        .arg("within")
        .arg(&group)
        .arg("drain")
        .stdin(file)
        .status()
        .context("failed to start a reader")?;
    ensure!(status.success(), "the reader ended with {status}");
    let all = busy()? - before;
    let reader = Duration::from_micros(number(&group, "cpu.stat", "usage_usec")?);
    ensure!(number(&group, "cpu.stat", "nr_throttled")? > 0, "the reader was never made to wait");

    let processors = u32::try_from(std::thread::available_parallelism()?.get())?;
    let bound = reader * processors + reader / 4 + Duration::from_millis(250);
    ensure!(all <= bound, "the machine worked for {all:?}, the reader for {reader:?}: more than {bound:?}");
    mount.unmount()?;
    std::fs::remove_dir(&group).context("failed to remove a group")?;
    groups.unmount()?;
    Ok(format!("the machine worked for {all:.1?}, the reader for {reader:.1?}"))
}

/// The time that all processors have worked for.
fn busy() -> Result<Duration> {
    /// Of the columns of `/proc/stat`: the time of nothing to do, and of waiting for a disk.
    const IDLE: [usize; 2] = [3, 4];
    let stat = std::fs::read_to_string("/proc/stat").context("failed to read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let mut ticks = 0;
    // Behind the eighth column are parts of the first two.
    for (column, text) in line.split_whitespace().skip(1).take(8).enumerate() {
        let count: u64 = text.parse().with_context(|| format!("no number in /proc/stat: {line}"))?;
        ticks += if IDLE.contains(&column) { 0 } else { count };
    }
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// The number that stands beside a name in a file of a control group.
fn number(group: &Path, file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(group.join(file)).with_context(|| format!("failed to read {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("{file} has no {name}"))
}

fn read_at_once(manifest: &Path, root: &Path) -> Result<()> {
    let mut readers = Vec::new();
    for number in 0..READERS {
        let reader = Command::new("/proc/self/exe")
            .arg("read")
            .arg(manifest)
            .arg(root)
            .arg(number.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start a reader")?;
        readers.push(reader);
    }
    let mut errors = Vec::new();
    for (number, reader) in readers.into_iter().enumerate() {
        let output = reader.wait_with_output().context("failed to wait for a reader")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            errors.push(format!("reader {number} ended with {}: {}", output.status, said.trim()));
        }
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}

/// One reader: every file of the manifest, once. Even readers start together at the first file, where
/// they meet in the same chunks; odd ones start at places of their own.
pub(crate) fn helper(arguments: &[OsString]) -> Result<()> {
    let [manifest, root, number] = arguments else {
        bail!("read takes a manifest, a root and a number");
    };
    let number: usize =
        number.to_str().and_then(|number| number.parse().ok()).context("the third argument is no number")?;
    let manifest = Manifest::load(Path::new(manifest))?;
    let root = Path::new(root);
    let files: Vec<_> =
        manifest.entries.iter().filter(|entry| tree::is_file(entry.mode) && entry.size > 0).collect();
    let start = if number % 2 == 0 { 0 } else { files.len() * number / READERS };
    let mut buffer = vec![0; 1 << 18];
    for entry in files[start..].iter().chain(&files[..start]) {
        let content = tree::checksum(&entry.below(root), entry.size, &mut buffer)
            .with_context(|| format!("failed to read /{}", entry.path.escape_ascii()))?;
        ensure!(content == entry.content, "/{} has other bytes than its source", entry.path.escape_ascii());
    }
    Ok(())
}
