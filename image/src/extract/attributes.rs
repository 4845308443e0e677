// SPDX-License-Identifier: GPL-2.0-or-later

//! Owners, xattrs, modes and times.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::PoisonError;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tesserafs_format::limits::XATTR_NAME_MAX;
use tesserafs_format::{FileKind, Ino, Inode};

use super::Extractor;
use crate::context::read;
use crate::error::Error;
use crate::text;

impl Extractor<'_> {
    /// Sets owner, xattrs, mode and time of a regular file: in this order, as each may undo those after it.
    pub(super) fn finish(&self, inode: &Inode, file: &File) -> Result<(), Error> {
        let number = inode.ino.get();
        let owned = self.own(number, || {
            rustix::fs::fchown(file, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)))
        })?;
        self.xattrs(inode, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        rustix::fs::fchmod(file, mode(inode, owned)).map_err(self.fail("set the mode of", number))?;
        rustix::fs::futimens(file, &times(inode)).map_err(self.fail("set the time of", number))
    }

    /// The same of a symlink or a special file, which cannot be opened.
    pub(super) fn finish_special(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(), Error> {
        let number = inode.ino.get();
        // All by a descriptor of what was created, whatever has its name by now: in a directory that others may write in
        // it could be a hard link to a file that is not theirs.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(self.fail("open", number))?;
        let stat = rustix::fs::fstat(&handle).map_err(self.fail("stat", number))?;
        if stat.st_nlink != 1 || FileType::from_raw_mode(stat.st_mode) != special_type(inode) {
            let shown = self.shown(number);
            return Err(Error::Refused(format!("{shown} was replaced while it was extracted")));
        }
        let owned = self.own(number, || {
            let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
            rustix::fs::chownat(&handle, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        })?;
        let is_symlink = matches!(inode.kind, FileKind::Symlink { .. });
        // Calls that take no such descriptor get a path that leads to it.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        self.xattrs(inode, |name, value| {
            rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
        })?;
        if !is_symlink {
            rustix::fs::chmod(path.as_str(), mode(inode, owned))
                .map_err(self.fail("set the mode of", number))?;
        }
        rustix::fs::utimensat(&handle, "", &times(inode), AtFlags::EMPTY_PATH)
            .map_err(self.fail("set the time of", number))
    }

    pub(super) fn finish_directory(&self, number: u32) -> Result<(), Error> {
        let Some(ino) = Ino::from_number(number) else { return Ok(()) };
        let inode = read(self.context.image.inode(ino))?;
        let dir = self.directory(number)?;
        let file = File::from(dir.try_clone().map_err(|source| Error::Io {
            what: format!("cannot open directory {}", self.shown(number)),
            source,
        })?);
        self.context.progress.advance(1);
        self.finish(&inode, &file)
    }

    /// Sets an owner, and says whether it is set; who is not root may not, and is told at the end.
    fn own(&self, number: u32, set: impl Fn() -> Result<(), Errno>) -> Result<bool, Error> {
        match set() {
            Ok(()) => Ok(true),
            Err(Errno::PERM) if !self.is_root => {
                *self.not_owned.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                Ok(false)
            }
            Err(errno) => Err(self.fail("set the owner of", number)(errno)),
        }
    }

    fn xattrs(&self, inode: &Inode, set: impl Fn(&CString, &[u8]) -> Result<(), Errno>) -> Result<(), Error> {
        let Some(index) = inode.xattrs else { return Ok(()) };
        let image = &self.context.image;
        let mut cursor = image.xattrs(read(image.xattr_set(index))?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = read(cursor.next(&mut buf))? {
            let mut value = vec![0; entry.value_len as usize];
            read(image.xattr_value(index, &entry, &mut value))?;
            let name =
                CString::new(name).map_err(|_| Error::Refused("an xattr name with a NUL".to_owned()))?;
            match set(&name, &value) {
                Ok(()) => (),
                Err(Errno::PERM) if !self.is_root => {
                    *self.not_set.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
                Err(errno) => {
                    let what = format!("set xattr {} of", text::escape(name.as_bytes()));
                    return Err(self.fail(&what, inode.ino.get())(errno));
                }
            }
        }
        Ok(())
    }
}

/// The type of what is created for an inode that is no regular file and no directory.
fn special_type(inode: &Inode) -> FileType {
    match inode.kind {
        FileKind::Symlink { .. } => FileType::Symlink,
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::Whiteout => FileType::CharacterDevice,
        FileKind::Regular { .. } => FileType::RegularFile,
        FileKind::Directory(_) => FileType::Directory,
    }
}

/// The mode; a program must not run as another owner than that of the image.
fn mode(inode: &Inode, owned: bool) -> Mode {
    let kept = if owned { 0o7777 } else { 0o1777 };
    Mode::from_raw_mode(RawMode::from(inode.mode & kept))
}

/// The modification time, for both times that can be set.
fn times(inode: &Inode) -> Timestamps {
    let time = Timespec { tv_sec: inode.mtime.sec, tv_nsec: inode.mtime.nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}
