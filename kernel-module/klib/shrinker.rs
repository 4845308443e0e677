// SPDX-License-Identifier: GPL-2.0

//! Shrinkers: caches that give memory back when the kernel needs it.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::bindings;
use core::{
    ffi::CStr,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A cache that can be shrunk.
///
/// Both methods run wherever memory is allocated, with the locks that are held there. The cache's
/// own is among them, if it allocates under a lock. So they only ever try to take a lock.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// How many pages could be freed now.
    fn count(&self) -> usize;

    /// Frees `n` pages, or what it can; returns how many it freed, or `None` if it cannot work now.
    fn scan(&self, n: usize) -> Option<usize>;
}

/// A registered shrinker of a `T`; unregistered on drop.
///
/// # Invariants
///
/// `shrinker` is registered, and its private data is a reference to a `T` that is owned here.
pub(crate) struct RegisteredShrinker<T: Shrink> {
    shrinker: NonNull<bindings::shrinker>,
    cache: Arc<T>,
}

// SAFETY: A shrinker may be unregistered from any thread, and `T` is `Send` and `Sync`.
unsafe impl<T: Shrink> Send for RegisteredShrinker<T> {}

// SAFETY: A shared reference gives access to nothing but the cache.
unsafe impl<T: Shrink> Sync for RegisteredShrinker<T> {}

impl<T: Shrink> RegisteredShrinker<T> {
    /// Registers a shrinker for `cache`.
    pub(crate) fn new(name: &'static CStr, cache: Arc<T>) -> Result<Self> {
        // SAFETY: The name is a C string.
        let shrinker = unsafe { bindings::tesserafs_shrinker_alloc(name.as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is allocated and not registered, so it is ours.
        let raw = unsafe { &mut *shrinker.as_ptr() };
        raw.count_objects = Some(Table::<T>::count);
        raw.scan_objects = Some(Table::<T>::scan);
        raw.seeks = bindings::DEFAULT_SEEKS as c_int;
        raw.private_data = (&raw const *cache).cast_mut().cast();
        // SAFETY: The shrinker is set up. INVARIANT: Its private data is `cache`, which we keep.
        unsafe { bindings::shrinker_register(shrinker.as_ptr()) };
        Ok(Self { shrinker, cache })
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &T {
        &self.cache
    }
}

impl<T: Shrink> Drop for RegisteredShrinker<T> {
    fn drop(&mut self) {
        // SAFETY: The shrinker is registered. This waits for callbacks that are running; after it
        // there are none, so the cache may go.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) };
    }
}

/// The callbacks of a shrinker of `T`.
struct Table<T: Shrink>(PhantomData<T>);

impl<T: Shrink> Table<T> {
    /// # Safety
    ///
    /// To be called as `->count_objects` of a shrinker that a `RegisteredShrinker<T>` registered.
    unsafe extern "C" fn count(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The shrinker is valid for this call; its data is set before it is registered.
        let cache = unsafe { (*shrinker).private_data };
        // SAFETY: The registration keeps the cache until the shrinker has been freed.
        let cache = unsafe { &*cache.cast::<T>() };
        match cache.count() {
            // `SHRINK_EMPTY`.
            0 => c_ulong::MAX - 1,
            n => n as c_ulong,
        }
    }

    /// # Safety
    ///
    /// To be called as `->scan_objects` of a shrinker that a `RegisteredShrinker<T>` registered.
    unsafe extern "C" fn scan(
        shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The shrinker is valid for this call; its data is set before it is registered.
        let cache = unsafe { (*shrinker).private_data };
        // SAFETY: The registration keeps the cache until the shrinker has been freed.
        let cache = unsafe { &*cache.cast::<T>() };
        // SAFETY: The control is valid for this call.
        let n = unsafe { (*control).nr_to_scan };
        match cache.scan(n) {
            Some(freed) => freed as c_ulong,
            // `SHRINK_STOP`.
            None => c_ulong::MAX,
        }
    }
}
