// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks that other images of the store have: copied where the stored bytes are the same, encoded again where the raw ones are.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use mkfs_tesserafs::encode::{zstd_version, Compressor};
use tesserafs_format::{chunk_digest, ChunkIndex, Digest, Image, PackIndex, SuperBlock};
use tesserafs_image::hash::Sha2;
use tesserafs_image::packs::{Decoder, Packs};
use tesserafs_image::{parallel, superblock, Error, Source, VerifiedMetadata};

use super::chunks::{self, Lacking, LackingFile};
use super::ranges::Piece;
use super::Pull;
use crate::store::Image as Stored;

/// Images that are looked at, at most: those of the same repository first.
const IMAGES: usize = 64;

/// Blocks of the metadata of an image that stay in memory.
const CACHED: u64 = 1 << 11;

/// Chunks that a thread brings one after the other.
const TOGETHER: usize = 32;

/// Chunks of an image that, encoded again, are not the ones that are wanted, after which none of it is encoded any more: of an honest image
/// each is, and one that claims the raw digests of a million others would keep the processors busy for days.
const MISSES: u64 = 64;

/// Bytes that need not be fetched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    /// Copied.
    pub(super) stored: u64,
    /// Encoded again.
    pub(super) encoded: u64,
}

/// A chunk that is lacking: the number of its file among those that are, and its number there.
type Place = (u32, u32);

/// A chunk that another image has: its number there.
struct Hit {
    chunk: u32,
    place: Place,
    is_stored: bool,
}

/// Brings them.
pub(super) fn copy(
    pull: &Pull<'_>,
    image: &Source,
    sb: &SuperBlock,
    lacking: &Lacking,
) -> Result<Copied, Error> {
    let mut copied = Copied { stored: begun(pull, lacking)?, encoded: 0 };
    if lacking.files.iter().all(|file| file.pieces.has_all_chunks()) {
        return Ok(copied);
    }
    let others = others(pull)?;
    if others.is_empty() {
        return Ok(copied);
    }
    let mut wanted = Wanted::of(lacking, image, sb);
    for other in others {
        if wanted.by_stored.0.is_empty() {
            break;
        }
        let Ok(source) = Source::open(&other.path) else { continue };
        let Ok(head) = superblock::read_head(&source) else { continue };
        if head.id != other.artifact.image_id {
            continue;
        }
        let metadata = VerifiedMetadata::with_cache(&source, &head.sb, CACHED);
        let tables = Image::new(&head.sb, &metadata);
        // Chunks that cannot be read there are fetched.
        let hits = wanted.hits(&tables, lacking);
        let numbers = 0..u16::try_from(head.sb.layout.packs.records()).unwrap_or(u16::MAX);
        let packs: Vec<_> = numbers.map(|number| tables.pack(PackIndex(number)).ok()).collect();
        let packs = Packs::open_some(&source, &packs, std::slice::from_ref(&other.pack_dir));
        let from = Other { tables: &tables, packs: &packs, level: sb.profile.level };
        let bytes = take(pull, &from, lacking, &hits)?;
        copied.stored += bytes.stored;
        copied.encoded += bytes.encoded;
        wanted.forget(lacking);
    }
    Ok(copied)
}

/// Brings what is there of the same packs, of other images that were begun: the tag may have moved when a pull was cut off.
fn begun(pull: &Pull<'_>, lacking: &Lacking) -> Result<u64, Error> {
    let mut copied = 0;
    for file in lacking.files.iter().filter(|file| !file.pieces.has_all_chunks()) {
        for other in pull.filling.elsewhere(&file.blob.digest, file.blob.len)? {
            // Another process may have cut it off, or the disk may be broken there.
            let read = |offset, bytes: &mut [u8]| {
                if other.read_exact_at(bytes, offset).is_err() {
                    bytes.fill(0);
                }
                Ok(())
            };
            let give = |offset, bytes: &[u8]| file.unfinished.write_at(offset, bytes);
            copied += chunks::take(&file.pieces, &pull.request.options.cancel, read, give)?;
        }
    }
    Ok(copied)
}

/// Images of the store, those of the same repository first, and of these the latest.
fn others(pull: &Pull<'_>) -> Result<Vec<Stored>, Error> {
    let own = &pull.request.reference;
    let mut names = pull.using.names()?;
    names.sort_by_key(|named| {
        let is_near = named.reference.host == own.host && named.reference.repository == own.repository;
        (!is_near, named.reference != *own, Reverse(named.since))
    });
    let mut seen = HashSet::from([pull.found.artifact.image_id]);
    let images = names.iter().filter_map(|named| pull.using.image(&named.reference).ok().flatten());
    Ok(images.filter(|image| seen.insert(image.artifact.image_id)).take(IMAGES).collect())
}

/// Chunks by the first bytes of a digest, sorted. Whether another one with these bytes is the same chunk is told when its own are compared.
///
/// Of chunks with the same first bytes one is here, the others are fetched: a builder makes no two equal chunks, and a million in each of
/// two images would be a million times a million pairs.
struct Places(Vec<(u64, Place)>);

impl Places {
    fn new(mut all: Vec<(u64, Place)>) -> Self {
        all.sort_unstable();
        all.dedup_by_key(|(prefix, _)| *prefix);
        Self(all)
    }

    /// The number here of the chunk that has this digest, if any has.
    fn find(&self, digest: &Digest) -> Option<usize> {
        self.0.binary_search_by_key(&prefix(digest), |(prefix, _)| *prefix).ok()
    }

    fn place(&self, number: usize) -> Place {
        self.0[number].1
    }
}

/// Numbers that were there before.
struct Seen(Vec<bool>);

impl Seen {
    fn of(places: &Places) -> Self {
        Self(vec![false; places.0.len()])
    }

    /// Whether the number comes for the first time.
    fn is_first(&mut self, number: usize) -> bool {
        !std::mem::replace(&mut self.0[number], true)
    }
}

fn prefix(digest: &Digest) -> u64 {
    digest.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn piece<'l>(lacking: &'l Lacking, place: &Place) -> (&'l LackingFile, &'l Piece) {
    let file = &lacking.files[place.0 as usize];
    (file, &file.pieces.all()[place.1 as usize])
}

/// The chunks that are lacking, by their digests.
struct Wanted {
    by_stored: Places,
    by_raw: Places,
}

impl Wanted {
    fn of(lacking: &Lacking, image: &Source, sb: &SuperBlock) -> Self {
        let metadata = VerifiedMetadata::with_cache(image, sb, CACHED);
        let tables = Image::new(sb, &metadata);
        // Another libzstd makes other bytes of the same raw ones.
        let can_encode = sb.profile.zstd_version == zstd_version();
        let (mut by_stored, mut by_raw) = (Vec::new(), Vec::new());
        for (file, of) in (0..).zip(&lacking.files) {
            for (number, piece) in of.pieces.lacking() {
                let Some((chunk, digest)) = piece.chunk else { continue };
                // There are no more than chunks.
                let place = (file, number as u32);
                by_stored.push((prefix(&digest), place));
                if let Some(raw) = tables.raw_digest(ChunkIndex(chunk)).ok().filter(|_| can_encode) {
                    by_raw.push((prefix(&raw), place));
                }
            }
        }
        Self { by_stored: Places::new(by_stored), by_raw: Places::new(by_raw) }
    }

    /// Those that an image has, each once, in the order of its packs.
    fn hits(&self, tables: &Image<'_, VerifiedMetadata<'_>>, lacking: &Lacking) -> Vec<Hit> {
        let mut hits = Vec::new();
        let (mut stored, mut raw) = (Seen::of(&self.by_stored), Seen::of(&self.by_raw));
        for number in 0..u32::try_from(tables.sb.layout.chunks.records()).unwrap_or(u32::MAX) {
            let Ok(chunk) = tables.chunk(ChunkIndex(number)) else { break };
            let is_same = |place: &Place| {
                piece(lacking, place).1.chunk.is_some_and(|(_, expected)| expected == chunk.digest)
            };
            if let Some(found) = self.by_stored.find(&chunk.digest) {
                let place = self.by_stored.place(found);
                if is_same(&place) {
                    if stored.is_first(found) {
                        hits.push(Hit { chunk: number, place, is_stored: true });
                    }
                    continue;
                }
            }
            if self.by_raw.0.is_empty() {
                continue;
            }
            let Ok(digest) = tables.raw_digest(ChunkIndex(number)) else { continue };
            let found = self.by_raw.find(&digest).filter(|found| raw.is_first(*found));
            hits.extend(found.map(|found| Hit {
                chunk: number,
                place: self.by_raw.place(found),
                is_stored: false,
            }));
        }
        hits
    }

    fn forget(&mut self, lacking: &Lacking) {
        let is_lacking = |place: &Place| !lacking.files[place.0 as usize].pieces.is_there(place.1 as usize);
        self.by_stored.0.retain(|(_, place)| is_lacking(place));
        self.by_raw.0.retain(|(_, place)| is_lacking(place));
    }
}

/// An image that has chunks, and the level of the one that lacks them.
struct Other<'o> {
    tables: &'o Image<'o, VerifiedMetadata<'o>>,
    packs: &'o Packs<'o>,
    level: u32,
}

/// Brings chunks that an image has. One that cannot be read there is not there.
fn take(pull: &Pull<'_>, from: &Other<'_>, lacking: &Lacking, hits: &[Hit]) -> Result<Copied, Error> {
    let (stored_bytes, encoded_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let misses = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cancel = &pull.request.options.cancel;
    parallel::for_each(threads, hits.len().div_ceil(TOGETHER) as u64, cancel, |part| {
        let first = part as usize * TOGETHER;
        let (mut decoder, mut raw, mut stored) = (Decoder::new()?, Vec::new(), Vec::new());
        let mut compressor = None;
        for hit in &hits[first..(first + TOGETHER).min(hits.len())] {
            let (file, piece) = piece(lacking, &hit.place);
            let number = hit.place.1 as usize;
            let Some((_, expected)) = piece.chunk.filter(|_| !file.pieces.is_there(number)) else { continue };
            let Ok(chunk) = from.tables.chunk(ChunkIndex(hit.chunk)) else { continue };
            if hit.is_stored {
                if from.packs.read_stored(&chunk, &mut stored).is_err() {
                    continue;
                }
            } else {
                if misses.load(Ordering::Relaxed) >= MISSES {
                    continue;
                }
                if from.packs.read(&chunk, &mut decoder, &mut raw).is_err() {
                    continue;
                }
                if compressor.is_none() {
                    let made = Compressor::new(from.level);
                    compressor = Some(made.map_err(|error| Error::Refused(error.to_string()))?);
                }
                let Some(compressor) = &mut compressor else { continue };
                let (_, bytes) =
                    compressor.compress(&raw).map_err(|error| Error::Refused(error.to_string()))?;
                stored.clear();
                stored.extend_from_slice(bytes);
            }
            if stored.len() != piece.len as usize || chunk_digest::<Sha2>(&stored) != expected {
                misses.fetch_add(u64::from(!hit.is_stored), Ordering::Relaxed);
                continue;
            }
            file.unfinished.write_at(piece.start, &stored)?;
            file.pieces.is_there_now(number);
            let bytes = if hit.is_stored { &stored_bytes } else { &encoded_bytes };
            bytes.fetch_add(stored.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(Copied { stored: stored_bytes.into_inner(), encoded: encoded_bytes.into_inner() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_the_beginning_of_their_digest_once() {
        let digest = |first: u8, last: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[31]) = (first, last);
            Digest(bytes)
        };
        let all = [(digest(2, 1), (0, 5)), (digest(1, 0), (0, 1)), (digest(2, 2), (1, 0))];
        let places = Places::new(all.iter().map(|(digest, place)| (prefix(digest), *place)).collect());
        let of = |first| places.find(&digest(first, 9)).map(|number| places.place(number));
        assert_eq!((of(0), of(1), of(2), of(3)), (None, Some((0, 1)), Some((0, 5)), None));
        let mut seen = Seen::of(&places);
        assert_eq!([1, 0, 1].map(|number| seen.is_first(number)), [true, true, false]);
    }
}
