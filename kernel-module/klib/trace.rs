// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, which `trace.h` defines: `/sys/kernel/tracing/events/tesserafs/`.
//!
//! A tracepoint that nobody has enabled costs a branch that is patched out.

use crate::bindings;
use kernel::prelude::*;

/// The stored bytes of a chunk were read.
pub(crate) fn read(image: u64, chunk: u32, offset: u64, stored: u32) {
    // SAFETY: It takes numbers only.
    unsafe { bindings::tesserafs_trace_read(image, chunk, offset, stored) };
}

/// A chunk was verified, and its first `raw` bytes were decoded.
pub(crate) fn decode(image: u64, chunk: u32, stored: u32, raw: u32) {
    // SAFETY: It takes numbers only.
    unsafe { bindings::tesserafs_trace_decode(image, chunk, stored, raw) };
}

/// An operation failed because the image breaks `rule`, or, where that is empty, for another reason.
pub(crate) fn failure(image: u64, rule: &'static str, error: Error) {
    // CAST: The names of rules are short.
    let length = rule.len() as c_uint;
    // SAFETY: The string is as long as is said; it is copied.
    unsafe {
        bindings::tesserafs_trace_failure(image, rule.as_ptr().cast(), length, error.to_errno())
    };
}
