// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    folio::LockedFolio,
    inode::INode,
    mmap,
    page_cache::{
        self,
        PageKey, //
    },
    registration::FileSystem, //
};
use crate::{
    bindings,
    klib::buffer::Buffer, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    error::from_result,
    prelude::*, //
};

/// A position in a directory: a cookie that `telldir` returns and `seekdir` takes.
///
/// 0 is `.`, 1 is `..`; what follows is the filesystem's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePos(u64);

impl FilePos {
    /// The position of the first entry after `..`.
    const FIRST: Self = Self(2);

    /// The index after `..`; none for the dots.
    fn index(self) -> Option<u64> {
        self.0.checked_sub(Self::FIRST.0)
    }
}

/// The aim of an `lseek`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seek {
    /// The next byte that is not in a hole: `SEEK_DATA`.
    Data,
    /// The next byte that is in a hole, or the end of the file: `SEEK_HOLE`.
    Hole,
}

/// The type of a directory entry, as `getdents` shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A whiteout, which is a character device to the outside.
    Whiteout,
}

impl EntryType {
    fn as_dt(self) -> c_uint {
        match self {
            Self::Regular => bindings::DT_REG,
            Self::Directory => bindings::DT_DIR,
            Self::Symlink => bindings::DT_LNK,
            Self::Fifo => bindings::DT_FIFO,
            Self::Socket => bindings::DT_SOCK,
            Self::Whiteout => bindings::DT_CHR,
        }
    }
}

/// The operations of `struct file_operations` that a read-only filesystem has to provide: the others are
/// generic.
#[vtable]
pub(crate) trait Operations {
    /// The filesystem whose inodes these operations serve.
    type FileSystem: FileSystem;

    /// Emits the entries of a directory from [`DirEmitter::index`] on, until there are no more or
    /// [`DirEmitter::emit`] says that it is enough. `.` and `..` are not among them. May sleep; runs
    /// in parallel for different open files.
    fn read_dir(_dir: &INode<Self::FileSystem>, _emitter: &mut DirEmitter<'_>) -> Result {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// The key under which a regular file shares its pages with others that have the same; without
    /// one it keeps its pages to itself. Asked when the inode is opened first.
    ///
    /// If this fails, that open fails with the same error, and the next open asks again.
    fn page_key(_inode: &INode<Self::FileSystem>) -> Result<Option<PageKey>> {
        Ok(None)
    }

    /// The bytes that have to be read together with `range`, which is not empty and lies in the file,
    /// as whole pages: a part of them costs what all of them cost. May sleep.
    fn widen(_inode: &INode<Self::FileSystem>, range: Range<u64>) -> Result<Range<u64>> {
        Ok(range)
    }

    /// Fills `folios`, which follow each other, and completes them; as many as it likes.
    ///
    /// As for `address_space::Operations::readahead`.
    fn fill(_inode: &INode<Self::FileSystem>, _folios: Buffer<LockedFolio<'_>>) {}

    /// How many entries a directory has, without the dots: `SEEK_END` goes behind them.
    fn entries(_dir: &INode<Self::FileSystem>) -> u64 {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Finds the next data or hole at or after `offset`, which lies before the end of the file.
    ///
    /// The end of the file counts as a hole; `ENXIO` if there is no more data. Without this method
    /// the whole file is data.
    fn seek(_inode: &INode<Self::FileSystem>, _offset: u64, _seek: Seek) -> Result<u64> {
        build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}

/// A table of file operations of the filesystem `T`.
pub(crate) struct Ops<T: FileSystem> {
    pub(super) table: &'static bindings::file_operations,
    _p: PhantomData<fn() -> T>,
}

impl<T: FileSystem> Ops<T> {
    /// For directories, with [`Operations::read_dir`] and [`Operations::entries`] of `U`.
    pub(crate) const fn directory<U: Operations<FileSystem = T>>() -> Self {
        Self {
            table: &Table::<U>::DIRECTORY,
            _p: PhantomData,
        }
    }

    /// For regular files, with [`Operations::seek`] of `U`.
    pub(crate) const fn regular<U: Operations<FileSystem = T>>() -> Self {
        Self {
            table: &Table::<U>::REGULAR,
            _p: PhantomData,
        }
    }
}

/// The callbacks of `U`, as C calls them. An open file holds its mount, which holds the module, so
/// the tables need no owner.
struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const DIRECTORY: bindings::file_operations = bindings::file_operations {
        // A directory never changes and is never removed, so reading it needs no lock.
        fop_flags: bindings::TESSERAFS_CONST_FOP_IMMUTABLE,
        llseek: Some(Self::dir_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        fsync: Some(bindings::noop_fsync),
        #[cfg(CONFIG_FILE_LOCKING)]
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    /// As `generic_ro_fops`, over pages that may be shared, and with what ext4 has on top of those.
    ///
    /// Not `FOP_BUFFER_RASYNC`: filling a page reads and decodes in the caller's context, so a reader
    /// that must not wait has to hand the read to a worker.
    const REGULAR: bindings::file_operations = bindings::file_operations {
        // For an image in an image.
        fop_flags: bindings::TESSERAFS_CONST_FOP_DONTCACHE,
        open: Some(Self::open),
        llseek: if U::HAS_SEEK {
            Some(Self::llseek)
        } else {
            Some(bindings::generic_file_llseek)
        },
        read_iter: Some(Self::read_iter),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        mmap_prepare: Some(mmap::Table::<U>::mmap_prepare),
        // A huge page is mapped where address and file position agree modulo its size.
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        fsync: Some(bindings::noop_fsync),
        splice_read: Some(bindings::filemap_splice_read),
        #[cfg(CONFIG_FILE_LOCKING)]
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// To be called by the VFS as `->open` of a file whose inode `NewINode::init` gave this table.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the file
            // holds the inode.
            let inode = unsafe { INode::<U::FileSystem>::from_raw(inode) };
            let mapping = page_cache::mapping(inode, || U::page_key(inode))?;
            // SAFETY: The file is being opened, so nobody else looks at it; the mapping lives as long
            // as the inode, which the file holds.
            unsafe { (*file).f_mapping = mapping };
            // `read_iter` honours both.
            let modes = bindings::TESSERAFS_CONST_FMODE_NOWAIT
                | bindings::TESSERAFS_CONST_FMODE_CAN_ODIRECT;
            // SAFETY: The file is being opened, so nobody else looks at it.
            unsafe { (*file).f_mode |= modes };
            Ok(0)
        })
    }

    /// Reads through the page cache, a request with `O_DIRECT` as any other: the stored bytes are not
    /// those of the file, so there is nothing that could go to the caller's memory directly. Such a
    /// request may have any alignment.
    ///
    /// A request with `IOCB_NOWAIT` gets what is in the page cache, or `EAGAIN`. The page cache would
    /// call `->readahead` for one, which only submits requests in other filesystems; here it waits for
    /// the backing store and decodes. `IOCB_NOIO` keeps it from that.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `->read_iter` of a file whose inode `NewINode::init` gave this
    /// table.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The request is ours for this call.
        let before = unsafe { (*kiocb).ki_flags };
        if before & bindings::TESSERAFS_CONST_IOCB_NOWAIT == 0 {
            // SAFETY: The request and the iterator are the arguments of this callback.
            return unsafe { bindings::filemap_read(kiocb, to, 0) };
        }
        // SAFETY: The request is ours for this call.
        unsafe { (*kiocb).ki_flags = before | bindings::TESSERAFS_CONST_IOCB_NOIO };
        // SAFETY: The request and the iterator are the arguments of this callback.
        let n = unsafe { bindings::filemap_read(kiocb, to, 0) };
        // io_uring issues the same request again from a worker, which may wait.
        //
        // SAFETY: The request is still ours: `filemap_read()` is done with it when it returns.
        unsafe { (*kiocb).ki_flags = before };
        n
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->unlocked_ioctl` of a file or directory whose inode
    /// `NewINode::init` gave this table.
    unsafe extern "C" fn ioctl(
        _file: *mut bindings::file,
        command: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // CAST: The argument of both commands is an address of the caller's.
        let to = argument as *mut c_void;
        let error = match command {
            // Inode numbers are not used again, so there is one generation.
            //
            // SAFETY: `put_user()` takes any address, and fails for one that is not the caller's.
            bindings::TESSERAFS_CONST_FS_IOC_GETVERSION => unsafe {
                bindings::tesserafs_put_user_int(0, to.cast())
            },
            // No image has a label: the empty string.
            //
            // SAFETY: As for `put_user()`.
            bindings::TESSERAFS_CONST_FS_IOC_GETFSLABEL => unsafe {
                bindings::tesserafs_put_user_char(0, to.cast())
            },
            _ => ENOTTY.to_errno(),
        };
        // CAST: `long` is the wider one.
        error as c_long
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->iterate_shared` of a file whose inode `NewINode::init` gave
    /// this table.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        ctx: *mut bindings::dir_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: An open file has an inode, which does not change.
            let inode = unsafe { (*file).f_inode };
            // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the
            // file holds the inode.
            let dir = unsafe { INode::from_raw(inode) };
            // SAFETY: Both are valid for this call.
            if !unsafe { bindings::tesserafs_dir_emit_dots(file, ctx) } {
                return Ok(0);
            }
            // INVARIANT: The context is valid, and ours, for this call; it is past the dots.
            let mut emitter = DirEmitter {
                ctx,
                _p: PhantomData,
            };
            U::read_dir(dir, &mut emitter)?;
            Ok(0)
        })
    }

    /// Seeks among the positions of a directory, which are not those of its size: two are the dots'.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `->llseek` of a directory whose inode `NewINode::init` gave this
    /// table.
    unsafe extern "C" fn dir_llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file).f_inode };
        // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the file
        // holds the inode.
        let dir = unsafe { INode::from_raw(inode) };
        let end = U::entries(dir).saturating_add(FilePos::FIRST.0);
        let max = bindings::TESSERAFS_CONST_MAX_LFS_FILESIZE;
        let end = bindings::loff_t::try_from(end).unwrap_or(max);
        // SAFETY: The file is valid for this call, and its position is ours to be set.
        unsafe { bindings::generic_file_llseek_size(file, offset, whence, max, end) }
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->llseek` of a file whose inode `NewINode::init` gave this table.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // CAST: Negative values are not among the constants.
        let seek = match whence as u32 {
            bindings::SEEK_DATA => Seek::Data,
            bindings::SEEK_HOLE => Seek::Hole,
            // SAFETY: The file is valid for this call.
            _ => return unsafe { bindings::generic_file_llseek(file, offset, whence) },
        };
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file).f_inode };
        // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the file
        // holds the inode.
        let inode = unsafe { INode::<U::FileSystem>::from_raw(inode) };
        let found = match u64::try_from(offset) {
            Ok(offset) if offset < inode.size() => U::seek(inode, offset, seek),
            _ => Err(ENXIO),
        };
        match found.and_then(|pos| Ok(bindings::loff_t::try_from(pos)?)) {
            // SAFETY: The file is valid for this call, and its position is ours to be set.
            Ok(pos) => unsafe {
                bindings::vfs_setpos(file, pos, bindings::TESSERAFS_CONST_MAX_LFS_FILESIZE)
            },
            Err(e) => bindings::loff_t::from(e.to_errno()),
        }
    }
}

/// Where the entries of a directory go.
///
/// # Invariants
///
/// `ctx` is valid, and used by nobody else, for `'a`; its position is at least 2.
pub(crate) struct DirEmitter<'a> {
    ctx: *mut bindings::dir_context,
    _p: PhantomData<&'a mut bindings::dir_context>,
}

impl DirEmitter<'_> {
    /// The index, after `.` and `..`, of the entry that is wanted next.
    pub(crate) fn index(&self) -> u64 {
        // SAFETY: By the type invariants.
        let pos = unsafe { (*self.ctx).pos };
        // CAST: `generic_file_llseek()` sets no negative position, and the dots have been emitted.
        FilePos(pos as u64).index().unwrap_or(0)
    }

    /// Emits the entry with the index [`DirEmitter::index`], and goes on to the next one.
    ///
    /// `false` if there is no room for it: it stays the one that is wanted next.
    pub(crate) fn emit(&mut self, name: &[u8], ino: u64, kind: EntryType) -> bool {
        let Ok(len) = c_int::try_from(name.len()) else {
            return false;
        };
        // SAFETY: The context is valid by the type invariants; the name is as long as is said.
        let room = unsafe {
            bindings::tesserafs_dir_emit(self.ctx, name.as_ptr().cast(), len, ino, kind.as_dt())
        };
        if room {
            // SAFETY: By the type invariants.
            let pos = unsafe { &mut (*self.ctx).pos };
            *pos = pos.saturating_add(1);
        }
        room
    }
}
