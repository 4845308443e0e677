// SPDX-License-Identifier: GPL-2.0-or-later

//! An image that many threads read at any place and at the same time, as a server of a mounted filesystem does.
//!
//! - [`Tree`]: inodes, names, targets and xattrs; each lookup proves what the kernel driver proves, and no more;
//! - [`Files`]: ranges of files. A chunk of which several threads want a part at once is decoded once; one that a thread wants as a
//!   whole goes to its buffer, and is kept nowhere; what is likely to be wanted again, by
//!   the other files of a group or by a reader who goes on, is kept in a cache that is bounded in bytes; threads of the caller's
//!   decode ahead of readers who read in order;
//! - [`Decoders`]: the memory to decode with, for as many threads as decode at once.
//!
//! Nobody has walked the tree before: numbers in authentic metadata can be wrong, so nothing here loops, recurses or allocates by
//! such a number without a bound.

mod ahead;
mod cache;
mod decoders;
mod files;
mod plan;
mod tree;

pub use decoders::Decoders;
pub use files::{Files, Seek};
pub use tree::Tree;
