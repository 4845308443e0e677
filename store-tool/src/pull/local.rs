// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks that other images of the store have: copied where the stored bytes are the same, encoded again where the raw ones are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mkfs_tesserafs::encode::{zstd_version, Compressor};
use tesserafs_format::{chunk_digest, Chunk, ChunkIndex, Digest, Image, PackIndex, SuperBlock};
use tesserafs_image::hash::{sha256, Sha2};
use tesserafs_image::packs::{Decoder, Packs};
use tesserafs_image::{parallel, superblock, Broken, Error, Source, VerifiedMetadata};

use super::chunks::Lacking;
use super::Pull;
use crate::store::Image as Stored;

/// Images that are looked at, at most: those of the same repository first.
const IMAGES: usize = 64;

/// Blocks of the metadata of an image that stay in memory.
const CACHED: u64 = 1 << 11;

/// Chunks that a thread brings one after the other.
const TOGETHER: usize = 32;

/// Bytes that need not be fetched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    /// Copied.
    pub(super) stored: u64,
    /// Encoded again.
    pub(super) encoded: u64,
}

/// A chunk that is lacking: the number of its file among those that are, and its number there.
type Place = (usize, usize);

/// A chunk that another image has.
struct Hit {
    chunk: Chunk,
    place: Place,
    is_stored: bool,
}

/// Brings them.
pub(super) fn copy(
    pull: &Pull<'_>,
    image: &Source,
    sb: &SuperBlock,
    lacking: &mut Lacking,
) -> Result<Copied, Error> {
    let mut copied = Copied::default();
    let mut wanted = Wanted::of(lacking, image, sb);
    for other in others(pull)? {
        if wanted.by_stored.is_empty() {
            break;
        }
        let Ok(source) = Source::open(&other.path) else { continue };
        let Ok(head) = superblock::read_head(&source) else { continue };
        if head.id != other.artifact.image_id {
            continue;
        }
        let metadata = VerifiedMetadata::with_cache(&source, &head.sb, CACHED);
        let tables = Image::new(&head.sb, &metadata);
        // What of it cannot be read is fetched.
        let hits = wanted.hits(&tables);
        let numbers = 0..u16::try_from(head.sb.layout.packs.records()).unwrap_or(u16::MAX);
        let packs: Vec<_> = numbers.map(|number| tables.pack(PackIndex(number)).ok()).collect();
        let packs = Packs::open_some(&source, &packs, std::slice::from_ref(&other.pack_dir));
        let bytes = take(pull, &packs, sb.profile.level, lacking, &hits)?;
        copied.stored += bytes.stored;
        copied.encoded += bytes.encoded;
        wanted.forget(lacking);
    }
    Ok(copied)
}

/// Images of the store, those of the same repository first.
fn others(pull: &Pull<'_>) -> Result<Vec<Stored>, Error> {
    let own = &pull.request.reference;
    let mut names = pull.using.names()?;
    names.retain(|named| named.reference != *own || named.manifest != sha256(&pull.found.manifest));
    names.sort_by_key(|named| {
        let is_near = named.reference.host == own.host && named.reference.repository == own.repository;
        (!is_near, named.reference != *own)
    });
    names.dedup_by_key(|named| named.manifest);
    let images = names.iter().filter_map(|named| pull.using.image(&named.reference).ok().flatten());
    Ok(images.take(IMAGES).collect())
}

/// The chunks that are lacking, by their digests.
struct Wanted {
    by_stored: HashMap<Digest, Place>,
    by_raw: HashMap<Digest, Place>,
}

impl Wanted {
    fn of(lacking: &Lacking, image: &Source, sb: &SuperBlock) -> Self {
        let metadata = VerifiedMetadata::with_cache(image, sb, CACHED);
        let tables = Image::new(sb, &metadata);
        // Another libzstd makes other bytes of the same raw ones.
        let can_encode = sb.profile.zstd_version == zstd_version();
        let (mut by_stored, mut by_raw) = (HashMap::new(), HashMap::new());
        for (file, of) in lacking.files.iter().enumerate() {
            for (number, piece) in of.pieces.lacking() {
                let Some((chunk, digest)) = piece.chunk else { continue };
                by_stored.insert(digest, (file, number));
                if let Some(raw) = tables.raw_digest(ChunkIndex(chunk)).ok().filter(|_| can_encode) {
                    by_raw.insert(raw, (file, number));
                }
            }
        }
        Self { by_stored, by_raw }
    }

    /// Those that an image has.
    fn hits(&self, tables: &Image<'_, VerifiedMetadata<'_>>) -> Vec<Hit> {
        let mut hits: HashMap<Place, Hit> = HashMap::new();
        for number in 0..u32::try_from(tables.sb.layout.chunks.records()).unwrap_or(u32::MAX) {
            let Ok(chunk) = tables.chunk(ChunkIndex(number)) else { break };
            if let Some(place) = self.by_stored.get(&chunk.digest) {
                hits.insert(*place, Hit { chunk, place: *place, is_stored: true });
                continue;
            }
            if self.by_raw.is_empty() {
                continue;
            }
            let Ok(raw) = tables.raw_digest(ChunkIndex(number)) else { continue };
            if let Some(place) = self.by_raw.get(&raw) {
                hits.entry(*place).or_insert(Hit { chunk, place: *place, is_stored: false });
            }
        }
        let mut hits: Vec<_> = hits.into_values().collect();
        hits.sort_by_key(|hit| (hit.chunk.pack.0, hit.chunk.offset));
        hits
    }

    fn forget(&mut self, lacking: &Lacking) {
        let is_lacking = |place: &Place| !lacking.files[place.0].pieces.is_there(place.1);
        self.by_stored.retain(|_, place| is_lacking(place));
        self.by_raw.retain(|_, place| is_lacking(place));
    }
}

/// Brings chunks that an image has. One that cannot be read there is not there.
fn take(
    pull: &Pull<'_>,
    packs: &Packs<'_>,
    level: u32,
    lacking: &Lacking,
    hits: &[Hit],
) -> Result<Copied, Error> {
    let (stored_bytes, encoded_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cancel = &pull.request.options.cancel;
    parallel::for_each(threads, hits.len().div_ceil(TOGETHER) as u64, cancel, |part| {
        let first = part as usize * TOGETHER;
        let (mut decoder, mut raw, mut stored) = (Decoder::new()?, Vec::new(), Vec::new());
        let mut compressor = None;
        for hit in &hits[first..(first + TOGETHER).min(hits.len())] {
            let file = &lacking.files[hit.place.0];
            let piece = &file.pieces.all()[hit.place.1];
            let Some((_, expected)) = piece.chunk else { continue };
            if hit.is_stored {
                match packs.read_stored(&hit.chunk, &mut stored) {
                    Ok(()) => (),
                    Err(Broken::Rule(_) | Broken::Stop(_)) => continue,
                }
            } else {
                if packs.read(&hit.chunk, &mut decoder, &mut raw).is_err() {
                    continue;
                }
                if compressor.is_none() {
                    compressor =
                        Some(Compressor::new(level).map_err(|error| Error::Refused(error.to_string()))?);
                }
                let Some(compressor) = &mut compressor else { continue };
                let (_, bytes) =
                    compressor.compress(&raw).map_err(|error| Error::Refused(error.to_string()))?;
                stored.clear();
                stored.extend_from_slice(bytes);
            }
            if stored.len() != piece.len as usize || chunk_digest::<Sha2>(&stored) != expected {
                continue;
            }
            file.unfinished.write_at(piece.start, &stored)?;
            file.pieces.is_there_now(hit.place.1);
            let bytes = if hit.is_stored { &stored_bytes } else { &encoded_bytes };
            bytes.fetch_add(stored.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(Copied { stored: stored_bytes.into_inner(), encoded: encoded_bytes.into_inner() })
}
