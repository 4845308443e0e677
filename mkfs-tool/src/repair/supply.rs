// SPDX-License-Identifier: GPL-2.0-or-later

//! The stored bytes of chunks, from other files: by offset in a copy, by digest in any image, or by the digest of the raw bytes, which are
//! compressed again then. Whatever it is, its digest is compared before it counts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tesserafs_format::{chunk_digest, Chunk, ChunkIndex, Digest, Image, PackIndex, PackKind, SuperBlock};
use tesserafs_image::packs::{Decoder, Packs};
use tesserafs_image::{Source, VerifiedMetadata};

use super::donor::{count, Donor};
use super::places::read_chunk;
use crate::encode::{sha256, Compressor, Sha2};
use crate::error::Result;

/// Places that are kept for a chunk, at most.
const PLACES: usize = 8;

/// Blocks of the metadata of each image that stay in memory, 8 MiB.
const CACHED: u64 = 1 << 11;

/// Records one after the other that cannot be read before the rest of a table is left: a table may say to have billions.
const UNREADABLE: u32 = 1 << 20;

/// A chunk that is wanted, and the digest of its raw bytes, where it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) chunk: Chunk,
    pub(super) raw: Option<Digest>,
}

/// A place where a chunk may be: in this image, as this chunk of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    image: usize,
    chunk: Chunk,
    is_stored: bool,
}

/// A file that may have the same bytes as a pack, from this offset on.
pub(super) struct Copy {
    /// The number of the file among those of `--from`.
    pub(super) donor: usize,
    pub(super) source: Arc<Source>,
    pub(super) start: u64,
}

/// An image that has chunks.
struct Holder<'a> {
    /// The number of the file; none of the image that is repaired.
    donor: Option<usize>,
    metadata: VerifiedMetadata<'a>,
    packs: Packs<'a>,
}

/// All files that have chunks.
pub(super) struct Supply<'a> {
    donors: &'a [Donor],
    holders: Vec<Holder<'a>>,
    /// The copies of each pack, by its index.
    pub(super) copies: Vec<Vec<Copy>>,
}

/// The decoder, compressor and buffer of a thread.
pub(super) struct Tools {
    decoder: Decoder,
    pub(super) compressor: Compressor,
    raw: Vec<u8>,
}

impl Tools {
    pub(super) fn new(level: u32) -> Result<Self> {
        Ok(Self { decoder: Decoder::new()?, compressor: Compressor::new(level)?, raw: Vec::new() })
    }
}

/// The result of the search for a chunk.
pub(super) enum Fetched {
    /// Its stored bytes.
    Stored(Vec<u8>),
    /// Its raw bytes are there, and are compressed to other bytes.
    Otherwise,
    Nothing,
}

impl<'a> Supply<'a> {
    /// Opens the images. `own` is the one that is repaired: what it has in one pack may be lost in another one.
    pub(super) fn new(
        own: (&'a Source, &'a SuperBlock),
        donors: &'a [Donor],
        dirs: &[PathBuf],
        copies: Vec<Vec<Copy>>,
    ) -> Self {
        let images = donors.iter().enumerate().filter_map(|(number, donor)| {
            let (_, sb) = donor.image()?;
            Some((Some(number), &*donor.source, sb))
        });
        let images = images.chain([(None, own.0, own.1)]);
        let holders = images.map(|(donor, source, sb)| {
            let metadata = VerifiedMetadata::with_cache(source, sb, CACHED);
            let image = Image::new(sb, &metadata);
            let numbers = 0..u16::try_from(sb.layout.packs.records()).unwrap_or(u16::MAX);
            let packs: Vec<_> = numbers.map(|number| image.pack(PackIndex(number)).ok()).collect();
            Holder { donor, packs: Packs::open_some(source, &packs, dirs), metadata }
        });
        Self { donors, holders: holders.collect(), copies }
    }

    /// Where these chunks may be, by the chunk tables of all images.
    pub(super) fn locate(&self, wanted: &[Wanted]) -> Vec<Vec<Known>> {
        let mut by_stored: HashMap<Digest, Vec<usize>> = HashMap::new();
        let mut by_raw: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (number, wanted) in wanted.iter().enumerate() {
            by_stored.entry(wanted.chunk.digest).or_default().push(number);
            if let Some(raw) = wanted.raw {
                by_raw.entry(raw).or_default().push(number);
            }
        }
        let mut known: Vec<Vec<Known>> = vec![Vec::new(); wanted.len()];
        for image in 0..self.holders.len() {
            self.each_chunk(image, |chunk, raw| {
                let numbers =
                    by_stored.get(&chunk.digest).into_iter().flatten().map(|number| (*number, true));
                let raw = raw().and_then(|raw| by_raw.get(&raw)).into_iter().flatten();
                for (number, is_stored) in numbers.chain(raw.map(|number| (*number, false))) {
                    if known[number].len() < PLACES {
                        known[number].push(Known { image, chunk, is_stored });
                    }
                }
            });
        }
        // Nothing has to be compressed where the stored bytes are there.
        known.iter_mut().for_each(|places| places.sort_by_key(|known| !known.is_stored));
        known
    }

    /// The chunks that other images have in a pack, by its digest, with the digests of their raw bytes.
    pub(super) fn chunks_of_pack(&self, pack: Digest) -> Vec<Wanted> {
        let mut found = Vec::new();
        for (number, holder) in self.holders.iter().enumerate().filter(|(_, holder)| holder.donor.is_some()) {
            let image = Image::new(holder.metadata.superblock(), &holder.metadata);
            let packs = u16::try_from(image.sb.layout.packs.records()).unwrap_or(u16::MAX);
            let index = (1..packs).map(PackIndex).find(|index| {
                image.pack(*index).is_ok_and(|found| found.kind == PackKind::File && found.digest == pack)
            });
            let Some(index) = index else { continue };
            self.each_chunk(number, |chunk, raw| {
                if chunk.pack == index {
                    found.push(Wanted { chunk, raw: raw() });
                }
            });
        }
        found.sort_by_key(|wanted| (wanted.chunk.offset, wanted.chunk.digest));
        found.dedup_by_key(|wanted| (wanted.chunk.offset, wanted.chunk.digest));
        found
    }

    /// Hands `take` each chunk of an image whose record can be read, and the digest of its raw bytes when that is asked for.
    fn each_chunk(&self, image: usize, mut take: impl FnMut(Chunk, &dyn Fn() -> Option<Digest>)) {
        let holder = &self.holders[image];
        let image = Image::new(holder.metadata.superblock(), &holder.metadata);
        let mut unreadable = 0;
        for number in 0..u32::try_from(image.sb.layout.chunks.records()).unwrap_or(u32::MAX) {
            match image.chunk(ChunkIndex(number)) {
                Ok(chunk) => {
                    unreadable = 0;
                    take(chunk, &|| image.raw_digest(ChunkIndex(number)).ok());
                }
                Err(_) if unreadable == UNREADABLE => break,
                Err(_) => unreadable += 1,
            }
        }
    }

    /// Looks for the stored bytes of a chunk of pack `pack`.
    pub(super) fn fetch(
        &self,
        pack: usize,
        wanted: &Wanted,
        known: &[Known],
        tools: &mut Tools,
    ) -> Result<Fetched> {
        let mut stored = Vec::new();
        for copy in &self.copies[pack] {
            if read_chunk(&copy.source, copy.start, &wanted.chunk, &mut stored) {
                count(&self.donors[copy.donor].taken.chunks, 1);
                return Ok(Fetched::Stored(stored));
            }
        }
        let mut is_otherwise = false;
        for known in known {
            let holder = &self.holders[known.image];
            let taken = holder.donor.map(|donor| &self.donors[donor].taken);
            if known.is_stored {
                let is_same = known.chunk.stored_len == wanted.chunk.stored_len;
                if is_same && holder.packs.read_stored(&known.chunk, &mut stored).is_ok() {
                    taken.iter().for_each(|taken| count(&taken.chunks, 1));
                    return Ok(Fetched::Stored(stored));
                }
                continue;
            }
            let Tools { decoder, compressor, raw } = tools;
            let is_there = holder.packs.read(&known.chunk, decoder, raw).is_ok();
            if !is_there || Some(sha256(raw)) != wanted.raw {
                continue;
            }
            let (_, bytes) = compressor.compress(raw)?;
            if is_chunk(bytes, &wanted.chunk) {
                taken.iter().for_each(|taken| count(&taken.encoded, 1));
                return Ok(Fetched::Stored(bytes.to_vec()));
            }
            is_otherwise = true;
        }
        Ok(if is_otherwise { Fetched::Otherwise } else { Fetched::Nothing })
    }
}

/// Whether these are the stored bytes of a chunk.
pub(super) fn is_chunk(stored: &[u8], chunk: &Chunk) -> bool {
    stored.len() == chunk.stored_len as usize && chunk_digest::<Sha2>(stored) == chunk.digest
}
