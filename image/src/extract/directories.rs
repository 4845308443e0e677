// SPDX-License-Identifier: GPL-2.0-or-later

//! The directories that are open while a tree is extracted.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, OFlags};
use tesserafs_format::Ino;

use super::Extractor;
use crate::error::Error;

/// Directories that are kept open.
const OPEN_DIRECTORIES: usize = 128;

/// Open directories, by inode number.
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    open: HashMap<u32, Arc<OwnedFd>>,
    order: VecDeque<u32>,
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), open: HashMap::new(), order: VecDeque::new() }
    }

    fn keep(&mut self, ino: u32, fd: Arc<OwnedFd>) {
        if self.order.len() == OPEN_DIRECTORIES {
            if let Some(oldest) = self.order.pop_front() {
                self.open.remove(&oldest);
            }
        }
        if self.open.insert(ino, fd).is_none() {
            self.order.push_back(ino);
        }
    }
}

impl Extractor<'_> {
    /// The descriptor of a directory that was created, opened from the root name by name where it is not open.
    pub(super) fn directory(&self, ino: u32) -> Result<Arc<OwnedFd>, Error> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        let mut at = ino;
        let mut fd = loop {
            if at == Ino::ROOT.get() {
                break directories.root.clone();
            }
            if let Some(fd) = directories.open.get(&at) {
                break fd.clone();
            }
            let Some((parent, n)) = self.tree.first_name(at) else {
                return Err(Error::Refused(format!("directory {at} has no name")));
            };
            missing.push((at, parent, n));
            at = parent.ino;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (ino, parent, n) in missing.into_iter().rev() {
            let opened = rustix::fs::openat(&fd, self.name(parent, n)?, flags, Mode::empty())
                .map_err(self.fail("open directory", ino))?;
            fd = Arc::new(opened);
            directories.keep(ino, fd.clone());
        }
        Ok(fd)
    }
}
