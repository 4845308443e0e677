// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes that a host with the old image lacks of the new one: by the tables of both and what they have in common, so that each side
//! finds the same.

use std::collections::HashSet;

use tesserafs_format::{Digest, PackKind};

use super::matches::Matches;
use crate::convert::Tables;

/// The bytes that are lacking.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Packs that have to be made, by their indices.
    pub(super) packs: Vec<u16>,
    /// Chunks in these whose stored bytes the old image has, with its number for them.
    pub(super) known: Vec<(u32, u32)>,
    /// Chunks that it lacks.
    pub(super) lacking: Vec<u32>,
    /// Chunks in packs of both images that the old one does not list.
    pub(super) elsewhere: Vec<u32>,
    /// Bytes that no chunk has.
    pub(super) gaps: Vec<Gap>,
}

/// Bytes of a pack that no chunk has: those of an image that was built before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) pack: u16,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Bytes of a gap in a section.
const GAP_MAX: u64 = 4 << 20;

impl Gap {
    /// The offsets in the pack, and the lengths, of its sections.
    pub(super) fn sections(self) -> impl Iterator<Item = (u64, u64)> {
        let starts = (0..self.len).step_by(GAP_MAX as usize);
        starts.map(move |start| (self.offset + start, GAP_MAX.min(self.len - start)))
    }
}

impl Wanted {
    pub(super) fn new(old: &Tables, new: &Tables, matches: &Matches) -> Self {
        let have: HashSet<Digest> =
            old.packs.iter().filter(|pack| pack.kind == PackKind::File).map(|pack| pack.digest).collect();
        let is_made = |index: usize| {
            let pack = &new.packs[index];
            match pack.kind {
                PackKind::Embedded => pack.bytes > 0,
                PackKind::File => !have.contains(&pack.digest),
            }
        };
        let mut wanted = Self::default();
        let mut covered: Vec<Vec<(u64, u64)>> = vec![Vec::new(); new.packs.len()];
        for (number, chunk) in (0..).zip(&new.chunks) {
            let pack = usize::from(chunk.pack.0);
            if !is_made(pack) {
                if matches.chunk(number).is_none() {
                    wanted.elsewhere.push(number);
                }
                continue;
            }
            covered[pack].push((chunk.offset, chunk.offset + u64::from(chunk.stored_len)));
            match matches.chunk(number) {
                Some(known) => wanted.known.push((number, known)),
                None => wanted.lacking.push(number),
            }
        }
        for (index, mut covered) in covered.into_iter().enumerate() {
            if !is_made(index) {
                continue;
            }
            let pack = index as u16;
            wanted.packs.push(pack);
            covered.sort_unstable();
            let mut at = 0;
            for (start, end) in covered.into_iter().chain([(new.packs[index].bytes, u64::MAX)]) {
                if at < start {
                    wanted.gaps.push(Gap { pack, offset: at, len: start - at });
                }
                at = at.max(end);
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use tesserafs_format::{Chunk, ChunkIndex, Codec, Pack, PackIndex};

    use super::*;

    fn tables(packs: &[(u8, u64)], chunks: &[(u16, u64, u32, u8)]) -> Tables {
        let packs = packs.iter().zip(0..).map(|((digest, bytes), index)| Pack {
            index: PackIndex(index),
            kind: if index == 0 { PackKind::Embedded } else { PackKind::File },
            digest: Digest([*digest; 32]),
            bytes: *bytes,
        });
        let chunks = chunks.iter().zip(0..).map(|((pack, offset, stored_len, digest), index)| Chunk {
            index: ChunkIndex(index),
            pack: PackIndex(*pack),
            offset: *offset,
            stored_len: *stored_len,
            raw_len: *stored_len,
            codec: Codec::Plain,
            digest: Digest([*digest; 32]),
        });
        let chunks: Vec<_> = chunks.collect();
        let raw_digests = chunks.iter().map(|chunk| chunk.digest).collect();
        Tables { packs: packs.collect(), chunks, raw_digests, ..Tables::default() }
    }

    #[test]
    fn packs_that_are_there_are_not_made_and_gaps_are_found() {
        let old = tables(&[(0, 0), (1, 100)], &[(1, 0, 50, 10), (1, 50, 50, 11)]);
        let new = tables(&[(0, 0), (1, 100), (2, 90)], &[(1, 0, 50, 10), (2, 10, 20, 12), (2, 40, 50, 11)]);
        let wanted = Wanted::new(&old, &new, &Matches::find(&old, &new));
        assert_eq!((wanted.packs, wanted.known, wanted.lacking), (vec![2], vec![(2, 1)], vec![1]));
        let gap = |offset, len| Gap { pack: 2, offset, len };
        assert_eq!(wanted.gaps, [gap(0, 10), gap(30, 10)]);
        // One file has all of it.
        let new = tables(&[(3, 70)], &[(0, 0, 50, 10), (0, 50, 20, 12)]);
        let wanted = Wanted::new(&old, &new, &Matches::find(&old, &new));
        assert_eq!((wanted.packs, wanted.known, wanted.lacking), (vec![0], vec![(0, 0)], vec![1]));
        assert!(wanted.gaps.is_empty());
    }
}
