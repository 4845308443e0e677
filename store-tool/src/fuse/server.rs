// SPDX-License-Identifier: GPL-2.0-or-later

//! One method for each request of the kernel.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use tesserafs_format::limits::{BLOCK_BYTES, NAME_MAX};
use tesserafs_format::{Directory, FileKind, Inode};
use tesserafs_image::serve::{Files, Seek, Tree};
use tesserafs_image::Broken;

use super::protocol::Opening;
use super::{attributes, directory, errno, protocol};
use crate::log::Log;

/// How long the kernel may keep what it was told: an image never changes.
pub(super) const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The requests of ioctl(2) for flags and for extended flags, as x86 and arm64 number them: there is one answer to each, no
/// flag of chattr(1) and no project.
const GET_FLAGS: (u32, &[u8]) = (0x8008_6601, &[0; 4]);
const GET_EXTENDED_FLAGS: (u32, &[u8]) = (0x801c_581f, &[0; 28]);

/// `whence` of lseek(2), the same on all architectures of Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

thread_local! {
    /// The reply of a read that lies in no single chunk.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The parts of a tree that not everybody sees.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Whether POSIX ACLs count, and are listed.
    pub acl: bool,
    /// Whether root of the mount's user namespace sees the names of `trusted.*`: it is the initial one.
    pub trusted: bool,
}

/// The server of one image.
#[derive(Debug)]
pub struct Server {
    pub(super) tree: Tree<'static>,
    files: &'static Files<'static>,
    pub(super) shown: Shown,
    log: Log,
    opening: Opening,
}

impl Server {
    /// Serves an image.
    pub fn new(tree: Tree<'static>, files: &'static Files<'static>, shown: Shown, log: Log) -> Self {
        Self { tree, files, shown, log, opening: Opening { file: false, directory: false } }
    }

    /// The errno of a failure, which is reported.
    pub(super) fn report(&self, failure: &Broken) -> Errno {
        self.log.report(failure);
        errno(failure)
    }

    pub(super) fn inode(&self, ino: INodeNo) -> Result<Inode, Errno> {
        match self.tree.inode(ino.0) {
            Ok(inode) => inode.ok_or(Errno::ESTALE),
            Err(failure) => Err(self.report(&failure)),
        }
    }

    fn directory(&self, ino: INodeNo) -> Result<(Inode, Directory), Errno> {
        let inode = self.inode(ino)?;
        match inode.kind {
            FileKind::Directory(directory) => Ok((inode, directory)),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<Inode>, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        // The kernel asks for these two where it has a file handle, and no path: the first is asked of files, too.
        if name == "." {
            return self.inode(parent).map(Some);
        }
        let (inode, directory) = self.directory(parent)?;
        if name == ".." {
            return self.inode(INodeNo(directory.parent.get().into())).map(Some);
        }
        let found = self.tree.lookup(inode.ino, &directory, name.as_bytes());
        found.map_err(|failure| self.report(&failure))
    }

    fn seek(&self, ino: INodeNo, offset: i64, whence: i32) -> Result<i64, Errno> {
        let seek = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let inode = self.inode(ino)?;
        let found = self.files.seek(&inode, offset, seek).map_err(|failure| self.report(&failure))?;
        found.and_then(|found| i64::try_from(found).ok()).ok_or(Errno::ENXIO)
    }
}

impl Filesystem for Server {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.opening = protocol::configure(config, self.shown.acl);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(Some(inode)) => reply.entry(&FOR_EVER, &attributes::of(&inode), Generation(0)),
            Ok(None) => reply.entry(&FOR_EVER, &attributes::none(), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(ino) {
            Ok(inode) => reply.attr(&FOR_EVER, &attributes::of(&inode)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.inode(ino).and_then(|inode| {
            let target = self.tree.target(&inode).map_err(|failure| self.report(&failure))?;
            target.ok_or(Errno::EINVAL)
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.opening.file {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.opening.directory {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(errno) => return reply.error(errno),
        };
        let range = offset..offset.saturating_add(size.into());
        let mut reply = Some(reply);
        let read = BUFFER.with_borrow_mut(|buffer| {
            self.files.read(&inode, range, buffer, |bytes| {
                if let Some(reply) = reply.take() {
                    reply.data(bytes);
                }
            })
        });
        if let (Err(failure), Some(reply)) = (read, reply) {
            reply.error(self.report(&failure));
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.directory(ino).and_then(|(inode, tables)| {
            let listed = directory::list(&self.tree, &inode, &tables, offset, &mut reply);
            listed.map_err(|failure| self.report(&failure))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.directory(ino).and_then(|(inode, tables)| {
            let listed = directory::list(&self.tree, &inode, &tables, offset, &mut reply);
            listed.map_err(|failure| self.report(&failure))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let sb = self.tree.image().sb;
        let blocks = sb.file_bytes().div_ceil(BLOCK_BYTES);
        let block = BLOCK_BYTES as u32;
        reply.statfs(blocks, 0, 0, sb.layout.inodes.records(), 0, block, NAME_MAX as u32, block);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.xattr(req, ino, name.as_bytes(), size) {
            Ok((len, _)) if size == 0 => reply.size(len),
            Ok((_, value)) => reply.data(&value),
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.names(req, ino) {
            Ok(names) if size == 0 => reply.size(u32::try_from(names.len()).unwrap_or(u32::MAX)),
            Ok(names) if names.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(names) => reply.data(&names),
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(ino, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(errno),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        _in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        match [GET_FLAGS, GET_EXTENDED_FLAGS].into_iter().find(|(request, _)| *request == cmd) {
            Some((_, answer)) if answer.len() <= out_size as usize => reply.ioctl(0, answer),
            _ => reply.error(Errno::ENOTTY),
        }
    }

    // The requests below would change something. The VFS refuses them by itself as long as the mount is read-only; root can change that.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
