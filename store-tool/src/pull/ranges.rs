// SPDX-License-Identifier: GPL-2.0-or-later

//! Pieces of a blob that are wanted, and the ranges in which they are asked for.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tesserafs_format::Digest;

/// Bytes of a request, at most, where pieces allow it: several connections share a large blob.
const REQUEST: u64 = 8 << 20;

/// Some bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: u32,
    /// The number of the chunk, with its digest; none where nothing but the digest of the whole blob proves them.
    pub(super) chunk: Option<(u32, Digest)>,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// Pieces of a blob, ascending and disjoint, and which of them are there.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    all: Vec<Piece>,
    states: Vec<AtomicU8>,
    /// How many are not there.
    left: AtomicUsize,
    /// All pieces before this one are there, and perhaps some more.
    front: AtomicUsize,
}

/// A piece that nobody has brought, one that somebody writes, and one that is there.
const LACKING: u8 = 0;
const CLAIMED: u8 = 1;
const THERE: u8 = 2;

impl Pieces {
    /// Pieces none of which is there.
    pub(super) fn new(all: Vec<Piece>) -> Self {
        let states = all.iter().map(|_| AtomicU8::new(LACKING)).collect();
        let left = AtomicUsize::new(all.len());
        Self { all, states, left, front: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &[Piece] {
        &self.all
    }

    /// Whether a piece is there; behind the last one nothing is lacking.
    pub(super) fn is_there(&self, number: usize) -> bool {
        self.states.get(number).is_none_or(|state| state.load(Ordering::Acquire) == THERE)
    }

    /// Whether the caller is the one who writes a piece: nobody has, and nobody else will. So bytes that are there stay as they are, even
    /// those that nothing proves yet.
    pub(super) fn claim(&self, number: usize) -> bool {
        let claimed =
            self.states[number].compare_exchange(LACKING, CLAIMED, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok()
    }

    /// Whether nobody has brought a piece, or is at it.
    pub(super) fn is_lacking(&self, number: usize) -> bool {
        self.states.get(number).is_some_and(|state| state.load(Ordering::Relaxed) == LACKING)
    }

    /// Notes that a piece is there.
    pub(super) fn is_there_now(&self, number: usize) {
        if self.states[number].swap(THERE, Ordering::Release) != THERE {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Where the first piece begins that is not there; none where all are.
    pub(super) fn front(&self) -> Option<u64> {
        let before = self.front.load(Ordering::Relaxed);
        let front = (before..self.all.len()).find(|number| !self.is_there(*number));
        self.front.fetch_max(front.unwrap_or(self.all.len()), Ordering::Relaxed);
        front.map(|number| self.all[number].start)
    }

    /// Whether all are there.
    pub(super) fn has_all(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Those that are not there, with their numbers.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (usize, &Piece)> {
        self.all.iter().enumerate().filter(|(number, _)| !self.is_there(*number))
    }

    /// Whether all are there that are chunks.
    pub(super) fn has_all_chunks(&self) -> bool {
        self.lacking().all(|(_, piece)| piece.chunk.is_none())
    }

    /// The places of those that are no chunks.
    pub(super) fn unproven(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.all.iter().filter(|piece| piece.chunk.is_none()).map(|piece| piece.start..piece.end())
    }

    /// Whether something is there.
    pub(super) fn has_some(&self) -> bool {
        self.states.iter().any(|state| state.load(Ordering::Relaxed) == THERE)
    }

    /// Bytes that are not there.
    pub(super) fn lacking_bytes(&self) -> u64 {
        self.lacking().map(|(_, piece)| u64::from(piece.len)).sum()
    }

    /// The number of the first piece that ends behind this byte.
    pub(super) fn at(&self, offset: u64) -> usize {
        self.all.partition_point(|piece| piece.end() <= offset)
    }

    /// The ranges that have all pieces which are not there; bytes between two of them that nobody wants are asked for, too, if there are
    /// no more than `gap`.
    pub(super) fn ranges(&self, gap: u64) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (_, piece) in self.lacking() {
            match ranges.last_mut() {
                Some(last) if piece.start - last.end <= gap && piece.end() - last.start <= REQUEST => {
                    last.end = piece.end();
                }
                _ => ranges.push(piece.start..piece.end()),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_behind_all_that_came_in_order() {
        let pieces = pieces(&[(5, 10), (15, 10), (25, 10)]);
        assert_eq!(pieces.front(), Some(5));
        pieces.is_there_now(1);
        assert!(pieces.claim(0));
        assert_eq!(pieces.front(), Some(5));
        pieces.is_there_now(0);
        assert_eq!(pieces.front(), Some(25));
        pieces.is_there_now(2);
        assert_eq!(pieces.front(), None);
        assert_eq!(super::tests::pieces(&[]).front(), None);
    }

    fn pieces(of: &[(u64, u32)]) -> Pieces {
        Pieces::new(of.iter().map(|(start, len)| Piece { start: *start, len: *len, chunk: None }).collect())
    }

    #[test]
    fn ranges_have_small_gaps_and_end_when_they_are_long() {
        let pieces = pieces(&[(0, 10), (10, 10), (40, 10), (1000, 10)]);
        assert_eq!(pieces.ranges(0), [0..20, 40..50, 1000..1010]);
        assert_eq!(pieces.ranges(20), [0..50, 1000..1010]);
        pieces.is_there_now(1);
        assert_eq!(pieces.ranges(20), [0..10, 40..50, 1000..1010]);
        pieces.is_there_now(1);
        assert!(!pieces.has_all());
        assert_eq!((pieces.lacking_bytes(), pieces.at(9), pieces.at(10), pieces.at(2000)), (30, 0, 1, 4));
        assert!(!pieces.claim(1) && pieces.claim(0) && !pieces.claim(0));
        assert!(!pieces.is_lacking(0) && !pieces.is_there(0) && pieces.is_lacking(2));
        let large = 3 << 20;
        let all: Vec<_> = (0..5).map(|number| (number * u64::from(large), large)).collect();
        assert_eq!(super::tests::pieces(&all).ranges(0).len(), 3);
    }
}
