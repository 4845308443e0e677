// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of regular files, from their chunks, each verified before it is handed out.

mod at;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tesserafs_format::{ChunkIndex, ContentIndex, Extent, FileKind, Inode, PackIndex, Place, Rule, Target};

pub use self::at::OpenContent;
use crate::context::{read, Context};
use crate::error::Error;
use crate::finding::Finding;
use crate::hash::ContentHasher;
use crate::packs::{DataError, Decoder, Packs};

/// Decoded chunks with several files that are kept.
const KEPT_CHUNKS: usize = 32;

/// A part of a file, as it comes in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many bytes that are zero and are not stored.
    Hole(u64),
}

/// Reads files. All threads can share it; each needs a [`Decoder`] of its own.
#[derive(Debug)]
pub struct Contents<'a> {
    context: &'a Context<'a>,
    packs: Packs<'a>,
    chunks: Mutex<Chunks>,
    /// Contents that have their digest: files that share one, however long its holes are, cost it once.
    compared: Mutex<HashSet<ContentIndex>>,
}

/// A decoded chunk, once a thread has decoded it.
type Kept = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// Chunks with several files: decoded once for all of them that are read at about the same time.
#[derive(Debug, Default)]
struct Chunks {
    kept: HashMap<u32, Kept>,
    order: VecDeque<u32>,
}

impl<'a> Contents<'a> {
    /// Opens the packs of an image whose metadata was checked.
    pub fn open(context: &'a Context<'a>) -> Result<Self, Error> {
        let packs: Result<Vec<_>, Error> = (0..context.image.sb.layout.packs.records())
            .map(|number| {
                let index = PackIndex(u16::try_from(number).unwrap_or(u16::MAX));
                read(context.image.pack(index)).map(Some)
            })
            .collect();
        let packs = Packs::open(context.metadata.source(), &packs?, &context.pack_dir)?;
        Ok(Self { context, packs, chunks: Mutex::default(), compared: Mutex::default() })
    }

    /// Hands `take` the bytes of a regular file, in order and without a gap; of any other file there are none.
    ///
    /// Each chunk is verified before its bytes are handed out. That they are the bytes of *this* content, its own digest
    /// tells, when the last of them have gone: after an error, what was taken is not the file.
    pub fn read(
        &self,
        inode: &Inode,
        decoder: &mut Decoder,
        mut take: impl FnMut(Piece<'_>) -> Result<(), Error>,
    ) -> Result<(), DataError> {
        let FileKind::Regular { size, content: Some(content) } = inode.kind else { return Ok(()) };
        let cancel = self.context.cancel;
        let is_compared = lock(&self.compared).contains(&content);
        let mut hasher = (!is_compared).then(|| ContentHasher::new(size));
        let extents = read(self.context.image.extents(content, size))?;
        let mut raw = Vec::new();
        for index in extents.first..extents.end {
            cancel.check()?;
            let extent = read(self.context.image.extent(&extents, index))?;
            let Target::Chunk { index, offset } = extent.target else {
                if let Some(hasher) = &mut hasher {
                    hasher.zeros_until(extent.len(), |_| cancel.check())?;
                }
                take(Piece::Hole(extent.len()))?;
                continue;
            };
            let chunk = read(self.context.image.chunk(index))?;
            let start = offset as usize;
            let len = usize::try_from(extent.len()).unwrap_or(usize::MAX);
            let end = start.saturating_add(len);
            let shared;
            let bytes = if len == chunk.raw_len as usize {
                self.packs.read(&chunk, decoder, &mut raw)?;
                raw.get(start..end)
            } else {
                shared = self.shared(index, decoder)?;
                shared.get(start..end)
            };
            let bytes = bytes.ok_or_else(|| {
                Error::Refused(format!("the image changed while inode {} was read", inode.ino.get()))
            })?;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            take(Piece::Data(bytes))?;
        }
        hasher.map_or(Ok(()), |hasher| self.compare(content, hasher))
    }

    /// Opens a content of `size` bytes, to be read at positions. Nobody compares its own digest then.
    pub fn open_content(&self, content: ContentIndex, size: u64) -> Result<OpenContent<'_>, Error> {
        OpenContent::new(self, content, size)
    }

    /// The decoded bytes of a chunk, verified.
    pub fn chunk(&self, index: ChunkIndex, decoder: &mut Decoder) -> Result<Vec<u8>, DataError> {
        let chunk = read(self.context.image.chunk(index))?;
        let mut raw = Vec::new();
        self.packs.read(&chunk, decoder, &mut raw)?;
        Ok(raw)
    }

    /// Where the data of a regular file is: first bytes and lengths, in order; neighbours are one.
    pub fn data_runs(&self, inode: &Inode) -> Result<Vec<(u64, u64)>, Error> {
        let FileKind::Regular { size, content: Some(content) } = inode.kind else { return Ok(Vec::new()) };
        let extents = read(self.context.image.extents(content, size))?;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in extents.first..extents.end {
            let extent: Extent = read(self.context.image.extent(&extents, index))?;
            if extent.target == Target::Hole {
                continue;
            }
            match runs.last_mut() {
                Some((start, len)) if *start + *len == extent.start => *len += extent.len(),
                _ => runs.push((extent.start, extent.len())),
            }
        }
        Ok(runs)
    }

    fn compare(&self, content: ContentIndex, hasher: ContentHasher) -> Result<(), DataError> {
        let expected = read(self.context.image.content_digest(content))?;
        let found = hasher.finish().digest;
        if found == expected {
            lock(&self.compared).insert(content);
            return Ok(());
        }
        let finding = Finding::new(Rule::ContentDigest, Place::Content(content.0), found, expected);
        Err(DataError::Broken(Box::new(finding)))
    }

    /// The decoded bytes of a chunk that has several files.
    fn shared(&self, index: ChunkIndex, decoder: &mut Decoder) -> Result<Arc<Vec<u8>>, DataError> {
        let kept = {
            let mut chunks = lock(&self.chunks);
            match chunks.kept.get(&index.0) {
                Some(kept) => kept.clone(),
                None => {
                    if chunks.order.len() == KEPT_CHUNKS {
                        if let Some(oldest) = chunks.order.pop_front() {
                            chunks.kept.remove(&oldest);
                        }
                    }
                    let kept = Kept::default();
                    chunks.kept.insert(index.0, kept.clone());
                    chunks.order.push_back(index.0);
                    kept
                }
            }
        };
        let mut kept = lock(&kept);
        if let Some(raw) = &*kept {
            return Ok(raw.clone());
        }
        let chunk = read(self.context.image.chunk(index))?;
        let mut raw = Vec::new();
        self.packs.read(&chunk, decoder, &mut raw)?;
        let raw = Arc::new(raw);
        *kept = Some(raw.clone());
        Ok(raw)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
