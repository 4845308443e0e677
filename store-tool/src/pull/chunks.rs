// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks of an image that are not in the store, pack by pack.

use std::sync::atomic::{AtomicU64, Ordering};

use tesserafs_format::{chunk_digest, ChunkIndex, Image, PackIndex, SuperBlock};
use tesserafs_image::hash::Sha2;
use tesserafs_image::{parallel, text, Broken, Cancel, Error, Source, VerifiedMetadata};

use super::ranges::{Piece, Pieces};
use super::Pull;
use crate::artifact::Blob;
use crate::store::{Finished, Slot, Unfinished};

/// A part of a pack that is dead in this image: as little of it as this comes along, so that the pack is complete, and others can use it.
const DEAD: u64 = 32;

/// Dead bytes and padding, in pieces of as many.
const PIECE: u64 = 1 << 20;

/// Bytes of a gap whose room is worth a system call.
const GAP: u64 = 64 << 10;

/// Blocks of the metadata that stay in memory.
const CACHED: u64 = 1 << 11;

/// Chunks that a thread compares one after the other.
const TOGETHER: usize = 64;

/// The files that are not complete.
pub(super) struct Lacking {
    pub(super) files: Vec<LackingFile>,
}

/// A file that is not complete.
pub(super) struct LackingFile {
    /// The pack, or the image, for people.
    pub(super) what: String,
    pub(super) blob: Blob,
    pub(super) unfinished: Unfinished,
    pub(super) pieces: Pieces,
    /// Whether all of its bytes are among the pieces.
    pub(super) is_whole: bool,
}

impl Lacking {
    /// Finds them by the chunk table. Of files that an earlier run has begun, each chunk is compared.
    pub(super) fn find(pull: &Pull<'_>, image: &Source, sb: &SuperBlock) -> Result<Self, Error> {
        let files = begin(pull)?;
        let mut lacking = Self { files: Vec::new() };
        if files.is_empty() {
            return Ok(lacking);
        }
        let found = chunks(image, sb, |pack| files.iter().any(|file| file.number == pack));
        let mut chunks = match found {
            Ok(chunks) => chunks,
            Err(error) => {
                // Tables that are proven and broken: no pull of this image will ever go on.
                let is_hopeless = matches!(error, Error::Refused(_));
                for file in files.into_iter().filter(|file| is_hopeless || !file.unfinished.is_kept()) {
                    pull.filling.discard(file.unfinished)?;
                }
                return Err(error);
            }
        };
        let mut files = files.into_iter();
        while let Some(file) = files.next() {
            let own = std::mem::take(&mut chunks[usize::from(file.number)]);
            match compare(pull, sb, file, own) {
                Ok(file) => lacking.files.extend(file),
                Err(error) => {
                    give_back(pull, files.map(|file| file.unfinished))?;
                    lacking.give_back(pull)?;
                    return Err(error);
                }
            }
        }
        Ok(lacking)
    }

    /// Gives up: room in which nothing is, others need.
    pub(super) fn give_back(self, pull: &Pull<'_>) -> Result<(), Error> {
        // A pack none of whose chunks is lacking is needed where it is, if the image needs no chunk of it at all, too.
        let is_empty = |file: &LackingFile| {
            file.blob != pull.found.artifact.image && !file.pieces.has_all() && !file.pieces.has_some()
        };
        for file in self.files.into_iter().filter(is_empty) {
            pull.filling.discard(file.unfinished)?;
        }
        Ok(())
    }

    /// Bytes that are lacking.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.pieces.lacking_bytes()).sum()
    }
}

/// A file that is not complete, of which nobody has looked what is there.
struct Begun {
    /// The index of its pack.
    number: u16,
    what: String,
    blob: Blob,
    unfinished: Unfinished,
}

/// The files of the image that are not complete: room was taken for all.
fn begin(pull: &Pull<'_>) -> Result<Vec<Begun>, Error> {
    let artifact = &pull.found.artifact;
    let packs = (1..).zip(&artifact.packs);
    let named =
        packs.map(|(number, pack)| (number, format!("pack {number} of {}", artifact.packs.len()), *pack));
    let mut files = Vec::new();
    for (number, what, blob) in [(0, "image".to_owned(), artifact.image)].into_iter().chain(named) {
        match pull.filling.file(&blob.digest, blob.len) {
            Ok(Slot::Complete(_)) => (),
            Ok(Slot::Unfinished(unfinished)) => files.push(Begun { number, what, blob, unfinished }),
            Err(error) => {
                // A disk that is full needs the room of the others.
                give_back(pull, files.into_iter().map(|file| file.unfinished))?;
                return Err(error);
            }
        }
    }
    Ok(files)
}

/// Removes the files that this pull has begun, in which nothing is yet.
fn give_back(pull: &Pull<'_>, files: impl Iterator<Item = Unfinished>) -> Result<(), Error> {
    for unfinished in files.filter(|file| !file.is_kept()) {
        pull.filling.discard(unfinished)?;
    }
    Ok(())
}

/// Looks which of the chunks of a file an earlier run has brought; `None` where all of it is there.
fn compare(
    pull: &Pull<'_>,
    sb: &SuperBlock,
    file: Begun,
    mut own: Vec<Piece>,
) -> Result<Option<LackingFile>, Error> {
    let Begun { number, what, blob, mut unfinished } = file;
    let (first, end) = match number {
        // Everything around pack 0 is there.
        0 => (tesserafs_format::limits::BLOCK_BYTES, sb.layout.tree_offset),
        _ => (0, blob.len),
    };
    let used: u64 = own.iter().map(|piece| u64::from(piece.len)).sum();
    let is_whole = number == 0 || blob.len.saturating_sub(used) <= used / DEAD;
    if is_whole {
        own = with_rest(own, first, end);
    } else {
        for (offset, len) in gaps(&own, blob.len) {
            unfinished.free(offset, len)?;
        }
    }
    let pieces = Pieces::new(own);
    if unfinished.is_kept() {
        let cancel = &pull.request.options.cancel;
        take(&pieces, cancel, |offset, bytes| unfinished.read_at(offset, bytes), |_, _| Ok(()))?;
        // Bytes that no chunk has are proven by the digest of the whole alone.
        if is_whole && pieces.has_all_chunks() && pieces.lacking_bytes() > 0 {
            match pull.filling.finish(unfinished, cancel)? {
                Finished::Complete(_) => return Ok(None),
                Finished::Not { file, .. } => unfinished = file,
            }
        }
    }
    Ok(Some(LackingFile { what, blob, unfinished, pieces, is_whole }))
}

/// The chunks of these packs, by the index of the pack. The place of one is that in the file which has the pack.
fn chunks(
    image: &Source,
    sb: &SuperBlock,
    is_wanted: impl Fn(u16) -> bool,
) -> Result<Vec<Vec<Piece>>, Error> {
    let metadata = VerifiedMetadata::with_cache(image, sb, CACHED);
    let tables = Image::new(sb, &metadata);
    let broken = |broken: Broken| match broken {
        Broken::Rule(rule) => Error::Refused(format!("{}: {rule}", text::path(image.path()))),
        Broken::Stop(error) => error,
    };
    let count = u16::try_from(sb.layout.packs.records()).unwrap_or(u16::MAX);
    let packs: Vec<_> =
        (0..count).map(|pack| tables.pack(PackIndex(pack))).collect::<Result<_, _>>().map_err(broken)?;
    let mut all: Vec<Vec<Piece>> = vec![Vec::new(); packs.len()];
    for number in 0..u32::try_from(sb.layout.chunks.records()).unwrap_or(u32::MAX) {
        let chunk = tables.chunk(ChunkIndex(number)).map_err(broken)?;
        let Some(pack) = packs.get(usize::from(chunk.pack.0)) else {
            let why = format!("chunk {number} is in pack {}, expected one of {count}", chunk.pack.0);
            return Err(Error::Refused(format!("{}: {why}", text::path(image.path()))));
        };
        chunk.check_range(pack).map_err(|rule| broken(rule.into()))?;
        if !is_wanted(chunk.pack.0) {
            continue;
        }
        let first = if chunk.pack.0 == 0 { tesserafs_format::limits::BLOCK_BYTES } else { 0 };
        let piece =
            Piece { start: first + chunk.offset, len: chunk.stored_len, chunk: Some((number, chunk.digest)) };
        let pieces = &mut all[usize::from(chunk.pack.0)];
        if pieces.last().is_some_and(|last| last.end() > piece.start) {
            let why =
                format!("chunk {number} begins in the one before it, expected chunks one behind the other");
            return Err(Error::Refused(format!("{}: {why}", text::path(image.path()))));
        }
        pieces.push(piece);
    }
    Ok(all)
}

/// Long gaps before, between and behind pieces, with their lengths.
fn gaps(pieces: &[Piece], end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let begins = std::iter::once(0).chain(pieces.iter().map(Piece::end));
    let ends = pieces.iter().map(|piece| piece.start).chain([end]);
    begins.zip(ends).map(|(begin, end)| (begin, end.saturating_sub(begin))).filter(|(_, len)| *len >= GAP)
}

/// Pieces, and between them those that no chunk has.
fn with_rest(chunks: Vec<Piece>, first: u64, end: u64) -> Vec<Piece> {
    let mut all = Vec::with_capacity(chunks.len());
    let mut at = first;
    let last = Piece { start: end, len: 0, chunk: None };
    for piece in chunks.into_iter().chain([last]) {
        for start in (at..piece.start).step_by(PIECE as usize) {
            all.push(Piece { start, len: (piece.start - start).min(PIECE) as u32, chunk: None });
        }
        at = piece.end();
        if piece.len > 0 {
            all.push(piece);
        }
    }
    all
}

/// Looks which of the chunks that are lacking can be read by `read`, and hands those out that are right; bytes of them. Bytes that
/// nothing proves are not looked at.
pub(super) fn take(
    pieces: &Pieces,
    cancel: &Cancel,
    read: impl Fn(u64, &mut [u8]) -> Result<(), Error> + Sync,
    give: impl Fn(u64, &[u8]) -> Result<(), Error> + Sync,
) -> Result<u64, Error> {
    let all = pieces.all();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let taken = AtomicU64::new(0);
    parallel::for_each(threads, all.len().div_ceil(TOGETHER) as u64, cancel, |part| {
        let first = part as usize * TOGETHER;
        let mut stored = Vec::new();
        for (number, piece) in (first..).zip(&all[first..(first + TOGETHER).min(all.len())]) {
            let Some((_, expected)) = piece.chunk.filter(|_| !pieces.is_there(number)) else { continue };
            stored.resize(piece.len as usize, 0);
            read(piece.start, &mut stored)?;
            if chunk_digest::<Sha2>(&stored) == expected {
                give(piece.start, &stored)?;
                pieces.is_there_now(number);
                taken.fetch_add(u64::from(piece.len), Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    Ok(taken.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_and_gaps_are_between_chunks_and_around_them() {
        let chunk = |start, len| Piece { start, len, chunk: Some((0, tesserafs_format::Digest([0; 32]))) };
        let rest = |start, len| Piece { start, len, chunk: None };
        let found = with_rest(vec![chunk(10, 5), chunk(15, 5)], 0, (1 << 20) + 30);
        assert_eq!(
            found,
            [rest(0, 10), chunk(10, 5), chunk(15, 5), rest(20, 1 << 20), rest(20 + (1 << 20), 10)]
        );
        assert_eq!(with_rest(vec![], 5, 5), []);
        let (near, far) = (chunk(GAP, 9), chunk(2 * GAP + 9, 5));
        assert_eq!(gaps(&[near, far], 3 * GAP).collect::<Vec<_>>(), [(0, GAP), (GAP + 9, GAP)]);
        assert_eq!(gaps(&[], GAP).collect::<Vec<_>>(), [(0, GAP)]);
    }
}
