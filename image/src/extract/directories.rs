// SPDX-License-Identifier: GPL-2.0-or-later

//! The directories that are open while a tree is extracted.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::Extractor;
use crate::error::Error;

/// Directories that are kept open.
const OPEN_DIRECTORIES: usize = 128;

/// Those of them that are at the end of a way.
const NEAR: usize = OPEN_DIRECTORIES / 2;

/// Open directories, by inode number.
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    open: HashMap<u32, Arc<OwnedFd>>,
    order: VecDeque<u32>,
    /// How many were opened: of a deep tree the cost.
    pub(super) opened: u64,
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), open: HashMap::new(), order: VecDeque::new(), opened: 0 }
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
            if at == self.scope.top() {
                break directories.root.clone();
            }
            if let Some(fd) = directories.open.get(&at) {
                break fd.clone();
            }
            let Some((parent, n)) = self.scope.first_name(at) else {
                return Err(Error::Refused(format!("directory {at} has no name")));
            };
            missing.push((at, parent, n));
            at = parent.ino;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Of a long way those are kept that are near, and some between, which the next one to be opened is near to: the way
        // from the root is gone once for each of these, and not for each directory.
        let (far, step) = (missing.len().saturating_sub(NEAR), missing.len() / (OPEN_DIRECTORIES - NEAR) + 1);
        for (at, (ino, parent, n)) in missing.into_iter().rev().enumerate() {
            let opened = rustix::fs::openat(&fd, self.name(&parent, n)?, flags, Mode::empty())
                .map_err(self.fail("open directory", ino))?;
            fd = Arc::new(opened);
            directories.opened += 1;
            if at >= far || at % step == 0 {
                directories.keep(ino, fd.clone());
            }
        }
        Ok(fd)
    }

    /// Closes a directory that nothing more happens in, so that it takes no place from those that are still wanted.
    pub(super) fn forget(&self, ino: u32) {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if directories.open.remove(&ino).is_some() {
            directories.order.retain(|kept| *kept != ino);
        }
    }
}
