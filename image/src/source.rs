// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of an image or a pack: a regular file or a block device, read at positions.
//!
//! Nothing is mapped: a file that is cut while it is read gives an error, not a signal.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, Mode, OFlags};

use crate::error::Error;
use crate::text;

/// An open image or pack.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    len: u64,
    is_device: bool,
}

impl Source {
    /// Opens a regular file or a block device for reading.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |source| Error::Io { what: format!("cannot open {}", text::path(path)), source };
        // Opening a device may have effects: look before.
        let kind = path.metadata().map_err(at)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::NotAnImageFile(path.to_owned()));
        }
        // Nor wait for a writer, should a FIFO be there by now.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file: File =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| at(errno.into()))?.into();
        Self::from_file(file, path)
    }

    /// A file that is open already; `path` names it in errors.
    pub fn from_file(mut file: File, path: &Path) -> Result<Self, Error> {
        let at = |source| Error::Io { what: format!("cannot open {}", text::path(path)), source };
        let metadata = file.metadata().map_err(at)?;
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            return Err(Error::NotAnImageFile(path.to_owned()));
        }
        let len = if is_device { file.seek(SeekFrom::End(0)).map_err(at)? } else { metadata.len() };
        Ok(Self { file, path: path.to_owned(), len, is_device })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes; of a device all that it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is a block device, which may be longer than the image on it.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Lets the system fetch these bytes while other work goes on. It is advice: where it cannot be taken, they are read later.
    pub fn will_need(&self, range: Range<u64>) {
        let len = NonZeroU64::new(range.end.saturating_sub(range.start));
        if len.is_some() {
            let _ = rustix::fs::fadvise(&self.file, range.start, len, Advice::WillNeed);
        }
    }

    /// Fills `buf` with the bytes from `offset`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(buf, offset).map_err(|source| {
            let source = match source.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "the file ends there"),
                _ => source,
            };
            let (len, path) = (buf.len(), text::path(&self.path));
            Error::Io { what: format!("cannot read {len} bytes at byte {offset} of {path}"), source }
        })
    }
}
