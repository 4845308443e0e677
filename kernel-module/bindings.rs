// SPDX-License-Identifier: GPL-2.0

//! The C interface: what the kernel crate has bound, and this module's own delta.
//!
//! The delta is generated from `bindings.h` by the list in `bindgen_parameters`. It refers to the
//! kernel crate's types wherever those are complete, so a `struct file` of one is a `struct file`
//! of the other. Where a name exists in both, the delta's wins: `struct fs_context` is opaque in
//! the kernel crate.
//!
//! Only `vfs/` and `klib/` may use this.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
#![cfg_attr(CONFIG_RUSTC_HAS_UNNECESSARY_TRANSMUTES, allow(unnecessary_transmutes))]

pub(crate) use kernel::bindings::*;
use kernel::ffi;

include!(env!("TESSERAFS_BINDINGS"));
