// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs umount`: of a mount by the kernel driver or by FUSE, whether its daemon lives or not.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{unmount, UnmountFlags};
use tesserafs_image::text;

use crate::attach::{open_dir, FUSERMOUNT};
use crate::mountinfo::{self, Seen, BY_FUSE, BY_KERNEL};

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
    let Seen { dir, mount } = mountinfo::seen(&request.dir)?;
    let shown = text::path(&dir);
    match mount {
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
    let place = Place::of(dir).map_err(|error| format!("{shown}: {error}"))?;
    match unmount(place.path(), flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) if by_fuse => by_fusermount(dir, lazy),
        Err(Errno::BUSY) => Err(busy(&shown)),
        Err(error) => Err(format!("{shown}: {}", io::Error::from(error))),
    }
}

/// A name in an open directory, which stays what it is where its path leads elsewhere by now.
struct Place {
    /// `None` of the root.
    parent: Option<OwnedFd>,
    name: PathBuf,
}

impl Place {
    fn of(dir: &Path) -> io::Result<Self> {
        let Some((parent, name)) = dir.parent().zip(dir.file_name()) else {
            return Ok(Self { parent: None, name: dir.to_owned() });
        };
        Ok(Self { parent: Some(open_dir(parent)?), name: name.into() })
    }

    fn path(&self) -> PathBuf {
        match &self.parent {
            Some(parent) => Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(&self.name),
            None => self.name.clone(),
        }
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
