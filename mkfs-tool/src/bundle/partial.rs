// SPDX-License-Identifier: GPL-2.0-or-later

//! A file that is written at places, and has another name until it is complete: a run that was cut off goes on with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    flock, linkat, renameat_with, unlinkat, AtFlags, FlockOperation, Mode, OFlags, RenameFlags, CWD,
};
use rustix::io::Errno;

use tesserafs_image::Source;

use crate::error::{Error, Result};

/// The end of the name until then.
const SUFFIX: &str = ".partial";

/// A file that is written at places.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    /// Whether an earlier run may have written some of it.
    pub(super) is_begun: bool,
}

impl NewFile {
    /// A file without a name, in a folder; errors call it `path`.
    pub(super) fn unnamed(dir: &Path, path: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).map_err(Error::io("create a file in", dir))?;
        Ok(Self { file, path: path.to_owned(), is_begun: false })
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

    /// Reads it, through another handle.
    pub(super) fn source(&self) -> Result<Source> {
        let file = self.file.try_clone().map_err(Error::io("open", &self.path))?;
        Ok(Source::from_file(file, &self.path)?)
    }
}

/// A file that is not complete, under another name until it is.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) file: NewFile,
    target: PathBuf,
    force: bool,
}

impl Partial {
    /// Begins the file that will be `target`, or goes on with it. A file of that name is replaced only with `force`.
    /// `inputs` are files that it must not be.
    pub(super) fn open(target: &Path, force: bool, inputs: &[&Path]) -> Result<Self> {
        if target.is_dir() {
            return Err(Error::unsupported(target, "is a directory"));
        }
        if !force && target.symlink_metadata().is_ok() {
            return Err(Error::unsupported(target, "exists; --force replaces it"));
        }
        // Through a symlink, so that it is not the link that is replaced.
        let followed = match target.is_symlink() {
            true => Some(fs::canonicalize(target).map_err(Error::io("follow the link", target))?),
            false => None,
        };
        let target = followed.as_deref().unwrap_or(target);
        let mut name: OsString = target.as_os_str().to_owned();
        name.push(SUFFIX);
        let path = PathBuf::from(name);
        let at = |error: io::Error| Error::io("open", &path)(error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666));
        let file: File = file.map_err(|errno| at(errno.into()))?.into();
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => Error::unsupported(&path, "is being written by another process"),
            _ => Error::io("lock", &path)(errno),
        })?;
        // Another process may have given it its name meanwhile.
        let (held, named) = (file.metadata().map_err(at)?, fs::symlink_metadata(&path).map_err(at)?);
        let identity = (held.dev(), held.ino());
        if !held.is_file() || held.nlink() != 1 || identity != (named.dev(), named.ino()) {
            let reason = "is no file of its own, or another process has replaced it";
            return Err(Error::unsupported(&path, reason));
        }
        if inputs.iter().any(|input| crate::output::identity(input) == Some(identity)) {
            let reason = "is where the image is written to, and is to be read: name it otherwise";
            return Err(Error::unsupported(&path, reason));
        }
        let is_begun = held.len() > 0;
        Ok(Self { file: NewFile { file, path, is_begun }, target: target.to_owned(), force })
    }

    /// Forgets what an earlier run has written.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.file.is_begun = false;
        self.file.set_len(0)
    }

    /// Gives the complete file its name; it is on the disk by then.
    pub(super) fn commit(self) -> Result<()> {
        let path = self.file.path();
        self.file.file.sync_data().map_err(Error::io("write", path))?;
        let flags = if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let renamed = match renameat_with(CWD, path, CWD, &self.target, flags) {
            // Network file systems know no such flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !self.force => {
                linkat(CWD, path, CWD, &self.target, AtFlags::empty())
                    .and_then(|()| unlinkat(CWD, path, AtFlags::empty()))
            }
            renamed => renamed,
        };
        renamed.map_err(Error::io("rename the finished file to", &self.target))
    }

    /// Removes what there is.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(self.file.path());
    }
}
