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
enum Destination<'a> {
    Page(Gap<'a>),
    Slot(Claim<'a>, Buffer<u8>),
}

/// A chunk that is to be decoded, its stored bytes, and where its raw ones go.
struct Job<'a> {
    chunk: &'a Chunk,
    stored: &'a mut [u8],
    to: Destination<'a>,
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
    /// Whether the mounter is privileged: only then do other processors help.
    mounter_is_privileged: bool,
}

impl<'a> Chunks<'a> {
    /// The chunks of `mounted`.
    pub(crate) fn new(mounted: &'a Mounted, global: &'a Global) -> Self {
        Self {
            packs: &mounted.packs,
            cache: global.chunks.cache(),
            decoders: &global.decoders,
            stats: &mounted.stats,
            trust: mounted.options.trust,
            mounter_is_privileged: mounted.mounter_is_privileged,
            owner: Owner {
                number: mounted.number,
                exchanges_chunks: mounted.options.trust == Trust::Digests
                    && mounted.mounter_is_privileged,
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
    /// this wait for those that others fill: it must not, while it has claims itself. There are none
    /// on chunks that go to pages: the page of a file is its own claim.
    pub(crate) fn get_all<'b>(&'b self, wants: &mut [Want<'b>]) -> Result<Fetched, Failure> {
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
        let mut chunks = Buffer::with_capacity(wants.len())?;
        let mut destinations = Buffer::with_capacity(wants.len())?;
        for want in wants {
            let (slot, destination) = self.find(want)?;
            slots.push(slot)?;
            if let Some(destination) = destination {
                chunks.push(want.chunk)?;
                destinations.push(destination)?;
            }
        }
        let stored = self.read(&chunks)?;
        let failed = self.decode_all(&chunks, stored, destinations)?;
        Ok(Fetched { slots, failed })
    }

    /// The slot of a chunk that is wanted there, and where it is to be decoded to unless it is decoded
    /// already, or by somebody else.
    fn find<'b>(
        &'b self,
        want: &mut Want<'b>,
    ) -> Result<(Option<Arc<Slot>>, Option<Destination<'b>>), Failure> {
        let chunk = &want.chunk;
        if let Some(gap) = want.gap.take() {
            let Some(slot) = self.cache.find_filled(chunk, self.owner) else {
                return Ok((None, Some(Destination::Page(gap))));
            };
            self.stats.chunk_hits.increment();
            self.copy(slot.raw().ok_or(EIO)?, gap)?;
            self.spent(&slot);
            return Ok((None, None));
        }
        match self.cache.find(chunk, chunk.raw_len, self.owner)? {
            Found::Slot(slot) => {
                self.stats.chunk_hits.increment();
                Ok((Some(slot), None))
            }
            Found::Claim(claim) => {
                // All memory is allocated here: a worker has neither our memory cgroup nor our place
                // in the filesystem, so it may not enter reclaim for us.
                let raw = Buffer::with_capacity_for_all(usize_from_u32(chunk.raw_len))?;
                let slot = claim.slot().clone();
                Ok((Some(slot), Some(Destination::Slot(claim, raw))))
            }
        }
    }

    /// Verifies and decodes `chunks` to their destinations, until one that goes to a page fails.
    fn decode_all(
        &self,
        chunks: &[Chunk],
        mut stored: Stored,
        mut destinations: Buffer<Destination<'_>>,
    ) -> Result<Option<Failure>, Failure> {
        let mut stored = stored.of_each(chunks)?;
        let mut jobs = Buffer::with_capacity(chunks.len())?;
        // From the last to the first, as the others are taken off their ends.
        for chunk in chunks.iter().rev() {
            jobs.push(Job {
                chunk,
                stored: stored.pop().ok_or(EIO)?,
                to: destinations.pop().ok_or(EIO)?,
            })?;
        }
        let width = if self.mounter_is_privileged {
            jobs.len()
        } else {
            1
        };
        pin_init::stack_pin_init!(let jobs = new_mutex!(jobs, "tesserafs chunks to be decoded"));
        let jobs = &*jobs;
        let failed = SetOnce::new();
        workqueue::share(width, &|| {
            while let Some(job) = next(jobs).filter(|_| failed.as_ref().is_none()) {
                let Job { chunk, stored, to } = job;
                match to {
                    Destination::Page(gap) => {
                        if let Err(failure) = gap.fill(|room| self.decode(chunk, stored, room)) {
                            failed.populate(failure);
                        }
                    }
                    Destination::Slot(claim, mut raw) => {
                        if raw.fill(|room| self.decode(chunk, stored, room)).is_ok() {
                            claim.fill(raw);
                        }
                    }
                }
            }
        });
        Ok(failed.copy())
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

/// Takes the largest chunk of what is left: begun last, it would keep the other processors waiting.
/// The list is not locked any more then.
fn next<'a>(jobs: &Mutex<Buffer<Job<'a>>>) -> Option<Job<'a>> {
    let mut jobs = jobs.lock();
    let (last, others) = jobs.split_last_mut()?;
    let largest = others.iter_mut().max_by_key(|job| job.chunk.raw_len);
    if let Some(largest) = largest.filter(|job| job.chunk.raw_len > last.chunk.raw_len) {
        core::mem::swap(largest, last);
    }
    jobs.pop()
}
