// SPDX-License-Identifier: GPL-2.0

//! From a chunk to its raw bytes: found in the chunk cache, or else read, verified and decoded.

use core::mem::MaybeUninit;

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};

use tesserafs_format::num::usize_from_u32;
use tesserafs_format::Chunk;

use crate::chunk_cache::{ChunkCache, Claim, Found, Owner, Slot};
use crate::decode::{decode, decode_beginning};
use crate::error::Failure;
use crate::klib::{buffer::Buffer, workqueue, zstd};
use crate::mount::{Global, Mounted};
use crate::pack::{Packs, Stored};
use crate::stats::Stats;
use crate::verify::{verify, Authentic, Trust};
use crate::vfs::folio::Gap;

/// A chunk that is wanted.
pub(crate) struct Want<'a> {
    pub(crate) chunk: Chunk,
    /// How many of its raw bytes, from the first on.
    pub(crate) wanted: u32,
    /// Memory of a folio for all of its raw bytes; else they go to a slot.
    pub(crate) gap: Option<Gap<'a>>,
}

/// What became of the chunks that were wanted.
pub(crate) struct Fetched {
    /// The slot of each, unless its bytes went to a page.
    pub(crate) slots: Buffer<Option<Arc<Slot>>>,
    /// Why one of those that go to pages could not be had, if that is so.
    pub(crate) failed: Option<Failure>,
}

/// Where the raw bytes of a chunk go.
enum Room<'a> {
    Page(Gap<'a>),
    Slot(Claim<'a>, Buffer<u8>),
}

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

    /// As [`get`](Self::get), where `slot` is what [`get_all`](Self::get_all) gave for it.
    pub(crate) fn filled(
        &self,
        want: &Want<'_>,
        slot: Option<Arc<Slot>>,
    ) -> Result<Arc<Slot>, Failure> {
        if let Some(slot) = slot {
            slot.wait()?;
            if slot.has(want.wanted) {
                return Ok(slot);
            }
        }
        self.get(&want.chunk, want.wanted)
    }

    /// Says that all of a chunk is in the page cache of a file now.
    pub(crate) fn spent(&self, slot: &Arc<Slot>) {
        self.cache.forget(slot);
    }

    /// Gets what is wanted, each where it is wanted: first all stored bytes are read, then they are
    /// verified and decoded on several processors.
    ///
    /// A slot that could not be filled is left empty, and [`get`](Self::get) finds out why. Nor does
    /// this wait for those that others fill: it must not, while it has claims itself.
    pub(crate) fn get_all(&self, wants: &mut [Want<'_>]) -> Result<Fetched, Failure> {
        let mut slots = Buffer::with_capacity(wants.len())?;
        if let [Want {
            chunk,
            wanted,
            gap: None,
        }] = wants
        {
            // No more than its beginning, perhaps.
            slots.push(Some(self.get(chunk, *wanted)?))?;
            return Ok(Fetched {
                slots,
                failed: None,
            });
        }
        let mut claimed = Buffer::with_capacity(wants.len())?;
        let mut targets = Buffer::with_capacity(wants.len())?;
        for Want { chunk, gap, .. } in wants {
            let (slot, target) = match gap.take() {
                Some(gap) => (None, self.fill_from_cache(chunk, gap)?.map(Room::Page)),
                None => match self.cache.find(chunk, chunk.raw_len, self.owner)? {
                    Found::Slot(slot) => {
                        self.stats.chunk_hits.increment();
                        (Some(slot), None)
                    }
                    Found::Claim(claim) => {
                        // All memory is allocated here: a worker has neither our memory cgroup nor
                        // our place in the filesystem, so it may not enter reclaim for us.
                        let raw = Buffer::with_capacity(usize_from_u32(chunk.raw_len))?;
                        (Some(claim.slot().clone()), Some(Room::Slot(claim, raw)))
                    }
                },
            };
            slots.push(slot)?;
            if let Some(target) = target {
                targets.push(target)?;
                claimed.push(*chunk)?;
            }
        }
        let mut stored = self.read(&claimed)?;
        let mut stored = stored.of_each(&claimed)?;
        let mut jobs = Buffer::with_capacity(claimed.len())?;
        // From the last to the first, and so taken from the first to the last.
        while let (Some(chunk), Some(stored), Some(room)) =
            (claimed.pop(), stored.pop(), targets.pop())
        {
            jobs.push((chunk, stored, room))?;
        }
        let width = jobs.len();
        pin_init::stack_pin_init!(let jobs = new_mutex!(jobs, "tesserafs chunks to be decoded"));
        let jobs = &*jobs;
        let failed = SetOnce::new();
        workqueue::share(width, &|| {
            while let Some((chunk, stored, room)) = next(jobs) {
                match room {
                    Room::Page(gap) => {
                        if let Err(failure) = gap.fill(|room| self.decode(&chunk, stored, room)) {
                            failed.populate(failure);
                        }
                    }
                    Room::Slot(claim, mut raw) => {
                        if raw.fill(|room| self.decode(&chunk, stored, room)).is_ok() {
                            claim.fill(raw);
                        }
                    }
                }
            }
        });
        let failed = failed.copy();
        Ok(Fetched { slots, failed })
    }

    /// Fills `gap` with the raw bytes of `chunk` if somebody has decoded it before, else gives it back.
    fn fill_from_cache<'g>(&self, chunk: &Chunk, gap: Gap<'g>) -> Result<Option<Gap<'g>>> {
        let slot = self.cache.find_filled(chunk, self.owner);
        let Some(raw) = slot.as_ref().and_then(|slot| slot.raw()) else {
            return Ok(Some(gap));
        };
        self.stats.chunk_hits.increment();
        self.copy(raw, gap)?;
        Ok(None)
    }

    /// Copies raw bytes to the page cache.
    pub(crate) fn copy(&self, raw: &[u8], gap: Gap<'_>) -> Result {
        self.stats.copied_bytes.add(raw.len());
        gap.write(raw)
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
    fn decode<'r>(
        &self,
        chunk: &Chunk,
        stored: &mut [u8],
        room: &'r mut [MaybeUninit<u8>],
    ) -> Result<&'r mut [u8], Failure> {
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
