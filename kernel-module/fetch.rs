// SPDX-License-Identifier: GPL-2.0

//! Step 3 of a read: a plan is carried out. Each chunk is found in the chunk cache, or waited for while
//! another reader decodes it, or read, verified and decoded here: steps 4 to 6.
//!
//! One rule keeps readers from waiting for each other in a circle: no reader waits for another one
//! while it has a claim on a chunk itself. So [`Chunks::carry_out`] first claims all that nobody has,
//! then settles all claims, and only then waits.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};

use tesserafs_format::num::usize_from_u32;
use tesserafs_format::Chunk;

use crate::chunk_cache::{ChunkCache, Claim, Found, Owner, Slot};
use crate::decode::{decode, decode_beginning};
use crate::error::Failure;
use crate::klib::{buffer::Buffer, workqueue::Helpers, zstd};
use crate::mount::{Global, Mounted};
use crate::pack::Packs;
use crate::plan::{Copied, Part, Plan};
use crate::stats::Stats;
use crate::verify::{verify, Trust};
use crate::vfs::folio::Gap;

/// The chunks of a mounted image.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    packs: &'a Packs,
    cache: &'a ChunkCache,
    decoders: &'a zstd::Pool,
    helpers: &'a Helpers,
    stats: &'a Stats,
    trust: Trust,
    owner: Owner,
    /// Whether the mounter is privileged: only then do other processors help.
    mounter_is_privileged: bool,
}

/// A chunk that is to be decoded, and what becomes of its raw bytes.
struct Job<'a> {
    chunk: Chunk,
    to: Destination<'a>,
}

/// Where the raw bytes of a chunk go.
enum Destination<'a> {
    /// To a folio: all of them.
    Page(Gap<'a>),
    /// To a slot of the chunk cache: at least this many.
    Slot(Claim<'a>, u32),
}

impl<'a> Chunks<'a> {
    /// The chunks of `mounted`.
    pub(crate) fn new(mounted: &'a Mounted, global: &'a Global) -> Self {
        Self {
            packs: &mounted.packs,
            cache: global.chunks.cache(),
            decoders: &global.decoders,
            helpers: &global.helpers,
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

    /// Fills the memory of `plan`. Where that fails, some of it is filled.
    pub(crate) fn carry_out(&self, plan: Plan<'_>) -> Result<(), Failure> {
        let Plan { mut parts, copies } = plan;
        let mut slots = Buffer::with_capacity(parts.len())?;
        let mut jobs = Buffer::with_capacity(parts.len())?;
        for part in parts.iter_mut() {
            let (slot, job) = self.find(part)?;
            slots.push(slot)?;
            if let Some(job) = job {
                jobs.push(job)?;
            }
        }
        let decoded = self.decode_all(jobs);
        // There is no claim any more.
        let copied = self.copy_all(&parts, &mut slots, copies, decoded.is_err());
        decoded.and(copied)
    }

    /// The slot of a chunk, unless it goes to a page, and a job if nobody decodes it yet.
    fn find<'b>(
        &'b self,
        part: &mut Part<'b>,
    ) -> Result<(Option<Arc<Slot>>, Option<Job<'b>>), Failure> {
        let chunk = part.chunk;
        if let Some(gap) = part.in_place.take() {
            let Some(slot) = self.cache.find_filled(&chunk, self.owner) else {
                // No claim is needed: the page is locked, and everybody else waits for it.
                let to = Destination::Page(gap);
                return Ok((None, Some(Job { chunk, to })));
            };
            self.stats.chunk_hits.increment();
            self.copy(slot.raw().ok_or(EIO)?, gap)?;
            self.cache.forget(&slot);
            return Ok((None, None));
        }
        match self.cache.find(&chunk, part.wanted, self.owner)? {
            Found::Slot(slot) => {
                self.stats.chunk_hits.increment();
                Ok((Some(slot), None))
            }
            Found::Claim(claim) => {
                let slot = claim.slot().clone();
                let to = Destination::Slot(claim, part.wanted);
                Ok((Some(slot), Some(Job { chunk, to })))
            }
        }
    }

    /// Does all jobs that can be done, on several processors. Their claims are settled, in any case.
    fn decode_all(&self, jobs: Buffer<Job<'_>>) -> Result<(), Failure> {
        if jobs.is_empty() {
            return Ok(());
        }
        // Step 4: all stored bytes are read before the first is decoded.
        let mut stored = self.packs.read(jobs.iter().map(|job| job.chunk))?;
        let mut stored = stored.of_each(jobs.iter().map(|job| job.chunk))?;
        let width = if self.mounter_is_privileged {
            jobs.len()
        } else {
            1
        };
        let mut work = Buffer::with_capacity(jobs.len())?;
        let mut jobs = jobs;
        while let (Some(job), Some(stored)) = (jobs.pop(), stored.pop()) {
            self.stats.has_read(&job.chunk);
            work.push((job, stored))?;
        }
        pin_init::stack_pin_init!(let work = new_mutex!(work, "tesserafs chunks to be decoded"));
        let work = &*work;
        let failed = SetOnce::new();
        self.helpers.share(width, &|| {
            while let Some((job, stored)) = next(work) {
                if let Err(failure) = self.decode(job, stored) {
                    // One is enough to say why.
                    failed.populate(failure);
                }
            }
        });
        failed.copy().map_or(Ok(()), Err)
    }

    /// Verifies and decodes the stored bytes of a chunk. Waits for nobody but a decoder.
    fn decode(&self, job: Job<'_>, stored: &mut [u8]) -> Result<(), Failure> {
        let Job { chunk, to } = job;
        // Step 5.
        if self.trust == Trust::Digests {
            self.stats.hashed_bytes.add(stored.len());
        }
        let stored = verify(self.trust, &chunk, stored)?;
        // Step 6.
        let len = match to {
            Destination::Page(gap) => {
                gap.fill(|room| decode(self.decoders, &chunk, stored, room))?;
                usize_from_u32(chunk.raw_len)
            }
            Destination::Slot(claim, wanted) => {
                // A reader that comes for more of a chunk may come again.
                let wanted = if claim.is_for_more() {
                    chunk.raw_len
                } else {
                    wanted
                };
                let raw = decode_beginning(self.decoders, &chunk, wanted, stored)?;
                let len = raw.len();
                claim.fill(raw);
                len
            }
        };
        self.stats.has_decoded(&chunk, len);
        Ok(())
    }

    /// Copies what does not go to a page at once. If a job `has_failed`, the slots that nobody filled stay
    /// as they are.
    fn copy_all(
        &self,
        parts: &[Part<'_>],
        slots: &mut [Option<Arc<Slot>>],
        mut copies: Buffer<Copied<'_>>,
        has_failed: bool,
    ) -> Result<(), Failure> {
        // From the last to the first, as they are taken off the end.
        while let Some(copied) = copies.pop() {
            let part = parts.get(copied.part).ok_or(EIO)?;
            let slot = slots.get_mut(copied.part).ok_or(EIO)?;
            let found = slot.take().ok_or(EIO)?;
            found.wait()?;
            let filled = if found.has(part.wanted) {
                found
            } else if has_failed {
                *slot = Some(found);
                continue;
            } else {
                // The previous claimant asked for fewer bytes or abandoned its claim (a killed task
                // does), so try again.
                self.get(&part.chunk, part.wanted)?
            };
            let raw = filled.raw().ok_or(EIO)?;
            let raw = bytes_at(raw, copied.offset, copied.gap.len()).ok_or(EIO)?;
            self.copy(raw, copied.gap)?;
            if copied.is_end {
                self.cache.forget(&filled);
            }
            *slot = Some(filled);
        }
        Ok(())
    }

    /// The first `wanted` raw bytes of one chunk at least, in a slot that is filled.
    fn get(&self, chunk: &Chunk, wanted: u32) -> Result<Arc<Slot>, Failure> {
        loop {
            let slot = match self.cache.find(chunk, wanted, self.owner)? {
                Found::Slot(slot) => slot,
                Found::Claim(claim) => {
                    let slot = claim.slot().clone();
                    let mut jobs = Buffer::with_capacity(1)?;
                    jobs.push(Job {
                        chunk: *chunk,
                        to: Destination::Slot(claim, wanted),
                    })?;
                    self.decode_all(jobs)?;
                    slot
                }
            };
            slot.wait()?;
            if slot.has(wanted) {
                return Ok(slot);
            }
        }
    }

    /// Copies raw bytes to the page cache.
    fn copy(&self, raw: &[u8], gap: Gap<'_>) -> Result {
        self.stats.copied_bytes.add(raw.len());
        gap.write(raw)
    }
}

/// Takes the largest chunk of what is left: begun last, it would keep the other processors waiting.
/// The list is not locked any more then.
fn next<'a, 'b>(work: &Mutex<Buffer<(Job<'a>, &'b mut [u8])>>) -> Option<(Job<'a>, &'b mut [u8])> {
    let mut work = work.lock();
    let (last, others) = work.split_last_mut()?;
    let largest = others.iter_mut().max_by_key(|(job, _)| job.chunk.raw_len);
    if let Some(largest) = largest.filter(|(job, _)| job.chunk.raw_len > last.0.chunk.raw_len) {
        core::mem::swap(largest, last);
    }
    work.pop()
}

/// `len` bytes of `raw` from `from`.
fn bytes_at(raw: &[u8], from: u64, len: usize) -> Option<&[u8]> {
    raw.get(usize::try_from(from).ok()?..)?.get(..len)
}
