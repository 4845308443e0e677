// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The zstd frame of a chunk: how to decode no more of it than is wanted.
//!
//! A frame is a header and blocks, each of which needs those before it and none behind it. In a chunk each block
//! but the last holds [`FRAME_BLOCK`] raw bytes, so the block that a byte lies in is known without decoding, and
//! the frame can be ended there. Layout: RFC 8878, section 3.1.1.

use crate::limits::FRAME_BLOCK;
use crate::num::usize_from_u32;

/// Bytes of a block header.
const BLOCK_HEADER: usize = 3;

/// The beginning of a frame that was ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Bytes of the frame.
    pub stored_len: usize,
    /// Bytes that they decode to.
    pub raw_len: u32,
}

/// Ends the `frame` of a chunk of `raw_len` bytes behind the block with the last of the first `wanted` ones: its
/// header and that of the block are rewritten.
///
/// `None`, and nothing is changed, if that is the last block, or if the frame has another header than a chunk has.
pub fn shorten(frame: &mut [u8], raw_len: u32, wanted: u32) -> Option<Beginning> {
    let count = wanted.div_ceil(FRAME_BLOCK);
    let shortened = count.checked_mul(FRAME_BLOCK).filter(|len| (1..raw_len).contains(len))?;
    let size = ContentSize::find(frame).filter(|size| size.value == raw_len)?;
    let mut blocks = Blocks { frame, next: size.end };
    let last = blocks.nth(usize_from_u32(count.checked_sub(1)?))?;
    if last.is_last {
        return None;
    }
    size.store(frame, shortened)?;
    *frame.get_mut(last.start)? |= 1;
    Some(Beginning { stored_len: last.end, raw_len: shortened })
}

/// Where the blocks of `frame` end; nothing if it has another header than a chunk has.
pub fn block_ends(frame: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let next = ContentSize::find(frame).map_or(frame.len(), |size| size.end);
    Blocks { frame, next }.map(|block| block.end)
}

/// The field of the header that says how many bytes the frame decodes to.
struct ContentSize {
    start: usize,
    end: usize,
    value: u32,
}

impl ContentSize {
    /// Of a frame that has it, and no window, dictionary or checksum, as `ZSTD_compress2` makes them of bytes that
    /// fit in its window.
    fn find(frame: &[u8]) -> Option<Self> {
        let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = frame else {
            return None;
        };
        let start = 5;
        let (end, value) = match (descriptor, rest) {
            (0x20, [a, ..]) => (6, u32::from(*a)),
            (0x60, [a, b, ..]) => (7, u32::from(u16::from_le_bytes([*a, *b])).saturating_add(256)),
            (0xa0, [a, b, c, d, ..]) => (9, u32::from_le_bytes([*a, *b, *c, *d])),
            _ => return None,
        };
        Some(Self { start, end, value })
    }

    fn store(&self, frame: &mut [u8], value: u32) -> Option<()> {
        match frame.get_mut(self.start..self.end)? {
            [a, b] => [*a, *b] = u16::try_from(value.checked_sub(256)?).ok()?.to_le_bytes(),
            [a, b, c, d] => [*a, *b, *c, *d] = value.to_le_bytes(),
            _ => return None,
        }
        Some(())
    }
}

/// The blocks of a frame.
struct Blocks<'a> {
    frame: &'a [u8],
    next: usize,
}

/// A block: its header and its bytes.
struct Block {
    start: usize,
    end: usize,
    is_last: bool,
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let start = self.next;
        let [a, b, c] = *self.frame.get(start..)?.first_chunk::<BLOCK_HEADER>()?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        // One byte, repeated, or as many bytes as is said.
        let is_repeated = (header >> 1) & 3 == 1;
        let len = if is_repeated { 1 } else { usize_from_u32(header >> 3) };
        let end = start.saturating_add(BLOCK_HEADER).saturating_add(len);
        if end > self.frame.len() {
            return None;
        }
        let is_last = header & 1 == 1;
        self.next = if is_last { self.frame.len() } else { end };
        Some(Block { start, end, is_last })
    }
}
