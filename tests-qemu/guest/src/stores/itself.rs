// SPDX-License-Identifier: GPL-2.0
//! Calls that use the image file and memory that is mapped from the mounted image at once. The kernel holds what
//! it locks for such a call while the memory is fetched, which means: while the image is read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use super::place::{self, Kind, Store};
use super::TARGET;
use crate::backing::ended_within;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::longest;
use crate::sys::{Mapping, WritableMapping};

const PAGE: usize = 4096;

/// How long a call is given, on a slow machine: one that waits for itself takes for ever.
const LIMIT: Duration = Duration::from_secs(90);

/// A call, by the name that the helper knows it by.
const CALLS: [&str; 5] = ["write", "pwritev", "write-direct", "read", "read-direct"];

/// Makes each call, in a process of its own.
pub(super) fn written(plan: &Plan, kind: Kind) -> Result<String> {
    let store = Store::lay(plan, kind)?;
    let mount = Mount::image(store.image(), Path::new(TARGET), "").context("failed to mount the image")?;
    let file = longest(plan)?.below(mount.path());
    let length = std::fs::metadata(store.image()).context("failed to look at the image")?.len();
    let mut without = Vec::new();
    for call in CALLS {
        drop_caches()?;
        match one(call, store.image(), &file, length).with_context(|| format!("in {call}"))? {
            Effect::Made => {}
            Effect::NotThere => without.push(call),
        }
    }
    // What was appended is behind the end of the image.
    drop_caches()?;
    let expected = Manifest::load(&on_disk(&plan.small.manifest))?;
    expected.expect_equal(&tree::scan(mount.path(), 2).context("after the calls")?)?;
    mount.unmount()?;
    store.close()?;
    Ok(if without.is_empty() { String::new() } else { format!("it has no {}", without.join(", ")) })
}

/// Writes to a file what is mapped from another one.
pub(super) fn write_from(written: &Path, file: &Path) -> Result<()> {
    match one("write", written, file, 0)? {
        Effect::Made => Ok(()),
        Effect::NotThere => bail!("there is no write"),
    }
}

enum Effect {
    Made,
    /// The filesystem has no such call.
    NotThere,
}

/// Starts the helper, and waits for it.
fn one(call: &str, image: &Path, file: &Path, length: u64) -> Result<Effect> {
    let mut helper = Command::new("/proc/self/exe");
    helper.arg("use-both").arg(call).arg(image).arg(file).arg(length.to_string());
    let mut helper = helper.stderr(Stdio::piped()).spawn().context("failed to start a process")?;
    if !ended_within(&mut helper, LIMIT)? {
        let of = |name: &str| {
            std::fs::read_to_string(format!("/proc/{}/{name}", helper.id())).unwrap_or_else(|e| e.to_string())
        };
        let (stat, stack) = (of("stat"), of("stack"));
        let _ = helper.kill();
        let can_be_killed = ended_within(&mut helper, LIMIT)?;
        bail!("it does not end (killed: {can_be_killed}); its state is {stat}, its stack\n{stack}");
    }
    let output = helper.wait_with_output().context("failed to wait for a process")?;
    match output.status.code() {
        Some(0) => Ok(Effect::Made),
        Some(NOT_THERE) => Ok(Effect::NotThere),
        _ => bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// What the helper ends with if there is no such call.
const NOT_THERE: i32 = 77;

/// `use-both`: makes a call that uses the image and a file of it that is not in memory.
pub(crate) fn helper(call: &OsStr, image: &Path, file: &Path, length: &OsStr) -> Result<()> {
    let length: u64 = length.to_str().and_then(|text| text.parse().ok()).context("no length")?;
    let call = call.to_str().context("no call")?;
    let flags = if call.ends_with("-direct") { libc::O_DIRECT } else { 0 };
    let image = match File::options().read(true).write(true).custom_flags(flags).open(image) {
        // Not every filesystem knows O_DIRECT.
        Err(error) if flags != 0 && error.raw_os_error() == Some(libc::EINVAL) => {
            std::process::exit(NOT_THERE)
        }
        image => image.context("failed to open the image")?,
    };
    let file = File::open(file).context("failed to open the file")?;
    let size = file.metadata().context("failed to look at the file")?.size() as usize;
    let source = Mapping::new(&file, size).context("failed to map the file")?;
    ensure!(source.resident().context("mincore failed")? == 0, "the file is in memory: this proves nothing");
    let page = |number: usize| {
        // Far from each other, so that each of them is fetched.
        let place = (size / 4 * number) / PAGE * PAGE;
        source.bytes().get(place..place + PAGE).context("the file is too short")
    };
    let end = length.next_multiple_of(PAGE as u64);
    match call {
        "write" | "write-direct" => {
            let written = image.write_at(page(1)?, end).context("failed to write")?;
            ensure!(written == PAGE, "{written} bytes were written");
            let mut back = vec![0; PAGE];
            if image.read_at(&mut back, end).is_ok_and(|read| read == PAGE) {
                ensure!(back == page(1)?, "other bytes were written");
            }
        }
        "pwritev" => {
            let parts = [IoSlice::new(page(0)?), IoSlice::new(page(1)?), IoSlice::new(page(2)?)];
            let written = rustix::io::pwritev(&image, &parts, length).context("failed to write")?;
            ensure!(written == 3 * PAGE, "{written} bytes were written");
        }
        "read" | "read-direct" => {
            drop(source);
            let mapping = WritableMapping::private(&file, size).context("failed to map the file")?;
            // The second page of the image is metadata, which the driver has read; farther on are chunks.
            for (place, offset) in [(0, PAGE), (size / 2 / PAGE * PAGE, PAGE * 8)] {
                let read = mapping.fill(place, PAGE, &image, offset as i64).context("failed to read")?;
                ensure!(read == PAGE, "{read} bytes were read");
            }
        }
        _ => bail!("no such call"),
    }
    Ok(())
}

/// A thread clones the image over and over, while a process reads everything in it, and others read the image into
/// memory that is mapped from it: a lock that is taken twice for reading waits for itself when a cloner stands in
/// between.
pub(super) fn cloned(plan: &Plan, kind: Kind) -> Result<String> {
    const ROUNDS: usize = 10;
    let store = Store::lay(plan, kind)?;
    let mount = Mount::image(store.image(), Path::new(TARGET), "").context("failed to mount the image")?;
    let image = File::open(store.image()).context("failed to open the image")?;
    let file = longest(plan)?.below(mount.path());
    let length = image.metadata().context("failed to look at the image")?.len();
    let clone = store.image().with_extension("clone");
    let clone_file = File::create(&clone).context("failed to create a file")?;
    let (done, manifest) = (AtomicBool::new(false), on_disk(&plan.small.manifest));
    let clones = std::thread::scope(|scope| -> Result<usize> {
        let cloner = scope.spawn(|| -> Result<usize> {
            let mut clones = 0;
            while !done.load(Ordering::Relaxed) {
                // Else there would be nothing left to do.
                clone_file.set_len(0).context("failed to cut a file")?;
                rustix::fs::ioctl_ficlone(&clone_file, &image).context("failed to clone the image")?;
                clones += 1;
            }
            Ok(clones)
        });
        let read = (0..ROUNDS).try_for_each(|round| {
            drop_caches()?;
            one("read", store.image(), &file, length).with_context(|| format!("in round {round}"))?;
            Ok(())
        });
        let read = read.and_then(|()| read_once(&manifest, mount.path()));
        done.store(true, Ordering::Relaxed);
        let clones = cloner.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        read?;
        clones
    })?;
    ensure!(clones > ROUNDS, "{clones} clones were made");
    drop((image, clone_file));
    std::fs::remove_file(&clone).context("failed to remove the clone")?;
    mount.unmount()?;
    store.close()?;
    Ok(format!("{clones} clones"))
}

/// An image on the lower layer of an overlay is changed, so that overlayfs copies it to the upper one: the mount goes on
/// reading what it has read, and the copy can be mounted, too.
pub(super) fn copied_up(plan: &Plan) -> Result<String> {
    let lower = Mount::new(Path::new("tmpfs"), Path::new("/mnt/lower"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    // Not a name that an upper layer on that disk has already.
    let name = "moved.tess";
    place::copy(plan, lower.path(), name)?;
    let disk = place::mount_disk("ext4", place::disk("ext4")?, MountFlags::empty())?;
    let overlay = Mount::overlay(lower.path(), disk.path(), Path::new("/mnt/overlay"), "")?;
    let image = overlay.path().join(name);
    let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
    let file = File::options().write(true).open(&image).context("failed to open the image")?;
    ensure!(disk.path().join("upper").join(name).exists(), "the image is not copied up");
    // Nothing of the copy is any good.
    file.write_all_at(&[0; PAGE], 0).context("failed to write")?;
    drop(file);
    drop_caches()?;
    let expected = Manifest::load(&on_disk(&plan.small.manifest))?;
    expected.expect_equal(&tree::scan(mount.path(), 2).context("from the lower layer")?)?;
    mount.unmount()?;
    let copy = Mount::image(&image, Path::new(TARGET), "");
    ensure!(copy.is_err(), "a copy without its first page is mounted");
    std::fs::remove_file(&image).context("failed to remove the image")?;
    overlay.unmount()?;
    disk.unmount()?;
    lower.unmount()?;
    Ok(String::new())
}

/// A process reads everything.
fn read_once(manifest: &Path, root: &Path) -> Result<()> {
    drop_caches()?;
    let mut reader = Command::new("/proc/self/exe");
    reader.arg("read").arg(manifest).arg(root).arg("0");
    let mut reader = reader.spawn().context("failed to start a reader")?;
    if !ended_within(&mut reader, LIMIT)? {
        let stack = std::fs::read_to_string(format!("/proc/{}/stack", reader.id())).unwrap_or_default();
        let _ = reader.kill();
        bail!("a reader does not end:\n{stack}");
    }
    ensure!(reader.wait().context("failed to wait for a reader")?.success(), "a reader failed");
    Ok(())
}
