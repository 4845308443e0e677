// SPDX-License-Identifier: GPL-2.0-or-later

//! SHA-256 for the format crate, which has none of its own.

use sha2::{Digest as _, Sha256};
use tesserafs_format::Digest;

/// SHA-256 by the `sha2` crate.
#[derive(Clone, Copy, Debug)]
pub struct Sha2;

impl tesserafs_format::Sha256 for Sha2 {
    fn sha256(bytes: &[u8]) -> Digest {
        sha256(bytes)
    }
}

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}
