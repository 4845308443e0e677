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

/// A SHA-256 of data that comes in parts.
pub(crate) struct Sha256(bindings::sha256_ctx);

impl Sha256 {
    /// Begins a message.
    pub(crate) fn new() -> Self {
        let mut ctx = bindings::sha256_ctx::default();
        // SAFETY: `ctx` is memory for a context.
        unsafe { bindings::sha256_init(&mut ctx) };
        Self(ctx)
    }

    /// Adds `data` to the message.
    pub(crate) fn update(&mut self, data: &[u8]) {
        // SAFETY: The context is initialised, and `data` as long as is said.
        unsafe { bindings::tesserafs_sha256_update(&mut self.0, data.as_ptr(), data.len()) };
    }

    /// Ends the message.
    pub(crate) fn finish(mut self) -> [u8; DIGEST_SIZE] {
        let mut digest = [0; DIGEST_SIZE];
        // SAFETY: The context is initialised, and `digest` as long as a digest.
        unsafe { bindings::sha256_final(&mut self.0, digest.as_mut_ptr()) };
        digest
    }
}
