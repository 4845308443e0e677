// SPDX-License-Identifier: GPL-2.0-or-later

//! The directories of a tree: where each is, and how what lies in it is opened, beneath the root and through no symlink.
//!
//! A directory is remembered by its parent and its name. A path is put together only to be shown, matched or given to the
//! kernel, which takes 4095 bytes of it. Below that depth the descriptor of the directory is kept for a while: otherwise each
//! directory in directories without end would be reached from the root, in a time that is the square of their number.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{openat, openat2, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::source::join;

/// The root among the directories.
pub(super) const ROOT: u32 = 0;

/// Bytes of a path that a system call takes, less the NUL.
const PATH_MAX: usize = 4095;

/// Directories below that depth whose descriptors are kept.
const KEPT: usize = 128;

/// How a directory is reached on the way to something else.
const STEP: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY);

/// Where a directory is.
#[derive(Debug)]
struct Place {
    parent: u32,
    name: Box<[u8]>,
    /// Bytes of its path.
    path_len: usize,
}

/// The directories of a tree.
#[derive(Debug)]
pub(super) struct Directories {
    root: OwnedFd,
    places: RwLock<Vec<Place>>,
    kept: Mutex<Kept>,
}

/// Descriptors of directories, each with the time at which it was wanted last.
#[derive(Debug, Default)]
struct Kept {
    descriptors: HashMap<u32, (Arc<OwnedFd>, u64)>,
    time: u64,
}

impl Kept {
    fn get(&mut self, dir: u32) -> Option<Arc<OwnedFd>> {
        self.time += 1;
        let (descriptor, used) = self.descriptors.get_mut(&dir)?;
        *used = self.time;
        Some(descriptor.clone())
    }

    fn put(&mut self, dir: u32, descriptor: Arc<OwnedFd>) {
        if self.descriptors.len() >= KEPT {
            let oldest = self.descriptors.iter().min_by_key(|(_, (_, used))| *used).map(|(dir, _)| *dir);
            oldest.and_then(|dir| self.descriptors.remove(&dir));
        }
        self.time += 1;
        self.descriptors.insert(dir, (descriptor, self.time));
    }
}

impl Directories {
    /// A tree with nothing but its root.
    pub(super) fn new(root: OwnedFd) -> Self {
        let place = Place { parent: ROOT, name: Box::default(), path_len: 0 };
        Self { root, places: RwLock::new(vec![place]), kept: Mutex::default() }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Adds a directory; its number.
    pub(super) fn add(&self, parent: u32, name: &[u8]) -> u32 {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let above = places.get(parent as usize).map_or(0, |place| place.path_len);
        let path_len = above + usize::from(above > 0) + name.len();
        places.push(Place { parent, name: name.into(), path_len });
        // There are fewer directories than inodes, whose numbers have 32 bits.
        (places.len() - 1) as u32
    }

    /// The names from the root to a directory; the root has none.
    fn names(&self, mut dir: u32) -> Vec<(u32, Box<[u8]>)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = Vec::new();
        while let Some(place) = places.get(dir as usize).filter(|_| dir != ROOT) {
            names.push((dir, place.name.clone()));
            dir = place.parent;
        }
        names.reverse();
        names
    }

    /// The path of a directory beneath the root; the root's is empty.
    pub(super) fn path(&self, dir: u32) -> Vec<u8> {
        let names = self.names(dir);
        names.iter().map(|(_, name)| &**name).collect::<Vec<_>>().join(&b'/')
    }

    fn path_len(&self, dir: u32) -> usize {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(dir as usize).map_or(0, |place| place.path_len)
    }

    /// Opens a name in a directory.
    pub(super) fn open(&self, dir: u32, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if self.path_len(dir) + 1 + name.len() <= PATH_MAX {
            return self.open_path(&join(&self.path(dir), name), flags);
        }
        let parent = self.descriptor(dir)?;
        own(flags, |flags| openat(&parent, name, flags, Mode::empty()))
    }

    /// Opens a directory.
    pub(super) fn open_directory(&self, dir: u32, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if self.path_len(dir) <= PATH_MAX {
            return self.open_path(&self.path(dir), flags | OFlags::DIRECTORY);
        }
        let this = self.descriptor(dir)?;
        own(flags | OFlags::DIRECTORY, |flags| openat(&this, c".", flags, Mode::empty()))
    }

    /// A descriptor of a directory whose path is too long: its parent's is known, as a rule.
    fn descriptor(&self, dir: u32) -> rustix::io::Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut at = dir;
        let mut descriptor = loop {
            if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
                break kept;
            }
            if self.path_len(at) <= PATH_MAX {
                break Arc::new(self.open_path(&self.path(at), STEP)?);
            }
            below.push(at);
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            at = places.get(at as usize).map_or(ROOT, |place| place.parent);
        };
        while let Some(next) = below.pop() {
            let name = {
                let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
                places.get(next as usize).map(|place| place.name.clone()).unwrap_or_default()
            };
            descriptor = Arc::new(openat(&descriptor, &*name, STEP, Mode::empty())?);
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(next, descriptor.clone());
        }
        Ok(descriptor)
    }

    /// Opens a path of at most [`PATH_MAX`] bytes beneath the root.
    fn open_path(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        own(flags, |flags| match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            // A kernel or sandbox without openat2: one directory after the other.
            Err(Errno::NOSYS | Errno::PERM) => self.open_stepwise(name, flags),
            other => other,
        })
    }

    fn open_stepwise(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let dir = at.as_ref().unwrap_or(&self.root).as_fd();
            let Some(slash) = rest.iter().position(|byte| *byte == b'/') else {
                return openat(dir, rest, flags, Mode::empty());
            };
            let next = openat(dir, &rest[..slash], STEP, Mode::empty())?;
            at = Some(next);
            rest = &rest[slash + 1..];
        }
    }
}

/// Opens without a new atime, which only the owner of a file may, or else as anybody.
fn own(flags: OFlags, open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    if flags.contains(OFlags::PATH) {
        return open(flags);
    }
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}
