// SPDX-License-Identifier: GPL-2.0
//! Mounts that end with their value, by system call and by util-linux.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::waits::SOON;

/// Where the data disk is mounted.
pub(crate) const DISK: &str = "/disk";

/// `mount(2)`.
pub(crate) fn mount(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Errno> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, target, kind, flags, options.as_c_str())
}

/// Something mounted on a folder that was made for it.
#[derive(Debug)]
pub(crate) struct Mount {
    target: PathBuf,
}

impl Mount {
    /// Mounts by system call, so that the errno is the kernel's own.
    pub(crate) fn new(
        source: &Path,
        target: &Path,
        kind: &str,
        flags: MountFlags,
        options: &str,
    ) -> Result<Self, Errno> {
        // A folder that cannot be made shows as the mount's own ENOENT.
        let _ = std::fs::create_dir_all(target);
        mount(source, target, kind, flags, options)?;
        Ok(Self { target: target.to_path_buf() })
    }

    /// The mount that is at `target` already, by other means.
    pub(crate) fn adopted(target: &Path) -> Self {
        Self { target: target.to_path_buf() }
    }

    /// Mounts an image by system call.
    pub(crate) fn image(image: &Path, target: &Path, options: &str) -> Result<Self, Errno> {
        Self::new(image, target, "tesserafs", MountFlags::empty(), options)
    }

    /// Mounts debugfs where it belongs.
    pub(crate) fn debugfs() -> Result<Self> {
        Self::new(Path::new("debugfs"), Path::new("/sys/kernel/debug"), "debugfs", MountFlags::empty(), "")
            .context("failed to mount debugfs")
    }

    /// Mounts as a user does: util-linux's program, with these arguments before source and target.
    pub(crate) fn by_program(arguments: &[&str], source: &Path, target: &Path) -> Result<Self> {
        std::fs::create_dir_all(target).with_context(|| format!("failed to create {}", target.display()))?;
        let output = Command::new("mount")
            .args(arguments)
            .arg(source)
            .arg(target)
            .output()
            .context("failed to start mount")?;
        if !output.status.success() {
            bail!(
                "`mount {} {} {}` ended with {}: {}",
                arguments.join(" "),
                source.display(),
                target.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(Self { target: target.to_path_buf() })
    }

    /// An overlay over `lower`, with its upper folder in `work`, and with more options, each after a comma.
    pub(crate) fn overlay(lower: &Path, work: &Path, target: &Path, more: &str) -> Result<Self> {
        let (upper, inner) = (work.join("upper"), work.join("work"));
        for folder in [&upper, &inner] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let (lower, upper, inner) = (lower.display(), upper.display(), inner.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={inner}{more}");
        Self::new(Path::new("overlay"), target, "overlay", MountFlags::empty(), &options)
            .with_context(|| format!("failed to mount an overlay with {options}"))
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts, and fails where that fails (on drop it would go unnoticed). The kernel's thread for huge pages may hold a file a little
    /// longer than the process that had it mapped, on any file system: that is waited for. A file that stays open is an error.
    pub(crate) fn unmount(self) -> Result<()> {
        let target = self.target.clone();
        std::mem::forget(self);
        let end = Instant::now() + SOON;
        loop {
            match rustix::mount::unmount(&target, UnmountFlags::empty()) {
                Err(Errno::BUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                result => return result.with_context(|| format!("failed to unmount {}", target.display())),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that failed half-way may hold files open: the mount goes away with the last of them.
        if rustix::mount::unmount(&self.target, UnmountFlags::DETACH).is_err() {
            eprintln!("init: {} stays mounted", self.target.display());
        }
    }
}

/// A file of the data disk.
pub(crate) fn on_disk(name: &str) -> PathBuf {
    Path::new(DISK).join(name)
}

/// Forgets everything in the page, dentry and inode caches that is not in use.
pub(crate) fn drop_caches() -> Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("failed to drop the caches")
}
