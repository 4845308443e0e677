// SPDX-License-Identifier: GPL-2.0-or-later

//! A regular file in a directory: reading it, and proving that it is the one that the walk met.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;

use rustix::fs::{fstat, seek, SeekFrom, Stat};
use rustix::io::Errno;
use tesserafs_format::limits::BLOCK_BYTES;

use super::stamp::Stamp;
use super::{xattr, DirSource, OPEN};
use crate::chunker::{ContentHasher, Summary};
use crate::error::{Error, Result};
use crate::source::{FileTask, OpenFile};

/// Bytes that are read again at a time.
const AGAIN: u64 = 1 << 20;

/// A regular file: where it is, and how it was when the walk met it.
#[derive(Clone, Debug)]
pub struct DirFile {
    dir: u32,
    name: Box<[u8]>,
    stamp: Stamp,
    /// Fewer blocks than bytes: the file may have holes that need not be read.
    sparse: bool,
}

impl DirFile {
    pub(super) fn new(dir: u32, name: &[u8], stamp: Stamp, sparse: bool) -> Self {
        Self { dir, name: name.into(), stamp, sparse }
    }

    /// Its path in the source.
    pub(super) fn path(&self, source: &DirSource) -> Vec<u8> {
        source.path_in(self.dir, &self.name)
    }
}

/// An open file of a directory.
#[derive(Debug)]
pub struct OpenDirFile<'a> {
    source: &'a DirSource,
    file: &'a DirFile,
    fd: File,
    size: u64,
    /// Where the descriptor stands.
    pos: u64,
}

impl<'a> OpenDirFile<'a> {
    pub(super) fn open(source: &'a DirSource, task: &'a FileTask<DirFile>) -> Result<Self> {
        let file = &task.file;
        let opened = source.directories.open(file.dir, &file.name, OPEN);
        let fd = opened.map_err(|error| source.io("open", &file.path(source), error))?;
        Ok(Self { source, file, fd: fd.into(), size: task.size, pos: 0 })
    }

    fn path(&self) -> Vec<u8> {
        self.file.path(self.source)
    }

    fn changed(&self, what: &'static str) -> Error {
        self.source.changed(&self.path(), what)
    }

    /// How the file is now, where nothing that stat tells of what is stored is different.
    fn same(&self) -> Result<Stat> {
        let now = fstat(&self.fd).map_err(|error| self.source.io("stat", &self.path(), error))?;
        match self.file.stamp.difference(&now) {
            Some(what) => Err(self.changed(what)),
            None => Ok(now),
        }
    }
}

impl OpenFile for OpenDirFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        if !self.file.sparse {
            return Ok(pos..self.size);
        }
        // The descriptor moves.
        self.pos = u64::MAX;
        let start = match seek(&self.fd, SeekFrom::Data(pos)) {
            Ok(start) => start.min(self.size),
            Err(Errno::NXIO) => return Ok(self.size..self.size),
            // A filesystem that does not know holes.
            Err(_) => return Ok(pos..self.size),
        };
        let end = seek(&self.fd, SeekFrom::Hole(start)).unwrap_or(self.size);
        let end = end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).min(self.size);
        let start = start / BLOCK_BYTES * BLOCK_BYTES;
        Ok(start.max(pos)..end)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let io = |error| Error::io("read", &self.source.shown(&self.path()))(error);
        if self.pos != range.start {
            (&self.fd).seek(io::SeekFrom::Start(range.start)).map_err(io)?;
        }
        let len = range.end - range.start;
        buf.reserve_exact(len as usize);
        let read = (&self.fd).take(len).read_to_end(buf).map_err(io)?;
        if read as u64 != len {
            return Err(self.changed("it became shorter"));
        }
        self.pos = range.end;
        Ok(())
    }

    fn confirm(&mut self, read: &Summary) -> Result<()> {
        if !self.file.stamp.is_in_doubt(&self.same()?) {
            return Ok(());
        }
        // The ctime moved, and the mtime did not: another name, or bytes that somebody hides.
        let mut hasher = ContentHasher::new(self.size);
        let mut window = Vec::new();
        let mut pos = 0;
        while pos < self.size {
            let data = self.data(pos)?;
            hasher.zeros(data.start - pos);
            pos = data.start;
            let end = data.end.min(pos + AGAIN);
            window.clear();
            self.read(pos..end, &mut window)?;
            hasher.data(&window);
            pos = end;
        }
        if hasher.finish() == *read {
            Ok(())
        } else {
            Err(self.changed("its bytes are different"))
        }
    }

    fn close(self) -> Result<()> {
        if self.file.stamp.is_in_doubt(&self.same()?) {
            let xattrs = xattr::again(&self.fd)
                .map_err(|error| self.source.io("read the xattrs of", &self.path(), error))?;
            if !self.file.stamp.has_xattrs(&xattrs) {
                return Err(self.changed("its xattrs are different"));
            }
        }
        Ok(())
    }
}
