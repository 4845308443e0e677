// SPDX-License-Identifier: GPL-2.0

//! The metadata inode: a page cache for the filesystem's own use.
//!
//! Each superblock may have one private inode. It is in no directory and not hashed, so nothing in
//! userspace can open, map or write it; its page cache holds the filesystem's metadata, filled by a
//! [`MetaSource`], which verifies what it fills. Up to date then means verified, and because no task
//! can write those folios, a reader may keep a `&[u8]` into one for as long as it holds the
//! [`MetaBuf`].
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::{
    address_space::ReadAhead,
    folio::{
        HeldFolio,
        LockedFolio, //
    },
    registration::FileSystem,
    super_block::SbInfo, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::from_result,
    prelude::*,
    sync::rcu, //
};

/// Pages that are read at once, at most, where those before them have been wanted already.
///
/// A page whose neighbours nobody has wanted is read alone: each has to be hashed, and a mount, or
/// a lookup, wants one here and one there. Then the window doubles.
const WINDOW_MAX: c_ulong = 32;

/// Where the metadata inode's content comes from.
pub(crate) trait MetaSource: Send + Sync + Sized + 'static {
    /// Fills one folio with verified content, and completes it.
    ///
    /// `meta` is the inode itself, for what this folio is verified with: folios that are
    /// [cached](Meta::cached), as the reader of this one has read them before and holds them. To read
    /// them here would take a stack as deep as the hash tree.
    fn read_folio(&self, meta: Meta<'_>, folio: LockedFolio<'_>) -> Result;

    /// Fills the folios of a window, as many as it likes, and completes them.
    ///
    /// As for [`read_folio`](Self::read_folio). Errors are not reported from here: what is not completed
    /// is read again if it is needed.
    fn readahead(&self, meta: Meta<'_>, window: ReadAhead<'_>);
}

/// The metadata inode of a superblock.
///
/// # Invariants
///
/// `inode` is the metadata inode of a superblock, and is valid for `'a`; or it is null if the
/// superblock has none.
#[derive(Clone, Copy)]
pub(crate) struct Meta<'a> {
    inode: *mut bindings::inode,
    _p: PhantomData<&'a bindings::inode>,
}

// SAFETY: All that is done with the inode is to read through its page cache, which locks for itself.
unsafe impl Send for Meta<'_> {}

// SAFETY: As for `Send`.
unsafe impl Sync for Meta<'_> {}

impl<'a> Meta<'a> {
    /// # Safety
    ///
    /// `inode` must be null, or a metadata inode that is valid for `'a`.
    pub(super) unsafe fn from_raw(inode: *mut bindings::inode) -> Self {
        // INVARIANT: As the caller promises.
        Self {
            inode,
            _p: PhantomData,
        }
    }

    /// The length that was given to `SuperBlock::set_meta`; zero if it never was.
    pub(crate) fn len(self) -> u64 {
        if self.inode.is_null() {
            return 0;
        }
        // SAFETY: The inode is valid by the type invariants.
        let len = unsafe { bindings::tesserafs_i_size_read(self.inode) };
        // CAST: `set_meta` checked that the length is positive.
        len as u64
    }

    /// The folio that holds the byte at `pos`, read and verified alone if it was not there.
    ///
    /// `EINVAL` beyond the end; `EINTR` if the task is killed while another one reads the folio; else what
    /// the [`MetaSource`] answered. What the source verifies it with must be held. May sleep. Not for a
    /// [`MetaSource`].
    pub(crate) fn read(self, pos: u64) -> Result<MetaBuf<'a>> {
        let (mapping, index) = self.place(pos)?;
        // SAFETY: The mapping has `MetaTable` as its operations, which read a folio without a file.
        let folio = unsafe { HeldFolio::read(mapping, index, core::ptr::null_mut()) }?;
        // SAFETY: The folio is one of the inode, and up to date.
        Ok(unsafe { MetaBuf::new(folio) })
    }

    /// The folio that holds the byte at `pos`, if it is there and verified; `EINVAL` beyond the end.
    pub(crate) fn cached(self, pos: u64) -> Result<Option<MetaBuf<'a>>> {
        let (mapping, index) = self.place(pos)?;
        // SAFETY: The mapping is valid.
        let folio = unsafe { HeldFolio::find(mapping, index) };
        let Some(folio) = folio.filter(HeldFolio::is_up_to_date) else {
            return Ok(None);
        };
        folio.mark_accessed();
        // SAFETY: The folio is one of the inode, and up to date.
        Ok(Some(unsafe { MetaBuf::new(folio) }))
    }

    /// Reads what is not there of a window from `pos` on, but not beyond `end`, with one call of
    /// [`MetaSource::readahead`] if the window has no gap. As for [`read`](Self::read).
    ///
    /// As the page cache's own readahead does, it looks at what is cached before `pos` to tell a listing
    /// from a look-up: the inode table, the entries and the names are read at the same time, so one state
    /// for all of them would tell nothing.
    pub(crate) fn read_ahead(self, pos: u64, end: u64) -> Result {
        let (mapping, index) = self.place(pos)?;
        let run = match index.checked_sub(1) {
            Some(before) => {
                let _rcu = rcu::read_lock();
                // SAFETY: The mapping is valid, and the read side of RCU is locked.
                let miss = unsafe { bindings::page_cache_prev_miss(mapping, before, WINDOW_MAX) };
                before.wrapping_sub(miss)
            }
            None => 0,
        };
        if run == 0 {
            return Ok(());
        }
        let pages = run.saturating_mul(2).min(WINDOW_MAX);
        // CAST: As in `place`.
        let end = self.len().min(end).div_ceil(bindings::PAGE_SIZE as u64) as c_ulong;
        let mut rac = bindings::readahead_control {
            mapping,
            _index: index,
            ..pin_init::zeroed()
        };
        // SAFETY: The mapping is valid.
        unsafe { bindings::tesserafs_filemap_invalidate_lock_shared(mapping) };
        // SAFETY: The request is for a mapping with `MetaTable` as its operations, whose
        // `invalidate_lock` is held; it ends before the end of the inode.
        unsafe {
            bindings::page_cache_ra_unbounded(&mut rac, pages.min(end.saturating_sub(index)), 0)
        };
        // SAFETY: It was locked above.
        unsafe { bindings::tesserafs_filemap_invalidate_unlock_shared(mapping) };
        Ok(())
    }

    /// The page cache, and the index in it of the page with the byte at `pos`.
    fn place(self, pos: u64) -> Result<(*mut bindings::address_space, c_ulong)> {
        if pos >= self.len() {
            return Err(EINVAL);
        }
        // CAST: The page cache's index is as wide as a 64-bit position.
        let index = (pos >> bindings::PAGE_SHIFT) as c_ulong;
        // SAFETY: `len` is not zero, so the inode is not null; it is valid by the type invariants.
        Ok((unsafe { (*self.inode).i_mapping }, index))
    }
}

/// A folio of verified metadata. Holding it keeps the memory, and keeps it in the page cache.
///
/// # Invariants
///
/// The folio is up to date; `bytes` is its memory, `start` the position of the first of them in the
/// metadata inode.
pub(crate) struct MetaBuf<'a> {
    _folio: HeldFolio,
    start: u64,
    bytes: NonNull<[u8]>,
    _p: PhantomData<&'a bindings::inode>,
}

// SAFETY: The folio's reference may be dropped from any thread; its bytes do not change.
unsafe impl Send for MetaBuf<'_> {}

// SAFETY: The bytes do not change.
unsafe impl Sync for MetaBuf<'_> {}

impl MetaBuf<'_> {
    /// # Safety
    ///
    /// `folio` must be one of a metadata inode, which stays as long as this lives, and be up to date.
    unsafe fn new(folio: HeldFolio) -> Self {
        let raw = folio.as_ptr();
        // SAFETY: The folio is held.
        let start = unsafe { bindings::tesserafs_folio_pos(raw) };
        // SAFETY: The folio is held.
        let len = unsafe { bindings::tesserafs_folio_size(raw) };
        // SAFETY: The folio is held; without highmem it has an address.
        let address = unsafe { bindings::tesserafs_folio_address(raw) };
        // SAFETY: The address of memory is not null.
        let address = unsafe { NonNull::new_unchecked(address.cast::<u8>()) };
        // INVARIANT: The folio is up to date, as the caller promises; `bytes` is its memory; CAST: the
        // page cache has no negative positions.
        Self {
            _folio: folio,
            start: start as u64,
            bytes: NonNull::slice_from_raw_parts(address, len),
            _p: PhantomData,
        }
    }

    /// The bytes from `pos` to the end of the folio; none if `pos` is not in the folio.
    pub(crate) fn bytes_from(&self, pos: u64) -> &[u8] {
        // SAFETY: The folio is up to date, so all of its bytes are initialised. Nobody writes them
        // any more: only a `MetaSource` does, and only before. The reference that is
        // owned keeps the memory, and keeps it from being migrated.
        let bytes = unsafe { self.bytes.as_ref() };
        pos.checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| bytes.get(offset..))
            .unwrap_or(&[])
    }
}

/// Makes the metadata inode of `sb`, `len` bytes long.
///
/// # Safety
///
/// `sb` must be a superblock of `T` whose `s_fs_info` is a [`SbInfo<T>`] and whose operations are
/// set. The caller owns the reference that is returned, and drops it before the superblock goes.
pub(super) unsafe fn new_inode<T: FileSystem>(
    sb: *mut bindings::super_block,
    len: u64,
) -> Result<NonNull<bindings::inode>> {
    let len = i64::try_from(len).map_err(|_| EFBIG)?;
    // SAFETY: The superblock is valid and has an `->alloc_inode`, as the caller promises.
    let inode = unsafe { bindings::new_inode(sb) };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    let raw = inode.as_ptr();
    // SAFETY: The inode is new, and on no list by which anybody could read its size.
    unsafe { bindings::tesserafs_i_size_write(raw, len) };
    // SAFETY: The superblock is valid, as the caller promises; its depth is set before it is filled.
    let depth = unsafe { (*sb).s_stack_depth };
    // SAFETY: As for the size; the depth is within the limit.
    unsafe { bindings::tesserafs_set_invalidate_lock_class(raw, depth, true) };
    // SAFETY: As for the size.
    let pages = unsafe { (*raw).i_mapping };
    // SAFETY: Set since `inode_init_always`, to the mapping within the inode.
    unsafe { (*pages).a_ops = &MetaTable::<T>::TABLE };
    Ok(inode)
}

/// The address space operations of the metadata inode.
struct MetaTable<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> MetaTable<T> {
    const TABLE: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(Self::read_folio),
        readahead: Some(Self::readahead),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `folio` must be locked, not up to date, and belong to the page cache of an inode that
    /// [`new_inode`] made for `T`; the lock is handed over.
    unsafe extern "C" fn read_folio(
        _file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The folio is locked, so its mapping and the inode that hosts it stay.
            let inode = unsafe { bindings::tesserafs_folio_inode(folio) };
            let folio = NonNull::new(folio).ok_or(EIO)?;
            // SAFETY: The page cache calls `->read_folio` with a locked folio that is not up to
            // date and leaves it to the callee to unlock it.
            let folio = unsafe { LockedFolio::from_raw(folio) };
            // SAFETY: `i_sb` is assigned once, before the inode is visible, and outlives it.
            let sb = unsafe { (*inode).i_sb };
            // SAFETY: Only `new_inode` installs this table, in superblocks of `T`.
            let info = unsafe { SbInfo::<T>::of(sb) };
            let source = info.meta_source().ok_or(EIO)?;
            // SAFETY: The inode is a metadata inode, and outlives its page cache.
            source.read_folio(unsafe { Meta::from_raw(inode) }, folio)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `rac` must be a readahead request for an inode that [`new_inode`] made for `T`.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        // SAFETY: The request is valid for this call, and its mapping is always set.
        let mapping = unsafe { (*rac).mapping };
        // SAFETY: A mapping that is being read has its host set, since `inode_init_always`.
        let inode = unsafe { (*mapping).host };
        // SAFETY: `i_sb` is assigned once, before the inode is visible, and outlives it.
        let sb = unsafe { (*inode).i_sb };
        // SAFETY: Only `new_inode` installs this table, in superblocks of `T`.
        let Some(source) = unsafe { SbInfo::<T>::of(sb) }.meta_source() else {
            return;
        };
        // SAFETY: The inode is a metadata inode, and outlives its page cache.
        let meta = unsafe { Meta::from_raw(inode) };
        // SAFETY: The page cache hands the request to this call.
        source.readahead(meta, unsafe { ReadAhead::from_raw(rac) });
    }
}
