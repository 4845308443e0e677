// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The x86 filter: calls and jumps get absolute targets before compression, relative ones after decoding.
//!
//! Two calls of one function have different operands, as the processor counts from the instruction; made absolute
//! they are the same four bytes, and compress.

use crate::num::{u32_from_usize, usize_from_u32};

/// Bytes that are looked at from a place on.
const WINDOW: usize = 8;

/// Bytes at the end of a beginning that cannot be decoded without those behind it.
pub const UNSURE: u32 = 7;

/// Bytes of an opcode, and of an instruction with its operand.
const OPCODE: usize = 1;
const INSTRUCTION: usize = 5;

/// Bits of a near target; the others repeat the highest of them.
const TARGET_BITS: u32 = 25;

/// Whether raw bytes have so many opcodes that a builder may filter them: a count of bytes, which is cheap, before [`encode`],
/// which is not.
pub fn may_be_worthwhile(raw: &[u8]) -> bool {
    // So few that their number fits in a byte: then a processor counts 16 of them or more at once.
    let parts = raw.chunks(u8::MAX.into());
    let opcodes = parts.map(|part| {
        let count = part.iter().fold(0u8, |count, byte| count.wrapping_add((byte & 0xfe == 0xe8).into()));
        usize::from(count)
    });
    is_worthwhile(opcodes.fold(0, usize::saturating_add), raw.len())
}

/// Whether a builder filters a chunk of `raw_len` bytes, of which [`encode`] returned `calls`: where every 128th byte begins a near
/// call there is code.
pub fn is_worthwhile(calls: usize, raw_len: usize) -> bool {
    calls.saturating_mul(128) >= raw_len
}

/// Makes the targets of raw bytes absolute; the number of near calls whose operand was not 0.
///
/// An operand of 0 is one that a linker has still to fill in. They are the same in all calls of an object file, until this makes
/// them different.
pub fn encode(raw: &mut [u8]) -> usize {
    let mut calls: usize = 0;
    convert(raw, |operand, next| {
        calls = calls.saturating_add((operand != 0).into());
        operand.wrapping_add(next)
    });
    calls
}

/// The inverse of [`encode`].
///
/// It goes for the beginning of what was encoded, too, but for the last [`UNSURE`] bytes of that.
pub fn decode(filtered: &mut [u8]) {
    convert(filtered, u32::wrapping_sub);
}

/// Neither are opcodes ever changed, nor are operands taken for opcodes, so that both directions find the same places.
fn convert(bytes: &mut [u8], mut turn: impl FnMut(u32, u32) -> u32) {
    let mut next = 0;
    while let Some(at) = find(bytes, next) {
        next = at.saturating_add(INSTRUCTION);
        let operand = bytes.get_mut(at.saturating_add(OPCODE)..).and_then(|rest| rest.first_chunk_mut());
        if let Some(operand) = operand.filter(|operand| is_near(operand)) {
            let target = turn(u32::from_le_bytes(*operand), u32_from_usize(next));
            *operand = extended(target).to_le_bytes();
        }
    }
}

/// Whether the highest byte of an operand only repeats the sign.
fn is_near(operand: &[u8; 4]) -> bool {
    matches!(operand, [_, _, _, 0 | 0xff])
}

/// Sign-extends a target.
fn extended(target: u32) -> u32 {
    let sign = 1 << (TARGET_BITS - 1);
    let low = target & ((1 << TARGET_BITS) - 1);
    (low ^ sign).wrapping_sub(sign)
}

/// The first call or jump at `from` or behind it, but for the last [`UNSURE`] bytes.
fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let window = bytes.get(at..)?.first_chunk::<WINDOW>()?;
        let opcodes = opcodes(u64::from_le_bytes(*window));
        if opcodes != 0 {
            let at = at.saturating_add(usize_from_u32(opcodes.trailing_zeros() / u8::BITS));
            return Some(at).filter(|at| at.saturating_add(WINDOW) <= bytes.len());
        }
        at = at.saturating_add(WINDOW);
    }
}

/// Not 0 if a byte of `window` is `e8` or `e9`; then its lowest bit lies in the first that is.
fn opcodes(window: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differs = (window & (ONES * 0xfe)) ^ (ONES * 0xe8);
    // The lowest byte that is zero borrows, and so shows in its high bit; what higher bytes show does not count.
    differs.wrapping_sub(ONES) & !differs & (ONES * 0x80)
}
