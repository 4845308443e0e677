// SPDX-License-Identifier: GPL-2.0

//! Step 3 of a data read: verified stored bytes become raw bytes.

use kernel::prelude::*;

use tesserafs_format::num::{u64_from_usize, usize_from_u32};
use tesserafs_format::{Chunk, Codec, FormatError, Place, Rule, Verified};

use crate::error::Failure;
use crate::klib::{
    buffer::{self, Buffer},
    zstd,
};

/// Decodes the stored bytes of `chunk`.
///
/// Only [`Verified`] bytes get here: the decompressor never meets bytes that the superblock does
/// not vouch for.
pub(crate) fn decode(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    stored: Verified<'_>,
) -> Result<Buffer<u8>, Failure> {
    let raw_len = usize_from_u32(chunk.raw_len);
    let mut raw = Buffer::zeroed(raw_len)?;
    let decoded = match chunk.codec {
        Codec::Plain => {
            // A plain chunk is as long stored as raw: `Chunk::parse` refuses any other.
            buffer::copy(&mut raw, stored.bytes())?;
            raw_len
        }
        // A frame that does not decode counts as nothing decoded.
        Codec::Zstd => decoders
            .get()
            .decompress(&mut raw, stored.bytes())
            .unwrap_or(0),
    };
    if decoded == raw_len {
        return Ok(raw);
    }
    let place = Place::Chunk(chunk.index.0);
    Err(FormatError::new(
        Rule::ChunkDecode,
        place,
        u64_from_usize(decoded),
        chunk.raw_len.into(),
    )
    .into())
}
