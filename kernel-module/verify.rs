// SPDX-License-Identifier: GPL-2.0

//! Step 2 of a data read: the stored bytes become [`Verified`], or an error.

use tesserafs_format::{Chunk, Digest, FormatError, Place, Rule, Sha256, Verified};

use crate::{error::Failure, klib::sha256::sha256};

/// The kernel's SHA-256.
pub(crate) struct KernelSha256;

impl Sha256 for KernelSha256 {
    fn sha256(bytes: &[u8]) -> Digest {
        Digest(sha256(bytes))
    }
}

/// Compares `stored`, which is private memory, with the digest of `chunk`.
pub(crate) fn verify<'a>(chunk: &Chunk, stored: &'a [u8]) -> Result<Verified<'a>, Failure> {
    Verified::check::<KernelSha256>(stored, &chunk.digest).map_err(|found| {
        let place = Place::Chunk(chunk.index.0);
        FormatError::new(
            Rule::ChunkDigest,
            place,
            found.prefix(),
            chunk.digest.prefix(),
        )
        .into()
    })
}
