// SPDX-License-Identifier: GPL-2.0

//! From a chunk to its raw bytes: found in the chunk cache, or else read, verified and decoded.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use tesserafs_format::Chunk;

use crate::chunk_cache::{ChunkCache, Found, Owner, Slot};
use crate::decode::{decode, decode_beginning, room};
use crate::error::Failure;
use crate::klib::{buffer::Buffer, workqueue, zstd};
use crate::mount::{Global, Mounted};
use crate::pack::{Packs, Stored};
use crate::stats::Stats;
use crate::verify::{verify, Authentic, Trust};

/// The chunks of a mounted image.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    packs: &'a Packs,
    cache: &'a ChunkCache,
    decoders: &'a zstd::Pool,
    stats: &'a Stats,
    trust: Trust,
    owner: Owner,
}

impl<'a> Chunks<'a> {
    /// The chunks of `mounted`.
    pub(crate) fn new(mounted: &'a Mounted, global: &'a Global) -> Self {
        Self {
            packs: &mounted.packs,
            cache: global.chunks.cache(),
            decoders: &global.decoders,
            stats: &mounted.stats,
            trust: mounted.trust,
            owner: Owner {
                number: mounted.number,
                is_verified: mounted.trust == Trust::Digests,
            },
        }
    }

    /// The first `wanted` raw bytes of `chunk` at least, in a slot that is filled.
    pub(crate) fn get(&self, chunk: &Chunk, wanted: u32) -> Result<Arc<Slot>, Failure> {
        loop {
            let slot = match self.cache.find(chunk, wanted, self.owner)? {
                Found::Slot(slot) => {
                    self.stats.chunk_hits.increment();
                    slot
                }
                Found::Claim(claim) => {
                    let chunks = core::slice::from_ref(chunk);
                    let mut stored = self.read(chunks)?;
                    let stored = stored.of_each(chunks)?.pop();
                    let stored = self.verify(chunk, stored.ok_or(EIO)?)?;
                    // Who comes for more of a chunk may come again.
                    let wanted = if claim.is_for_more() {
                        chunk.raw_len
                    } else {
                        wanted
                    };
                    let raw = decode_beginning(self.decoders, chunk, wanted, stored)?;
                    self.stats.has_decoded(chunk, raw.len());
                    return Ok(claim.fill(raw));
                }
            };
            slot.wait()?;
            if slot.has(wanted) {
                return Ok(slot);
            }
            // Who had the claim wanted less, or gave it up, for reasons of his own perhaps: he was
            // killed.
        }
    }

    /// As [`get`](Self::get), where `slot` is what [`get_ahead`](Self::get_ahead) gave for it.
    pub(crate) fn filled(
        &self,
        chunk: &Chunk,
        wanted: u32,
        slot: Option<Arc<Slot>>,
    ) -> Result<Arc<Slot>, Failure> {
        if let Some(slot) = slot {
            slot.wait()?;
            if slot.has(wanted) {
                return Ok(slot);
            }
        }
        self.get(chunk, wanted)
    }

    /// Says that all of a chunk is in the page cache of a file now.
    pub(crate) fn spent(&self, slot: &Arc<Slot>) {
        self.cache.forget(slot);
    }

    /// The slots of all `chunks`. Those that nobody else has or fills are filled: first all of them
    /// are read, then verified and decoded on several processors.
    ///
    /// A slot that could not be filled is left empty, and [`get`](Self::get) finds out why. Nor does
    /// this wait for those that others fill: it must not, while it has claims itself.
    pub(crate) fn get_ahead(&self, chunks: &[Chunk]) -> Result<Buffer<Arc<Slot>>, Failure> {
        let mut slots = Buffer::with_capacity(chunks.len())?;
        let mut claims = Buffer::with_capacity(chunks.len())?;
        let mut claimed = Buffer::with_capacity(chunks.len())?;
        for chunk in chunks {
            match self.cache.find(chunk, chunk.raw_len, self.owner)? {
                Found::Slot(slot) => {
                    self.stats.chunk_hits.increment();
                    slots.push(slot)?;
                }
                Found::Claim(claim) => {
                    slots.push(claim.slot().clone())?;
                    claims.push(claim)?;
                    claimed.push(*chunk)?;
                }
            }
        }
        let mut stored = self.read(&claimed)?;
        let mut stored = stored.of_each(&claimed)?;
        // All memory is allocated here: a worker has neither our memory cgroup nor our place in the
        // filesystem, so it may not enter reclaim for us.
        let mut jobs = Buffer::with_capacity(claimed.len())?;
        // From the last to the first, and so taken from the first to the last.
        while let (Some(chunk), Some(claim), Some(stored)) =
            (claimed.pop(), claims.pop(), stored.pop())
        {
            let room = room(&chunk)?;
            jobs.push((chunk, claim, stored, room))?;
        }
        let width = jobs.len();
        pin_init::stack_pin_init!(let jobs = new_mutex!(jobs, "tesserafs chunks to be decoded"));
        let jobs = &*jobs;
        workqueue::share(width, &|| {
            while let Some((chunk, claim, stored, room)) = next(jobs) {
                if let Ok(raw) = self.decode(&chunk, stored, room) {
                    claim.fill(raw);
                }
            }
        });
        Ok(slots)
    }

    /// The stored bytes of `chunks`.
    fn read(&self, chunks: &[Chunk]) -> Result<Stored, Failure> {
        let stored = self.packs.read(chunks)?;
        for chunk in chunks {
            self.stats.has_read(chunk);
        }
        Ok(stored)
    }

    /// From stored bytes to raw bytes. Allocates nothing, and waits for nobody but a decoder.
    fn decode(
        &self,
        chunk: &Chunk,
        stored: &mut [u8],
        room: Buffer<u8>,
    ) -> Result<Buffer<u8>, Failure> {
        let stored = self.verify(chunk, stored)?;
        let raw = decode(self.decoders, chunk, stored, room)?;
        self.stats.has_decoded(chunk, raw.len());
        Ok(raw)
    }

    fn verify<'b>(&self, chunk: &Chunk, stored: &'b mut [u8]) -> Result<Authentic<'b>, Failure> {
        if self.trust == Trust::Digests {
            self.stats.hashed_bytes.add(stored.len());
        }
        verify(self.trust, chunk, stored)
    }
}

/// Takes the last of `list`, which is not locked any more then.
fn next<T: Unpin>(list: &Mutex<Buffer<T>>) -> Option<T> {
    list.lock().pop()
}
