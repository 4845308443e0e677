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

/// The SHA-256 of each, two at once where they are as long and the processor can.
pub(crate) fn sha256_2x(data: [&[u8]; 2]) -> [[u8; DIGEST_SIZE]; 2] {
    let [first, second] = data;
    if first.len() != second.len() {
        return [sha256(first), sha256(second)];
    }
    let mut digests = [[0; DIGEST_SIZE]; 2];
    let [to_first, to_second] = &mut digests;
    // SAFETY: Both are as long as is said, and both outputs as long as a digest. Without a context
    // it begins as `sha256()` does.
    unsafe {
        bindings::sha256_finup_2x(
            core::ptr::null(),
            first.as_ptr(),
            second.as_ptr(),
            first.len(),
            to_first.as_mut_ptr(),
            to_second.as_mut_ptr(),
        )
    };
    digests
}
