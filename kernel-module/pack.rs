// SPDX-License-Identifier: GPL-2.0

//! Step 4 of a read: the stored bytes of chunks, from their pack into private memory.

use kernel::prelude::*;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::{Chunk, ChunkIndex, Pack, Place};

use crate::error::Failure;
use crate::klib::buffer::Buffer;
use crate::vfs::backing::{Backing, Bytes};
use crate::vfs::fatal_signal_pending;

/// The packs of an image: pack 0, which is embedded. Images with others are not mounted.
pub(crate) struct Packs {
    backing: Backing,
    embedded: Pack,
}

impl Packs {
    /// The one pack of an image, which is embedded in it.
    pub(crate) fn new(backing: Backing, embedded: Pack) -> Self {
        Self { backing, embedded }
    }

    /// The device that they lie on.
    pub(crate) fn device(&self) -> u32 {
        self.backing.device()
    }

    /// Reads the stored bytes of each of `chunks`: those that lie side by side in the pack with one
    /// request. They are not verified yet.
    pub(crate) fn read(&self, chunks: impl Iterator<Item = Chunk>) -> Result<Stored, Failure> {
        let mut runs = Buffer::with_capacity(1)?;
        let mut run: Option<Run> = None;
        for chunk in chunks {
            chunk.check_range(&self.embedded)?;
            if let Some(run) = run.as_mut().filter(|run| run.end == chunk.offset) {
                run.add(&chunk);
                continue;
            }
            if let Some(run) = run.replace(Run::new(&chunk)) {
                runs.push(self.read_run(&run)?)?;
            }
        }
        if let Some(run) = run {
            runs.push(self.read_run(&run)?)?;
        }
        Ok(Stored { runs })
    }

    /// Reads the bytes of a run with one request.
    fn read_run(&self, run: &Run) -> Result<Bytes, Failure> {
        // Requests to a device cannot be interrupted.
        if fatal_signal_pending() {
            return Err(EINTR.into());
        }
        // OVERFLOW: `check_range` proved the end in the pack, which ends before the tree region.
        let pos = BLOCK_BYTES.saturating_add(run.start);
        let len = usize::try_from(run.end.saturating_sub(run.start)).map_err(|_| EIO)?;
        self.backing
            .read_once(pos, len)
            .map_err(|error| Failure::backing(Place::Chunk(run.first.0), error))
    }
}

/// Chunks that lie side by side in the pack, and are asked for in this order.
struct Run {
    first: ChunkIndex,
    start: u64,
    end: u64,
}

impl Run {
    fn new(chunk: &Chunk) -> Self {
        let mut run = Self {
            first: chunk.index,
            start: chunk.offset,
            end: chunk.offset,
        };
        run.add(chunk);
        run
    }

    /// Adds the chunk that begins where it ends.
    fn add(&mut self, chunk: &Chunk) {
        self.end = self.end.saturating_add(chunk.stored_len.into());
    }
}

/// The stored bytes of some chunks.
pub(crate) struct Stored {
    /// Of chunks that lie side by side, each.
    runs: Buffer<Bytes>,
}

impl Stored {
    /// The stored bytes of each of `chunks`, which are those that were read.
    pub(crate) fn of_each(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
    ) -> Result<Buffer<&mut [u8]>> {
        let mut each = Buffer::with_capacity(chunks.size_hint().0)?;
        let mut runs = self.runs.iter_mut();
        let mut run: &mut [u8] = &mut [];
        for chunk in chunks {
            if run.is_empty() {
                run = runs.next().ok_or(EIO)?;
            }
            let (stored, rest) = run
                .split_at_mut_checked(usize_from_u32(chunk.stored_len))
                .ok_or(EIO)?;
            each.push(stored)?;
            run = rest;
        }
        Ok(each)
    }
}
