// SPDX-License-Identifier: GPL-2.0-or-later

//! SHA-256, also of several things at once, and the digest of a content while its bytes come by (`FORMAT.md` 4.7).

mod lanes;

use sha2::Digest as _;
use tesserafs_format::limits::{BLOCK_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_format::{Digest, Sha256};

pub use self::lanes::sha256_each;

/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

/// SHA-256 by the `sha2` crate.
#[derive(Clone, Copy, Debug)]
pub struct Sha2;

impl Sha256 for Sha2 {
    fn sha256(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    fn sha256_2x(bytes: [&[u8]; 2]) -> [Digest; 2] {
        lanes::sha256_pair(bytes)
    }
}

/// The digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Sha2::sha256(bytes)
}

/// SHA-256 of bytes that come piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    hash: sha2::Sha256,
    /// Bytes of the last, incomplete block.
    filled: usize,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.filled = (self.filled + bytes.len() % BLOCK) % BLOCK;
    }

    /// Takes those that complete a block which was begun; the others.
    fn complete_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = (BLOCK - self.filled) % BLOCK;
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        self.update(now);
        later
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

/// The bytes that zeros are taken from.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Zeros that are taken between two looks at whether to go on.
const ZEROS_AT_ONCE: u64 = 1 << 24;

/// The facts about the bytes of a content that the tree region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its digest.
    pub digest: Digest,
    /// Number of blocks that are not all zero.
    pub blocks: u64,
}

/// The [`Summary`] of a content of known size, whose bytes and holes come in order.
#[derive(Clone, Debug)]
pub struct ContentHasher {
    blocks: BlockCounter,
    digest: ContentDigest,
}

#[derive(Clone, Debug)]
enum ContentDigest {
    /// SHA-256 of the bytes.
    Plain(Hasher),
    /// SHA-256 of the runs of blocks that are not zero.
    Sparse(Box<Sparse>),
}

/// Counts the blocks of a content that are not all zero.
#[derive(Clone, Debug, Default)]
pub struct BlockCounter {
    at: u64,
    /// The block that `at` lies in has a byte that is not zero.
    data: bool,
    blocks: u64,
}

impl BlockCounter {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_SIZE - (self.at % BLOCK_SIZE as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.data |= now.iter().any(|byte| *byte != 0);
            self.at += now.len() as u64;
            if now.len() == room {
                self.close();
            }
            bytes = later;
        }
    }

    /// Takes the next `len` bytes, which are zero.
    pub fn zeros(&mut self, len: u64) {
        let room = BLOCK_SIZE as u64 - self.at % BLOCK_SIZE as u64;
        self.at = self.at.saturating_add(len);
        if len >= room {
            self.close();
        }
    }

    /// The number of them.
    pub fn finish(mut self) -> u64 {
        self.close();
        self.blocks
    }

    fn close(&mut self) {
        self.blocks += u64::from(std::mem::take(&mut self.data));
    }
}

/// The state of a long content's digest.
#[derive(Clone, Debug)]
pub struct Sparse {
    hasher: Hasher,
    /// Bytes that came.
    at: u64,
    /// Bytes of the last, incomplete block.
    block: [u8; BLOCK_SIZE],
    filled: usize,
    /// Where the run of blocks that are not zero began.
    run: Option<u64>,
}

impl ContentHasher {
    /// Begins the summary of a content of `size` bytes.
    pub fn new(size: u64) -> Self {
        let blocks = BlockCounter::default();
        if size <= PLAIN_DIGEST_MAX {
            return Self { blocks, digest: ContentDigest::Plain(Hasher::default()) };
        }
        let mut hasher = Hasher::default();
        hasher.update(b"TESSRAFS-SPARSE\0");
        hasher.update(&size.to_le_bytes());
        let sparse = Sparse { hasher, at: 0, block: [0; BLOCK_SIZE], filled: 0, run: None };
        Self { blocks, digest: ContentDigest::Sparse(Box::new(sparse)) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blocks.update(bytes);
        match &mut self.digest {
            ContentDigest::Plain(hasher) => hasher.update(bytes),
            ContentDigest::Sparse(sparse) => sparse.update(bytes),
        }
    }

    /// Takes the next bytes; the SHA-256 of these alone. Both together take three quarters of the time of one after the other, and the first
    /// bytes of a content are hashed only once.
    pub fn update_and_digest(&mut self, bytes: &[u8]) -> Digest {
        let is_first = self.blocks.at == 0;
        self.blocks.update(bytes);
        match &mut self.digest {
            ContentDigest::Plain(hasher) if is_first => {
                hasher.update(bytes);
                hasher.clone().finish()
            }
            ContentDigest::Plain(hasher) => hasher.update_and_digest(bytes),
            ContentDigest::Sparse(sparse) => {
                sparse.update(bytes);
                sha256(bytes)
            }
        }
    }

    /// Takes the next `len` bytes, which are zero.
    pub fn zeros(&mut self, len: u64) {
        self.blocks.zeros(len);
        match &mut self.digest {
            ContentDigest::Plain(hasher) => each_zeros(len, |zeros| hasher.update(zeros)),
            ContentDigest::Sparse(sparse) => sparse.zeros(len),
        }
    }

    /// The same; `go_on` hears of each part of them that was taken, and may end it. In a long content no zero costs time, and all
    /// are one part.
    pub fn zeros_until<E>(
        &mut self,
        mut len: u64,
        mut go_on: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_free = matches!(self.digest, ContentDigest::Sparse(_));
        while len > 0 {
            let now = if is_free { len } else { len.min(ZEROS_AT_ONCE) };
            self.zeros(now);
            go_on(now)?;
            len -= now;
        }
        Ok(())
    }

    /// The summary of all of them.
    pub fn finish(self) -> Summary {
        let digest = match self.digest {
            ContentDigest::Plain(hasher) => hasher.finish(),
            ContentDigest::Sparse(sparse) => sparse.finish(),
        };
        Summary { digest, blocks: self.blocks.finish() }
    }
}

/// Calls `take` with `len` zeros, piece by piece.
fn each_zeros(mut len: u64, mut take: impl FnMut(&[u8])) {
    while len > 0 {
        let piece = len.min(ZEROS.len() as u64);
        take(&ZEROS[..piece as usize]);
        len -= piece;
    }
}

impl Sparse {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = bytes.len().min(BLOCK_SIZE - self.filled);
            let (now, later) = bytes.split_at(piece);
            self.block[self.filled..self.filled + piece].copy_from_slice(now);
            self.filled += piece;
            self.at += piece as u64;
            bytes = later;
            if self.filled == BLOCK_SIZE {
                self.close_block();
            }
        }
    }

    fn zeros(&mut self, len: u64) {
        let block = BLOCK_SIZE as u64;
        let head = if self.filled == 0 { 0 } else { len.min(block - self.filled as u64) };
        self.update(&ZEROS[..head as usize]);
        let whole = (len - head) / block * block;
        if whole > 0 {
            self.end_run(self.at);
            self.at += whole;
        }
        self.update(&ZEROS[..(len - head - whole) as usize]);
    }

    /// Takes the last block, which begins `filled` bytes before `at`.
    fn close_block(&mut self) {
        let start = self.at - self.filled as u64;
        let block = &self.block[..self.filled];
        if block.iter().all(|byte| *byte == 0) {
            self.end_run(start);
        } else {
            if self.run.is_none() {
                self.run = Some(start);
                self.hasher.update(&start.to_le_bytes());
            }
            self.hasher.update(block);
        }
        self.filled = 0;
    }

    fn end_run(&mut self, at: u64) {
        if let Some(start) = self.run.take() {
            self.hasher.update(&(at - start).to_le_bytes());
        }
    }

    fn finish(mut self) -> Digest {
        if self.filled > 0 {
            self.close_block();
        }
        self.end_run(self.at);
        Digest(self.hasher.finish().0.map(|byte| !byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of a long content, after the letter of the specification, from its blocks.
    fn naive(size: u64, data: &[(u64, &[u8])]) -> Summary {
        let mut blocks = std::collections::BTreeMap::<u64, [u8; BLOCK_SIZE]>::new();
        for (offset, bytes) in data {
            for (at, byte) in (*offset..).zip(*bytes) {
                blocks.entry(at / 4096).or_insert([0; BLOCK_SIZE])[(at % 4096) as usize] = *byte;
            }
        }
        blocks.retain(|_, block| block.iter().any(|byte| *byte != 0));
        let mut bytes = b"TESSRAFS-SPARSE\0".to_vec();
        bytes.extend(size.to_le_bytes());
        let numbers: Vec<u64> = blocks.keys().copied().collect();
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            let (start, end) = (run[0] * 4096, ((run[run.len() - 1] + 1) * 4096).min(size));
            bytes.extend(start.to_le_bytes());
            let from = bytes.len();
            run.iter().for_each(|number| bytes.extend(blocks[number]));
            bytes.truncate(from + (end - start) as usize);
            bytes.extend((end - start).to_le_bytes());
        }
        Summary { digest: Digest(sha256(&bytes).0.map(|byte| !byte)), blocks: numbers.len() as u64 }
    }

    #[test]
    fn sparse_digest_is_over_data_runs() {
        let size = (1 << 36) + 4100;
        let data: [(u64, &[u8]); 4] =
            [(5, b"abc"), (4096 * 3 - 2, b"wxyz"), (1 << 35, &[7; 10000]), (size - 3, b"end")];
        let mut hasher = ContentHasher::new(size);
        let mut at = 0;
        for (offset, bytes) in data {
            hasher.zeros(offset - at);
            bytes.chunks(777).for_each(|piece| hasher.update(piece));
            at = offset + bytes.len() as u64;
        }
        assert_eq!(hasher.finish(), naive(size, &data));
    }

    #[test]
    fn bytes_are_digested_by_themselves_too() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
        for size in [bytes.len() as u64, PLAIN_DIGEST_MAX, PLAIN_DIGEST_MAX + 1] {
            let (mut a, mut b) = (ContentHasher::new(size), ContentHasher::new(size));
            for (piece, zeros) in bytes.chunks(7001).zip([0, 0, 5, 4096, 0].into_iter().cycle()) {
                assert_eq!(a.update_and_digest(piece), sha256(piece));
                b.update(piece);
                a.zeros(zeros);
                b.zeros(zeros);
            }
            assert_eq!(a.finish(), b.finish());
        }
        let mut after_a_hole = ContentHasher::new(5000);
        after_a_hole.zeros(10);
        assert_eq!(after_a_hole.update_and_digest(b"abc"), sha256(b"abc"));
    }

    #[test]
    fn zeros_equal_zero_bytes() {
        let size = (1 << 36) + 1;
        let (mut a, mut b) = (ContentHasher::new(size), ContentHasher::new(size));
        for len in [1_usize, 4095, 4096, 12289, 5] {
            a.update(b"x");
            b.update(b"x");
            a.zeros(len as u64);
            b.update(&vec![0; len]);
        }
        assert_eq!(a.finish(), b.finish());
        let mut plain = ContentHasher::new(100_000);
        plain.zeros(100_000);
        assert_eq!(plain.finish(), Summary { digest: sha256(&[0; 100_000]), blocks: 0 });
    }
}
