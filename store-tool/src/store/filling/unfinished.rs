// SPDX-License-Identifier: GPL-2.0-or-later

//! A file that is not complete.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tesserafs_format::Digest;
use tesserafs_image::{text, Cancel, Error};

use super::hashed::{Hashed, PIECE};
use crate::store::dir::failed;

/// A file that is being filled, by as many threads as like to.
#[derive(Debug)]
pub struct Unfinished {
    pub(super) file: File,
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) is_kept: bool,
    /// Apart, as it is larger than all the rest.
    pub(super) hashed: Box<Mutex<Hashed>>,
}

impl Unfinished {
    /// Its bytes, once all are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest that it is to have.
    pub fn expected(&self) -> &Digest {
        &self.digest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an earlier run has begun it. Which bytes of it are there, their digests tell: all others are zero, or anything.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Writes bytes at `offset`; none beyond its end.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check(offset, bytes.len())?;
        self.file.write_all_at(bytes, offset).map_err(|error| failed("write", &self.path, error))
    }

    /// Gives back the room of bytes that are never wanted, which read as zeros from then on. A filesystem without holes keeps it.
    pub fn free(&self, offset: u64, len: u64) -> Result<(), Error> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(failed("free room of", &self.path, error)),
        }
    }

    /// Reads bytes at `offset`.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.check(offset, bytes.len())?;
        self.file.read_exact_at(bytes, offset).map_err(|error| failed("read", &self.path, error))
    }

    /// The digest that it has now.
    pub fn hash(&self, cancel: &Cancel) -> Result<Digest, Error> {
        super::hash(&self.file, &self.path, self.len, cancel)
    }

    /// Hashes some of the bytes before `end` that are not hashed yet, 1 MiB at most, so that less is left to do when the last ones come.
    /// Nobody writes them any more. Where another thread is at it, this one goes on.
    pub fn hash_to(&self, end: u64) -> Result<(), Error> {
        let Ok(mut hashed) = self.hashed.try_lock() else { return Ok(()) };
        let end = end.min(hashed.bytes.saturating_add(PIECE));
        hashed.advance(&self.file, &self.path, end, &Cancel::default())
    }

    /// The digest that it has, by what [`hash_to`](Self::hash_to) has done of it. The next call begins anew.
    pub(super) fn hash_rest(&self, cancel: &Cancel) -> Result<Digest, Error> {
        let mut hashed = std::mem::take(&mut *self.hashed.lock().unwrap_or_else(PoisonError::into_inner));
        hashed.advance(&self.file, &self.path, self.len, cancel)?;
        Ok(hashed.finish())
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), Error> {
        if offset.checked_add(len as u64).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let (path, own) = (text::path(&self.path), self.len);
        Err(Error::Refused(format!(
            "{path}: found {len} bytes for byte {offset}, expected no more than {own} in all"
        )))
    }
}
