// SPDX-License-Identifier: GPL-2.0-or-later

//! The identity of a file, and the times and sizes that change when it does.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustix::fs::Stat;
use tesserafs_format::Timestamp;

use crate::tree::Xattrs;

/// A file as the walk met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    pub(super) mtime: Timestamp,
    ctime: Timestamp,
    /// A hash of its xattrs; 0 for none.
    xattrs: u64,
}

impl Stamp {
    pub(super) fn of(stat: &Stat, xattrs: &Xattrs) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: Timestamp { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 },
            ctime: Timestamp { sec: stat.st_ctime, nsec: stat.st_ctime_nsec as u32 },
            xattrs: hash(xattrs),
        }
    }

    /// Device and inode number.
    pub(super) fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Something of what is stored that is different now, as far as stat tells.
    pub(super) fn difference(&self, now: &Stat) -> Option<&'static str> {
        let now = Self { xattrs: self.xattrs, ..Self::of(now, &Vec::new()) };
        if (self.dev, self.ino, self.mode & 0o170_000) != (now.dev, now.ino, now.mode & 0o170_000) {
            return Some("another file took its place");
        }
        if self.size != now.size {
            return Some("its size is different");
        }
        if self.mtime != now.mtime {
            return Some("its mtime is different");
        }
        if self.mode != now.mode {
            return Some("its permission bits are different");
        }
        ((self.uid, self.gid) != (now.uid, now.gid)).then_some("its owner is different")
    }

    /// Whether the ctime moved: of a name more or less, which is nothing, or of xattrs or bytes that are different now.
    pub(super) fn is_in_doubt(&self, now: &Stat) -> bool {
        self.ctime != Self::of(now, &Vec::new()).ctime
    }

    pub(super) fn has_xattrs(&self, xattrs: &Xattrs) -> bool {
        self.xattrs == hash(xattrs)
    }
}

fn hash(xattrs: &Xattrs) -> u64 {
    if xattrs.is_empty() {
        return 0;
    }
    // The order is that of the filesystem, which may change.
    let mut sorted: Vec<_> = xattrs.iter().collect();
    sorted.sort();
    let mut hasher = DefaultHasher::new();
    sorted.hash(&mut hasher);
    hasher.finish().max(1)
}
