// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs umount`: of a mount by the kernel driver or by FUSE, whether its daemon lives or not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{unmount, UnmountFlags};
use tesserafs_image::text;

use crate::attach::FUSERMOUNT;
use crate::mountinfo::{self, BY_FUSE, BY_KERNEL};

/// A mount that is to go.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it is.
    pub dir: PathBuf,
    /// Whether it is only taken out of the tree now, and goes when nobody uses it any more.
    pub lazy: bool,
}

/// Unmounts the image at a directory. The error names the directory, and why not.
pub fn run(request: &Request) -> Result<(), String> {
    let dir = mountinfo::canonical(&request.dir)?;
    let shown = text::path(&dir);
    match mountinfo::at(&dir)? {
        None => Err(format!("{shown}: nothing is mounted there")),
        Some(mount) if mount.kind == BY_KERNEL || mount.kind == BY_FUSE => {
            unmount_at(&dir, request.lazy, mount.kind == BY_FUSE)
        }
        Some(mount) => {
            let kind = text::escape(mount.kind.as_bytes());
            Err(format!("{shown}: found a mount of type {kind}, expected {BY_KERNEL} or {BY_FUSE}"))
        }
    }
}

/// Unmounts what is mounted at `dir`, which is canonical.
pub(crate) fn unmount_at(dir: &Path, lazy: bool, by_fuse: bool) -> Result<(), String> {
    let shown = text::path(dir);
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazy {
        flags |= UnmountFlags::DETACH;
    }
    match unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) if by_fuse => by_fusermount(dir, lazy),
        Err(Errno::BUSY) => Err(busy(&shown)),
        Err(error) => Err(format!("{shown}: {}", std::io::Error::from(error))),
    }
}

fn busy(shown: &str) -> String {
    format!("{shown}: busy: a file of it is open, a process is in it or another mount is below it; --lazy takes it out of the tree now")
}

/// For users, who may unmount what they have mounted, and nothing else.
fn by_fusermount(dir: &Path, lazy: bool) -> Result<(), String> {
    let shown = text::path(dir);
    let mut command = Command::new(FUSERMOUNT);
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("{shown}: cannot run {FUSERMOUNT} (package fuse3): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(busy(&shown));
    }
    Err(format!("{shown}: {}", text::escape(said.trim().as_bytes())))
}
