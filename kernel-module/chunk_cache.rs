// SPDX-License-Identifier: GPL-2.0

//! Decoded chunks that readers share: each is decoded once for all who want it at the same time,
//! and a few are kept for those who come next: the other small files of a group, the next readahead
//! window.
//!
//! There is one cache for all mounts, and its key is the digest that the kernel has verified: a
//! chunk is the same chunk whichever image it lies in, and no image can put other bytes under a
//! digest.
//!
//! Locking: the lock of the list is held to find a slot, never while one is filled. The lock of a
//! slot is held while its chunk is read, verified and decoded. The backing store may be a file of
//! this filesystem itself, so whoever holds it may wait for folios and slots of the image below,
//! and only of that: a slot that is not filled yet is shared by the readers of one image only, and
//! an image is mounted after the one it lies on. So waiting for it ends.

use kernel::prelude::*;
use kernel::sync::{new_mutex, static_lock_class, Arc, Mutex, SetOnce};

use tesserafs_format::{Chunk, Codec, Digest};

use crate::error::Failure;
use crate::klib::buffer::Buffer;
use crate::klib::shrinker::Shrink;

/// Chunks that are kept for later readers, whatever the number of mounts: at the default profile's
/// average of 128 KiB, 4 MiB.
const SLOTS: usize = 32;

/// What decoded bytes depend on, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    digest: Digest,
    codec: Codec,
    raw_len: u32,
}

/// A mounted image, as a reader of the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// What tells it from the other images that are mounted.
    pub(crate) id: usize,
    /// On how many filesystems it is stacked.
    pub(crate) depth: usize,
}

/// One chunk: its raw bytes, once somebody has decoded them.
#[pin_data]
pub(crate) struct Slot {
    key: Key,
    /// Whose readers may wait for it to be filled.
    owner: Owner,
    raw: SetOnce<Buffer<u8>>,
    #[pin]
    filling: Mutex<()>,
}

impl Slot {
    fn new(key: Key, owner: Owner) -> Result<Arc<Self>> {
        // For lockdep: the lock of a slot is held while the image below takes those of its own.
        let class = match owner.depth {
            0 => static_lock_class!(),
            1 => static_lock_class!(),
            _ => static_lock_class!(),
        };
        Arc::pin_init(
            pin_init!(Self {
                key,
                owner,
                raw: SetOnce::new(),
                filling <- Mutex::new((), c"tesserafs::Slot", class),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether the readers of `owner` may use it: it is filled, or they may wait for that.
    fn serves(&self, owner: Owner) -> bool {
        self.owner == owner || self.raw.as_ref().is_some()
    }

    /// The raw bytes; none if nobody could decode them.
    pub(crate) fn raw(&self) -> &[u8] {
        self.raw.as_ref().map_or(&[], |raw| raw)
    }
}

/// A slot that is kept, and when it was asked for last.
struct Kept {
    slot: Arc<Slot>,
    asked: u64,
}

/// The slots that are kept.
struct Recent {
    kept: [Option<Kept>; SLOTS],
    clock: u64,
}

impl Recent {
    /// The slot of that key; a new one takes the place of the one that nobody asked for the
    /// longest.
    fn slot(&mut self, key: Key, owner: Owner) -> Result<Arc<Slot>> {
        self.clock = self.clock.wrapping_add(1);
        let asked = self.clock;
        if let Some(kept) = self
            .kept
            .iter_mut()
            .flatten()
            .find(|kept| kept.slot.key == key && kept.slot.serves(owner))
        {
            kept.asked = asked;
            return Ok(kept.slot.clone());
        }
        let slot = Slot::new(key, owner)?;
        if let Some(place) = self.oldest(true) {
            *place = Some(Kept {
                slot: slot.clone(),
                asked,
            });
        }
        Ok(slot)
    }

    /// The place of the slot that nobody asked for the longest; of an empty one, if those count.
    fn oldest(&mut self, empty_too: bool) -> Option<&mut Option<Kept>> {
        self.kept
            .iter_mut()
            .filter(|place| empty_too || place.is_some())
            .min_by_key(|place| place.as_ref().map_or(0, |kept| kept.asked))
    }
}

/// The cache.
#[pin_data]
pub(crate) struct ChunkCache {
    #[pin]
    recent: Mutex<Recent>,
}

impl ChunkCache {
    /// An empty cache.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let recent = Recent {
            kept: [const { None }; SLOTS],
            clock: 0,
        };
        Arc::pin_init(
            pin_init!(Self { recent <- new_mutex!(recent, "tesserafs::ChunkCache") }),
            GFP_KERNEL,
        )
    }

    /// The slot of `chunk`, with its raw bytes: those that are there, those that another reader is
    /// decoding, or else what `decode` gives.
    pub(crate) fn get(
        &self,
        chunk: &Chunk,
        owner: Owner,
        decode: impl FnOnce() -> Result<Buffer<u8>, Failure>,
    ) -> Result<Arc<Slot>, Failure> {
        let key = Key {
            digest: chunk.digest,
            codec: chunk.codec,
            raw_len: chunk.raw_len,
        };
        let slot = self.recent.lock().slot(key, owner)?;
        if slot.raw.as_ref().is_none() {
            let _filling = slot.filling.lock();
            // Whoever held the lock before may have filled the slot, or have failed to.
            if slot.raw.as_ref().is_none() {
                slot.raw.populate(decode()?);
            }
        }
        Ok(slot)
    }
}

impl Shrink for ChunkCache {
    fn count(&self) -> usize {
        let Some(recent) = self.recent.try_lock() else {
            return 0;
        };
        recent
            .kept
            .iter()
            .flatten()
            .fold(0, |count: usize, _| count.saturating_add(1))
    }

    fn scan(&self, n: usize) -> Option<usize> {
        let mut recent = self.recent.try_lock()?;
        let mut freed = 0_usize;
        while freed < n {
            let Some(place) = recent.oldest(false) else {
                break;
            };
            *place = None;
            freed = freed.saturating_add(1);
        }
        Some(freed)
    }
}
