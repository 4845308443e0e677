// SPDX-License-Identifier: GPL-2.0-or-later

//! The files in which the chunks of an image lie, and which of its chunks are damaged there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{chunk_digest, Chunk, Digest, Pack, PackKind};
use tesserafs_image::Source;

use super::donor::read_all;
use crate::encode::Sha2;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes that are hashed at once.
const HASHED: u64 = 1 << 20;

/// The file that a pack is in.
pub(super) struct PackPlace {
    pub(super) pack: Pack,
    /// The file that has it, or is to have it; nothing, if that is the image.
    pub(super) path: Option<PathBuf>,
    /// The file, if there is one.
    pub(super) source: Option<Arc<Source>>,
    /// Where the pack begins in it.
    pub(super) start: u64,
    /// Whether it is a file of its own that has not the length and the digest of the pack.
    pub(super) is_damaged: bool,
}

impl PackPlace {
    /// Whether the bytes of a chunk are there.
    pub(super) fn has(&self, chunk: &Chunk, stored: &mut Vec<u8>) -> bool {
        let Some(source) = &self.source else { return false };
        read_chunk(source, self.start, chunk, stored)
    }
}

/// Whether a file has a chunk at its offset from `start`.
pub(super) fn read_chunk(source: &Source, start: u64, chunk: &Chunk, stored: &mut Vec<u8>) -> bool {
    stored.resize(chunk.stored_len as usize, 0);
    let at = start.checked_add(chunk.offset);
    at.is_some_and(|at| read_all(source, at, stored)) && chunk_digest::<Sha2>(stored) == chunk.digest
}

/// Opens the packs of an image, and compares those that are files with their digests.
pub(super) fn open(
    image: &Arc<Source>,
    packs: &[Pack],
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Vec<PackPlace>> {
    packs.par_iter().map(|pack| place(image, pack, dir, progress)).collect()
}

fn place(image: &Arc<Source>, pack: &Pack, dir: &Path, progress: &dyn Progress) -> Result<PackPlace> {
    if pack.kind == PackKind::Embedded {
        let source = Some(image.clone());
        return Ok(PackPlace { pack: *pack, path: None, source, start: BLOCK_BYTES, is_damaged: false });
    }
    let named = dir.join(pack.digest.to_string());
    // A link is followed, so that it is not the link that is replaced.
    let path = fs::canonicalize(&named).unwrap_or(named);
    let source = match path.symlink_metadata() {
        Err(_) => None,
        Ok(found) if found.is_file() => Source::open(&path).ok().map(Arc::new),
        Ok(_) => {
            return Err(Error::unsupported(&path, "is in the way of a pack, and no regular file: remove it"));
        }
    };
    let found = source.as_ref().filter(|source| source.len() == pack.bytes);
    progress.found(found.map_or(0, |source| source.len()));
    let is_right = found.is_some_and(|source| digest(source, 0, pack.bytes, progress) == Some(pack.digest));
    Ok(PackPlace { pack: *pack, path: Some(path), source, start: 0, is_damaged: !is_right })
}

/// The digest of a range of a file; none if it cannot be read.
pub(super) fn digest(source: &Source, start: u64, len: u64, progress: &dyn Progress) -> Option<Digest> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; HASHED.min(len) as usize];
    let mut at = 0;
    while at < len {
        let piece = &mut piece[..HASHED.min(len - at) as usize];
        if !read_all(source, start + at, piece) {
            return None;
        }
        hasher.update(&*piece);
        progress.read(piece.len() as u64);
        at += piece.len() as u64;
    }
    Some(Digest(hasher.finalize().into()))
}

/// The numbers of the chunks that are not where they should be.
pub(super) fn damaged(places: &[PackPlace], chunks: &[Chunk], progress: &dyn Progress) -> Vec<u32> {
    progress.found(chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum());
    let look = |stored: &mut Vec<u8>, number: usize| {
        let chunk = &chunks[number];
        let is_there = places[usize::from(chunk.pack.0)].has(chunk, stored);
        progress.read(chunk.stored_len.into());
        (!is_there).then_some(number as u32)
    };
    (0..chunks.len()).into_par_iter().with_min_len(16).map_init(Vec::new, look).flatten().collect()
}

/// The ranges of a pack that no chunk of the image has.
pub(super) fn gaps(pack: &Pack, chunks: &[Chunk]) -> Vec<(u64, u64)> {
    let of_pack = chunks.iter().filter(|chunk| chunk.pack == pack.index);
    let mut covered: Vec<_> =
        of_pack.map(|chunk| (chunk.offset, chunk.offset + u64::from(chunk.stored_len))).collect();
    covered.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = 0;
    for (start, end) in covered.into_iter().chain([(pack.bytes, pack.bytes)]) {
        if at < start {
            gaps.push((at, start));
        }
        at = at.max(end);
    }
    gaps
}
