// SPDX-License-Identifier: GPL-2.0

//! Step 3 of a data read: verified stored bytes become raw bytes.

use kernel::prelude::*;

use tesserafs_format::num::{u64_from_usize, usize_from_u32};
use tesserafs_format::{Chunk, Codec, FormatError, Place, Rule};

use crate::error::Failure;
use crate::klib::{buffer::Buffer, zstd};
use crate::verify::Authentic;

/// Memory for the raw bytes of `chunk`; none where they will be where the stored ones are.
pub(crate) fn room(chunk: &Chunk) -> Result<Buffer<u8>> {
    match chunk.codec {
        Codec::Plain => Buffer::with_capacity(0),
        Codec::Zstd => Buffer::with_capacity(usize_from_u32(chunk.raw_len)),
    }
}

/// Decodes the stored bytes of `chunk` into its `room`.
///
/// Only [`Authentic`] bytes get here: the decompressor never meets bytes that the superblock does
/// not vouch for.
pub(crate) fn decode(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    stored: Authentic,
    mut room: Buffer<u8>,
) -> Result<Buffer<u8>, Failure> {
    let raw = match chunk.codec {
        // A plain chunk is as long stored as raw: `Chunk::parse` refuses any other.
        Codec::Plain => stored.into_buffer(),
        Codec::Zstd => {
            // What a frame that does not decode leaves is too short, and refused below.
            let _ = decoders.get().decompress(stored.bytes(), &mut room);
            room
        }
    };
    if raw.len() == usize_from_u32(chunk.raw_len) {
        return Ok(raw);
    }
    let (found, expected) = (u64_from_usize(raw.len()), chunk.raw_len.into());
    Err(FormatError::new(
        Rule::ChunkDecode,
        Place::Chunk(chunk.index.0),
        found,
        expected,
    )
    .into())
}
