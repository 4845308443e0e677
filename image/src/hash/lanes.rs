// SPDX-License-Identifier: GPL-2.0-or-later

//! SHA-256 of several things at once, on one processor.
//!
//! Where a processor has instructions for SHA-256, each of them waits for the one before, and the unit is idle meanwhile. So the
//! blocks of two things are taken in turn, and a processor that executes out of order works on both: that takes three quarters of the
//! time (on an AMD EPYC 0.37 s for 1 GB in parts of 64 KiB, instead of 0.49 s). Elsewhere it takes no longer.

use std::mem;

use sha2::Digest as _;
use tesserafs_format::Digest;

use super::{Hasher, BLOCK};

/// A thing that is being digested.
struct Lane<'a> {
    number: usize,
    hasher: Hasher,
    rest: &'a [u8],
}

impl<'a> Lane<'a> {
    fn new((number, rest): (usize, &'a [u8])) -> Self {
        Self { number, hasher: Hasher::default(), rest }
    }

    fn finish(mut self) -> (usize, Digest) {
        self.hasher.update(self.rest);
        (self.number, self.hasher.finish())
    }
}

/// The digest of each of `parts`.
pub fn sha256_each(parts: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![Digest::default(); parts.len()];
    let mut waiting = parts.iter().copied().enumerate().map(Lane::new);
    let mut lanes = [waiting.next(), waiting.next()];
    while let [Some(first), Some(second)] = &mut lanes {
        [first.rest, second.rest] =
            advance((&mut first.hasher, first.rest), (&mut second.hasher, second.rest));
        // One of them at least has no whole block more.
        for lane in lanes.iter_mut().filter(|lane| lane.as_ref().is_some_and(|lane| lane.rest.len() < BLOCK))
        {
            if let Some((number, digest)) = mem::replace(lane, waiting.next()).map(Lane::finish) {
                digests[number] = digest;
            }
        }
    }
    for (number, digest) in lanes.into_iter().flatten().map(Lane::finish) {
        digests[number] = digest;
    }
    digests
}

/// The digests of two things.
pub(super) fn sha256_pair([first, second]: [&[u8]; 2]) -> [Digest; 2] {
    let [mut one, mut other] = [Hasher::default(), Hasher::default()];
    let [first, second] = advance((&mut one, first), (&mut other, second));
    one.update(first);
    other.update(second);
    [one.finish(), other.finish()]
}

impl Hasher {
    /// Takes the next bytes, and meanwhile digests each of `parts`.
    pub fn update_beside(&mut self, bytes: &[u8], parts: &[&[u8]]) -> Vec<Digest> {
        let mut rest = bytes;
        let digests = parts.iter().map(|part| {
            let mut hasher = Hasher::default();
            let last;
            [rest, last] = advance((self, rest), (&mut hasher, part));
            hasher.update(last);
            hasher.finish()
        });
        let digests = digests.collect();
        self.update(rest);
        digests
    }

    /// Takes the next bytes; the digest of these alone.
    pub(super) fn update_and_digest(&mut self, bytes: &[u8]) -> Digest {
        let mut alone = Hasher::default();
        let [rest, last] = advance((self, bytes), (&mut alone, bytes));
        self.update(rest);
        alone.update(last);
        alone.finish()
    }
}

/// Takes the blocks that both have, in turn; the bytes of each that are left.
///
/// Each begins with the bytes that complete its block: a hasher with an incomplete one copies all bytes, and that takes longer than
/// two in turn save.
fn advance<'a>(first: (&mut Hasher, &'a [u8]), second: (&mut Hasher, &'a [u8])) -> [&'a [u8]; 2] {
    let (one, bytes) = first;
    let (other, others) = second;
    let (bytes, others) = (one.complete_block(bytes), other.complete_block(others));
    let both = bytes.len().min(others.len()) / BLOCK * BLOCK;
    let ((now, rest), (also, last)) = (bytes.split_at(both), others.split_at(both));
    for (block, another) in now.chunks_exact(BLOCK).zip(also.chunks_exact(BLOCK)) {
        one.hash.update(block);
        other.hash.update(another);
    }
    [rest, last]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    /// Bytes in which no two blocks are equal.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len as u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_be_bytes()).take(len).collect()
    }

    #[test]
    fn each_has_its_own_digest_whatever_is_beside_it() {
        let all = bytes(5100);
        let lens = [0, 1, 63, 64, 65, 4999, 128, 0, 3000, 129, 1000];
        for count in 0..=lens.len() {
            let parts: Vec<&[u8]> = lens[..count].iter().map(|len| &all[count..count + len]).collect();
            let expected: Vec<Digest> = parts.iter().map(|part| sha256(part)).collect();
            assert_eq!(sha256_each(&parts), expected);
        }
        for pair in lens.windows(2) {
            let [first, second] = [&all[..pair[0]], &all[5000 - pair[1]..]];
            assert_eq!(sha256_pair([first, second]), [sha256(first), sha256(second)]);
        }
    }

    #[test]
    fn a_stream_goes_on_beside_other_things() {
        let all = bytes(10_000);
        let parts: [&[u8]; 4] = [&all[1..700], &all[3..3], &all[200..264], &all[5..3000]];
        let expected: Vec<Digest> = parts.iter().map(|part| sha256(part)).collect();
        for len in [0, 1, 64, 500, 777, 4000, 10_000] {
            let mut hasher = Hasher::default();
            for window in all.chunks(len.max(300)) {
                assert_eq!(hasher.update_beside(window, &parts), expected);
            }
            assert_eq!(hasher.update_beside(&[], &[]), []);
            assert_eq!(hasher.finish(), sha256(&all));
        }
    }
}
