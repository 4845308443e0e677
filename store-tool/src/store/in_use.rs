// SPDX-License-Identifier: GPL-2.0-or-later

//! Which images are mounted, by anybody: what the kernel driver tells of all of its mounts, what mountinfo tells of those in the mount
//! namespaces of processes, and locks, which the daemons of mounts by FUSE hold wherever they live.
//!
//! An image counts as in use where this cannot be told.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use tesserafs_format::Digest;
use tesserafs_image::text;

use super::Store;
use crate::kernel;
use crate::mountinfo::{self, Mount, BY_FUSE, BY_KERNEL};

/// Where the system tells what is mounted.
#[derive(Clone, Debug)]
pub struct Places {
    /// The counters of the kernel driver.
    pub driver: PathBuf,
    /// The processes.
    pub processes: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { driver: "/sys/fs/tesserafs".into(), processes: "/proc".into() }
    }
}

/// A mount of an image file of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedAt {
    /// The directory.
    pub dir: PathBuf,
    /// Another mount namespace than that of this process, by the number of a process in it: there the directory is.
    pub process: Option<String>,
}

impl fmt::Display for MountedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::path(&self.dir))?;
        match &self.process {
            Some(process) => write!(f, " (seen by process {})", text::escape(process.as_bytes())),
            None => Ok(()),
        }
    }
}

/// The mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct InUse {
    /// By the kernel driver.
    image_ids: HashSet<Digest>,
    /// By the last name of the image file's path.
    mounts: Vec<(Digest, MountedAt)>,
    /// Why there may be more.
    unknown: Option<String>,
}

impl InUse {
    /// Looks what is mounted.
    pub(crate) fn look(places: &Places) -> Self {
        let mut found = Self::default();
        found.unknown = found.look_at_driver(&places.driver).err();
        found.look_at_processes(&places.processes);
        found
    }

    /// Why images may be mounted that are not known to be.
    pub(crate) fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// Where an image file is mounted, as far as there are processes that see it.
    pub(crate) fn mounts(&self, image: &Digest) -> impl Iterator<Item = &MountedAt> {
        let image = *image;
        self.mounts.iter().filter(move |(mounted, _)| *mounted == image).map(|(_, at)| at)
    }

    /// Whether the image with this ID may be mounted from this file of the store.
    pub(crate) fn has(&self, store: &Store, image: &Digest, image_id: &Digest) -> bool {
        self.unknown.is_some() || self.image_ids.contains(image_id) || self.has_file(store, image)
    }

    /// The same, of a file that is no image any more, if it ever was one.
    pub(crate) fn has_file(&self, store: &Store, image: &Digest) -> bool {
        self.mounts(image).next().is_some() || is_locked(store, image)
    }

    /// Reads the IDs of all images that the driver has mounted.
    fn look_at_driver(&mut self, dir: &Path) -> Result<(), String> {
        let shown = |path: &Path, error: &io::Error| format!("{}: {error}", text::path(path));
        let mounts = match fs::read_dir(dir) {
            Ok(mounts) => mounts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if kernel::is_loaded() {
                    return Err(format!("the kernel driver is loaded, but {} is not there", text::path(dir)));
                }
                return Ok(());
            }
            Err(error) => return Err(shown(dir, &error)),
        };
        for mount in mounts {
            let path = mount.map_err(|error| shown(dir, &error))?.path().join("image_id");
            let id = match fs::read(&path) {
                Ok(id) => id,
                // Unmounted since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(shown(&path, &error)),
            };
            let hex = id.trim_ascii();
            let id = Digest::from_hex(hex.strip_prefix(b"sha256:").unwrap_or(hex));
            let no_id =
                || format!("{}: found {}, expected an image ID", text::path(&path), text::escape(hex));
            self.image_ids.insert(id.ok_or_else(no_id)?);
        }
        Ok(())
    }

    /// Reads the mounts of all mount namespaces in which there is a process that this one may look at. It adds to what the driver and
    /// locks tell, so it may see less.
    fn look_at_processes(&mut self, dir: &Path) {
        let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
        let own = namespace(&dir.join("self"));
        let mut seen = HashSet::new();
        let others = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let others = others.filter(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        for name in [OsStr::new("self").to_owned()].into_iter().chain(others) {
            let process = dir.join(&name);
            let Some(namespace) = namespace(&process) else { continue };
            if !seen.insert(namespace.clone()) {
                continue;
            }
            let Ok(mounts) = mountinfo::of(&process.join("mountinfo")) else { continue };
            let is_own = own.as_ref() == Some(&namespace);
            let process = (!is_own).then(|| name.to_string_lossy().into_owned());
            self.mounts.extend(mounts.into_iter().filter_map(|mount| mounted(mount, process.as_ref())));
        }
    }
}

/// The image file of a mount, if it has the name of one of a store. The path before that may be another one in another namespace.
fn mounted(mount: Mount, process: Option<&String>) -> Option<(Digest, MountedAt)> {
    if mount.kind != BY_KERNEL && mount.kind != BY_FUSE {
        return None;
    }
    let name = Path::new(&mount.source).file_name()?;
    let image = Digest::from_hex(name.as_encoded_bytes())?;
    Some((image, MountedAt { dir: mount.dir, process: process.cloned() }))
}

/// Whether somebody holds a lock of an image file, as a daemon does that serves it. Where that cannot be told, somebody may.
fn is_locked(store: &Store, image: &Digest) -> bool {
    match store.blobs.file(image.to_string(), OFlags::RDONLY) {
        // The lock, if there was none, ends here.
        Ok(Some(file)) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err(),
        Ok(None) => false,
        Err(_) => true,
    }
}
