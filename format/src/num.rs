// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Conversions between integer types that lose nothing, and alignment that cannot overflow.
//!
//! The only file of the crate that may say `as`.
#![allow(clippy::as_conversions)]

const _: () = assert!(
    usize::BITS >= 32 && usize::BITS <= 64,
    "an index of 32 bits must fit in memory, and a length in memory in 64 bits"
);

/// Widens a length in memory.
pub const fn u64_from_usize(value: usize) -> u64 {
    // CAST: `usize` has at most 64 bits, asserted above.
    value as u64
}

/// Turns a 32-bit length into a length in memory.
pub const fn usize_from_u32(value: u32) -> usize {
    // CAST: `usize` has at least 32 bits, asserted above.
    value as usize
}

/// The lowest 32 bits of a length in memory.
pub const fn u32_from_usize(value: usize) -> u32 {
    low_u32(u64_from_usize(value))
}

/// The lowest 32 bits.
pub const fn low_u32(value: u64) -> u32 {
    // CAST: the mask leaves 32 bits.
    (value & 0xffff_ffff) as u32
}

/// The next multiple of `align` at or above `value`; `None` where that overflows. `align` is a power of two.
pub const fn align_up(value: u64, align: u64) -> Option<u64> {
    value.checked_next_multiple_of(align)
}
