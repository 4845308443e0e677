// SPDX-License-Identifier: GPL-2.0

//! Address spaces: how the page cache of a file is filled.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::{
    folio::LockedFolio,
    inode::INode,
    page_cache,
    registration::FileSystem, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::from_result,
    prelude::*, //
};

/// The operations that `struct address_space_operations` asks of a read-only file.
#[vtable]
pub(crate) trait Operations {
    /// The filesystem whose inodes these operations serve.
    type FileSystem: FileSystem;

    /// Fills one folio, and completes it. An error is passed to the reader.
    ///
    /// Runs in the context of the task that needs the page: in a `read` or a page fault. May sleep.
    /// The read of a backing file fails with `EINTR` when a fatal signal is pending: pass it on and
    /// do not report it, as the folio is simply read again for the next task that needs it.
    fn read_folio(inode: &INode<Self::FileSystem>, folio: LockedFolio<'_>) -> Result;

    /// Fills the folios of a window ahead of a reader, as many as it likes.
    ///
    /// Errors are not reported from here: a folio that is not completed is read again, by
    /// [`Operations::read_folio`], if somebody needs it.
    fn readahead(inode: &INode<Self::FileSystem>, window: ReadAhead<'_>);
}

/// A table of address space operations of the filesystem `T`.
pub(crate) struct Ops<T: FileSystem> {
    pub(super) table: &'static bindings::address_space_operations,
    _p: PhantomData<fn() -> T>,
}

impl<T: FileSystem> Ops<T> {
    /// The table of `U`.
    pub(crate) const fn new<U: Operations<FileSystem = T>>() -> Self {
        Self {
            table: &Table::<U>::TABLE,
            _p: PhantomData,
        }
    }
}

/// The callbacks of `U`, as C calls them.
struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const TABLE: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(Self::read_folio),
        readahead: Some(Self::readahead),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `folio` must be locked, not up to date, and belong to the page cache of an inode that
    /// `NewINode::init` or `PageCache::get` gave this table; the lock is handed over.
    unsafe extern "C" fn read_folio(
        file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> c_int {
        from_result(|| {
            let raw = NonNull::new(folio).ok_or(EIO)?;
            // SAFETY: The page cache calls `->read_folio` with a locked folio that is not up to
            // date and leaves it to the callee to unlock it.
            let folio = unsafe { LockedFolio::from_raw(raw) };
            // SAFETY: The folio is locked, so its mapping stays.
            let mapping = unsafe { bindings::tesserafs_folio_mapping(raw.as_ptr()) };
            // SAFETY: The mapping has this table, and stays while the folio is locked; the page
            // cache holds the file for this call.
            let inode = unsafe { page_cache::source::<U::FileSystem>(mapping, file) }?;
            U::read_folio(inode, folio)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `rac` must be a readahead request of the page cache for an inode that `NewINode::init` or
    /// `PageCache::get` gave this table.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: The request is valid for this call, and its mapping is always set.
        let mapping = unsafe { (*rac).mapping };
        // SAFETY: As above.
        let file = unsafe { (*rac).file };
        // SAFETY: The mapping has this table, and stays as does the file: the request holds both.
        let source = unsafe { page_cache::source::<U::FileSystem>(mapping, file) };
        let Ok(inode) = source else {
            return;
        };
        // SAFETY: The page cache hands the request to this call.
        let window = unsafe { ReadAhead::from_raw(rac) };
        U::readahead(inode, window);
    }
}

/// A window of a file that a reader will need soon.
///
/// It can be looked at and widened first; then [`ReadAhead::folios`] hands out what is to be
/// filled.
///
/// # Invariants
///
/// `rac` points to a readahead request that is valid, and used by nobody else, for `'a`.
pub(crate) struct ReadAhead<'a> {
    rac: *mut bindings::readahead_control,
    _p: PhantomData<&'a mut bindings::readahead_control>,
}

impl<'a> ReadAhead<'a> {
    /// # Safety
    ///
    /// `rac` must be a readahead request that is valid, and used by nobody else, for `'a`.
    pub(super) unsafe fn from_raw(rac: *mut bindings::readahead_control) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            rac,
            _p: PhantomData,
        }
    }

    /// The position of the window's first byte.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: The request is valid by the type invariants.
        let pos = unsafe { bindings::tesserafs_readahead_pos(self.rac) };
        // CAST: The page cache has no negative positions.
        pos as u64
    }

    /// The length of the window in bytes: whole pages, beyond the end of the file perhaps.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: The request is valid by the type invariants.
        unsafe { bindings::tesserafs_readahead_length(self.rac) }
    }

    /// Asks for the window to cover `len` bytes at `pos`, which must include it.
    ///
    /// The page cache does what it can: it stops at the first page that it already has, or that it
    /// cannot allocate. The resulting window is in [`ReadAhead::pos`] and [`ReadAhead::len`].
    pub(crate) fn expand(&mut self, pos: u64, len: usize) {
        let end = pos.checked_add(len as u64);
        let covered = self.pos().checked_add(self.len() as u64);
        let (Some(end), Some(covered)) = (end, covered) else {
            return;
        };
        let Ok(start) = i64::try_from(pos) else {
            return;
        };
        if pos <= self.pos() && end >= covered && i64::try_from(end).is_ok() {
            // SAFETY: The request is valid by the type invariants, none of its folios has been
            // taken, and the new window includes the old one.
            unsafe { bindings::readahead_expand(self.rac, start, len) };
        }
    }

    /// The folios of the window, in the order of the file.
    pub(crate) fn folios(self) -> Folios<'a> {
        Folios(self)
    }
}

/// The folios of a readahead window that were not taken yet.
///
/// Those that are never taken are unlocked by the page cache when the callback returns.
pub(crate) struct Folios<'a>(ReadAhead<'a>);

impl<'a> Iterator for Folios<'a> {
    type Item = LockedFolio<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: The request is valid by the type invariants of `ReadAhead`.
        let folio = unsafe { bindings::tesserafs_readahead_folio(self.0.rac) };
        // SAFETY: `readahead_folio()` returns a folio that the page cache has just added, locked
        // and not up to date, and leaves it to the caller to unlock it. The lock keeps it in the
        // page cache after the request's reference was dropped.
        NonNull::new(folio).map(|folio| unsafe { LockedFolio::from_raw(folio) })
    }
}
