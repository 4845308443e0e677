// SPDX-License-Identifier: GPL-2.0-or-later

//! Decoded chunks that readers share, as many as fit into a number of bytes.
//!
//! Readers who want a chunk at the same time decode it once: the first of them gets a [`Claim`], the others wait until that is
//! settled. A slot may hold the beginning of a chunk only; a reader that wants more than that claims the chunk once more.
//!
//! A reader never waits while it holds a claim, so that readers do not wait for each other in a circle.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Buffers of evicted chunks that are kept to be filled again: memory that is new costs a page fault for every 4 KiB.
const SPARE: usize = 8;

/// Chunks that are kept for a while though their end was read: threads that serve one reader may get to its requests in another order.
const DONE: usize = 16;

/// Memory that a slot takes beside the bytes of its chunk: its places in the map and in the order, two allocations, and what these waste. A
/// chunk may have one byte, and there are a billion of them in an image that somebody made so.
const SLOT_BYTES: usize = 256;

/// The cache.
#[derive(Debug)]
pub(super) struct ChunkCache {
    inner: Mutex<Inner>,
    settled: Condvar,
    /// Bytes that are kept, at most.
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<u32, Slot>,
    /// Filled slots by the time when they were asked for last.
    order: BTreeMap<u64, u32>,
    clock: u64,
    /// Memory of all filled slots, with [`SLOT_BYTES`] for each.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Chunks whose end was read, the oldest first.
    done: VecDeque<u32>,
}

#[derive(Debug)]
enum Slot {
    /// Somebody decodes the chunk.
    Claimed,
    /// Its raw bytes, or the first of them.
    Filled { raw: Arc<Vec<u8>>, asked: u64 },
}

/// The result of [`ChunkCache::find`].
pub(super) enum Found<'a> {
    /// The bytes.
    Raw(Arc<Vec<u8>>),
    /// Nothing: the caller decodes the chunk.
    Claim(Claim<'a>),
    /// Somebody else decodes it.
    Busy,
}

/// The duty to decode a chunk, or to give that up by dropping this: then others who wait try on their own.
pub(super) struct Claim<'a> {
    cache: &'a ChunkCache,
    index: u32,
    /// Whether the beginning of the chunk was there: a reader who comes for more may come again.
    pub(super) is_for_more: bool,
    /// Whether the slot was filled: by now it may be gone, or another reader's claim.
    is_filled: bool,
}

impl ChunkCache {
    /// An empty cache of so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { inner: Mutex::default(), settled: Condvar::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `wanted` bytes of chunk `index`.
    pub(super) fn find(&self, index: u32, wanted: u32) -> Found<'_> {
        let mut inner = self.lock();
        let is_for_more = match inner.slots.get(&index) {
            Some(Slot::Claimed) => return Found::Busy,
            Some(Slot::Filled { raw, .. }) if raw.len() >= wanted as usize => {
                let raw = raw.clone();
                inner.touch(index);
                return Found::Raw(raw);
            }
            Some(Slot::Filled { .. }) => true,
            None => false,
        };
        let gone = inner.remove(index);
        inner.slots.insert(index, Slot::Claimed);
        drop(inner);
        drop(gone);
        Found::Claim(Claim { cache: self, index, is_for_more, is_filled: false })
    }

    /// A claim on a chunk of which there is nothing.
    pub(super) fn claim(&self, index: u32) -> Option<Claim<'_>> {
        let mut inner = self.lock();
        if inner.slots.contains_key(&index) {
            return None;
        }
        inner.slots.insert(index, Slot::Claimed);
        Some(Claim { cache: self, index, is_for_more: false, is_filled: false })
    }

    /// Waits until nobody decodes chunk `index`.
    pub(super) fn wait(&self, index: u32) {
        let mut inner = self.lock();
        while matches!(inner.slots.get(&index), Some(Slot::Claimed)) {
            inner = self.settled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does not keep a chunk for long that nobody is expected to ask for.
    pub(super) fn let_go(&self, index: u32) {
        let mut inner = self.lock();
        inner.done.push_back(index);
        if inner.done.len() <= DONE {
            return;
        }
        let oldest = inner.done.pop_front().filter(|oldest| !inner.done.contains(oldest));
        let is_filled = |index: &u32| matches!(inner.slots.get(index), Some(Slot::Filled { .. }));
        let gone = oldest.filter(is_filled).and_then(|oldest| inner.remove(oldest));
        drop(inner);
        self.recycle(gone);
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of a chunk that nobody has any more.
    fn recycle(&self, raw: Option<Arc<Vec<u8>>>) {
        let Some(buffer) = raw.and_then(Arc::into_inner) else { return };
        let mut inner = self.lock();
        if inner.spare.len() < SPARE {
            inner.spare.push(buffer);
        }
    }
}

impl Inner {
    fn touch(&mut self, index: u32) {
        let Some(Slot::Filled { asked, .. }) = self.slots.get_mut(&index) else { return };
        self.clock = self.clock.wrapping_add(1);
        self.order.remove(asked);
        *asked = self.clock;
        self.order.insert(self.clock, index);
    }

    fn fill(&mut self, index: u32, raw: Arc<Vec<u8>>) {
        self.clock = self.clock.wrapping_add(1);
        self.bytes = self.bytes.saturating_add(memory(&raw));
        self.slots.insert(index, Slot::Filled { raw, asked: self.clock });
        self.order.insert(self.clock, index);
    }

    fn remove(&mut self, index: u32) -> Option<Arc<Vec<u8>>> {
        let Some(Slot::Filled { raw, asked }) = self.slots.remove(&index) else { return None };
        self.order.remove(&asked);
        self.bytes = self.bytes.saturating_sub(memory(&raw));
        Some(raw)
    }

    /// Takes out the chunk that was asked for least recently, if there is another one.
    fn evict(&mut self) -> Option<Arc<Vec<u8>>> {
        if self.order.len() < 2 {
            return None;
        }
        let (_, index) = self.order.first_key_value()?;
        self.remove(*index)
    }
}

/// Memory of a filled slot.
fn memory(raw: &Vec<u8>) -> usize {
    raw.capacity().saturating_add(SLOT_BYTES)
}

impl Claim<'_> {
    /// Fills the slot with the raw bytes of the chunk, or with the first of them.
    pub(super) fn fill(mut self, mut raw: Vec<u8>) -> Arc<Vec<u8>> {
        // The buffer may have been that of a longer chunk, and counts as a whole.
        if raw.capacity() > raw.len().saturating_add(raw.len() / 4) {
            raw.shrink_to_fit();
        }
        let raw = Arc::new(raw);
        let cache = self.cache;
        let mut inner = cache.lock();
        inner.fill(self.index, raw.clone());
        self.is_filled = true;
        let mut evicted = Vec::new();
        while inner.bytes > cache.most {
            let Some(gone) = inner.evict() else { break };
            evicted.push(gone);
        }
        drop(inner);
        for gone in evicted {
            cache.recycle(Some(gone));
        }
        raw
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_filled {
            self.cache.lock().slots.remove(&self.index);
        }
        self.cache.settled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    fn claim(cache: &ChunkCache, index: u32, wanted: u32) -> Claim<'_> {
        match cache.find(index, wanted) {
            Found::Claim(claim) => claim,
            _ => panic!("chunk {index} is there"),
        }
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let cache = ChunkCache::new(3 * (300 + SLOT_BYTES));
        for index in 0..10 {
            claim(&cache, index, 300).fill(vec![7; 300]);
            // Asked for again and again, it stays.
            assert!(matches!(cache.find(0, 300), Found::Raw(_)), "{index}");
            assert!(cache.lock().bytes <= cache.most);
        }
        assert!(matches!(cache.find(9, 300), Found::Raw(_)));
        assert!(matches!(cache.find(5, 300), Found::Claim(_)));
    }

    #[test]
    fn slots_count_even_where_their_chunks_have_one_byte() {
        let cache = ChunkCache::new(100 * SLOT_BYTES);
        for index in 0..1000 {
            claim(&cache, index, 1).fill(vec![7; 1]);
        }
        let inner = cache.lock();
        assert!(inner.slots.len() <= 100 && inner.order.len() == inner.slots.len(), "{}", inner.slots.len());
    }

    #[test]
    fn a_chunk_is_decoded_once_for_all_who_want_it() {
        let cache = ChunkCache::new(3 * (300 + SLOT_BYTES));
        let decoded = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| loop {
                    match cache.find(1, 10) {
                        Found::Raw(raw) => break assert_eq!(raw.len(), 10),
                        Found::Busy => cache.wait(1),
                        Found::Claim(claim) => {
                            decoded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(20));
                            claim.fill(vec![1; 10]);
                        }
                    }
                });
            }
        });
        assert_eq!(decoded.into_inner(), 1);
    }

    /// Readers who want more of a chunk claim it once more, while the first reader is about to give up a claim that is settled.
    #[test]
    fn readers_of_beginnings_and_of_more_keep_the_bound() {
        let cache = ChunkCache::new(6 * (300 + SLOT_BYTES));
        let decoding = [const { std::sync::atomic::AtomicBool::new(false) }; 16];
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (cache, decoding) = (&cache, &decoding);
                scope.spawn(move || {
                    let mut number = thread + 1;
                    for _ in 0..40_000 {
                        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let index = (number >> 60) as u32;
                        let wanted = if number >> 59 & 1 == 0 { 10 } else { 300 };
                        match cache.find(index, wanted) {
                            Found::Raw(raw) => assert!(raw.len() >= wanted as usize),
                            Found::Busy => cache.wait(index),
                            Found::Claim(claim) => {
                                let is_held = &decoding[index as usize];
                                assert!(!is_held.swap(true, SeqCst), "chunk {index} is claimed twice");
                                std::thread::sleep(std::time::Duration::from_micros(20));
                                let raw = vec![1; wanted as usize];
                                is_held.store(false, SeqCst);
                                claim.fill(raw);
                            }
                        }
                    }
                });
            }
        });
        let inner = cache.lock();
        assert_eq!(inner.order.len(), inner.slots.len());
        assert!(inner.bytes <= cache.most, "{} bytes", inner.bytes);
    }

    #[test]
    fn a_buffer_counts_as_long_as_its_chunk() {
        let cache = ChunkCache::new(10 * (300 + SLOT_BYTES));
        for index in 0..10 {
            let mut raw = Vec::with_capacity(100_000);
            raw.resize(300, 7);
            claim(&cache, index, 300).fill(raw);
        }
        assert!((0..10).all(|index| matches!(cache.find(index, 300), Found::Raw(_))));
    }

    #[test]
    fn a_claim_that_is_given_up_goes_to_the_next_reader() {
        let cache = ChunkCache::new(3 * (300 + SLOT_BYTES));
        drop(claim(&cache, 1, 10));
        let again = claim(&cache, 1, 10);
        assert!(!again.is_for_more);
        assert!(matches!(cache.find(1, 10), Found::Busy));
        assert!(cache.claim(1).is_none());
        again.fill(vec![1; 10]);
        assert!(claim(&cache, 1, 20).is_for_more);
    }
}
