// SPDX-License-Identifier: GPL-2.0-or-later

//! The files of container images: in a directory, or in an archive that is read in place.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{openat2, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{path_of, Error, Result, Shown};
use crate::source::tar::Archive;

/// Bytes of a manifest or another document that are believed: registries and engines take no larger ones.
const DOCUMENT_MAX: u64 = 4 << 20;

/// Where files are.
#[derive(Debug)]
enum Place {
    Directory(OwnedFd),
    Archive(Archive),
}

/// The files of container images.
#[derive(Debug)]
pub(super) struct Files {
    /// Their place, in messages.
    pub(super) path: PathBuf,
    place: Place,
}

/// The bytes of a file.
#[derive(Debug)]
pub(in crate::source) struct Part {
    pub(in crate::source) file: File,
    pub(in crate::source) at: u64,
    pub(in crate::source) end: u64,
}

impl Part {
    /// How many bytes there are still.
    pub(super) fn len(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = (buf.len() as u64).min(self.len()) as usize;
        let read = self.file.read_at(&mut buf[..len], self.at)?;
        if read == 0 && len > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Files {
    /// Opens a directory or an archive; an archive that must be unpacked goes to an unnamed file in `spool`.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Self> {
        if path.is_dir() {
            let directory = File::open(path).map_err(Error::io("open", path))?;
            return Ok(Self { path: path.to_owned(), place: Place::Directory(directory.into()) });
        }
        let (archive, path) = Archive::open(path, spool)?;
        Ok(Self { path, place: Place::Archive(archive) })
    }

    /// The file of that name, where there is one.
    pub(super) fn find(&self, name: &str) -> Result<Option<Part>> {
        let directory = match &self.place {
            Place::Archive(archive) => return archive.find(name.as_bytes()),
            Place::Directory(directory) => directory,
        };
        let shown = || self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // Names come from files that nobody has checked: none leads out of the directory.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(directory, path_of(name.as_bytes()), flags, Mode::empty(), beneath) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::XDEV) => {
                return Err(refused(&shown(), "leads out of the place of the container image"))
            }
            Err(error) => return Err(Error::io("open", &shown())(error)),
        };
        let metadata = file.metadata().map_err(Error::io("stat", &shown()))?;
        if !metadata.is_file() {
            return Err(refused(&shown(), "is no regular file, as blobs and documents are"));
        }
        Ok(Some(Part { file, at: 0, end: metadata.len() }))
    }

    /// The file of that name; the error says who wants it.
    pub(super) fn get(&self, name: &str, wanted_by: &str) -> Result<Part> {
        self.find(name)?
            .ok_or_else(|| refused(&self.path, format!("has no file {name}, which {wanted_by} names")))
    }

    /// The bytes of a document.
    pub(super) fn document(&self, name: &str, mut part: Part) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        if part.len() > DOCUMENT_MAX {
            let reason = format!("has {} bytes, expected {DOCUMENT_MAX} at most", part.len());
            return Err(refused(&path, reason));
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        Ok(bytes)
    }
}

/// An error whose reason may quote a document that nobody has checked.
pub(super) fn refused(path: &Path, reason: impl AsRef<str>) -> Error {
    Error::unsupported(path, Shown(path_of(reason.as_ref().as_bytes())).to_string())
}
