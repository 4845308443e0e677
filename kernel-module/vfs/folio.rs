// SPDX-License-Identifier: GPL-2.0

//! Folios of the page cache that are being filled.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)

use super::backing::Room;
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// A folio of the page cache that is locked and not up to date, and that the holder has to fill.
///
/// This is the one state in which a folio has a single writer and no reader: once it is up to date,
/// anybody may map or write it. So this type is the only way to its memory, and it ends in one of
/// two ways: [`LockedFolio::complete`] marks it up to date and unlocks it; dropping it unlocks it
/// as failed, and whoever waits for it reads it again or gets an error.
///
/// A folio is filled from its first byte to its last, and `complete` refuses one that is not filled:
/// pages are not zeroed when they enter the page cache, and stale memory must not become file
/// content.
///
/// # Invariants
///
/// - `folio` points to a folio that is in the page cache, locked by whoever holds this value, and
///   not up to date. The lock keeps it in the page cache, and thereby allocated.
/// - `len` is the folio's size in bytes; the first `filled` of them are initialised, and
///   `filled <= len`.
pub(crate) struct LockedFolio<'a> {
    folio: NonNull<bindings::folio>,
    len: usize,
    filled: usize,
    _p: PhantomData<&'a ()>,
}

// SAFETY: A folio's lock has no owner: any thread may fill and unlock it.
unsafe impl Send for LockedFolio<'_> {}

// SAFETY: Only `&mut self` reaches the folio's memory; what `&self` reads does not change while the
// folio is locked.
unsafe impl Sync for LockedFolio<'_> {}

impl LockedFolio<'_> {
    /// Takes over a locked folio.
    ///
    /// # Safety
    ///
    /// `folio` must be in the page cache, locked, not up to date, and the caller must hand over the
    /// duty to unlock it.
    pub(super) unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // SAFETY: The folio is locked, so it cannot be freed or change its size.
        let len = unsafe { bindings::tesserafs_folio_size(folio.as_ptr()) };
        // INVARIANT: As the caller promises.
        Self {
            folio,
            len,
            filled: 0,
            _p: PhantomData,
        }
    }

    /// The position of the folio's first byte in the file.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: By the type invariants the folio is locked, so its index does not change.
        let pos = unsafe { bindings::tesserafs_folio_pos(self.folio.as_ptr()) };
        // CAST: The page cache has no negative positions.
        pos as u64
    }

    /// The length of the folio in bytes: a multiple of the page size, beyond the end of the file
    /// perhaps.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the next byte goes.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// The bytes that are filled.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: These bytes are initialised by the type invariants, and only `&mut self` writes
        // them.
        unsafe { core::slice::from_raw_parts(self.address(), self.filled) }
    }

    /// Appends `bytes` to what is filled. More than there is room for is `EINVAL`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result {
        let to = self
            .room()
            .get_mut(..bytes.len())
            .ok_or(EINVAL)?
            .as_mut_ptr();
        // SAFETY: There is room for these bytes, which nobody else reads or writes by the type
        // invariants, so in particular `bytes` is other memory.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
        // INVARIANT: These bytes are initialised. OVERFLOW: They are in the folio.
        self.filled = self.filled.wrapping_add(bytes.len());
        Ok(())
    }

    /// Appends `len` zeros to what is filled. More than there is room for is `EINVAL`.
    pub(crate) fn zero(&mut self, len: usize) -> Result {
        for byte in self.room().get_mut(..len).ok_or(EINVAL)? {
            *byte = MaybeUninit::new(0);
        }
        // INVARIANT: These bytes are initialised. OVERFLOW: They are in the folio.
        self.filled = self.filled.wrapping_add(len);
        Ok(())
    }

    /// Marks the folio up to date and unlocks it.
    ///
    /// `EIO` if it was not filled; then the read has failed, as if the folio had been dropped.
    pub(crate) fn complete(self) -> Result {
        if self.filled != self.len {
            return Err(EIO);
        }
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: By the type invariants the folio is locked and so allocated.
        unsafe { bindings::tesserafs_flush_dcache_folio(this.folio.as_ptr()) };
        // SAFETY: By the type invariants the folio is locked, not up to date, and ours to unlock;
        // `ManuallyDrop` keeps `drop` from doing it again.
        unsafe { bindings::folio_end_read(this.folio.as_ptr(), true) };
        Ok(())
    }

    /// The address of the folio's first byte.
    fn address(&self) -> *mut u8 {
        // SAFETY: By the type invariants the folio is allocated; without highmem it has an address.
        unsafe { bindings::tesserafs_folio_address(self.folio.as_ptr()) }.cast()
    }
}

impl Room for LockedFolio<'_> {
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        // OVERFLOW: `filled <= len` by the type invariants.
        let len = self.len.saturating_sub(self.filled);
        let start = self.address().wrapping_add(self.filled).cast();
        // SAFETY: By the type invariants the folio holds these bytes, and nobody else reads or
        // writes them while it is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }

    unsafe fn set_filled(&mut self) {
        // INVARIANT: As the caller promises.
        self.filled = self.len;
    }
}

impl Drop for LockedFolio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the folio is locked, not up to date, and ours to unlock.
        unsafe { bindings::folio_end_read(self.folio.as_ptr(), false) };
    }
}
