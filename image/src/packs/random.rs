// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks for a reader at any place: their form is the checker's business, and a beginning may be enough.

use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{frame, x86, Chunk, Codec, FormatError, Place, Rule, Verified};

use super::{Decoder, Packs};
use crate::error::{Broken, Error};
use crate::hash::Sha2;

impl Packs<'_> {
    /// Fills `stored` with the stored bytes of `chunk`, and compares them with their digest.
    pub fn read_stored(&self, chunk: &Chunk, stored: &mut Vec<u8>) -> Result<(), Broken> {
        let Some(Some(file)) = self.files.get(usize::from(chunk.pack.0)) else {
            let error = format!("chunk {} is in a pack that cannot be read", chunk.index.0);
            return Err(Error::Refused(error).into());
        };
        let (source, base, pack) = file.parts();
        chunk.check_range(pack)?;
        // Bounded: the record was proven to say 1 MiB at most.
        stored.resize(chunk.stored_len as usize, 0);
        source.read_at(base.saturating_add(chunk.offset), stored)?;
        Verified::check_chunk::<Sha2>(stored, &chunk.digest).map_err(|found| {
            let place = Place::Chunk(chunk.index.0);
            FormatError::new(Rule::ChunkDigest, place, found.prefix(), chunk.digest.prefix())
        })?;
        Ok(())
    }

    /// Fills `bytes` with those from `offset` of a pack: nothing but the digest of the whole pack proves them.
    pub fn read_bytes(&self, pack: u16, offset: u64, bytes: &mut [u8]) -> Result<(), Broken> {
        let Some(Some(file)) = self.files.get(usize::from(pack)) else {
            return Err(Error::Refused(format!("pack {pack} cannot be read")).into());
        };
        let (source, base, _) = file.parts();
        source.read_at(base.saturating_add(offset), bytes)?;
        Ok(())
    }

    /// Reads, verifies and decodes `chunk` into `room`, which has as many bytes as it has raw.
    pub(crate) fn read_into(
        &self,
        chunk: &Chunk,
        decoder: &mut Decoder,
        room: &mut [u8],
    ) -> Result<(), Broken> {
        self.read_stored(chunk, &mut decoder.stored)?;
        let Decoder { zstd, stored } = decoder;
        let len = if chunk.codec == Codec::Plain {
            match room.get_mut(..stored.len()) {
                Some(to) => to.copy_from_slice(stored),
                None => return Err(undecodable(Rule::ChunkDecode, chunk, stored.len(), room.len())),
            }
            stored.len()
        } else {
            zstd.decompress(&mut *room, stored).unwrap_or(0)
        };
        if len != room.len() {
            return Err(undecodable(Rule::ChunkDecode, chunk, len, room.len()));
        }
        if chunk.codec == Codec::ZstdX86 {
            x86::decode(room);
        }
        Ok(())
    }

    /// The first `wanted` raw bytes of `chunk`, and perhaps more: a reader of one page, or of a small file, then waits for half of a
    /// chunk, on average. Memory comes from `raw`.
    pub(crate) fn read_beginning(
        &self,
        chunk: &Chunk,
        wanted: u32,
        decoder: &mut Decoder,
        mut raw: Vec<u8>,
    ) -> Result<Vec<u8>, Broken> {
        self.read_stored(chunk, &mut decoder.stored)?;
        let Decoder { zstd, stored } = decoder;
        raw.clear();
        if chunk.codec == Codec::Plain {
            raw.extend_from_slice(stored);
            return Ok(raw);
        }
        let unsure = if chunk.codec == Codec::ZstdX86 { x86::UNSURE } else { 0 };
        // These bytes are the beginning of those that the full frame decodes to, and it has its digest.
        let beginning = frame::shorten(stored, chunk.raw_len, wanted.saturating_add(unsure));
        let (rule, stored_len, len) = match beginning {
            Some(beginning) => (Rule::ChunkBlocks, beginning.stored_len, beginning.raw_len),
            None => (Rule::ChunkDecode, stored.len(), chunk.raw_len),
        };
        let frame = stored.get(..stored_len).unwrap_or(stored);
        raw.reserve_exact(len as usize);
        // Into memory that is not zeroed first; its length then is what was decoded.
        let found = zstd.decompress(&mut raw, frame).unwrap_or(0);
        if found != len as usize {
            return Err(undecodable(rule, chunk, found, len as usize));
        }
        if chunk.codec == Codec::ZstdX86 {
            x86::decode(&mut raw);
        }
        if beginning.is_some() {
            raw.truncate(len.saturating_sub(unsure) as usize);
        }
        Ok(raw)
    }
}

/// Authentic bytes that do not decode to what the chunk table says.
fn undecodable(rule: Rule, chunk: &Chunk, found: usize, expected: usize) -> Broken {
    let place = Place::Chunk(chunk.index.0);
    FormatError::new(rule, place, u64_from_usize(found), u64_from_usize(expected)).into()
}
