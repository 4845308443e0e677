// SPDX-License-Identifier: GPL-2.0

//! A keyring of the module's own.
//!
//! C header: [`include/linux/key.h`](srctree/include/linux/key.h)

use crate::bindings;
use core::{
    ffi::CStr,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A keyring that root can add keys to, like `.fs-verity`.
///
/// Root may give it up for good with `keyctl restrict_keyring`, after boot for example. On drop the
/// keyring is revoked.
///
/// # Invariants
///
/// `key` is a keyring, of which one reference is owned.
pub(crate) struct Keyring {
    key: NonNull<bindings::key>,
}

// SAFETY: Keys are counted and locked by themselves.
unsafe impl Send for Keyring {}

// SAFETY: As for `Send`.
unsafe impl Sync for Keyring {}

impl Keyring {
    /// Makes an empty keyring; by convention its name begins with a dot.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a C string, which is copied.
        let key = unsafe { bindings::tesserafs_keyring_alloc(name.as_char_ptr()) };
        // INVARIANT: `keyring_alloc()` returned a keyring with a reference for us.
        Ok(Self {
            key: NonNull::new(from_err_ptr(key)?).ok_or(ENOMEM)?,
        })
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::key {
        self.key.as_ptr()
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // SAFETY: The keyring is valid by the type invariants.
        unsafe { bindings::key_revoke(self.key.as_ptr()) };
        // SAFETY: The reference is ours by the type invariants.
        unsafe { bindings::key_put(self.key.as_ptr()) };
    }
}
