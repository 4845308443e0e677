// SPDX-License-Identifier: GPL-2.0-or-later

//! The lock of the store: shared by all who use it, exclusive for those who take something away.
//!
//! A process that only reads what a reference names, or adds something, is a user. So nothing that a user has found disappears while the user
//! has the lock; afterwards a mount is what keeps it.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::AsFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tesserafs_image::{Cancel, Error};

use super::dir::{failed, refuse, Dir};
use super::images::Image;
use super::Store;

/// The name of its file.
pub(super) const LOCK: &str = "lock";

/// The time between two looks whether a lock is to be had.
const PAUSE: Duration = Duration::from_millis(50);

/// The right to read the store and to add to it.
#[derive(Debug)]
pub struct Using<'a> {
    store: &'a Store,
    /// `None` on a read-only filesystem without it, where nobody collects anything.
    _lock: Option<File>,
}

/// The right to remove: nobody else uses the store.
#[derive(Debug)]
pub struct Collecting<'a> {
    using: Using<'a>,
}

impl Store {
    /// Begins to use the store. `waits` is called once if somebody collects garbage, for which this waits.
    pub fn use_it(&self, cancel: &Cancel, waits: &mut dyn FnMut()) -> Result<Using<'_>, Error> {
        let lock = self.open_lock()?;
        if let Some(lock) = &lock {
            wait_for(lock, &self.root.join(LOCK), FlockOperation::NonBlockingLockShared, cancel, waits)?;
        }
        Ok(Using { store: self, _lock: lock })
    }

    /// Waits until nobody uses the store, and keeps others from it. `waits` is called once if somebody does.
    pub fn collect(&self, cancel: &Cancel, waits: &mut dyn FnMut()) -> Result<Collecting<'_>, Error> {
        let lock = self.writable_lock()?;
        wait_for(&lock, &self.root.join(LOCK), FlockOperation::NonBlockingLockExclusive, cancel, waits)?;
        Ok(Collecting { using: Using { store: self, _lock: Some(lock) } })
    }

    /// The same, if nobody uses the store, or all end with that in the time that is given.
    pub fn try_collect(&self, patience: Duration) -> Result<Option<Collecting<'_>>, Error> {
        let lock = self.writable_lock()?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Collecting { using: Using { store: self, _lock: Some(lock) } })),
                Err(Errno::WOULDBLOCK) if begun.elapsed() >= patience => return Ok(None),
                Err(Errno::WOULDBLOCK) => thread::sleep(PAUSE),
                Err(Errno::INTR) => (),
                Err(error) => return Err(failed("lock", &self.root.join(LOCK), error)),
            }
        }
    }

    /// The file of the lock, open: made where it is not there, if it can be.
    fn open_lock(&self) -> Result<Option<File>, Error> {
        if let Some(lock) = self.root.file(LOCK, OFlags::RDONLY)? {
            return Ok(Some(lock));
        }
        match make_lock(&self.root) {
            Err(Error::Io { source, .. }) if Errno::from_io_error(&source) == Some(Errno::ROFS) => Ok(None),
            lock => lock.map(Some),
        }
    }

    fn writable_lock(&self) -> Result<File, Error> {
        match self.root.file(LOCK, OFlags::RDONLY)? {
            Some(lock) => Ok(lock),
            None => make_lock(&self.root),
        }
    }
}

/// Makes the file of the lock; another process may have made it meanwhile.
pub(super) fn make_lock(root: &Dir) -> Result<File, Error> {
    // No link is followed, and nothing waits. A user who may read the store may lock it.
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(root.fd(), LOCK, flags, Mode::from_raw_mode(0o644));
    fd.map(File::from).map_err(|error| failed("create", &root.join(LOCK), error))
}

/// Locks a file or a directory, whose path is for errors. `waits` is called once where the lock is not to be had at once. It is asked for
/// again and again, as a system call that waits would not hear of an interrupt.
pub(super) fn wait_for(
    file: impl AsFd,
    path: &Path,
    lock: FlockOperation,
    cancel: &Cancel,
    waits: &mut dyn FnMut(),
) -> Result<(), Error> {
    let mut has_waited = false;
    loop {
        match rustix::fs::flock(&file, lock) {
            Err(Errno::WOULDBLOCK) if !has_waited => waits(),
            Err(Errno::WOULDBLOCK) => thread::sleep(PAUSE),
            Err(Errno::INTR) => (),
            locked => return locked.map_err(|error| failed("lock", path, error)),
        }
        has_waited = true;
        cancel.check()?;
    }
}

impl Using<'_> {
    /// The store.
    pub fn store(&self) -> &Store {
        self.store
    }
}

impl Using<'_> {
    /// Keeps an image from being removed as long as the result, or a copy of it, is open: after this use, too.
    pub fn pin(&self, image: &Image) -> Result<File, Error> {
        let path = &image.path;
        let digest = image.artifact.image.digest.to_string();
        let gone = || refuse(path, "nothing", "the image");
        let file = self.blobs.file(digest, OFlags::RDONLY)?.ok_or_else(gone)?;
        // A process that looks whether it is in use has it for a moment.
        wait_for(&file, path, FlockOperation::NonBlockingLockShared, &Cancel::default(), &mut || ())?;
        Ok(file)
    }
}

impl Deref for Using<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

/// A process that may remove may do all the rest.
impl<'a> Deref for Collecting<'a> {
    type Target = Using<'a>;

    fn deref(&self) -> &Using<'a> {
        &self.using
    }
}
