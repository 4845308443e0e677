// SPDX-License-Identifier: GPL-2.0-or-later

//! Regular files.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::Mutex;

use rustix::fs::{AtFlags, Mode, OFlags, RawMode, CWD};
use rustix::io::Errno;
use tesserafs_format::{FileKind, Ino, Inode};

use super::{is_unknown, Extractor};
use crate::contents::Piece;
use crate::context::read;
use crate::error::Error;
use crate::packs::{DataError, Decoder};
use crate::parallel;

/// Files that a thread writes one after the other.
const RUN_FILES: usize = 64;

/// Bytes of them, but for the last: the threads end at about the same time.
const RUN_BYTES: u64 = 1 << 20;

impl Extractor<'_> {
    /// Writes the regular files.
    pub(super) fn write_all(&self, files: &[u32]) -> Result<(), Error> {
        let decoders: Result<Vec<_>, Error> =
            (0..self.context.threads).map(|_| Decoder::new().map(Mutex::new)).collect();
        let decoders = decoders?;
        let runs = self.runs(files)?;
        parallel::for_each(self.context.threads, runs.len() as u64, self.context.cancel, |index| {
            // There are as many decoders as threads: one is free.
            let mut free = decoders.iter().filter_map(|decoder| decoder.try_lock().ok());
            let Some(mut decoder) = free.next() else {
                return Err(Error::Refused("a thread of the extraction failed".to_owned()));
            };
            runs[index as usize].iter().try_for_each(|number| {
                self.context.cancel.check()?;
                self.write_one(*number, &mut decoder)
            })
        })
    }

    /// The files, in runs that a thread writes alone: two that name files in one directory at a time would wait for each other.
    fn runs<'f>(&self, mut files: &'f [u32]) -> Result<Vec<&'f [u32]>, Error> {
        let mut runs = Vec::new();
        while !files.is_empty() {
            let mut bytes = 0_u64;
            let mut len = 0;
            while len < files.len().min(RUN_FILES) && bytes < RUN_BYTES {
                if let Some(ino) = Ino::from_number(files[len]) {
                    if let FileKind::Regular { size, .. } = read(self.context.image.inode(ino))?.kind {
                        bytes = bytes.saturating_add(size);
                    }
                }
                len += 1;
            }
            let (run, rest) = files.split_at(len);
            runs.push(run);
            files = rest;
        }
        Ok(runs)
    }

    /// Writes a regular file.
    fn write_one(&self, number: u32, decoder: &mut Decoder) -> Result<(), Error> {
        let Some(ino) = Ino::from_number(number) else { return Ok(()) };
        let inode = read(self.context.image.inode(ino))?;
        let (dir, name) = self.first_name(number)?;
        let (file, has_name) = match self.create_file(&inode, &dir, &name) {
            Ok(created) => created,
            Err(errno) if is_unknown(errno) => {
                self.leave_out(number, errno);
                return Ok(());
            }
            Err(errno) => return Err(self.fail("create", number)(errno)),
        };
        let written = self.write(&inode, &file, decoder).and_then(|()| Ok(self.finish(&inode, &file)?));
        match written {
            Ok(()) if has_name => (),
            Ok(()) => match self.name_file(&file, &dir, &name) {
                Ok(()) => (),
                Err(errno) if is_unknown(errno) => self.leave_out(number, errno),
                Err(errno) => return Err(self.fail("create", number)(errno)),
            },
            Err(error) => {
                if has_name {
                    // Half a file is worse than none: somebody might take it for the whole.
                    rustix::fs::unlinkat(&*dir, &name, AtFlags::empty())
                        .map_err(self.fail("remove", number))?;
                }
                match error {
                    DataError::Broken(finding) => self.context.findings.add(*finding),
                    DataError::Stop(error) => return Err(error),
                }
            }
        }
        self.context.progress.advance(1);
        Ok(())
    }

    /// Creates a regular file, and says whether it has its name. Where the file system can, the file gets its
    /// name when it is complete, so that an end of the program never leaves half of a file.
    fn create_file(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(File, bool), Errno> {
        let private = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if self.unnamed.load(Ordering::Relaxed) {
            // Nobody else can open it before it has a name: so it can have its mode at once. It may be written by its owner until its
            // xattrs are set.
            let mode = Mode::from_raw_mode(RawMode::from(inode.mode & 0o777)) | private;
            match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, mode) {
                Ok(file) => return Ok((file.into(), false)),
                // The errors of file systems that cannot do it.
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                    self.unnamed.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno),
            }
        }
        let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok((rustix::fs::openat(dir, name, flags | exclusive, private)?.into(), true))
    }

    /// Writes the bytes of a regular file; holes stay holes.
    fn write(&self, inode: &Inode, file: &File, decoder: &mut Decoder) -> Result<(), DataError> {
        let FileKind::Regular { size, .. } = inode.kind else { return Ok(()) };
        let _step = self.context.step(size, || format!("writing {}", self.shown(inode.ino.get())));
        let fail =
            |source| Error::Io { what: format!("cannot write {}", self.shown(inode.ino.get())), source };
        let mut at = 0;
        let mut ends_with_hole = false;
        self.contents.read(inode, decoder, |piece| {
            at += match piece {
                Piece::Hole(len) => len,
                Piece::Data(bytes) => {
                    file.write_all_at(bytes, at).map_err(fail)?;
                    bytes.len() as u64
                }
            };
            ends_with_hole = matches!(piece, Piece::Hole(_));
            Ok(())
        })?;
        if ends_with_hole {
            file.set_len(size).map_err(fail)?;
        }
        Ok(())
    }

    /// Gives a file without a name the name `name`, which must not exist.
    fn name_file(&self, file: &File, dir: &OwnedFd, name: &CString) -> Result<(), Errno> {
        if self.links_descriptors.load(Ordering::Relaxed) {
            match rustix::fs::linkat(file, "", dir, name, AtFlags::EMPTY_PATH) {
                // The error where this asks for a privilege: the way that asks for none passes a directory of processes.
                Err(Errno::NOENT | Errno::INVAL) => self.links_descriptors.store(false, Ordering::Relaxed),
                result => return result,
            }
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
    }
}
