// SPDX-License-Identifier: GPL-2.0-or-later

//! Directories of the store, open: a name is looked up in one of them, alone and without following a symlink, so that nothing that
//! lies in the store leads out of it.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ffi::OsStr, ffi::OsString};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tesserafs_image::{text, Error};

/// The beginning of the names of files that are nothing yet. One that is there when nobody uses the store is left from a crash.
const NEW: &str = ".new-";

/// Reads of the list of names.
const READ_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open directory, and its path for messages.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// An error of the system about a path.
pub(super) fn failed(action: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    Error::Io { what: format!("cannot {action} {}", text::path(path)), source: error.into() }
}

/// A file that is not what it should be.
pub(super) fn refuse(path: &Path, found: impl Display, expected: impl Display) -> Error {
    Error::Refused(format!("{}: found {found}, expected {expected}", text::path(path)))
}

/// The word for the type of a file.
pub(super) fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symlink",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "a file of an unknown type",
    }
}

/// Whether it is a regular file.
pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Whether it is a directory.
pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Device and inode number.
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Dir {
    /// The directory at a path of the user's, through symlinks: the root of the store may be one. `None` where there is nothing.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, Error> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path, error)),
        };
        match rustix::fs::open(&path, READ_DIR, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", &path, error)),
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The descriptor, to lock it.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The directory `name` in it, if there is one.
    pub(super) fn dir(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, Error> {
        let name = name.as_ref();
        match rustix::fs::openat(&self.fd, name, READ_DIR | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let found = self.stat(name)?.map_or("nothing", |stat| kind(&stat));
                Err(refuse(&self.join(name), found, "a directory"))
            }
            Err(error) => Err(failed("open", &self.join(name), error)),
        }
    }

    /// The directory `name` in it, made where it is not there.
    pub(super) fn make(&self, name: impl AsRef<OsStr>) -> Result<Self, Error> {
        let name = name.as_ref();
        loop {
            if let Some(dir) = self.dir(name)? {
                return Ok(dir);
            }
            match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => self.sync()?,
                Err(Errno::EXIST) => (),
                Err(error) => return Err(failed("make", &self.join(name), error)),
            }
        }
    }

    /// The status of `name` itself, not of the target of a link.
    pub(super) fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>, Error> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("stat", &self.join(name), error)),
        }
    }

    /// The status of `name`, if it is a regular file; another one is refused.
    pub(super) fn stat_file(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>, Error> {
        let name = name.as_ref();
        match self.stat(name)? {
            Some(stat) if !is_file(&stat) => Err(refuse(&self.join(name), kind(&stat), "a regular file")),
            stat => Ok(stat),
        }
    }

    /// Opens the regular file `name`, if there is one.
    pub(super) fn file(&self, name: impl AsRef<OsStr>, flags: OFlags) -> Result<Option<File>, Error> {
        let name = name.as_ref();
        // Opening a device may have effects, and a FIFO waits.
        if self.stat_file(name)?.is_none() {
            return Ok(None);
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", &self.join(name), error)),
        }
    }

    /// Makes the regular file `name`, which is not there, to read and write it.
    pub(super) fn create(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File, Error> {
        let name = name.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode));
        fd.map(File::from).map_err(|error| failed("create", &self.join(name), error))
    }

    /// Gives the file `name` the name `new` in `to` as well. `false` where that name is taken.
    pub(super) fn link(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        new: impl AsRef<OsStr>,
    ) -> Result<bool, Error> {
        let (name, new) = (name.as_ref(), new.as_ref());
        match rustix::fs::linkat(&self.fd, name, &to.fd, new, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(failed("link", &to.join(new), error)),
        }
    }

    /// Makes the symlink `name`, or gives it another target. `false` where the directory itself is gone.
    pub(super) fn symlink(&self, target: &Path, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        let name = name.as_ref();
        let new = new_name();
        let made = match rustix::fs::symlinkat(target, &self.fd, &new) {
            Ok(()) => rustix::fs::renameat(&self.fd, &new, &self.fd, name),
            made => made,
        };
        match made {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => {
                let _ = rustix::fs::unlinkat(&self.fd, &new, AtFlags::empty());
                Err(failed("make the link", &self.join(name), error))
            }
        }
    }

    /// The target of the symlink `name`; `None` where it is none.
    pub(super) fn target(&self, name: impl AsRef<OsStr>) -> Result<Option<PathBuf>, Error> {
        let name = name.as_ref();
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(failed("read the link", &self.join(name), error)),
        }
    }

    /// Moves `name` over `new`, which is in the same directory.
    pub(super) fn rename(&self, name: impl AsRef<OsStr>, new: impl AsRef<OsStr>) -> Result<(), Error> {
        let new = new.as_ref();
        let moved = rustix::fs::renameat(&self.fd, name.as_ref(), &self.fd, new);
        moved.map_err(|error| failed("rename a file to", &self.join(new), error))
    }

    /// Removes the name, which is no directory's. `false` where it is not there.
    pub(super) fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        self.unlink(name.as_ref(), AtFlags::empty())
    }

    /// Removes the directory `name`, which is empty. `false` where it is not there, or not empty.
    pub(super) fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        self.unlink(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(failed("remove", &self.join(name), error)),
        }
    }

    /// The names in it, sorted.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Error> {
        let cannot = |error: Errno| failed("list", &self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Forces its names to the disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(|error| failed("force to the disk", &self.path, error))
    }
}

/// Whether it is the name of a file that is nothing yet.
pub(super) fn is_new(name: &OsStr) -> bool {
    name.as_bytes().starts_with(NEW.as_bytes())
}

/// A name that no file has: processes have numbers, and a process counts.
pub(super) fn new_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{NEW}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
