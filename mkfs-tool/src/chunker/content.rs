// SPDX-License-Identifier: GPL-2.0-or-later

//! The digest of a content, and its blocks, while its bytes arrive (`FORMAT.md` 4.3 and 4.7).

use tesserafs_format::limits::{BLOCK_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_format::Digest;
use tesserafs_image::hash::{sha256_each, Hasher};

use super::is_zero;

/// The first bytes that go into the digest of a content above [`PLAIN_DIGEST_MAX`].
pub(super) const SPARSE_TAG: &[u8; 16] = b"TESSRAFS-SPARSE\0";

/// Zeros that are digested between two looks at whether to go on.
const ZEROS_AT_ONCE: u64 = 1 << 24;

/// The facts about the bytes of a content that the tree region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its digest (`FORMAT.md` 4.7).
    pub digest: Digest,
    /// Number of blocks that are not all zero (`FORMAT.md` 4.3).
    pub blocks: u64,
}

impl Summary {
    /// Those of contents in memory, of at most [`PLAIN_DIGEST_MAX`] bytes each.
    pub fn of_each(contents: &[&[u8]]) -> Vec<Self> {
        let digests = sha256_each(contents).into_iter();
        let summary = |(digest, bytes): (_, &&[u8])| Self { digest, blocks: count_blocks(bytes) };
        digests.zip(contents).map(summary).collect()
    }
}

/// Number of blocks that are not all zero.
fn count_blocks(bytes: &[u8]) -> u64 {
    bytes.chunks(BLOCK_SIZE).filter(|block| !is_zero(block)).count() as u64
}

/// The [`Summary`] of a content, whose bytes arrive in order.
pub struct ContentHasher {
    hash: Hasher,
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
        let mut hash = Hasher::default();
        let sparse = (size > PLAIN_DIGEST_MAX).then(|| {
            hash.update(SPARSE_TAG);
            hash.update(&size.to_le_bytes());
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
                    self.hash.update(&run.pos.to_le_bytes());
                }
                self.hash.update(block);
                self.blocks += 1;
            }
            run.pos += block.len() as u64;
        }
    }

    /// The next bytes, as in [`data`](Self::data), and meanwhile the digests of `chunks`.
    pub fn data_beside(&mut self, bytes: &[u8], chunks: &[&[u8]]) -> Vec<Digest> {
        if self.sparse.is_some() {
            self.data(bytes);
            return sha256_each(chunks);
        }
        self.blocks += count_blocks(bytes);
        self.hash.update_beside(bytes, chunks)
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

    /// The same; `go_on` hears of each part of them that was taken, and may end it. Only below a content's limit for plain digests
    /// do zeros cost time.
    pub fn zeros_until<E>(
        &mut self,
        mut len: u64,
        mut go_on: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        while len > 0 {
            let part = if self.sparse.is_some() { len } else { len.min(ZEROS_AT_ONCE) };
            self.zeros(part);
            go_on(part)?;
            len -= part;
        }
        Ok(())
    }

    /// The digest, and the number of blocks.
    pub fn finish(mut self) -> Summary {
        let Some(mut run) = self.sparse.take() else {
            return Summary { digest: self.hash.finish(), blocks: self.blocks };
        };
        run.end(&mut self.hash);
        let Digest(hash) = self.hash.finish();
        Summary { digest: Digest(hash.map(|byte| !byte)), blocks: self.blocks }
    }
}

impl SparseRun {
    fn end(&mut self, hash: &mut Hasher) {
        if let Some(start) = self.start.take() {
            hash.update(&(self.pos - start).to_le_bytes());
        }
    }
}
