// SPDX-License-Identifier: GPL-2.0

//! Step 1 of a data read: the stored bytes of chunks, from their pack into private memory.

use kernel::prelude::*;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::{Chunk, Pack, Place};

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
    pub(crate) fn read(&self, chunks: &[Chunk]) -> Result<Stored, Failure> {
        let mut runs = Buffer::with_capacity(1)?;
        let mut chunks = chunks;
        while let Some(first) = chunks.first() {
            // Requests to a device cannot be interrupted.
            if fatal_signal_pending() {
                return Err(EINTR.into());
            }
            let (run, rest) = chunks.split_at_checked(adjoining(chunks)).ok_or(EIO)?;
            let mut len = 0_usize;
            for chunk in run {
                chunk.check_range(&self.embedded)?;
                len = len.saturating_add(usize_from_u32(chunk.stored_len));
            }
            // OVERFLOW: `check_range` proved the end in the pack, which ends before the tree region.
            let pos = BLOCK_BYTES.saturating_add(first.offset);
            let bytes = self
                .backing
                .read_once(pos, len)
                .map_err(|error| Failure::backing(Place::Chunk(first.index.0), error))?;
            runs.push(bytes)?;
            chunks = rest;
        }
        Ok(Stored { runs })
    }
}

/// The stored bytes of some chunks.
pub(crate) struct Stored {
    /// Of chunks that lie side by side, each.
    runs: Buffer<Bytes>,
}

impl Stored {
    /// The stored bytes of each of `chunks`, which are those that were read.
    pub(crate) fn of_each(&mut self, chunks: &[Chunk]) -> Result<Buffer<&mut [u8]>> {
        let mut each = Buffer::with_capacity(chunks.len())?;
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

/// How many of `chunks`, from the first on, lie side by side.
fn adjoining(chunks: &[Chunk]) -> usize {
    chunks
        .iter()
        .zip(chunks.get(1..).unwrap_or(&[]))
        .take_while(|(chunk, next)| {
            let end = chunk.offset.saturating_add(chunk.stored_len.into());
            chunk.pack == next.pack && end == next.offset
        })
        .fold(1, |run: usize, _| run.saturating_add(1))
}
