// SPDX-License-Identifier: GPL-2.0

//! Arrays on the heap, without a path that panics.
//!
//! The kernel crate's `Vec` is generic, so its code becomes part of the code that uses it, and its
//! checked arithmetic becomes calls of `core::panicking`. This module is held to reference none of
//! those, so it has an array of its own; it does less.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use crate::bindings;
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};
use kernel::{
    alloc::{
        allocator::{
            Kmalloc,
            Vmalloc, //
        },
        AllocError,
        Allocator,
        Flags,
        NumaNode, //
    },
    prelude::*, //
};

/// An array that can grow, of any size.
pub(crate) type Buffer<T> = Array<T, Pages>;

/// Memory of any size: an allocation that fits an object of a slab comes from there, any other is
/// whole pages.
///
/// `kvmalloc` rounds to a power of two of pages, so that a chunk of a little more than 64 KiB takes
/// 128, and it counts the pages as slab, which they are not.
pub(crate) struct Pages;

impl Pages {
    /// The largest object of a slab.
    const OBJECT_MAX: usize = bindings::TESSERAFS_CONST_KMALLOC_MAX_CACHE_SIZE;

    /// Whole pages: side by side if there are any, as they need no mapping.
    fn allocate(layout: Layout, flags: Flags, nid: NumaNode) -> Result<NonNull<[u8]>, AllocError> {
        let size = layout.size();
        // As `kvmalloc`: nobody waits, and nothing is moved, for pages that lie side by side.
        let mut raw = bindings::TESSERAFS_CONST_GFP_TRY;
        if flags.contains(__GFP_ZERO) {
            raw |= bindings::TESSERAFS_CONST_GFP_ZERO;
        }
        if flags.contains(GFP_KERNEL_ACCOUNT) {
            raw |= bindings::TESSERAFS_CONST_GFP_ACCOUNT;
        }
        // SAFETY: Any size is allowed, and zero does not get here.
        let pages = unsafe { bindings::tesserafs_alloc_pages_exact(size, raw) };
        match NonNull::new(pages.cast()) {
            Some(pages) => Ok(NonNull::slice_from_raw_parts(pages, size)),
            None => Vmalloc::alloc(layout, flags, nid),
        }
    }

    /// # Safety
    ///
    /// `pages` must have been returned by [`Pages::allocate`] for `layout`, and not be used any more.
    unsafe fn release(pages: NonNull<u8>, layout: Layout) {
        // SAFETY: Looks at the address only.
        if unsafe { bindings::is_vmalloc_addr(pages.as_ptr().cast()) } {
            // SAFETY: Only what `Vmalloc` returned has such an address; the caller promises the rest.
            unsafe { Vmalloc::free(pages, layout) };
        } else {
            // SAFETY: `alloc_pages_exact()` returned it for that size.
            unsafe { bindings::free_pages_exact(pages.as_ptr().cast(), layout.size()) };
        }
    }
}

// SAFETY: Memory stays until it is freed, wherever it comes from. A request that cannot be met is
// refused, and changes nothing.
unsafe impl Allocator for Pages {
    const MIN_ALIGN: usize = Kmalloc::MIN_ALIGN;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        match ptr {
            None if layout.size() > Self::OBJECT_MAX && layout.align() <= bindings::PAGE_SIZE => {
                Self::allocate(layout, flags, nid)
            }
            Some(pages) if old_layout.size() > Self::OBJECT_MAX => {
                if layout.size() != 0 {
                    // An array grows by moving its elements.
                    return Err(AllocError);
                }
                // SAFETY: An allocation of this size is pages, which the caller gives back.
                unsafe { Self::release(pages, old_layout) };
                Ok(NonNull::slice_from_raw_parts(NonNull::dangling(), 0))
            }
            // An object does not become pages, nor the other way round.
            _ if layout.size() > Self::OBJECT_MAX => Err(AllocError),
            // SAFETY: The caller promises what `Kmalloc` requires, and the memory is an object or
            // none.
            _ => unsafe { Kmalloc::realloc(ptr, layout, old_layout, flags, nid) },
        }
    }
}

/// An array that can grow, in memory of the allocator `A`.
///
/// # Invariants
///
/// - `ptr` is an allocation by `A` for `capacity` elements, or dangling if that is no memory.
/// - The first `len` of them are initialised; `len <= capacity`.
pub(crate) struct Array<T, A: Allocator> {
    ptr: NonNull<T>,
    capacity: usize,
    len: usize,
    _p: PhantomData<(T, fn() -> A)>,
}

// SAFETY: An array owns its elements.
unsafe impl<T: Send, A: Allocator> Send for Array<T, A> {}

// SAFETY: A shared reference to an array gives no more than shared references to its elements.
unsafe impl<T: Sync, A: Allocator> Sync for Array<T, A> {}

impl<T, A: Allocator> Array<T, A> {
    /// An empty array with room for `capacity` elements. The memory is charged to the task's group.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self> {
        Self::allocate(capacity, GFP_KERNEL_ACCOUNT)
    }

    /// As [`with_capacity`](Self::with_capacity), for what is kept for all tasks: charged to nobody, as
    /// the group of the task that happened to come first could not get rid of it.
    pub(crate) fn with_capacity_for_all(capacity: usize) -> Result<Self> {
        Self::allocate(capacity, GFP_KERNEL)
    }

    fn allocate(capacity: usize, flags: Flags) -> Result<Self> {
        let layout = Layout::array::<T>(capacity).map_err(|_| ENOMEM)?;
        let ptr = if layout.size() == 0 {
            NonNull::dangling()
        } else {
            A::alloc(layout, flags, NumaNode::NO_NODE)?.cast()
        };
        // INVARIANT: The allocation has the layout of `capacity` elements; none is initialised.
        Ok(Self {
            ptr,
            capacity,
            len: 0,
            _p: PhantomData,
        })
    }

    /// Appends an element; `ENOMEM` if there is no memory for it.
    pub(crate) fn push(&mut self, value: T) -> Result {
        self.reserve(1)?;
        self.push_within_capacity(value).map_err(|_| ENOMEM)
    }

    /// Appends an element if there is room for it; else gives it back.
    pub(crate) fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        // SAFETY: There is room for an element at `len`, by the type invariants.
        unsafe { self.ptr.add(self.len).write(value) };
        // INVARIANT: One more is initialised. It cannot overflow: `len` was below `capacity`.
        self.len = self.len.wrapping_add(1);
        Ok(())
    }

    /// Takes the last element off.
    pub(crate) fn pop(&mut self) -> Option<T> {
        // INVARIANT: One less is initialised, as it is moved out below.
        self.len = self.len.checked_sub(1)?;
        // SAFETY: The element is initialised by the type invariants, and no longer counted.
        Some(unsafe { self.ptr.add(self.len).read() })
    }

    /// Drops the elements from `len` on, and keeps the memory.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len > len {
            drop(self.pop());
        }
    }

    /// Drops all elements, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let elements: *mut [T] = &mut **self;
        // INVARIANT: None is counted as initialised any more.
        self.len = 0;
        // SAFETY: These elements were initialised by the type invariants.
        unsafe { core::ptr::drop_in_place(elements) };
    }

    /// Makes room for `additional` more elements.
    pub(crate) fn reserve(&mut self, additional: usize) -> Result {
        let needed = self.len.checked_add(additional).ok_or(ENOMEM)?;
        if needed <= self.capacity {
            return Ok(());
        }
        let grown = Self::with_capacity(needed.max(self.capacity.saturating_mul(2)))?;
        // SAFETY: `grown` has room for at least `len` elements, and is other memory.
        unsafe { grown.ptr.copy_from_nonoverlapping(self.ptr, self.len) };
        let mut old = core::mem::replace(self, grown);
        // INVARIANT: The elements have been moved from one to the other.
        self.len = old.len;
        old.len = 0;
        Ok(())
    }

    /// Gives the memory away: the address, and how many elements are initialised.
    pub(crate) fn into_raw(self) -> (NonNull<T>, usize) {
        let this = ManuallyDrop::new(self);
        (this.ptr, this.len)
    }

    /// The memory behind the last element, which is not initialised.
    pub(crate) fn spare(&mut self) -> &mut [MaybeUninit<T>] {
        // OVERFLOW: `len <= capacity` by the type invariants.
        let room = self.capacity.saturating_sub(self.len);
        // SAFETY: The allocation has `capacity` elements, so this is the end of it at most.
        let end = unsafe { self.ptr.add(self.len) };
        // SAFETY: There are `room` elements from there to the end of the allocation, which is
        // borrowed exclusively with the array.
        unsafe { core::slice::from_raw_parts_mut(end.as_ptr().cast(), room) }
    }

    /// Counts `n` more elements as initialised.
    ///
    /// # Safety
    ///
    /// The first `n` elements of [`spare`](Self::spare), which has as many, must be initialised.
    pub(crate) unsafe fn assume_init(&mut self, n: usize) {
        // INVARIANT: As the caller promises; it cannot overflow, as the sum is within `capacity`.
        self.len = self.len.wrapping_add(n);
    }

    /// The memory, for callers that write it by other means.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<A: Allocator> Array<u8, A> {
    /// Appends what `fill` puts at the beginning of the memory behind the last element.
    ///
    /// `EIO` if it gives other memory.
    pub(crate) fn fill<E: From<Error>>(
        &mut self,
        fill: impl for<'a> FnOnce(&'a mut [MaybeUninit<u8>]) -> Result<&'a mut [u8], E>,
    ) -> Result<(), E> {
        let start = self.spare().as_ptr();
        let filled = fill(self.spare())?;
        let (found, len) = (filled.as_ptr(), filled.len());
        if found != start.cast() || len > self.spare().len() {
            return Err(EIO.into());
        }
        // SAFETY: A reference to these bytes as such shows that they are initialised; they are the
        // first of the spare ones.
        unsafe { self.assume_init(len) };
        Ok(())
    }

    /// An array of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        let mut this = Self::allocate(len, GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        // INVARIANT: The allocator zeroed the memory, and zero is a valid byte.
        this.len = len;
        Ok(this)
    }
}

impl<T, A: Allocator> Deref for Array<T, A> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: The elements are initialised by the type invariants.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T, A: Allocator> DerefMut for Array<T, A> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: The elements are initialised by the type invariants.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T, A: Allocator> Drop for Array<T, A> {
    fn drop(&mut self) {
        self.clear();
        if let Ok(layout) = Layout::array::<T>(self.capacity) {
            if layout.size() != 0 {
                // SAFETY: It was allocated with this layout, by the type invariants.
                unsafe { A::free(self.ptr.cast(), layout) };
            }
        }
    }
}

/// Copies `from` to `to`, which must be as long: `EINVAL`.
///
/// For `copy_from_slice`, which panics instead, even where the compiler could prove the lengths.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> Result {
    if to.len() != from.len() {
        return Err(EINVAL);
    }
    // SAFETY: Both are as long, and distinct, as one of them is borrowed exclusively.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), from.len()) };
    Ok(())
}

/// Copies `from` to the beginning of `to`, which must be as long at least: `EINVAL`.
pub(crate) fn copy_to<'a>(to: &'a mut [MaybeUninit<u8>], from: &[u8]) -> Result<&'a mut [u8]> {
    let to = to.get_mut(..from.len()).ok_or(EINVAL)?;
    let start = to.as_mut_ptr().cast::<u8>();
    // SAFETY: Both are as long, and distinct, as one of them is borrowed exclusively.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), start, from.len()) };
    // SAFETY: These bytes were written just now, and stay borrowed exclusively.
    Ok(unsafe { core::slice::from_raw_parts_mut(start, from.len()) })
}

/// Writes zeros to all of `to`.
pub(crate) fn zero(to: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    let (start, len) = (to.as_mut_ptr().cast::<u8>(), to.len());
    // SAFETY: The memory is that long, and borrowed exclusively.
    unsafe { core::ptr::write_bytes(start, 0, len) };
    // SAFETY: These bytes were written just now, and stay borrowed exclusively.
    unsafe { core::slice::from_raw_parts_mut(start, len) }
}
