// SPDX-License-Identifier: GPL-2.0-or-later

//! Damage at random places, the same in each run.

use std::ops::Range;

/// Random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of these numbers are not the best.
        (self.0 >> 16) % end
    }

    pub(crate) fn within(&mut self, range: &Range<u64>) -> usize {
        (range.start + self.below(range.end - range.start)) as usize
    }

    /// Changes a byte somewhere in a range; the answer is where.
    pub(crate) fn change(&mut self, bytes: &mut [u8], range: &Range<u64>) -> usize {
        let at = self.within(range);
        bytes[at] ^= 1 + self.below(255) as u8;
        at
    }

    /// Makes a block zeros.
    pub(crate) fn zero(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len() as u64 / 4096) as usize * 4096;
        bytes[at..at + 4096].fill(0);
    }

    /// Has two blocks change places.
    pub(crate) fn swap(&mut self, bytes: &mut [u8]) {
        let blocks = bytes.len() as u64 / 4096;
        let (a, b) = (self.below(blocks) as usize * 4096, self.below(blocks) as usize * 4096);
        for at in 0..4096 {
            bytes.swap(a + at, b + at);
        }
    }
}
