// SPDX-License-Identifier: GPL-2.0

//! From a chunk to its raw bytes: found in the chunk cache, or else read, verified and decoded.

use kernel::prelude::*;
use kernel::sync::Arc;

use tesserafs_format::Chunk;

use crate::chunk_cache::{ChunkCache, Found, Owner, Slot};
use crate::decode::{decode, room};
use crate::error::Failure;
use crate::klib::zstd;
use crate::mount::{Global, Mounted};
use crate::pack::Packs;
use crate::verify::verify;

/// The chunks of a mounted image.
#[derive(Clone, Copy)]
pub(crate) struct Chunks<'a> {
    packs: &'a Packs,
    cache: &'a ChunkCache,
    decoders: &'a zstd::Pool,
    owner: Owner,
}

impl<'a> Chunks<'a> {
    /// The chunks of `mounted`.
    pub(crate) fn new(mounted: &'a Mounted, global: &'a Global) -> Self {
        Self {
            packs: &mounted.packs,
            cache: global.chunks.cache(),
            decoders: &global.decoders,
            owner: Owner(core::ptr::from_ref(mounted).addr()),
        }
    }

    /// The raw bytes of `chunk`, in a slot that is filled.
    pub(crate) fn get(&self, chunk: &Chunk) -> Result<Arc<Slot>, Failure> {
        loop {
            let slot = match self.cache.find(chunk, self.owner)? {
                Found::Slot(slot) => slot,
                Found::Claim(claim) => {
                    let stored = self.packs.read(chunk)?;
                    let stored = verify(chunk, stored)?;
                    let raw = decode(self.decoders, chunk, stored, room(chunk)?)?;
                    return Ok(claim.fill(raw));
                }
            };
            slot.wait()?;
            if slot.raw().is_some() {
                return Ok(slot);
            }
            // Who had the claim gave it up, for reasons of his own perhaps: he was killed.
        }
    }
}
