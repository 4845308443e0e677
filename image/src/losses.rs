// SPDX-License-Identifier: GPL-2.0-or-later

//! The parts of a tree that could not be restored: counted, and named as far as anybody will read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Losses of one kind that are kept; the rest is counted.
pub const KEPT_PER_KIND: usize = 64;

/// The kind of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A name, with the file where it was the only one.
    File,
    /// An owner, and with it the set-user-ID and set-group-ID bits.
    Owner,
    /// An xattr.
    Xattr,
    /// A mode.
    Mode,
    /// A modification time.
    Time,
}

impl Kind {
    /// The word in a machine report.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Owner => "owner",
            Kind::Xattr => "xattr",
            Kind::Mode => "mode",
            Kind::Time => "time",
        }
    }

    /// Whether one of them is one thing in words, and not one of several of a file.
    pub const fn is_counted_alone(self) -> bool {
        matches!(self, Kind::File | Kind::Xattr)
    }

    /// So many of them in words: `the owners of 3 files`.
    pub fn counted(self, count: u64) -> String {
        let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        match self {
            Kind::File => files,
            Kind::Owner => format!("the owners, and set-user-ID and set-group-ID bits, of {files}"),
            Kind::Xattr if count == 1 => "1 xattr".to_owned(),
            Kind::Xattr => format!("{count} xattrs"),
            Kind::Mode => format!("the modes of {files}"),
            Kind::Time => format!("the modification times of {files}"),
        }
    }
}

/// Something that was not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The kind of the loss.
    pub kind: Kind,
    /// Which one: the name of an xattr, an owner as `UID:GID`, a mode, a time; nothing of a file.
    pub what: String,
    /// The file, from the root of the image.
    pub path: String,
    /// Why.
    pub why: String,
    /// Only a privilege was lacking: the same process with more rights would have restored it.
    pub by_privilege: bool,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::File => write!(f, "{}", self.path)?,
            kind => write!(f, "{} {} of {}", kind.name(), self.what, self.path)?,
        }
        write!(f, ": {}", self.why)
    }
}

/// Collects losses from all threads.
#[derive(Debug, Default)]
pub struct Losses {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Vec<Loss>,
    /// By kind, and whether only a privilege was lacking.
    counts: BTreeMap<(Kind, bool), u64>,
}

impl Losses {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a loss; `name` says which one it was where there is still room for it.
    pub fn add(&self, kind: Kind, by_privilege: bool, name: impl FnOnce() -> (String, String, String)) {
        let is_kept = {
            let count = &mut *self.lock();
            let count = count.counts.entry((kind, by_privilege)).or_default();
            *count += 1;
            *count <= KEPT_PER_KIND as u64
        };
        if is_kept {
            // Not under the lock: a path takes reads of the image.
            let (what, path, why) = name();
            self.lock().kept.push(Loss { kind, what, path, why, by_privilege });
        }
    }

    /// How many of each kind there are, and whether only a privilege was lacking.
    pub fn counts(&self) -> BTreeMap<(Kind, bool), u64> {
        self.lock().counts.clone()
    }

    /// The losses that were kept, in the order of kinds and paths.
    pub fn kept(&self) -> Vec<Loss> {
        let mut kept = self.lock().kept.clone();
        kept.sort_by(|a, b| (a.kind, &a.path, &a.what).cmp(&(b.kind, &b.path, &b.what)));
        kept
    }

    /// Whether nothing was lost; with `privileges` those count that only a privilege was lacking for.
    pub fn is_empty(&self, privileges: bool) -> bool {
        !self.lock().counts.keys().any(|(_, by_privilege)| privileges || !by_privilege)
    }
}
