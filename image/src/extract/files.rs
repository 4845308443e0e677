// SPDX-License-Identifier: GPL-2.0-or-later

//! Regular files.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::Mutex;

use rustix::fs::{AtFlags, Mode, OFlags, CWD};
use rustix::io::Errno;
use tesserafs_format::{FileKind, Ino, Inode};

use super::{is_unknown, Extractor};
use crate::contents::Piece;
use crate::context::read;
use crate::error::Error;
use crate::packs::{DataError, Decoder};
use crate::parallel;

impl Extractor<'_> {
    /// Writes the regular files.
    pub(super) fn write_all(&self, files: &[u32]) -> Result<(), Error> {
        let decoders: Result<Vec<_>, Error> =
            (0..self.context.threads).map(|_| Decoder::new().map(Mutex::new)).collect();
        let decoders = decoders?;
        parallel::for_each(self.context.threads, files.len() as u64, self.context.cancel, |index| {
            // There are as many decoders as threads: one is free.
            let mut free = decoders.iter().filter_map(|decoder| decoder.try_lock().ok());
            let Some(mut decoder) = free.next() else {
                return Err(Error::Refused("a thread of the extraction failed".to_owned()));
            };
            let number = files[index as usize];
            let Some(ino) = Ino::from_number(number) else { return Ok(()) };
            let inode = read(self.context.image.inode(ino))?;
            let (dir, name) = self.first_name(number)?;
            let (file, has_name) = match self.create_file(&dir, &name) {
                Ok(created) => created,
                Err(errno) if is_unknown(errno) => {
                    self.leave_out(number, errno);
                    return Ok(());
                }
                Err(errno) => return Err(self.fail("create", number)(errno)),
            };
            let written =
                self.write(&inode, &file, &mut decoder).and_then(|()| Ok(self.finish(&inode, &file)?));
            match written {
                Ok(()) if has_name => (),
                Ok(()) => match name_file(&file, &dir, &name) {
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
        })
    }

    /// Creates a regular file, and says whether it has its name. Where the file system can, the file gets its
    /// name when it is complete, so that an end of the program never leaves half of a file.
    fn create_file(&self, dir: &OwnedFd, name: &CString) -> Result<(File, bool), Errno> {
        let private = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if self.unnamed.load(Ordering::Relaxed) {
            match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, private) {
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
        self.contents.read(inode, decoder, |piece| {
            at += match piece {
                Piece::Hole(len) => len,
                Piece::Data(bytes) => {
                    file.write_all_at(bytes, at).map_err(fail)?;
                    bytes.len() as u64
                }
            };
            Ok(())
        })?;
        Ok(file.set_len(size).map_err(fail)?)
    }
}

/// Gives a file without a name the name `name`, which must not exist.
fn name_file(file: &File, dir: &OwnedFd, name: &CString) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
}
