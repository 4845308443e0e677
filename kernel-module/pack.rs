// SPDX-License-Identifier: GPL-2.0

//! Step 1 of a data read: the stored bytes of a chunk, from its pack into private memory.

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

    /// Reads the stored bytes of `chunk`. They are not verified yet.
    pub(crate) fn read(&self, chunk: &Chunk) -> Result<Buffer<u8>, Failure> {
        chunk.check_range(&self.embedded)?;
        // OVERFLOW: `check_range` proved the end in the pack, which ends before the tree region.
        let pos = BLOCK_BYTES.saturating_add(chunk.offset);
        let place = Place::Chunk(chunk.index.0);
        self.backing
            .read(pos, usize_from_u32(chunk.stored_len))
            .map_err(|error| Failure::backing(place, error))
    }
}
