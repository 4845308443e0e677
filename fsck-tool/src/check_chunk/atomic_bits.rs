// SPDX-License-Identifier: GPL-2.0-or-later

//! A set of indices that all threads add to.

use std::sync::atomic::{AtomicU64, Ordering};

use tesserafs_image::error::{vec_of, Error};

/// A set of indices that all threads add to.
pub(super) struct AtomicBits(Vec<AtomicU64>);

impl AtomicBits {
    pub(super) fn new(len: u64) -> Result<Self, Error> {
        let words: Vec<u64> = vec_of(len.div_ceil(64), "a bit for each chunk")?;
        Ok(Self(words.into_iter().map(AtomicU64::new).collect()))
    }

    pub(super) fn get(&self, index: u32) -> bool {
        let word = self.0.get(index as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
    }

    /// Adds an index; whether it was new.
    pub(super) fn set(&self, index: u32) -> bool {
        let Some(word) = self.0.get(index as usize / 64) else { return false };
        let mask = 1 << (index % 64);
        word.fetch_or(mask, Ordering::Relaxed) & mask == 0
    }
}
