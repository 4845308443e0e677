// SPDX-License-Identifier: GPL-2.0-or-later

//! That contents are cut, digested and grouped as the specification says, however their bytes arrive.

use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{BLOCK_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_format::{Digest, Profile};

use super::content::SPARSE_TAG;
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
