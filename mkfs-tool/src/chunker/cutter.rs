// SPDX-License-Identifier: GPL-2.0-or-later

//! A content cut into holes and chunks while its bytes arrive (`FORMAT.md` 5.1).

use std::ops::Range;
use std::sync::Arc;

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::Profile;

use super::{is_zero, FastCdc};

/// A part of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Zeros that are stored nowhere.
    Hole {
        /// First byte in the content.
        start: u64,
    },
    /// A chunk.
    Chunk {
        /// First byte in the content.
        start: u64,
        /// Its bytes in the window that it was cut from.
        range: Range<usize>,
    },
}

/// Cuts one content that arrives in windows.
///
/// # Invariants
///
/// `window` begins at byte `window_start` of the content. Its first `scanned` bytes were looked at; the last
/// `zero_run` bytes before that point are zero blocks, of which the window holds all, or, `in_hole`, none.
#[derive(Debug)]
pub struct Cutter {
    cdc: FastCdc,
    hole_min: u64,
    window: Vec<u8>,
    window_start: u64,
    scanned: usize,
    zero_run: u64,
    in_hole: bool,
}

impl Cutter {
    /// A cutter at the start of a content.
    pub fn new(cdc: FastCdc, profile: &Profile) -> Self {
        Self {
            cdc,
            hole_min: profile.hole_min.into(),
            window: Vec::new(),
            window_start: 0,
            scanned: 0,
            zero_run: 0,
            in_hole: false,
        }
    }

    /// The bytes that are still to be cut. The caller appends to it: whole blocks, but for the end of the content.
    pub fn window(&mut self) -> &mut Vec<u8> {
        &mut self.window
    }

    /// Cuts what can be cut, and gives back the window that the pieces refer to; with `last`, everything. The
    /// rest begins the next window, with room for `room` bytes more.
    pub fn advance(&mut self, last: bool, room: usize, pieces: &mut Vec<Piece>) -> Arc<Vec<u8>> {
        let window = std::mem::take(&mut self.window);
        let mut uncut = 0;
        for block in window[self.scanned..].chunks(BLOCK_SIZE) {
            let at = self.scanned;
            self.scanned += block.len();
            if is_zero(block) {
                self.zero_run += block.len() as u64;
                self.open_hole(&window, &mut uncut, pieces);
            } else {
                self.close_hole(at, &mut uncut, pieces);
            }
        }
        if self.in_hole {
            uncut = self.scanned;
            if last {
                pieces.push(Piece::Hole { start: self.window_start + self.scanned as u64 - self.zero_run });
            }
        } else if last {
            self.cut(&window, uncut..self.scanned, pieces);
            uncut = self.scanned;
        } else {
            // Zeros at the end may turn out to be a hole, and so the end of the segment.
            let sure = self.scanned - self.zero_run as usize;
            while sure - uncut >= self.cdc.max {
                uncut = self.cut_one(&window, uncut..sure, pieces);
            }
        }
        // INVARIANT: the next window begins with what was scanned and not cut.
        let rest = &window[uncut..];
        self.window = Vec::with_capacity(if last { 0 } else { rest.len() + room });
        self.window.extend_from_slice(rest);
        self.window_start += uncut as u64;
        self.scanned -= uncut;
        Arc::new(window)
    }

    /// Takes `len` zero bytes that nobody read, whole blocks but for the end of the content. They follow the window.
    /// The caller has called [`advance`](Self::advance) since it last appended.
    pub fn skip_zeros(&mut self, len: u64, pieces: &mut Vec<Piece>) -> Option<Arc<Vec<u8>>> {
        if !self.in_hole && self.zero_run + len < self.hole_min {
            // Too few for a hole; `hole_min` bounds the memory.
            self.window.resize(self.window.len() + len as usize, 0);
            return None;
        }
        self.zero_run += len;
        let window = std::mem::take(&mut self.window);
        if !self.in_hole {
            let kept = window.len() - (self.zero_run - len) as usize;
            self.cut(&window, 0..kept, pieces);
            self.in_hole = true;
        }
        // INVARIANT: the window is empty, and all of the run is in the hole.
        self.window_start += window.len() as u64 + len;
        self.scanned = 0;
        Some(Arc::new(window))
    }

    /// Ends the segment where the zeros before `scanned` begin, once they are enough for a hole.
    fn open_hole(&mut self, window: &[u8], uncut: &mut usize, pieces: &mut Vec<Piece>) {
        if !self.in_hole && self.zero_run >= self.hole_min {
            let end = self.scanned - self.zero_run as usize;
            self.cut(window, *uncut..end, pieces);
            self.in_hole = true;
        }
    }

    /// Ends a hole before data that begins at byte `at` of the window.
    fn close_hole(&mut self, at: usize, uncut: &mut usize, pieces: &mut Vec<Piece>) {
        if self.in_hole {
            pieces.push(Piece::Hole { start: self.window_start + at as u64 - self.zero_run });
            self.in_hole = false;
            *uncut = at;
        }
        self.zero_run = 0;
    }

    /// Cuts the rest of a segment into chunks.
    fn cut(&self, window: &[u8], mut rest: Range<usize>, pieces: &mut Vec<Piece>) {
        while !rest.is_empty() {
            rest.start = self.cut_one(window, rest.clone(), pieces);
        }
    }

    /// Cuts one chunk; where it ends.
    fn cut_one(&self, window: &[u8], rest: Range<usize>, pieces: &mut Vec<Piece>) -> usize {
        let end = rest.start + self.cdc.first(&window[rest.clone()]);
        pieces.push(Piece::Chunk { start: self.window_start + rest.start as u64, range: rest.start..end });
        end
    }
}
