// SPDX-License-Identifier: GPL-2.0

//! Completions: something that happens once, and tasks that wait for it.
//!
//! The kernel crate's `Completion` has no wait that a fatal signal ends.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Something that happens once.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A completion has no owner.
unsafe impl Send for Completion {}

// SAFETY: A completion has a lock of its own.
unsafe impl Sync for Completion {}

impl Completion {
    /// A completion that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is memory for a completion, which is pinned from here on.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Lets it happen: all tasks that wait, and all that will, go on.
    pub(crate) fn complete_all(&self) {
        // SAFETY: The completion was initialised by `new`.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits until it has happened.
    pub(crate) fn wait(&self) {
        // SAFETY: The completion was initialised by `new`.
        unsafe { bindings::wait_for_completion(self.inner.get()) };
    }

    /// Waits until it has happened; `EINTR` if the task is being killed before.
    pub(crate) fn wait_killable(&self) -> Result {
        // SAFETY: The completion was initialised by `new`.
        match unsafe { bindings::wait_for_completion_killable(self.inner.get()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }
}
