// SPDX-License-Identifier: GPL-2.0

//! Messages that an image, or whoever reads one, can cause at will: limited in rate.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;

/// Whether one more message is within the rate. If not, it is counted, and the count is printed
/// later.
pub(crate) fn within_rate() -> bool {
    // SAFETY: The state is a static object with a lock of its own.
    unsafe { bindings::tesserafs_ratelimit() }
}

/// [`pr_err!`](kernel::pr_err), within the rate.
#[macro_export]
macro_rules! pr_err_ratelimited {
    ($($arg:tt)+) => (
        if $crate::klib::printk::within_rate() {
            ::kernel::pr_err!($($arg)+);
        }
    );
}

/// [`pr_warn!`](kernel::pr_warn), within the rate.
#[macro_export]
macro_rules! pr_warn_ratelimited {
    ($($arg:tt)+) => (
        if $crate::klib::printk::within_rate() {
            ::kernel::pr_warn!($($arg)+);
        }
    );
}
