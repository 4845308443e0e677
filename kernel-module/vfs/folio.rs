// SPDX-License-Identifier: GPL-2.0

//! Folios of the page cache: those that are held, and those that are being filled.
//!
//! C headers: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h),
//! [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)

use super::backing::Room;
use crate::{
    bindings,
    klib::buffer::{
        self,
        Buffer, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A reference to a folio of the page cache.
///
/// # Invariants
///
/// The reference is owned.
pub(super) struct HeldFolio(NonNull<bindings::folio>);

impl HeldFolio {
    /// The folio with page `index`, if there is one.
    ///
    /// # Safety
    ///
    /// `mapping` must be valid.
    pub(super) unsafe fn find(
        mapping: *mut bindings::address_space,
        index: c_ulong,
    ) -> Option<Self> {
        // SAFETY: As the caller promises.
        let folio = unsafe { bindings::tesserafs_filemap_get_folio(mapping, index) };
        // INVARIANT: `filemap_get_folio()` returned a folio with a reference for us.
        Some(Self(NonNull::new(from_err_ptr(folio).ok()?)?))
    }

    /// The folio with page `index`, up to date: read if it is not, by `->read_folio` with `file`.
    ///
    /// `EINTR` if the task is killed while another one reads the folio. `read_cache_folio()` would do
    /// the same, but that no signal wakes a task that waits there.
    ///
    /// # Safety
    ///
    /// `mapping` must be valid and have a `->read_folio` that takes `file` and waits until the folio is
    /// read.
    pub(super) unsafe fn read(
        mapping: *mut bindings::address_space,
        index: c_ulong,
        file: *mut bindings::file,
    ) -> Result<Self> {
        loop {
            // SAFETY: As the caller promises.
            let folio = unsafe { bindings::tesserafs_filemap_get_or_add_folio(mapping, index) };
            // INVARIANT: The function returned a folio with a reference for us.
            let folio = Self(NonNull::new(from_err_ptr(folio)?).ok_or(EIO)?);
            if !folio.is_up_to_date() {
                // SAFETY: As the caller promises.
                unsafe { folio.fill(mapping, file) }?;
            }
            if folio.is_up_to_date() {
                return Ok(folio);
            }
            // The page cache has let go of it meanwhile.
        }
    }

    /// Has the folio filled, unless another task does so first, or it has left `mapping`.
    ///
    /// # Safety
    ///
    /// As for [`read`](Self::read).
    unsafe fn fill(
        &self,
        mapping: *mut bindings::address_space,
        file: *mut bindings::file,
    ) -> Result {
        // SAFETY: The folio is held, by the type invariants.
        let locked = unsafe { bindings::tesserafs_folio_lock_to_fill(self.as_ptr(), mapping) };
        to_result(locked)?;
        if locked == 0 {
            return Ok(());
        }
        // SAFETY: The mapping is valid, and has static operations.
        let read_folio = unsafe { (*(*mapping).a_ops).read_folio }.ok_or(EIO)?;
        // SAFETY: The folio was locked just now, is not up to date, and is one of `mapping`; the lock is
        // handed over.
        to_result(unsafe { read_folio(file, self.as_ptr()) })
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    pub(super) fn is_up_to_date(&self) -> bool {
        // SAFETY: The folio is held, by the type invariants.
        unsafe { bindings::tesserafs_folio_test_uptodate(self.as_ptr()) }
    }

    /// Tells the page cache that it was of use.
    pub(super) fn mark_accessed(&self) {
        // SAFETY: The folio is held, by the type invariants.
        unsafe { bindings::folio_mark_accessed(self.as_ptr()) };
    }

    /// Takes off the mark at which a stream of reads has its next window read.
    pub(super) fn clear_readahead(&self) {
        // SAFETY: The folio is held, by the type invariants.
        unsafe { bindings::tesserafs_folio_clear_readahead(self.as_ptr()) };
    }
}

impl Drop for HeldFolio {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariants.
        unsafe { bindings::tesserafs_folio_put(self.as_ptr()) };
    }
}

/// A folio of the page cache that is locked and not up to date, and that the holder has to fill.
///
/// This is the one state in which a folio has a single writer and no reader: once it is up to date,
/// anybody may map or write it. So this type is the only way to its memory, and it ends in one of
/// two ways: [`LockedFolio::complete`] marks it up to date and unlocks it; dropping it unlocks it
/// as failed, and whoever waits for it reads it again or gets an error.
///
/// Its bytes are filled by a read of the backing store ([`Room`]), or part by part, by several
/// processors perhaps ([`Gap`]). `complete` refuses a folio that is not filled: pages are not zeroed
/// when they enter the page cache, and stale memory must not become file content.
///
/// # Invariants
///
/// - `folio` points to a folio that is in the page cache, locked by whoever holds this value, and
///   not up to date. The lock keeps it in the page cache, and thereby allocated.
/// - `len` is the folio's size in bytes; `filled` of them, no two the same, are initialised.
pub(crate) struct LockedFolio<'a> {
    folio: NonNull<bindings::folio>,
    len: usize,
    filled: Atomic<usize>,
    _p: PhantomData<&'a ()>,
}

// SAFETY: A folio's lock has no owner: any thread may fill and unlock it.
unsafe impl Send for LockedFolio<'_> {}

// SAFETY: `&self` reads bytes only if all are filled, and then nobody writes them: a gap, by which they
// are written, borrows the folio exclusively. The folio itself does not change while it is locked.
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
            filled: Atomic::new(0),
            _p: PhantomData,
        }
    }

    /// Adds folios to a page cache that follow each other, for the pages from `index` up to `end`: behind
    /// those that are there already, and up to the next one that is. `index` is then where they end;
    /// none means that all pages are there.
    ///
    /// They are as large as their place allows, as those of a readahead window are. `ENOMEM` if there is
    /// no memory for the first one.
    ///
    /// # Safety
    ///
    /// `mapping` must be valid, and have its `invalidate_lock` held; `end` must not lie behind the page
    /// with the last byte.
    pub(super) unsafe fn add(
        mapping: *mut bindings::address_space,
        index: &mut c_ulong,
        end: c_ulong,
    ) -> Result<Option<Buffer<Self>>> {
        let mut folios = Buffer::with_capacity(end.saturating_sub(*index))?;
        while *index < end {
            // SAFETY: As the caller promises.
            match unsafe { Self::add_one(mapping, *index, end) } {
                Ok(folio) => {
                    *index = index.saturating_add(folio.len >> bindings::PAGE_SHIFT);
                    folios.push(folio)?;
                }
                Err(EEXIST) if folios.is_empty() => *index = index.saturating_add(1),
                Err(EEXIST) => break,
                Err(error) if folios.is_empty() => return Err(error),
                Err(_) => *index = end,
            }
        }
        Ok(Some(folios).filter(|folios| !folios.is_empty()))
    }

    /// Adds the largest folio that begins with page `index`, and fits.
    ///
    /// # Safety
    ///
    /// As for [`add`](Self::add).
    unsafe fn add_one(
        mapping: *mut bindings::address_space,
        index: c_ulong,
        end: c_ulong,
    ) -> Result<Self> {
        // SAFETY: As the caller promises.
        let largest = unsafe { bindings::tesserafs_mapping_max_folio_order(mapping) };
        let fitting = end.saturating_sub(index).checked_ilog2().unwrap_or(0);
        let mut order = index.trailing_zeros().min(fitting).min(largest);
        loop {
            // SAFETY: As the caller promises; the folio is aligned to its size.
            let folio = unsafe { bindings::tesserafs_filemap_add_new_folio(mapping, index, order) };
            match from_err_ptr(folio) {
                Ok(folio) => {
                    let folio = NonNull::new(folio).ok_or(ENOMEM)?;
                    // SAFETY: It was added just now, locked and not up to date.
                    return Ok(unsafe { Self::from_raw(folio) });
                }
                // A part of its place may be taken, or memory be in pieces.
                Err(_) if order > 0 => order = 0,
                Err(error) => return Err(error),
            }
        }
    }

    /// The position of the folio's first byte in the file.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: By the type invariants the folio is locked, so its index does not change.
        let pos = unsafe { bindings::tesserafs_folio_pos(self.folio.as_ptr()) };
        // CAST: The page cache has no negative positions.
        pos as u64
    }

    /// Where it ends in the file: beyond the end of the file perhaps.
    fn end(&self) -> u64 {
        self.pos().saturating_add(self.len as u64)
    }

    /// Its bytes; none if it is not filled.
    pub(crate) fn bytes(&self) -> &[u8] {
        if !self.is_filled() {
            return &[];
        }
        // SAFETY: These bytes are initialised by the type invariants, and only `&mut self` writes
        // them.
        unsafe { core::slice::from_raw_parts(self.address(), self.len) }
    }

    /// All of its memory, to be filled anew.
    fn gap(&mut self) -> Gap<'_> {
        *self.filled.get_mut() = 0;
        let start = self.address().cast();
        // SAFETY: By the type invariants the folio has these bytes, and nobody else reads or writes
        // them while it is borrowed exclusively.
        let to = unsafe { core::slice::from_raw_parts_mut(start, self.len) };
        Gap {
            to,
            filled: &self.filled,
        }
    }

    /// Whether each of its bytes is filled.
    ///
    /// The number needs no order of its own: no gap is left while the folio is not borrowed, and whoever
    /// waited for the last of them has waited for its bytes.
    fn is_filled(&self) -> bool {
        self.filled.load(Relaxed) == self.len
    }

    /// Marks the folio up to date and unlocks it.
    ///
    /// `EIO` if it was not filled; then the read has failed, as if the folio had been dropped.
    pub(crate) fn complete(self) -> Result {
        if !self.is_filled() {
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
        self.gap().to
    }

    unsafe fn set_filled(&mut self) {
        // INVARIANT: As the caller promises.
        *self.filled.get_mut() = self.len;
    }
}

impl Drop for LockedFolio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the folio is locked, not up to date, and ours to unlock.
        unsafe { bindings::folio_end_read(self.folio.as_ptr(), false) };
    }
}

/// Memory of a folio that is not filled yet.
///
/// It knows nothing of the folio but how many of its bytes are filled, so it can be cut in parts that
/// are filled in any order, by anybody; those that are not keep the folio from being completed.
pub(crate) struct Gap<'a> {
    to: &'a mut [MaybeUninit<u8>],
    filled: &'a Atomic<usize>,
}

impl<'a> Gap<'a> {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.to.len()
    }

    /// Fills it: `fill` gets its memory, and gives all of it back when it is initialised.
    ///
    /// `EIO` if it gives other memory, or less.
    pub(crate) fn fill<E: From<Error>>(
        self,
        fill: impl FnOnce(&'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], E>,
    ) -> Result<(), E> {
        let (start, len) = (self.to.as_ptr(), self.to.len());
        let filled = fill(self.to)?;
        if filled.as_ptr() != start.cast() || filled.len() != len {
            return Err(EIO.into());
        }
        // INVARIANT: A reference to these bytes as such shows that they are initialised. No other
        // gap of the folio has them, and this one is gone.
        self.filled.add(len, Relaxed);
        Ok(())
    }

    /// Fills it with `bytes`, which must be as long.
    pub(crate) fn write(self, bytes: &[u8]) -> Result {
        self.fill(|to| buffer::copy_to(to, bytes))
    }

    /// Fills it with zeros.
    pub(crate) fn zero(self) -> Result {
        self.fill(|to| Ok(buffer::zero(to)))
    }

    /// Cuts it in two, the first of them `len` bytes long; nothing if it is shorter.
    fn split(self, len: usize) -> Option<(Self, Self)> {
        let filled = self.filled;
        let (head, tail) = self.to.split_at_mut_checked(len)?;
        Some((Self { to: head, filled }, Self { to: tail, filled }))
    }
}

/// The memory of folios that follow each other, taken from the first byte to the last.
pub(crate) struct Gaps<'a, 'b> {
    /// Of the folio that was begun.
    gap: Option<Gap<'a>>,
    rest: core::slice::IterMut<'a, LockedFolio<'b>>,
    pos: u64,
    end: u64,
}

impl<'a, 'b> Gaps<'a, 'b> {
    /// The memory of `folios`, none of which is filled.
    pub(crate) fn new(folios: &'a mut [LockedFolio<'b>]) -> Self {
        Self {
            gap: None,
            pos: folios.first().map_or(0, LockedFolio::pos),
            end: folios.last().map_or(0, LockedFolio::end),
            rest: folios.iter_mut(),
        }
    }

    /// The position in the file of what is taken next; none if all is taken.
    pub(crate) fn pos(&self) -> Option<u64> {
        Some(self.pos).filter(|pos| *pos < self.end)
    }

    /// Where the memory ends in the file.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Takes the next memory: that of one folio, `len` bytes at most.
    ///
    /// `EIO` if all is taken, or if the next folio is not the next of the file.
    pub(crate) fn take(&mut self, len: u64) -> Result<Gap<'a>> {
        let gap = self.next().ok_or(EIO)?;
        let len = usize::try_from(len).unwrap_or(gap.len()).min(gap.len());
        let (head, tail) = gap.split(len).ok_or(EIO)?;
        self.gap = Some(tail);
        self.pos = self.pos.saturating_add(len as u64);
        Ok(head)
    }

    /// Takes the next `len` bytes if they are all of one folio.
    pub(crate) fn take_whole(&mut self, len: u64) -> Result<Option<Gap<'a>>> {
        let gap = self.next().ok_or(EIO)?;
        let fits = gap.len() as u64 >= len;
        self.gap = Some(gap);
        if fits {
            self.take(len).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The rest of the folio that was begun, or the next one.
    fn next(&mut self) -> Option<Gap<'a>> {
        if let Some(gap) = self.gap.take().filter(|gap| gap.len() > 0) {
            return Some(gap);
        }
        let pos = self.pos;
        let folio = self.rest.next().filter(|folio| folio.pos() == pos)?;
        Some(folio.gap())
    }
}
