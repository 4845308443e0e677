// SPDX-License-Identifier: GPL-2.0-or-later

//! Directories and special files.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use tesserafs_format::{FileKind, Ino, Inode};

use super::root::{is_empty, LOST_FOUND};
use super::{is_unknown, Extractor};
use crate::context::read;
use crate::error::Error;
use crate::visit;

impl Extractor<'_> {
    /// Creates everything but regular files, which are returned.
    pub(super) fn create_all(&self) -> Result<Vec<u32>, Error> {
        let mut files = Vec::new();
        let last = u32::try_from(self.context.image.sb.layout.inodes.records()).unwrap_or(u32::MAX);
        for number in self.scope.inodes(last) {
            self.context.cancel.check()?;
            let Some(ino) = Ino::from_number(number) else { continue };
            let inode = read(self.context.image.inode(ino))?;
            if matches!(inode.kind, FileKind::Regular { .. }) {
                files.push(number);
                continue;
            }
            let (dir, name) = self.first_name(number)?;
            let is_directory = matches!(inode.kind, FileKind::Directory(_));
            match self.create(&inode, &dir, &name) {
                Ok(()) if is_directory => continue,
                Ok(()) => self.finish_special(&inode, &dir, &name)?,
                Err(Errno::EXIST) if is_directory && self.is_lost_found(number, &name) => {
                    self.reuse_lost_found(number)?;
                    continue;
                }
                Err(errno) if !is_directory && is_unknown(errno) => self.leave_out(number, errno),
                Err(errno) => return Err(self.fail("create", number)(errno)),
            }
            self.context.progress.advance(1);
        }
        Ok(files)
    }

    fn create(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(), Errno> {
        let private = Mode::from_raw_mode(0o700);
        let special = |kind| rustix::fs::mknodat(dir, name, kind, private, 0);
        match inode.kind {
            FileKind::Directory(_) => rustix::fs::mkdirat(dir, name, private),
            FileKind::Symlink { .. } => {
                let target = visit::target(self.context, inode).map_err(|_| Errno::IO)?;
                rustix::fs::symlinkat(&*target, dir, name)
            }
            FileKind::Fifo => special(FileType::Fifo),
            FileKind::Socket => special(FileType::Socket),
            FileKind::Whiteout => special(FileType::CharacterDevice),
            FileKind::Regular { .. } => Ok(()),
        }
    }

    /// Whether a directory of the image has the name of one that is there.
    fn is_lost_found(&self, number: u32, name: &CString) -> bool {
        let parent = self.scope.first_name(number).map(|(directory, _)| directory.ino);
        self.has_lost_found && parent == Some(self.scope.top()) && name.as_bytes() == LOST_FOUND
    }

    /// Takes the `lost+found` that is there for the one of the image, if nothing is in it.
    fn reuse_lost_found(&self, number: u32) -> Result<(), Error> {
        let dir = self.directory(number)?;
        if is_empty(&dir).map_err(self.fail("read directory", number))? {
            return Ok(());
        }
        Err(Error::Refused(format!("{} is there, and not empty", self.shown(number))))
    }
}
