// SPDX-License-Identifier: GPL-2.0

//! Where contents are cut: holes, content-defined chunks, and the ends of groups (`FORMAT.md` 5.1 to 5.3).
//!
//! Everything here is a function of the bytes and the profile: how the bytes arrive makes no difference.

use std::ops::Range;
use std::sync::Arc;

use fastcdc::v2020;
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{BLOCK_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_format::{Digest, Profile};

/// The first bytes that go into the digest of a content above [`PLAIN_DIGEST_MAX`].
const SPARSE_TAG: &[u8; 16] = b"TESSRAFS-SPARSE\0";

/// A block of zeros to compare with.
const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Whether a block, or a last shorter one, is all zero.
fn is_zero(block: &[u8]) -> bool {
    // Data is told from zeros by its first word nearly always.
    block.first() == Some(&0) && block == &ZEROS[..block.len()]
}

/// The cut points of FastCDC for a profile.
#[derive(Clone, Copy, Debug)]
pub struct FastCdc {
    min: usize,
    avg: usize,
    max: usize,
    mask_s: u64,
    mask_l: u64,
}

impl FastCdc {
    /// The cut points of `profile`.
    pub fn new(profile: &Profile) -> Self {
        let (mask_s, mask_l) = v2020::select_masks(profile.chunk_avg as usize, v2020::Normalization::Level1);
        Self {
            min: profile.chunk_min as usize,
            avg: profile.chunk_avg as usize,
            max: profile.chunk_max as usize,
            mask_s,
            mask_l,
        }
    }

    /// The length of the first chunk of `segment`, the rest of a segment or `chunk_max` bytes of it at least.
    fn first(&self, segment: &[u8]) -> usize {
        let (_, len) = v2020::cut(
            segment,
            self.min,
            self.avg,
            self.max,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
        );
        len
    }
}

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

/// The facts about the bytes of a content that the tree region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its digest (`FORMAT.md` 4.7).
    pub digest: Digest,
    /// Number of blocks that are not all zero (`FORMAT.md` 4.3).
    pub blocks: u64,
}

impl Summary {
    /// That of a content in memory, of at most [`PLAIN_DIGEST_MAX`] bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Digest(Sha256::digest(bytes).into());
        Self { digest, blocks: count_blocks(bytes) }
    }
}

/// Number of blocks that are not all zero.
fn count_blocks(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK_SIZE).filter(|block| !is_zero(block)).count() as u64
}

/// The [`Summary`] of a content, whose bytes arrive in order.
pub struct ContentHasher {
    hash: Sha256,
    blocks: u64,
    sparse: Option<SparseRun>,
}

/// Where a digest over the data runs of a huge content stands.
struct SparseRun {
    pos: u64,
    /// Where the current run of non-zero blocks began.
    start: Option<u64>,
}

impl ContentHasher {
    /// A hasher for a content of `size` bytes.
    pub fn new(size: u64) -> Self {
        let mut hash = Sha256::new();
        let sparse = (size > PLAIN_DIGEST_MAX).then(|| {
            hash.update(SPARSE_TAG);
            hash.update(size.to_le_bytes());
            SparseRun { pos: 0, start: None }
        });
        Self { hash, blocks: 0, sparse }
    }

    /// The next bytes: whole blocks, but for the end of the content.
    pub fn data(&mut self, bytes: &[u8]) {
        let Some(run) = &mut self.sparse else {
            self.hash.update(bytes);
            self.blocks += count_blocks(bytes);
            return;
        };
        for block in bytes.chunks(BLOCK_SIZE) {
            if is_zero(block) {
                run.end(&mut self.hash);
            } else {
                if run.start.is_none() {
                    run.start = Some(run.pos);
                    self.hash.update(run.pos.to_le_bytes());
                }
                self.hash.update(block);
                self.blocks += 1;
            }
            run.pos += block.len() as u64;
        }
    }

    /// The next `len` bytes are zero: whole blocks, but for the end of the content.
    pub fn zeros(&mut self, mut len: u64) {
        if let Some(run) = &mut self.sparse {
            run.end(&mut self.hash);
            run.pos += len;
            return;
        }
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while len > 0 {
            let part = len.min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..part as usize]);
            len -= part;
        }
    }

    /// The digest, and the number of blocks.
    pub fn finish(mut self) -> Summary {
        let Some(mut run) = self.sparse.take() else {
            return Summary { digest: Digest(self.hash.finalize().into()), blocks: self.blocks };
        };
        run.end(&mut self.hash);
        let hash: [u8; 32] = self.hash.finalize().into();
        Summary { digest: Digest(hash.map(|byte| !byte)), blocks: self.blocks }
    }
}

impl SparseRun {
    fn end(&mut self, hash: &mut Sha256) {
        if let Some(start) = self.start.take() {
            hash.update((self.pos - start).to_le_bytes());
        }
    }
}

/// The open group: small contents one after the other.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
}

/// Whether the open group goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEnd {
    /// The next content still belongs to it.
    Open,
    /// It ends here.
    Closed,
}

impl Group {
    /// Whether `len` more bytes would make the group too long: then it is to be closed first.
    pub fn is_full(&self, len: usize, profile: &Profile) -> bool {
        !self.bytes.is_empty() && self.bytes.len() + len > 2 * profile.group_size as usize
    }

    /// Appends a content; where it begins, and whether the group ends behind it.
    pub fn append(&mut self, content: &[u8], digest: &Digest, profile: &Profile) -> (u32, GroupEnd) {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(content);
        let [a, b, c, d, ..] = digest.0;
        let h = u64::from(u32::from_le_bytes([a, b, c, d]));
        let size = u64::from(profile.group_size);
        let chosen = h * size < (content.len() as u64) << 33;
        let long = self.bytes.len() as u64 >= size / 2;
        (offset, if long && chosen { GroupEnd::Closed } else { GroupEnd::Open })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes; an empty group begins.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_profile;

    /// Numbers that are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| self.next() as u8).collect()
        }
    }

    /// `GEAR[i]` as FORMAT.md 5.3 derives it.
    fn gear() -> Vec<u64> {
        let md5 = |bytes: &[u8]| {
            let digest = openssl::hash::hash(openssl::hash::MessageDigest::md5(), bytes).expect("MD5");
            u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"))
        };
        (0..=255_u8).map(|value| md5(&[value; 64])).collect()
    }

    /// The algorithm of FORMAT.md 5.3, to the letter, for `chunk_avg` 128 KiB.
    fn spec_cut(s: &[u8], profile: &Profile, gear: &[u64]) -> usize {
        assert_eq!(profile.chunk_avg, 1 << 17);
        let (mask_s, mask_l) = (0xd90707537000_u64, 0xd90303537000_u64);
        let (min, avg, max) =
            (profile.chunk_min as usize, profile.chunk_avg as usize, profile.chunk_max as usize);
        let mut n = s.len();
        if n <= min {
            return n;
        }
        n = n.min(max);
        let c = avg.min(n);
        let mut h = 0_u64;
        let mut i = min;
        while i / 2 < n / 2 {
            let m = if i / 2 < c / 2 { mask_s } else { mask_l };
            h = (h << 2).wrapping_add(gear[s[i] as usize] << 1);
            if h & (m << 1) == 0 {
                return i;
            }
            h = h.wrapping_add(gear[s[i + 1] as usize]);
            if h & m == 0 {
                return i + 1;
            }
            i += 2;
        }
        n
    }

    /// Rules 1 and 3 of FORMAT.md 5.1, on bytes in memory: (start, length, is a hole).
    fn spec_pieces(content: &[u8], profile: &Profile, gear: &[u64]) -> Vec<(usize, usize, bool)> {
        let blocks: Vec<&[u8]> = content.chunks(BLOCK_SIZE).collect();
        let zero: Vec<bool> = blocks.iter().map(|block| block.iter().all(|byte| *byte == 0)).collect();
        let mut hole = vec![false; content.len()];
        let mut i = 0;
        while i < blocks.len() {
            let run = zero[i..].iter().take_while(|zero| **zero).count();
            let (start, end) = (i * BLOCK_SIZE, ((i + run) * BLOCK_SIZE).min(content.len()));
            if run > 0 && end - start >= profile.hole_min as usize {
                hole[start..end].fill(true);
            }
            i += run.max(1);
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < content.len() {
            let len = hole[at..].iter().take_while(|other| **other == hole[at]).count();
            if hole[at] {
                pieces.push((at, len, true));
            } else {
                let end = at + len;
                let mut start = at;
                while start < end {
                    let cut = spec_cut(&content[start..end], profile, gear);
                    pieces.push((start, cut, false));
                    start += cut;
                }
            }
            at += len;
        }
        pieces
    }

    fn profile() -> Profile {
        Profile {
            chunk_min: 32 << 10,
            chunk_avg: 128 << 10,
            chunk_max: 256 << 10,
            group_size: 128 << 10,
            ..default_profile(3)
        }
    }

    /// Data and zero runs of all sizes around `hole_min`.
    fn content(numbers: &mut Numbers) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..numbers.below(12) {
            let data = numbers.below(300_000) as usize;
            content.extend(numbers.bytes(data));
            let zeros = [0, 1, 4095, 4096, 28_672, 32_767, 32_768, 36_864, 40_000, 100_000, 700_000];
            let len = zeros[numbers.below(zeros.len() as u64) as usize];
            content.resize(content.len() + len, 0);
            if numbers.below(3) == 0 {
                content.resize(content.len().next_multiple_of(BLOCK_SIZE), 0);
            }
        }
        content
    }

    /// Feeds a cutter windows of other sizes each time, and skips zeros now and then instead of showing them.
    fn cut_streaming(content: &[u8], profile: &Profile, numbers: &mut Numbers) -> Vec<(usize, usize, bool)> {
        let mut cutter = Cutter::new(FastCdc::new(profile), profile);
        let mut found = Vec::new();
        let mut note = |pieces: &mut Vec<Piece>, window: &[u8]| {
            for piece in pieces.drain(..) {
                match piece {
                    Piece::Hole { start } => found.push((start as usize, 0, true)),
                    Piece::Chunk { start, range } => {
                        let start = start as usize;
                        assert_eq!(content[start..start + range.len()], window[range.clone()]);
                        found.push((start, range.len(), false));
                    }
                }
            }
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < content.len() {
            let blocks = 1 + numbers.below(200) as usize;
            let end = (at + blocks * BLOCK_SIZE).min(content.len());
            let part = &content[at..end];
            if part.iter().all(|byte| *byte == 0) && numbers.below(2) == 0 {
                if let Some(window) = cutter.skip_zeros(part.len() as u64, &mut pieces) {
                    note(&mut pieces, &window);
                } else {
                    let window = cutter.advance(false, 0, &mut pieces);
                    note(&mut pieces, &window);
                }
            } else {
                cutter.window().extend_from_slice(part);
                let window = cutter.advance(false, 1 << 16, &mut pieces);
                note(&mut pieces, &window);
            }
            at = end;
        }
        let window = cutter.advance(true, 0, &mut pieces);
        note(&mut pieces, &window);
        let starts: Vec<usize> = found.iter().map(|piece| piece.0).chain([content.len()]).collect();
        for (piece, end) in found.iter_mut().zip(&starts[1..]) {
            if piece.2 {
                piece.1 = end - piece.0;
            }
        }
        found
    }

    #[test]
    fn pieces_are_those_of_the_specification_however_the_bytes_arrive() {
        let gear = gear();
        let profile = profile();
        let mut numbers = Numbers(1);
        for round in 0..60 {
            let content = content(&mut numbers);
            let expected = spec_pieces(&content, &profile, &gear);
            for _ in 0..3 {
                let found = cut_streaming(&content, &profile, &mut numbers);
                assert_eq!(found, expected, "round {round}, {} bytes", content.len());
            }
        }
    }

    #[test]
    fn the_digest_of_a_content_does_not_depend_on_how_it_arrives() {
        let mut numbers = Numbers(2);
        for _ in 0..20 {
            let content = content(&mut numbers);
            // Pretend that it is huge, for the digest over data runs; FORMAT.md 4.7.
            let size = PLAIN_DIGEST_MAX + 1;
            let mut expected = Sha256::new_with_prefix(SPARSE_TAG);
            expected.update(size.to_le_bytes());
            let blocks: Vec<&[u8]> = content.chunks(BLOCK_SIZE).collect();
            let mut i = 0;
            while i < blocks.len() {
                let run = blocks[i..].iter().take_while(|block| block.iter().any(|byte| *byte != 0)).count();
                if run > 0 {
                    let (start, end) = (i * BLOCK_SIZE, ((i + run) * BLOCK_SIZE).min(content.len()));
                    expected.update((start as u64).to_le_bytes());
                    expected.update(&content[start..end]);
                    expected.update(((end - start) as u64).to_le_bytes());
                }
                i += run.max(1);
            }
            let mut plain = ContentHasher::new(content.len() as u64);
            let mut sparse = ContentHasher::new(size);
            let mut at = 0;
            while at < content.len() {
                let end = (at + (1 + numbers.below(64) as usize) * BLOCK_SIZE).min(content.len());
                let part = &content[at..end];
                if part.iter().all(|byte| *byte == 0) && numbers.below(2) == 0 {
                    plain.zeros(part.len() as u64);
                    sparse.zeros(part.len() as u64);
                } else {
                    plain.data(part);
                    sparse.data(part);
                }
                at = end;
            }
            assert_eq!(plain.finish().digest.0, <[u8; 32]>::from(Sha256::digest(&content)));
            let expected: [u8; 32] = expected.finalize().into();
            assert_eq!(sparse.finish().digest.0, expected.map(|byte| !byte));
        }
    }

    #[test]
    fn groups_end_where_the_specification_says() {
        let profile = profile();
        let size = u64::from(profile.group_size);
        let mut numbers = Numbers(3);
        let mut group = Group::default();
        let mut long = 0_usize;
        let mut ends = Vec::new();
        for _ in 0..20_000 {
            let len = 1 + numbers.below(profile.small_max.into()) as usize;
            let digest = Digest(Sha256::digest(numbers.next().to_le_bytes()).into());
            // 5.1, rule 2.
            let full = long > 0 && long + len > 2 * profile.group_size as usize;
            assert_eq!(group.is_full(len, &profile), full);
            if full {
                ends.push(group.take().len());
                long = 0;
            }
            let (offset, end) = group.append(&vec![0; len], &digest, &profile);
            assert_eq!(offset as usize, long);
            long += len;
            let h = u64::from(u32::from_le_bytes(digest.0[..4].try_into().expect("four bytes")));
            let closed = long as u64 >= size / 2 && h * size < len as u64 * (1 << 33);
            assert_eq!(end == GroupEnd::Closed, closed);
            if closed {
                ends.push(group.take().len());
                long = 0;
            }
        }
        let mean = ends.iter().sum::<usize>() / ends.len();
        assert!((size as usize * 8 / 10..size as usize * 12 / 10).contains(&mean), "{mean}");
    }
}
