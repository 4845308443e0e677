// SPDX-License-Identifier: GPL-2.0

//! Step 6 of a read: verified stored bytes become raw bytes.
//!
//! Only [`Authentic`] bytes get here: the decompressor never meets bytes that the superblock does
//! not vouch for, nor, where the mounter trusts the store, the store.

use core::mem::MaybeUninit;

use kernel::prelude::*;

use tesserafs_format::num::{u64_from_usize, usize_from_u32};
use tesserafs_format::{x86, Chunk, Codec, FormatError, Place, Rule};

use crate::error::Failure;
use crate::klib::{buffer, buffer::Buffer, zstd};
use crate::verify::Authentic;

/// Decodes the stored bytes of `chunk` into memory for as many bytes as it has raw.
pub(crate) fn decode<'a>(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    stored: Authentic<'_>,
    room: &'a mut [MaybeUninit<u8>],
) -> Result<&'a mut [u8], Failure> {
    if chunk.codec == Codec::Plain {
        // As long stored as raw: `Chunk::parse` refuses any other.
        return Ok(buffer::copy_to(room, stored.bytes())?);
    }
    decompress(decoders, chunk, Rule::ChunkDecode, stored, room)
}

/// Decodes the first `wanted` raw bytes of `chunk`, and perhaps more.
///
/// A reader of one page, or of a small file, then waits for half of a chunk, on average.
pub(crate) fn decode_beginning(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    wanted: u32,
    mut stored: Authentic<'_>,
) -> Result<Buffer<u8>, Failure> {
    let unsure = match chunk.codec {
        // All of it has been read and verified.
        Codec::Plain => chunk.raw_len,
        Codec::Zstd => 0,
        Codec::ZstdX86 => x86::UNSURE,
    };
    let shortened = stored.shorten(chunk.raw_len, wanted.saturating_add(unsure));
    let len = usize_from_u32(shortened.unwrap_or(chunk.raw_len));
    let mut raw = Buffer::with_capacity_for_all(len)?;
    let Some(len) = shortened else {
        raw.fill(|room| decode(decoders, chunk, stored, room))?;
        return Ok(raw);
    };
    raw.fill(|room| decompress(decoders, chunk, Rule::ChunkBlocks, stored, room))?;
    raw.truncate(usize_from_u32(len.saturating_sub(unsure)));
    Ok(raw)
}

/// Decompresses a frame into all of `room`; one that does not fill it breaks `rule`.
fn decompress<'a>(
    decoders: &zstd::Pool,
    chunk: &Chunk,
    rule: Rule,
    stored: Authentic<'_>,
    room: &'a mut [MaybeUninit<u8>],
) -> Result<&'a mut [u8], Failure> {
    let expected = room.len();
    let raw = decoders.get().decompress(stored.bytes(), room);
    let raw = raw.unwrap_or(&mut []);
    if raw.len() != expected {
        let (place, found) = (Place::Chunk(chunk.index.0), u64_from_usize(raw.len()));
        return Err(FormatError::new(rule, place, found, u64_from_usize(expected)).into());
    }
    if chunk.codec == Codec::ZstdX86 {
        x86::decode(raw);
    }
    Ok(raw)
}
