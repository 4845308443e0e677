// SPDX-License-Identifier: GPL-2.0

//! Messages that an image, or a reader of one, can cause at will: limited in rate.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// A rate of its own: ten messages in five seconds.
#[pin_data]
pub(crate) struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The state has no owner.
unsafe impl Send for RateLimit {}

// SAFETY: The state has a lock of its own.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// A rate of which nothing is used up.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Opaque::ffi_init(|slot: *mut bindings::ratelimit_state| {
                // SAFETY: `slot` is memory for a state, which is pinned from here on.
                unsafe { bindings::tesserafs_ratelimit_init(slot) };
            }),
        })
    }

    /// Whether one more message is within the rate. If not, it is counted, and the count is printed
    /// later.
    pub(crate) fn permits(&self) -> bool {
        // SAFETY: The state was initialised by `new`.
        unsafe { bindings::tesserafs_ratelimit(self.state.get()) }
    }
}

/// As [`RateLimit::permits`], for the one rate that is shared by all messages without a rate of
/// their own.
pub(crate) fn within_rate() -> bool {
    // SAFETY: The state is a static object with a lock of its own.
    unsafe { bindings::tesserafs_ratelimit(&raw mut bindings::tesserafs_shared_ratelimit) }
}
