// SPDX-License-Identifier: GPL-2.0-or-later

//! Owners, xattrs, modes and times.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{self as unix, PermissionsExt};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use tesserafs_format::{FileKind, Ino, Inode};

use super::Extractor;
use crate::context::read;
use crate::error::Error;
use crate::losses::Kind;
use crate::{text, visit};

/// The number that stands for each one which the user namespace has no number for.
const NOBODY: u32 = 65534;

impl Extractor<'_> {
    /// Sets owner, xattrs, mode and time of a regular file: in this order, as each may undo those after it.
    pub(super) fn finish(&self, inode: &Inode, file: &File) -> Result<(), Error> {
        let number = inode.ino.get();
        let created = rustix::fs::fstat(file).map_err(self.fail("stat", number))?;
        // These two by the standard library, which calls libc's functions: rustix would call the kernel past what is preloaded.
        let owned =
            self.own(inode, &created, || errno(unix::fchown(file, Some(inode.uid), Some(inode.gid))))?;
        self.xattrs(inode, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        let mode = mode(inode, owned);
        // An ACL among the xattrs changes it.
        if inode.xattrs.is_some() || Mode::from_raw_mode(created.st_mode) != mode {
            self.set(Kind::Mode, inode, || {
                errno(file.set_permissions(Permissions::from_mode(mode.as_raw_mode())))
            })?;
        }
        self.set(Kind::Time, inode, || rustix::fs::futimens(file, &times(inode)))?;
        let stat = rustix::fs::fstat(file).map_err(self.fail("stat", number))?;
        self.compare(inode, &stat, Some(mode));
        Ok(())
    }

    /// The same of a symlink or a special file, which cannot be opened.
    pub(super) fn finish_special(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(), Error> {
        let number = inode.ino.get();
        // All by a descriptor of the file that was created. In a directory that others may write in, its name
        // may by now be a hard link to a file that is not theirs.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(self.fail("open", number))?;
        let stat = rustix::fs::fstat(&handle).map_err(self.fail("stat", number))?;
        if stat.st_nlink != 1 || FileType::from_raw_mode(stat.st_mode) != special_type(inode) {
            let shown = self.shown(number);
            return Err(Error::Refused(format!("{shown} was replaced while it was extracted")));
        }
        let owned = self.own(inode, &stat, || {
            let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
            rustix::fs::chownat(&handle, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        })?;
        let is_symlink = matches!(inode.kind, FileKind::Symlink { .. });
        // Calls that take no such descriptor get a path that leads to it.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        self.xattrs(inode, |name, value| {
            rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
        })?;
        let mode = (!is_symlink).then(|| mode(inode, owned));
        if let Some(mode) = mode {
            self.set(Kind::Mode, inode, || rustix::fs::chmod(path.as_str(), mode))?;
        }
        self.set(Kind::Time, inode, || {
            rustix::fs::utimensat(&handle, "", &times(inode), AtFlags::EMPTY_PATH)
        })?;
        let stat = rustix::fs::fstat(&handle).map_err(self.fail("stat", number))?;
        self.compare(inode, &stat, mode);
        Ok(())
    }

    pub(super) fn finish_directory(&self, number: u32) -> Result<(), Error> {
        let Some(ino) = Ino::from_number(number) else { return Ok(()) };
        let inode = read(self.context.image.inode(ino))?;
        let dir = self.directory(number)?;
        let file = File::from(dir.try_clone().map_err(|source| Error::Io {
            what: format!("cannot open directory {}", self.shown(number)),
            source,
        })?);
        self.finish(&inode, &file)?;
        self.forget(number);
        self.context.progress.advance(1);
        Ok(())
    }

    /// Sets an owner where a file that was `created` so has another one, and says whether it is set.
    fn own(&self, inode: &Inode, created: &Stat, set: impl Fn() -> Result<(), Errno>) -> Result<bool, Error> {
        if !self.options.owners {
            return Ok(false);
        }
        if (created.st_uid, created.st_gid) == (inode.uid, inode.gid)
            && ![inode.uid, inode.gid].contains(&NOBODY)
        {
            return Ok(true);
        }
        let number = inode.ino.get();
        match set() {
            Ok(()) => Ok(true),
            // EINVAL is what an owner gives that the user namespace has no number for.
            Err(errno) if is_refused(errno) => {
                let by_privilege = errno == Errno::PERM && !self.privileges.contains(CapabilitySet::CHOWN);
                let owner = || format!("{}:{}", inode.uid, inode.gid);
                self.lose(Kind::Owner, number, errno, by_privilege, owner);
                Ok(false)
            }
            Err(errno) => Err(self.fail("set the owner of", number)(errno)),
        }
    }

    fn xattrs(&self, inode: &Inode, set: impl Fn(&CString, &[u8]) -> Result<(), Errno>) -> Result<(), Error> {
        if !self.options.xattrs {
            return Ok(());
        }
        let number = inode.ino.get();
        visit::xattrs(self.context, inode, |bytes, value| {
            let name =
                CString::new(bytes).map_err(|_| Error::Refused("an xattr name with a NUL".to_owned()))?;
            match set(&name, value) {
                Ok(()) => Ok(()),
                Err(errno) if is_xattr_refused(errno) => {
                    // Only of these two does the kernel ask who it is that sets them; of `user.*` it asks for the type of file.
                    let has_owner = [&b"trusted."[..], b"security."].iter().any(|p| bytes.starts_with(p));
                    let by_privilege = errno == Errno::PERM && has_owner;
                    self.lose(Kind::Xattr, number, errno, by_privilege, || text::escape(bytes));
                    Ok(())
                }
                Err(errno) => {
                    let what = format!("set xattr {} of", text::escape(bytes));
                    let error = self.fail(&what, number)(errno);
                    Err(error)
                }
            }
        })
    }

    /// Sets a mode or a time, which a filesystem may not know.
    fn set(&self, kind: Kind, inode: &Inode, set: impl Fn() -> Result<(), Errno>) -> Result<(), Error> {
        match set() {
            Ok(()) => Ok(()),
            Err(errno) if is_refused(errno) => Ok(()),
            Err(errno) => Err(self.fail(&format!("set the {} of", kind.name()), inode.ino.get())(errno)),
        }
    }

    /// Compares what was set with what is there: filesystems that cannot store a mode or a time say so, or do not.
    fn compare(&self, inode: &Inode, stat: &Stat, wanted: Option<Mode>) {
        let number = inode.ino.get();
        let found = Mode::from_raw_mode(stat.st_mode);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let why = || format!("it is {:04o} there", found.as_raw_mode());
            self.lose_as(Kind::Mode, number, || format!("{:04o}", wanted.as_raw_mode()), why);
        }
        let time = (inode.mtime.sec, u64::from(inode.mtime.nsec));
        #[expect(clippy::unnecessary_cast, reason = "the types of the fields are the system's")]
        let there = (stat.st_mtime as i64, stat.st_mtime_nsec as u64);
        if there != time {
            let why = || format!("it is {}.{:09} there", there.0, there.1);
            self.lose_as(Kind::Time, number, || format!("{}.{:09}", time.0, time.1), why);
        }
    }

    fn lose_as(&self, kind: Kind, ino: u32, what: impl FnOnce() -> String, why: impl FnOnce() -> String) {
        self.losses.add(kind, false, || (what(), self.shown(ino), why()));
    }
}

/// The code of a call's error.
fn errno(result: io::Result<()>) -> Result<(), Errno> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether a system or a filesystem says so of an owner, a mode or a time that it does not take.
fn is_refused(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::OVERFLOW
    )
}

/// The same of an xattr; ENOSPC is what ext4 says of one that does not fit beside the others of its file.
fn is_xattr_refused(errno: Errno) -> bool {
    is_refused(errno) || matches!(errno, Errno::RANGE | Errno::TOOBIG | Errno::NOSPC | Errno::NAMETOOLONG)
}

/// The type of the file that is created for an inode that is neither a regular file nor a directory.
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
