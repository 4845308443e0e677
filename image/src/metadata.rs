// SPDX-License-Identifier: GPL-2.0-or-later

//! The verified metadata of an image: each block that is handed out has the digest that the Merkle tree holds for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGEST_SIZE};
use tesserafs_format::{Digest, FormatError, Parent, Place, Rule, SuperBlock, Verified};

use crate::error::{Broken, Error};
use crate::hash::{sha256_each, Hasher, Sha2};
use crate::source::Source;

/// Blocks that are kept, once verified: 64 MiB.
const CACHED_BLOCKS: u64 = 1 << 14;

/// Blocks that the store is asked for at once, 128 KiB: what a file is found by lies in some blocks of each table, so that a reader of
/// many files comes by all of them, and would wait for each.
const WINDOW: u64 = 32;

/// A block of metadata or hashes.
pub type Block = [u8; BLOCK_SIZE];

/// Reads metadata and hash blocks, verifies them, and keeps some.
///
/// # Invariants
///
/// A slot that holds bytes holds those of its block, and they were compared with the digest that the verified parent holds.
#[derive(Debug)]
pub struct VerifiedMetadata<'a> {
    source: &'a Source,
    sb: &'a SuperBlock,
    slots: Vec<Mutex<Slot>>,
    /// The window that the store was asked for last.
    window: AtomicU64,
    /// Whether a block that has not its digest is read once only.
    keeps_bad: bool,
}

/// A place of the cache, shared by all blocks of one remainder.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Good(u64, Box<Block>),
    Bad(u64, FormatError),
}

impl<'a> VerifiedMetadata<'a> {
    /// The metadata of the image in `source`, which is as long as `sb` says.
    pub fn new(source: &'a Source, sb: &'a SuperBlock) -> Self {
        Self { keeps_bad: true, ..Self::with_cache(source, sb, CACHED_BLOCKS) }
    }

    /// The same with so many blocks in memory, at most; and a block that has not its digest is read again when it is asked for again,
    /// as the store may recover while the image is in use.
    pub fn with_cache(source: &'a Source, sb: &'a SuperBlock, blocks: u64) -> Self {
        let slots = sb.layout.geometry.total_blocks().min(blocks).max(1);
        let slots = (0..slots).map(|_| Mutex::default()).collect();
        Self { source, sb, slots, window: AtomicU64::new(u64::MAX), keeps_bad: false }
    }

    /// The superblock that the metadata was verified against.
    pub fn superblock(&self) -> &'a SuperBlock {
        self.sb
    }

    fn slot(&self, block: u64) -> MutexGuard<'_, Slot> {
        let index = (block % self.slots.len() as u64) as usize;
        self.slots[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `take` the verified bytes of metadata or hash block `number`, counted from the tree region.
    pub fn with_block<T>(&self, number: u64, take: impl FnOnce(&Block) -> T) -> Result<T, Broken> {
        match &*self.slot(number) {
            Slot::Good(at, block) if *at == number => return Ok(take(block)),
            Slot::Bad(at, error) if *at == number => return Err((*error).into()),
            _ => (),
        }
        // The slot is free meanwhile: the parent may have the same one.
        let expected = self.expected(number)?;
        let mut block = Box::new([0; BLOCK_SIZE]);
        self.look_around(number);
        self.source.read_at(self.offset(number), block.as_mut())?;
        if let Err(found) = Verified::check::<Sha2>(block.as_ref(), &expected) {
            let error = not_authentic(number, &found, &expected);
            if self.keeps_bad {
                *self.slot(number) = Slot::Bad(number, error);
            }
            return Err(error.into());
        }
        let taken = take(&block);
        // INVARIANT: compared above, and the box was not handed out for writing.
        *self.slot(number) = Slot::Good(number, block);
        Ok(taken)
    }

    /// Lets the store fetch the neighbours of block `number`, too.
    fn look_around(&self, number: u64) {
        let window = number / WINDOW;
        if self.window.swap(window, Ordering::Relaxed) != window {
            let range = self.offset(window * WINDOW)..self.offset((window + 1) * WINDOW);
            self.source.will_need(range);
        }
    }

    /// Where block `number` begins in the image.
    pub fn offset(&self, number: u64) -> u64 {
        self.sb.layout.tree_offset.saturating_add(number.saturating_mul(BLOCK_BYTES))
    }

    /// The digest that block `number` should have, from its verified parent.
    pub fn expected(&self, number: u64) -> Result<Digest, Broken> {
        let last = self.sb.layout.geometry.total_blocks();
        let behind = FormatError::new(Rule::HashBlock, Place::Block(number), number, last);
        match self.sb.layout.geometry.parent(number).ok_or(behind)? {
            Parent::Root => Ok(self.sb.merkle_root),
            Parent::Slot { block, offset } => self.with_block(block, |bytes| {
                let offset = offset as usize;
                let mut digest = [0; DIGEST_SIZE];
                digest.copy_from_slice(&bytes[offset..offset + DIGEST_SIZE]);
                Digest(digest)
            }),
        }
    }

    /// Compares the blocks from number `first` on, of which `bytes` are those in the file, with their digests: what is wrong with each.
    /// Meanwhile `beside` takes all of them. Authentic blocks are kept where there is room, so that nobody reads and hashes them again.
    pub fn compare_all(
        &self,
        first: u64,
        bytes: &[u8],
        beside: Option<&mut Hasher>,
    ) -> Vec<Result<(), Broken>> {
        let parts: Vec<&[u8]> = bytes.chunks_exact(BLOCK_SIZE).collect();
        let digests = match beside {
            Some(hasher) => hasher.update_beside(bytes, &parts),
            None => sha256_each(&parts),
        };
        let results = (first..).zip(parts).zip(digests).map(|((number, bytes), found)| {
            let expected = self.expected(number)?;
            if found != expected {
                return Err(not_authentic(number, &found, &expected).into());
            }
            let mut slot = self.slot(number);
            if matches!(*slot, Slot::Empty) {
                let mut block = Box::new([0; BLOCK_SIZE]);
                block.copy_from_slice(bytes);
                // INVARIANT: compared above, and the box was not handed out for writing.
                *slot = Slot::Good(number, block);
            }
            Ok(())
        });
        results.collect()
    }

    /// Whether `error` is one of a block that has not the digest it should: found, and reported, when blocks were checked.
    pub fn is_reported(error: &FormatError) -> bool {
        error.rule == Rule::HashBlock
    }

    /// The file that the blocks are in.
    pub fn source(&self) -> &'a Source {
        self.source
    }
}

/// Block `number` has the digest `found`.
fn not_authentic(number: u64, found: &Digest, expected: &Digest) -> FormatError {
    FormatError::new(Rule::HashBlock, Place::Block(number), found.prefix(), expected.prefix())
}

impl Metadata for VerifiedMetadata<'_> {
    type Error = Broken;

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Broken> {
        let layout = &self.sb.layout;
        let len = buf.len() as u64;
        let inside = offset >= layout.tree_offset
            && offset.checked_add(len).is_some_and(|end| end <= layout.hash_offset);
        if !inside {
            // Ranges of tables are proven before they are read: only a defect of the caller ends here.
            return Err(Error::Refused(format!("{len} bytes at byte {offset} are not metadata")).into());
        }
        let mut at = offset - layout.tree_offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let start = (at % BLOCK_BYTES) as usize;
            let piece = rest.len().min(BLOCK_SIZE - start);
            let (now, later) = rest.split_at_mut(piece);
            self.with_block(at / BLOCK_BYTES, |block| now.copy_from_slice(&block[start..start + piece]))?;
            at += piece as u64;
            rest = later;
        }
        Ok(())
    }
}
