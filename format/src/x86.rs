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

/// Whether a builder filters a chunk of these raw bytes: where every 128th byte begins a near call there is code.
pub fn is_worthwhile(raw: &[u8]) -> bool {
    let mut calls: usize = 0;
    let mut next = 0;
    while let Some(at) = find(raw, next) {
        next = at.saturating_add(INSTRUCTION);
        let operand = raw.get(at.saturating_add(OPCODE)..).and_then(|rest| rest.first_chunk());
        calls = calls.saturating_add(operand.is_some_and(is_near).into());
    }
    calls.saturating_mul(128) >= raw.len()
}

/// Makes the targets of raw bytes absolute.
pub fn encode(raw: &mut [u8]) {
    convert(raw, u32::wrapping_add);
}

/// The inverse of [`encode`].
///
/// It goes for the beginning of what was encoded, too, but for the last [`UNSURE`] bytes of that.
pub fn decode(filtered: &mut [u8]) {
    convert(filtered, u32::wrapping_sub);
}

/// Neither are opcodes ever changed, nor are operands taken for opcodes, so that both directions find the same places.
fn convert(bytes: &mut [u8], turn: impl Fn(u32, u32) -> u32) {
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
