// SPDX-License-Identifier: GPL-2.0

//! Mapped files: how much a page fault reads.
//!
//! `filemap_fault()` answers a miss with a window of the readahead size around the page. Programs
//! fault here and there, and of such a window every byte has to be verified and decoded. So a miss
//! reads what is decoded for its page anyway ([`Operations::widen`]), into folios as large as their
//! place allows, before `filemap_fault()` sees it. If that page follows the last window of the open
//! file, the mapping is probably read in order: then the window is twice as long as the last one, up to
//! [`IN_ORDER`].
//!
//! `madvise(2)` is respected: with `MADV_SEQUENTIAL`, `MADV_RANDOM` or `MADV_HUGEPAGE` the page
//! cache decides, as it does for a mapping that is locked into memory.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::{
    file::Operations,
    folio::{
        HeldFolio,
        LockedFolio, //
    },
    inode::INode,
    page_cache, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// Pages of the longest window of a mapping that is read in order: 2 MiB, as `read()` gets it.
const IN_ORDER: c_ulong = 512;

/// Pages of a window that needs no widening: what its ends leave of a chunk waits for the next one.
const WIDE: c_ulong = 64;

/// Bytes of a page.
const PAGE: u64 = bindings::PAGE_SIZE as u64;

/// The operations of a mapping of a file with the table of `U`.
pub(super) struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        map_pages: Some(bindings::filemap_map_pages),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// To be called by the VFS as `->mmap_prepare` of a file whose inode `NewINode::init` gave a
    /// table of `U`.
    pub(super) unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // SAFETY: The description is valid for this call, and of a file whose mapping can be read.
        let answer = unsafe { bindings::generic_file_readonly_mmap_prepare(desc) };
        if answer == 0 {
            // SAFETY: As above; the table is static, and the mapping holds the file, which holds the
            // module.
            unsafe { (*desc).vm_ops = &Self::TABLE };
        }
        answer
    }

    /// # Safety
    ///
    /// To be called by the memory management as `->fault` of an area that [`Self::mmap_prepare`]
    /// gave this table, with the lock of the fault held.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: As the caller promises; the fault's lock is not released before the `Miss` is made.
        let Some(miss) = (unsafe { Miss::of::<U>(vmf) }) else {
            // SAFETY: As the caller promises.
            return unsafe { bindings::filemap_fault(vmf) };
        };
        // SAFETY: Only looks at the flags of the fault.
        if unsafe { bindings::tesserafs_fault_must_not_wait(vmf) } {
            return bindings::vm_fault_reason_VM_FAULT_RETRY;
        }
        // SAFETY: As above.
        let has_advice = unsafe { bindings::tesserafs_fault_has_advice(vmf) };
        // SAFETY: As above.
        let was_tried = unsafe { bindings::tesserafs_fault_was_tried(vmf) };
        // `filemap_fault()` reads once more, and reports, a page that the first try could not read.
        if has_advice || was_tried {
            // SAFETY: As the caller promises.
            return unsafe { bindings::filemap_fault(vmf) };
        }
        // SAFETY: As above.
        let may_unlock = unsafe { bindings::tesserafs_fault_may_unlock(vmf) };
        if may_unlock {
            // As `filemap_fault()` does: nobody should wait for our store to change a mapping.
            //
            // SAFETY: The lock is held, and the answer is that the fault is to be tried again.
            unsafe { bindings::tesserafs_release_fault_lock(vmf) };
        }
        // Errors are not reported from here: `filemap_fault()` reads the page again, and reports.
        let _ = miss.read::<U>();
        // SAFETY: Has no arguments, and counts only.
        unsafe { bindings::tesserafs_count_major_fault() };
        if may_unlock {
            return bindings::vm_fault_reason_VM_FAULT_MAJOR
                | bindings::vm_fault_reason_VM_FAULT_RETRY;
        }
        // SAFETY: As the caller promises; the lock was not released.
        bindings::vm_fault_reason_VM_FAULT_MAJOR | unsafe { bindings::filemap_fault(vmf) }
    }
}

/// A fault on a page that is not cached.
struct Miss {
    file: ARef<File>,
    index: c_ulong,
}

impl Miss {
    /// The miss that `vmf` is; none if its page is there, or lies behind the end of the file.
    ///
    /// # Safety
    ///
    /// As for [`Table::<U>::fault`].
    unsafe fn of<U: Operations>(vmf: *mut bindings::vm_fault) -> Option<Self> {
        // SAFETY: The fault is valid, and its lock held.
        let index = unsafe { (*vmf).__bindgen_anon_1.pgoff };
        // SAFETY: As above.
        let vma = unsafe { (*vmf).__bindgen_anon_1.vma };
        // SAFETY: The lock of the fault keeps the area, whose file does not change.
        let file = unsafe { (*vma).vm_file };
        // SAFETY: An area with this table has a file, and holds it.
        let mapping = unsafe { (*file).f_mapping };
        // SAFETY: The file holds its mapping.
        if let Some(folio) = unsafe { HeldFolio::find(mapping, index) } {
            // A `read()` of the same file may have left the mark that begins the next window of its
            // stream. Mapped pages are no stream: a program whose header was read would wait here
            // for a window that it may never need.
            //
            // SAFETY: As above.
            if !unsafe { bindings::tesserafs_fault_has_advice(vmf) } {
                folio.clear_readahead();
            }
            return None;
        }
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file).f_inode };
        // SAFETY: Only files of `U::FileSystem` have areas with this table; the file holds the inode.
        let inode = unsafe { INode::<U::FileSystem>::from_raw(inode) };
        // CAST: A page index is 64 bits long at most.
        if index as u64 >= inode.size().div_ceil(PAGE) {
            return None;
        }
        // SAFETY: The area holds the file, which has no position that is used here.
        let file = ARef::from(unsafe { File::from_raw_file(file) });
        Some(Self { file, index })
    }

    /// Reads the page, and what belongs to it.
    fn read<U: Operations>(&self) -> Result {
        let file = self.file.as_ptr();
        // SAFETY: The mapping of an open file does not change.
        let mapping = unsafe { (*file).f_mapping };
        // SAFETY: The file's inode has a table of `U`, so its mapping has one of the same
        // filesystem; both stay while we hold the file.
        let inode = unsafe { page_cache::source::<U::FileSystem>(mapping, file) }?;
        let window = self.window::<U>(inode)?;
        self.set_window(&window);
        // SAFETY: The mapping is valid.
        unsafe { bindings::tesserafs_filemap_invalidate_lock_shared(mapping) };
        // A page that cannot be read now is read again below, if it is the one that is wanted.
        //
        // SAFETY: The mapping is valid and locked, and the window ends with the file.
        let _ = unsafe { window.read::<U>(inode, mapping) };
        // SAFETY: It was locked above.
        unsafe { bindings::tesserafs_filemap_invalidate_unlock_shared(mapping) };
        // Where memory is short the window may have ended before the page, or the page may be gone.
        //
        // SAFETY: Our operations read a folio of `mapping` with a file that has it.
        unsafe { HeldFolio::read(mapping, self.index, file) }.map(drop)
    }

    /// The window for this page.
    ///
    /// As the page cache does for `read()`, the last window is kept in the readahead state of the open
    /// file, without a lock: readers that disturb each other there read more or less, and nothing wrong.
    fn window<U: Operations>(&self, inode: &INode<U::FileSystem>) -> Result<Window> {
        let state = self.state();
        // SAFETY: The state is part of the open file.
        let start = unsafe { (&raw const (*state).start).read_volatile() };
        // SAFETY: As above.
        let pages = unsafe { (&raw const (*state).size).read_volatile() };
        let pages = pages as c_ulong;
        let is_next = pages > 0 && start.wrapping_add(pages) == self.index;
        let pages = if is_next {
            let doubled = pages.saturating_mul(2).checked_next_power_of_two();
            doubled.unwrap_or(IN_ORDER).min(IN_ORDER)
        } else {
            1
        };
        let end = self.index.saturating_add(pages);
        // CAST: A page index is 64 bits long at most.
        let file_end = inode.size().div_ceil(PAGE) as c_ulong;
        if pages >= WIDE {
            // Aligned, the next window gets the largest folios.
            let aligned = end.saturating_sub(end % pages);
            return Ok(Window {
                index: self.index,
                end: aligned.min(file_end),
            });
        }
        let pos = |index: c_ulong| (index as u64).saturating_mul(PAGE).min(inode.size());
        let range = U::widen(inode, pos(self.index)..pos(end))?;
        Ok(Window {
            index: (range.start / PAGE) as c_ulong,
            end: (range.end.div_ceil(PAGE) as c_ulong).min(file_end),
        })
    }

    /// Keeps the window that is read, for the next miss.
    fn set_window(&self, window: &Window) {
        let state = self.state();
        // SAFETY: The state is part of the open file.
        unsafe { (&raw mut (*state).start).write_volatile(window.index) };
        let pages = window.end.saturating_sub(window.index);
        // SAFETY: As above. CAST: A window is two chunks longer than `IN_ORDER` at most.
        unsafe { (&raw mut (*state).size).write_volatile(pages as c_uint) };
    }

    fn state(&self) -> *mut bindings::file_ra_state {
        // SAFETY: The file is open; only the place of the state in it is taken.
        unsafe { &raw mut (*self.file.as_ptr()).__bindgen_anon_3.f_ra }
    }
}

/// Pages that are read together.
struct Window {
    index: c_ulong,
    end: c_ulong,
}

impl Window {
    /// Fills the pages that are not there.
    ///
    /// # Safety
    ///
    /// `mapping` must be the page cache that files of `inode` are read by, and have its `invalidate_lock`
    /// held; the window must not end behind the file.
    unsafe fn read<U: Operations>(
        &self,
        inode: &INode<U::FileSystem>,
        mapping: *mut bindings::address_space,
    ) -> Result {
        // As the page cache does for its own windows: reclaim must not wait for the folios that are
        // locked here.
        //
        // SAFETY: Has no arguments.
        let scope = unsafe { bindings::tesserafs_memalloc_nofs_save() };
        let mut index = self.index;
        let result = loop {
            // SAFETY: As the caller promises.
            match unsafe { LockedFolio::add(mapping, &mut index, self.end) } {
                Ok(Some(folios)) => U::fill(inode, folios),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // SAFETY: This is what was saved above.
        unsafe { bindings::tesserafs_memalloc_restore(scope) };
        result
    }
}
