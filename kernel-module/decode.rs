// SPDX-License-Identifier: GPL-2.0

//! Step 3 of a data read: verified stored bytes become raw bytes.
//!
//! Only [`Authentic`] bytes get here: the decompressor never meets bytes that the superblock does
//! not vouch for.

use kernel::prelude::*;

use tesserafs_format::num::{u64_from_usize, usize_from_u32};
use tesserafs_format::{x86, Chunk, Codec, FormatError, Place, Rule};

use crate::error::Failure;
use crate::klib::{buffer::Buffer, zstd};
use crate::verify::Authentic;

/// Memory for the raw bytes of `chunk`.
pub(crate) fn room(chunk: &Chunk) -> Result<Buffer<u8>> {
    Buffer::with_capacity(usize_from_u32(chunk.raw_len))
}

/// Decodes the stored bytes of `chunk` into its `room`.
pub(crate) fn decode(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    stored: Authentic<'_>,
    mut room: Buffer<u8>,
) -> Result<Buffer<u8>, Failure> {
    let raw = match chunk.codec {
        // A plain chunk is as long stored as raw: `Chunk::parse` refuses any other.
        Codec::Plain => {
            room.append(stored.bytes())?;
            room
        }
        Codec::Zstd | Codec::ZstdX86 => decompress(decoders, chunk.codec, &stored, room),
    };
    expect(chunk, Rule::ChunkDecode, raw, chunk.raw_len)
}

/// Decodes the first `wanted` raw bytes of `chunk`, and perhaps more.
///
/// Who wants a page or a small file then waits for half of a chunk, on average.
pub(crate) fn decode_beginning(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    wanted: u32,
    mut stored: Authentic<'_>,
) -> Result<Buffer<u8>, Failure> {
    let unsure = match chunk.codec {
        // All of it has been read and verified.
        Codec::Plain => return decode(decoders, chunk, stored, room(chunk)?),
        Codec::Zstd => 0,
        Codec::ZstdX86 => x86::UNSURE,
    };
    let Some(len) = stored.shorten(chunk.raw_len, wanted.saturating_add(unsure)) else {
        return decode(decoders, chunk, stored, room(chunk)?);
    };
    let room = Buffer::with_capacity(usize_from_u32(len))?;
    let raw = decompress(decoders, chunk.codec, &stored, room);
    let mut raw = expect(chunk, Rule::ChunkBlocks, raw, len)?;
    raw.truncate(usize_from_u32(len.saturating_sub(unsure)));
    Ok(raw)
}

/// What a frame decodes to; if it does not decode, less than there is room for.
fn decompress(
    decoders: &zstd::Pool,
    codec: Codec,
    stored: &Authentic<'_>,
    mut room: Buffer<u8>,
) -> Buffer<u8> {
    let _ = decoders.get().decompress(stored.bytes(), &mut room);
    if codec == Codec::ZstdX86 {
        x86::decode(&mut room);
    }
    room
}

/// `raw` if it has `len` bytes; else `chunk` breaks `rule`.
fn expect(chunk: &Chunk, rule: Rule, raw: Buffer<u8>, len: u32) -> Result<Buffer<u8>, Failure> {
    if raw.len() == usize_from_u32(len) {
        return Ok(raw);
    }
    let (place, found) = (Place::Chunk(chunk.index.0), u64_from_usize(raw.len()));
    Err(FormatError::new(rule, place, found, len.into()).into())
}
