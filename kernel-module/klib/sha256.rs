// SPDX-License-Identifier: GPL-2.0

//! SHA-256.
//!
//! C header: [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

use crate::bindings;

/// The length of a digest in bytes.
pub(crate) const DIGEST_SIZE: usize = 32;

/// The SHA-256 of `data`.
pub(crate) fn sha256(data: &[u8]) -> [u8; DIGEST_SIZE] {
    let mut digest = [0; DIGEST_SIZE];
    // SAFETY: `data` is as long as is said, and `digest` as long as a digest.
    unsafe { bindings::sha256(data.as_ptr(), data.len(), digest.as_mut_ptr()) };
    digest
}
