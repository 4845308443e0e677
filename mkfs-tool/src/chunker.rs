// SPDX-License-Identifier: GPL-2.0-or-later

//! Where contents are cut: holes, content-defined chunks, and the ends of groups (`FORMAT.md` 5.1 to 5.3).
//!
//! Everything here is a function of the bytes and the profile: how the bytes arrive makes no difference.
//!
//! A content passes its [`Cutter`], which asks [`FastCdc`] for cut points, and its [`ContentHasher`]; a small one goes into a
//! [`Group`].

mod content;
mod cutter;
mod fastcdc;
mod group;

use tesserafs_format::limits::BLOCK_SIZE;

pub use self::content::{ContentHasher, Summary};
pub use self::cutter::{Cutter, Piece};
pub use self::fastcdc::FastCdc;
pub use self::group::{end_behind, is_full, Group, GroupEnd};

/// A block of zeros to compare with.
const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Whether a block, or a last shorter one, is all zero.
fn is_zero(block: &[u8]) -> bool {
    // Data is told from zeros by its first word nearly always.
    block.first() == Some(&0) && block == &ZEROS[..block.len()]
}

#[cfg(test)]
mod tests;
