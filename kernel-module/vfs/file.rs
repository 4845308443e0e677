// SPDX-License-Identifier: GPL-2.0

//! Open files and directories.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    inode::INode,
    mmap,
    page_cache::{
        self,
        PageKey, //
    },
    registration::FileSystem, //
};
use crate::bindings;
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

/// What `lseek` looks for.
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

/// What `struct file_operations` asks of a read-only filesystem, beyond what is generic.
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

    /// What a regular file must have in common with others to share its pages with them; none keeps
    /// them to itself. Asked when the inode is opened first.
    ///
    /// An error is what that open fails with, and the next one asks again.
    fn page_key(_inode: &INode<Self::FileSystem>) -> Result<Option<PageKey>> {
        Ok(None)
    }

    /// The bytes that have to be read together with `range`, which is not empty and lies in the file,
    /// as whole pages: a part of them costs what all of them cost. May sleep.
    fn widen(_inode: &INode<Self::FileSystem>, range: Range<u64>) -> Result<Range<u64>> {
        Ok(range)
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
    /// For directories, with [`Operations::read_dir`] of `U`.
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
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        #[cfg(CONFIG_FILE_LOCKING)]
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    /// As `generic_ro_fops`, over pages that may be shared.
    const REGULAR: bindings::file_operations = bindings::file_operations {
        // For an image in an image.
        fop_flags: bindings::TESSERAFS_CONST_FOP_DONTCACHE,
        open: Some(Self::open),
        llseek: if U::HAS_SEEK {
            Some(Self::llseek)
        } else {
            Some(bindings::generic_file_llseek)
        },
        read_iter: Some(bindings::generic_file_read_iter),
        mmap_prepare: Some(mmap::Table::<U>::mmap_prepare),
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
            Ok(0)
        })
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
