// SPDX-License-Identifier: GPL-2.0-or-later

//! A file that is written at places, and has another name until it is complete: a run that was cut off goes on with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, renameat_with, FlockOperation, RenameFlags, CWD};

use crate::error::{Error, Result};

/// The end of the name until then.
const SUFFIX: &str = ".partial";

/// A file that is not complete.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    force: bool,
    /// Whether an earlier run may have written some of it.
    pub(super) is_begun: bool,
}

impl Partial {
    /// Begins the file that will be `target`, or goes on with it. A file of that name is replaced only with `force`.
    pub(super) fn open(target: &Path, force: bool) -> Result<Self> {
        if !force && target.symlink_metadata().is_ok() {
            return Err(Error::unsupported(target, "exists; --force replaces it"));
        }
        let mut name: OsString = target.as_os_str().to_owned();
        name.push(SUFFIX);
        let path = PathBuf::from(name);
        let at = |error: io::Error| Error::io("open", &path)(error);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::unsupported(&path, "is being written by another process"))?;
        // Another process may have given it its name meanwhile.
        let (held, named) = (file.metadata().map_err(at)?, fs::symlink_metadata(&path).map_err(at)?);
        if !held.is_file() || (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Err(Error::unsupported(&path, "was replaced by another process: try again"));
        }
        let is_begun = held.len() > 0;
        Ok(Self { file, path, target: target.to_owned(), force, is_begun })
    }

    /// Forgets what an earlier run has written.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.is_begun = false;
        self.set_len(0)
    }

    pub(super) fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(Error::io("set the length of", &self.path))
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(Error::io("read", &self.path))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write", &self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of it.
    pub(super) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io("open", &self.path))
    }

    /// Gives the complete file its name; it is on the disk by then.
    pub(super) fn commit(self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))?;
        let flags = if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.path, CWD, &self.target, flags)
            .map_err(Error::io("rename the finished file to", &self.target))
    }

    /// Removes what there is.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
