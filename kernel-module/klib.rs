// SPDX-License-Identifier: GPL-2.0

//! The kernel's libraries behind safe types: memory, waiting, several processors, hashing,
//! decompression, signatures, keys, memory pressure, counters in sysfs, tracepoints, and messages that
//! cannot flood the log.

pub(crate) mod buffer;
pub(crate) mod completion;
pub(crate) mod keyring;
pub(crate) mod param;
pub(crate) mod pkcs7;
pub(crate) mod printk;
pub(crate) mod sha256;
pub(crate) mod shrinker;
pub(crate) mod sysfs;
pub(crate) mod trace;
pub(crate) mod workqueue;
pub(crate) mod zstd;
