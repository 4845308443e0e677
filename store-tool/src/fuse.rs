// SPDX-License-Identifier: GPL-2.0-or-later

//! The answers to the kernel's FUSE: the tree that the kernel driver shows, read-only.
//!
//! The server keeps no state of open files: `open` and `opendir` are answered with `ENOSYS`, after which the kernel asks no more, and
//! keeps what it has cached. All times that something is valid are as long as can be, as an image never changes.

mod attributes;
mod directory;
mod failure;
mod protocol;
mod server;
mod xattr;

pub use failure::errno;
pub use server::{Server, Shown};
