// SPDX-License-Identifier: GPL-2.0

//! Step 5 of a read: the stored bytes become [`Authentic`], or an error.

use tesserafs_format::{frame, Chunk, Digest, FormatError, Place, Rule, Sha256, Verified};

use crate::error::Failure;
use crate::klib::sha256::{sha256, sha256_2x};

/// The kernel's SHA-256.
pub(crate) struct KernelSha256;

impl Sha256 for KernelSha256 {
    fn sha256(bytes: &[u8]) -> Digest {
        Digest(sha256(bytes))
    }

    fn sha256_2x(bytes: [&[u8]; 2]) -> [Digest; 2] {
        sha256_2x(bytes).map(Digest)
    }
}

/// The authority that vouches for the stored bytes of an image's chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Their digests in the image, each time they are read.
    Digests,
    /// The store that the image lies on, such as a dm-verity device: the mounter says so.
    Backing,
}

/// The stored bytes of a chunk, or of its beginning, for which the superblock or the mounter
/// vouches.
///
/// # Invariants
///
/// The bytes were compared with the digest of their chunk since anybody could last write them, or
/// the image was mounted with [`Trust::Backing`]; only [`shorten`](Self::shorten) changed them since.
pub(crate) struct Authentic<'a>(&'a mut [u8]);

impl Authentic<'_> {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0
    }

    /// Ends the frame of a chunk of `raw_len` bytes behind the block that holds the last of the
    /// first `wanted` ones. Returns how many bytes it then decodes to; none if that is its last
    /// block.
    ///
    /// These bytes are the beginning of the raw bytes that the full frame, which was vouched for,
    /// decodes to.
    pub(crate) fn shorten(&mut self, raw_len: u32, wanted: u32) -> Option<u32> {
        let beginning = frame::shorten(self.0, raw_len, wanted)?;
        let (bytes, _) = core::mem::take(&mut self.0).split_at_mut_checked(beginning.stored_len)?;
        self.0 = bytes;
        Some(beginning.raw_len)
    }
}

/// Compares `stored` with the digest of `chunk`, unless the backing store is trusted.
pub(crate) fn verify<'a>(
    trust: Trust,
    chunk: &Chunk,
    stored: &'a mut [u8],
) -> Result<Authentic<'a>, Failure> {
    if trust == Trust::Backing {
        // INVARIANT: The image is mounted so.
        return Ok(Authentic(stored));
    }
    match Verified::check_chunk::<KernelSha256>(stored, &chunk.digest) {
        // INVARIANT: Just compared, and nobody else has the bytes while they are borrowed.
        Ok(_) => Ok(Authentic(stored)),
        Err(found) => {
            let place = Place::Chunk(chunk.index.0);
            let (found, expected) = (found.prefix(), chunk.digest.prefix());
            Err(FormatError::new(Rule::ChunkDigest, place, found, expected).into())
        }
    }
}
