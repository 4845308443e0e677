// SPDX-License-Identifier: GPL-2.0
//! A device that answers nothing for a while, under the filesystem that an image lies on: who reads from it can be
//! killed, and those who read the same bytes from another device are not kept waiting.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{ensure, Context, Result};
use rustix::fs::Advice;
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Entry;
use tesserafs_guest::plan::Plan;

use super::place::{copy, disk, mount_disk};
use crate::backing::{drain, ended_within};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::{longest, read};
use crate::suite::Suite;
use crate::sys::{mapper, Mapping};
use crate::waits::{A_WHILE, SOON};

const NAME: &str = "suspended";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("a-reader-of-a-suspended-device-can-be-killed", || killed(plan));
    suite.test("pages-are-shared-on-one-device-only", || shared(plan));
    suite.test("a-suspended-device-stops-no-reader-of-another", || elsewhere(plan));
}

/// A device that can be suspended, with ext4 and an image on it.
struct Device {
    below: Mount,
}

impl Device {
    fn new(plan: &Plan) -> Result<Self> {
        let disk = disk("ext4")?;
        let name = disk.file_name().context("a device without a name")?;
        let size = Path::new("/sys/block").join(name).join("size");
        let sectors = std::fs::read_to_string(size).context("failed to read the size of the disk")?;
        let sectors = sectors.trim().parse().context("the size of the disk is no number")?;
        // One that a failed test has left.
        let _ = mapper::remove(NAME);
        let device = mapper::linear(NAME, sectors, disk).context("failed to make a device")?;
        let below = mount_disk("ext4", &device, MountFlags::empty())?;
        copy(plan, below.path(), "image.tess")?;
        Ok(Self { below })
    }

    fn mount(&self, target: &str) -> Result<Mount> {
        Mount::image(&self.below.path().join("image.tess"), Path::new(target), "")
            .context("failed to mount the image")
    }

    /// Does something while it is suspended.
    fn suspended<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        mapper::suspend(NAME, true).context("failed to suspend the device")?;
        let result = work();
        mapper::suspend(NAME, false).context("failed to resume the device")?;
        result
    }

    fn remove(self) -> Result<()> {
        self.below.unmount()?;
        mapper::remove(NAME).context("failed to remove the device")
    }
}

/// Two processes that read a file, one by a mapping; they wait.
fn readers(entry: &Entry, root: &Path) -> Result<Vec<(&'static str, Child)>> {
    let path = entry.below(root);
    let mapper = Command::new("/proc/self/exe")
        .arg("touch-mapped")
        .arg(&path)
        // Not where the other one begins.
        .arg((entry.size / 2).to_string())
        .spawn()
        .context("failed to start a reader")?;
    let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
    Ok(vec![("one that reads", drain(file)?), ("one that has it mapped", mapper)])
}

/// Reads a file, and lets all of it go but the metadata: a task that waits for metadata that another one reads
/// cannot be killed before that one is.
fn opened(device: &Device, entry: &Entry, root: &Path) -> Result<File> {
    let file = File::open(entry.below(root)).context("failed to open the file")?;
    read(entry, root)?;
    let image = File::open(device.below.path().join("image.tess")).context("failed to open the image")?;
    for file in [&file, &image] {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).context("failed to drop the pages of a file")?;
    }
    // The chunks that the driver keeps.
    std::fs::write("/proc/sys/vm/drop_caches", "2").context("failed to drop the caches")?;
    Ok(file)
}

fn killed(plan: &Plan) -> Result<String> {
    let device = Device::new(plan)?;
    let mount = device.mount("/mnt/image")?;
    let entry = longest(plan)?;
    let file = opened(&device, &entry, mount.path())?;
    device.suspended(|| {
        for (which, mut reader) in readers(&entry, mount.path())? {
            ensure!(!ended_within(&mut reader, A_WHILE)?, "{which} ended: this proves nothing");
            reader.kill().context("failed to kill a reader")?;
            let ended = ended_within(&mut reader, SOON)?;
            let stack = std::fs::read_to_string(format!("/proc/{}/stack", reader.id())).unwrap_or_default();
            ensure!(ended, "{which} is killed and does not end:\n{stack}");
            let status = reader.wait().context("failed to wait for a reader")?;
            ensure!(status.signal() == Some(libc::SIGKILL), "{which} ended with {status}");
        }
        Ok(())
    })?;
    read(&entry, mount.path()).context("when the device is resumed")?;
    drop(file);
    mount.unmount()?;
    device.remove()?;
    Ok(String::new())
}

/// How many pages of a file are in memory.
fn resident(entry: &Entry, root: &Path) -> Result<usize> {
    let file = File::open(entry.below(root)).context("failed to open the file")?;
    let mapping = Mapping::new(&file, entry.size as usize).context("failed to map the file")?;
    mapping.resident().context("mincore failed")
}

fn shared(plan: &Plan) -> Result<String> {
    let device = Device::new(plan)?;
    let second = copy(plan, device.below.path(), "second.tess")?;
    let entry = longest(plan)?;
    let one = device.mount("/mnt/one")?;
    let same =
        Mount::image(&second, Path::new("/mnt/same"), "").context("failed to mount the second image")?;
    let other = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/other"), "");
    let other = other.context("failed to mount the image of another device")?;
    drop_caches()?;
    read(&entry, one.path())?;
    let pages = entry.size.div_ceil(4096) as usize;
    let (there, elsewhere) = (resident(&entry, same.path())?, resident(&entry, other.path())?);
    ensure!(there == pages, "two images of one filesystem share {there} of {pages} pages");
    ensure!(elsewhere == 0, "two images of two devices share {elsewhere} pages");
    for mount in [one, same, other] {
        mount.unmount()?;
    }
    device.remove()?;
    Ok(format!("{pages} pages"))
}

fn elsewhere(plan: &Plan) -> Result<String> {
    let device = Device::new(plan)?;
    let mount = device.mount("/mnt/image")?;
    let other = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/other"), "");
    let other = other.context("failed to mount the image of another device")?;
    let entry = longest(plan)?;
    let file = opened(&device, &entry, mount.path())?;
    device.suspended(|| {
        let mut waiting = readers(&entry, mount.path())?;
        for (which, reader) in &mut waiting {
            ensure!(!ended_within(reader, A_WHILE)?, "{which} ended: this proves nothing");
        }
        let path = entry.below(other.path());
        let mut unaffected = drain(File::open(path).context("failed to open the file of the other image")?)?;
        let ended = ended_within(&mut unaffected, SOON)?;
        let stack = std::fs::read_to_string(format!("/proc/{}/stack", unaffected.id())).unwrap_or_default();
        for (_, reader) in &mut waiting {
            reader.kill().context("failed to kill a reader")?;
        }
        if !ended {
            unaffected.kill().context("failed to kill a reader")?;
        }
        ensure!(ended, "a reader waits for a device that it does not read from:\n{stack}");
        ensure!(unaffected.wait().context("failed to wait for a reader")?.success(), "the reader failed");
        for (_, mut reader) in waiting {
            reader.wait().context("failed to wait for a reader")?;
        }
        Ok(())
    })?;
    read(&entry, other.path())?;
    drop(file);
    other.unmount()?;
    mount.unmount()?;
    device.remove()?;
    Ok(String::new())
}
