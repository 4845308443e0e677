// SPDX-License-Identifier: GPL-2.0-or-later

//! Decoded chunks that may be wanted once more.

use std::collections::VecDeque;

/// Decoded chunks that each thread keeps because only a part of them was wanted.
const KEPT_PER_THREAD: usize = 8;

/// The chunks of which a part was wanted last: many short extents of a chunk do not decode it each.
///
/// mkfs makes no such extents of a content of several, so that this is empty for what it builds.
#[derive(Default)]
pub(super) struct Kept(VecDeque<(u32, Vec<u8>)>);

impl Kept {
    pub(super) fn get(&self, index: u32) -> Option<&[u8]> {
        self.0.iter().find(|(kept, _)| *kept == index).map(|(_, raw)| raw.as_slice())
    }

    pub(super) fn put(&mut self, index: u32, raw: Vec<u8>) {
        if self.0.len() == KEPT_PER_THREAD {
            self.0.pop_front();
        }
        self.0.push_back((index, raw));
    }
}
