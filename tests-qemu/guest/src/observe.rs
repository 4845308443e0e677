// SPDX-License-Identifier: GPL-2.0
//! The observable state of a mount: counters in sysfs, and tracepoints.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::fs::{major, minor};
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::{forge, longest, read};
use crate::suite::Suite;

const TRACING: &str = "/sys/kernel/tracing";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("counters", || counters(plan));
    suite.test("large-folios-are-filled-in-place", || in_place(plan));
    suite.test("tracepoints", || tracepoints(plan));
    suite.test("metadata-is-read-without-recursion", || no_recursion(plan));
}

/// The folder of a mount.
pub(crate) fn folder(mount: &Mount) -> Result<PathBuf> {
    Ok(folder_of(std::fs::metadata(mount.path()).context("failed to stat the mount")?.dev()))
}

/// The folder of a mount with that device number.
pub(crate) fn folder_of(device: u64) -> PathBuf {
    PathBuf::from(format!("/sys/fs/tesserafs/{}:{}", major(device), minor(device)))
}

fn text(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

pub(crate) fn number(folder: &Path, name: &str) -> Result<u64> {
    let text = text(folder, name)?;
    text.parse().with_context(|| format!("{name} is {text:?}"))
}

fn counters(plan: &Plan) -> Result<String> {
    let mount = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    let folder = folder(&mount)?;
    ensure!(
        text(&folder, "image_id")? == format!("sha256:{}", plan.small.image_id),
        "image_id is that of another image"
    );
    ensure!(number(&folder, "read_bytes")? > 0, "no metadata was read");
    ensure!(number(&folder, "decoded_bytes")? == 0, "something was decoded before anything was read");

    let entry = longest(plan)?;
    drop_caches()?;
    read(&entry, mount.path())?;
    let [misses, read_bytes, hashed, decoded, shared] =
        ["chunk_misses", "read_bytes", "hashed_bytes", "decoded_bytes", "shared_files"]
            .map(|name| number(&folder, name));
    let (misses, read_bytes, hashed, decoded) = (misses?, read_bytes?, hashed?, decoded?);
    ensure!(misses > 0, "no chunk was read");
    ensure!(decoded >= entry.size, "{decoded} bytes were decoded for a file of {}", entry.size);
    ensure!(hashed > 0 && hashed <= read_bytes, "{read_bytes} bytes read, {hashed} hashed");
    ensure!(shared? == 1, "one file was opened");
    ensure!(number(&folder, "verification_failures")? == 0, "failures in a good image");
    // Data in memory costs nothing.
    read(&entry, mount.path())?;
    ensure!(number(&folder, "decoded_bytes")? == decoded, "decoded again");
    mount.unmount()?;
    ensure!(!folder.exists(), "{} is there after the unmount", folder.display());

    let forged = forge(plan, "")?;
    let folder = self::folder(&forged)?;
    drop_caches()?;
    ensure!(read(&entry, forged.path()).is_err(), "the forged file can be read");
    let failures = number(&folder, "verification_failures")?;
    ensure!(failures > 0, "no failure is counted");
    forged.unmount()?;
    Ok(format!("{misses} chunks, {read_bytes} bytes read, {hashed} hashed, {decoded} decoded"))
}

/// Of a large program that is read from its beginning to its end most chunks are decoded where they are read.
fn in_place(plan: &Plan) -> Result<String> {
    let mount = Mount::image(&on_disk(&plan.root.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    let folder = folder(&mount)?;
    let manifest = Manifest::load(&on_disk(&plan.root.manifest))?;
    let is_program = |entry: &Entry| tree::is_file(entry.mode) && entry.mode & 0o111 != 0;
    let programs = manifest.entries.into_iter().filter(is_program);
    let program = programs.max_by_key(|entry| entry.size).context("the root has no program")?;
    drop_caches()?;
    read(&program, mount.path())?;
    let (decoded, copied) = (number(&folder, "decoded_bytes")?, number(&folder, "copied_bytes")?);
    ensure!(decoded >= program.size, "{decoded} bytes were decoded for a file of {}", program.size);
    ensure!(copied < decoded / 2, "of {decoded} bytes that were decoded {copied} were copied");
    mount.unmount()?;
    Ok(format!("{} bytes, {decoded} decoded, {copied} copied", program.size))
}

fn tracepoints(plan: &Plan) -> Result<String> {
    let tracing = Mount::new(Path::new("tracefs"), Path::new(TRACING), "tracefs", MountFlags::empty(), "")
        .context("failed to mount tracefs")?;
    let at = |name: &str| tracing.path().join(name);
    let enable = |on: &str| {
        std::fs::write(at("events/tesserafs/enable"), on).context("failed to switch the tracepoints")
    };
    let mount = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    let entry = longest(plan)?;
    drop_caches()?;
    enable("1")?;
    read(&entry, mount.path())?;
    let forged = forge(plan, "")?;
    drop_caches()?;
    ensure!(read(&entry, forged.path()).is_err(), "the forged file can be read");
    enable("0")?;
    let trace = std::fs::read_to_string(at("trace")).context("failed to read the trace")?;
    let image = format!("image={}", &plan.small.image_id[..16]);
    for event in ["tesserafs_read", "tesserafs_decode"] {
        let told = trace.lines().any(|line| line.contains(event) && line.contains(&image));
        ensure!(told, "no {event} of the image in the trace:\n{trace}");
    }
    let failed =
        trace.lines().any(|line| line.contains("tesserafs_failure") && line.contains("rule=chunk-digest"));
    ensure!(failed, "no failure in the trace:\n{trace}");
    forged.unmount()?;
    mount.unmount()?;
    tracing.unmount()?;
    Ok(format!("{} events", trace.lines().filter(|line| line.contains("tesserafs_")).count()))
}

/// However deep the hash tree is, no metadata folio is read while another one is being filled: each page that enters the
/// page cache is recorded with the stack of the task that reads it.
fn no_recursion(plan: &Plan) -> Result<String> {
    let tracing = Mount::new(Path::new("tracefs"), Path::new(TRACING), "tracefs", MountFlags::empty(), "")
        .context("failed to mount tracefs")?;
    let set = |name: &str, value: &str| {
        std::fs::write(tracing.path().join(name), value).with_context(|| format!("failed to set {name}"))
    };
    let added = "events/filemap/mm_filemap_add_to_page_cache/enable";
    let mount = Mount::image(&on_disk(&plan.root.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    drop_caches()?;
    set("trace", "")?;
    set("options/stacktrace", "1")?;
    set(added, "1")?;
    let folder = mount.path().join(&plan.big_directory);
    for number in [0, 33_333, 66_666, 99_999] {
        let name = folder.join(format!("entry-{number:06}"));
        std::fs::symlink_metadata(&name).with_context(|| format!("failed to find {}", name.display()))?;
    }
    set(added, "0")?;
    set("options/stacktrace", "0")?;
    let trace = std::fs::read_to_string(tracing.path().join("trace")).context("failed to read the trace")?;
    set("trace", "")?;
    // Names of Rust functions are mangled: this is `HeldFolio::read`, which nothing but metadata is read by here.
    let fills = |stack: &str| stack.lines().filter(|line| line.contains("HeldFolio4read")).count();
    let stacks: Vec<&str> = trace.split("<stack trace>").skip(1).collect();
    let deepest = stacks.iter().max_by_key(|stack| fills(stack)).context("no stack in the trace")?;
    ensure!(fills(deepest) > 0, "no metadata is read: the test proves nothing:\n{trace}");
    ensure!(fills(deepest) == 1, "metadata is read while metadata is filled:\n{deepest}");
    mount.unmount()?;
    tracing.unmount()?;
    Ok(format!("{} stacks", stacks.len()))
}
