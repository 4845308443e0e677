// SPDX-License-Identifier: GPL-2.0

//! Step 1 of a data read: the stored bytes of chunks, from their pack into private memory.

use kernel::prelude::*;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::{Chunk, Image, Metadata, Pack, PackIndex, Place};

use crate::error::Failure;
use crate::klib::buffer::Buffer;
use crate::vfs::Backing;

/// The packs of an image, opened when it is mounted: a page fault opens nothing.
pub(crate) struct Packs {
    backing: Backing,
    embedded: Pack,
}

impl Packs {
    /// Finds the packs that `image` names.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` where it needs a pack in a file of its own.
    pub(crate) fn open<M>(image: Image<'_, M>, backing: Backing) -> Result<Self, Failure>
    where
        M: Metadata<Error = Failure>,
    {
        if image.sb.layout.packs.records() > 1 {
            return Err(EOPNOTSUPP.into());
        }
        Ok(Self {
            backing,
            embedded: image.pack(PackIndex(0))?,
        })
    }

    /// Reads the stored bytes of each of `chunks`: those that lie side by side in the pack with one
    /// request. They are not verified yet.
    pub(crate) fn read(&self, chunks: &[Chunk]) -> Result<Buffer<Buffer<u8>>, Failure> {
        let mut stored = Buffer::with_capacity(chunks.len())?;
        for chunk in chunks {
            chunk.check_range(&self.embedded)?;
            stored.push(Buffer::with_capacity(usize_from_u32(chunk.stored_len))?)?;
        }
        let (mut chunks, mut to) = (chunks, &mut *stored);
        while let Some(first) = chunks.first() {
            let run = adjoining(chunks);
            let (room, rest) = to.split_at_mut_checked(run).ok_or(EIO)?;
            // OVERFLOW: `check_range` proved the end in the pack, which ends before the tree region.
            let pos = BLOCK_BYTES.saturating_add(first.offset);
            self.backing
                .read_run_once(pos, room)
                .map_err(|error| Failure::backing(Place::Chunk(first.index.0), error))?;
            chunks = chunks.get(run..).unwrap_or(&[]);
            to = rest;
        }
        Ok(stored)
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
