// SPDX-License-Identifier: GPL-2.0-or-later

//! The sequencer: puts what the workers find in the order of the format.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;
use std::sync::Arc;

use tesserafs_format::chunk::Chunk;
use tesserafs_format::extent::HOLE;
use tesserafs_format::limits::{INDEX_MAX, PLAIN_DIGEST_MAX};
use tesserafs_format::raw::RawExtent;
use tesserafs_format::{ChunkIndex, Codec, Digest, PackIndex};
use tesserafs_image::hash::sha256;

use super::chunk::{ChunkState, Event, FileEvents, Job, Progressed, Stored, Window, UNNUMBERED};
use super::map::Map;
use super::shared::Shared;
use super::PackWriter;
use crate::chunker::{Group, GroupEnd, Summary};
use crate::error::{Error, Result};
use crate::packs::KnownChunk;

/// The content that the sequencer is at, so far.
#[derive(Default)]
struct Current {
    extents: Vec<RawExtent>,
    small: Option<Arc<Window>>,
    /// Chunks that were met before, and their bytes.
    duplicate_chunks: u64,
    duplicate_chunk_bytes: u64,
}

/// Puts what the workers find in order.
pub(super) struct Sequencer<'a, F> {
    shared: &'a Shared<'a, F>,
    news: Receiver<()>,
    pack: &'a mut dyn PackWriter,
    map: Map,
    group: Group,
    /// Extents of the open group, to be pointed at its chunk.
    group_extents: Vec<usize>,
    /// The digest of the only content in the open group.
    group_digest: Option<Digest>,
    /// New chunks in order, not yet written.
    unwritten: VecDeque<Digest>,
    numbered: u32,
    current: Current,
}

impl<'a, F> Sequencer<'a, F> {
    /// For so many files at most, where that is known.
    pub(super) fn new(
        shared: &'a Shared<'a, F>,
        news: Receiver<()>,
        pack: &'a mut dyn PackWriter,
        files: usize,
    ) -> Self {
        Self {
            shared,
            news,
            pack,
            map: Map::with_room(files),
            group: Group::default(),
            group_extents: Vec::new(),
            group_digest: None,
            unwritten: VecDeque::new(),
            numbered: 0,
            current: Current::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Map> {
        loop {
            if self.shared.stopped() {
                // Somebody else left the error.
                return Ok(self.map);
            }
            let mut busy = self.take_events()?;
            busy |= self.write_ready()?;
            if busy {
                continue;
            }
            if self.all_taken() {
                if !self.group.is_empty() {
                    self.close_group()?;
                    continue;
                }
                if self.unwritten.is_empty() {
                    return Ok(self.map);
                }
            }
            // The sender lives as long as what is shared.
            let _ = self.news.recv();
        }
    }

    /// Whether no file will come any more.
    fn all_taken(&self) -> bool {
        let state = self.shared.state();
        state.walked && state.tasks.is_empty() && state.files.is_empty()
    }

    /// Takes events of files in order, as far as they are there.
    fn take_events(&mut self) -> Result<bool> {
        let mut busy = false;
        loop {
            let files = self.shared.state().take_events();
            let Some(first) = files.first() else { return Ok(busy) };
            busy = true;
            if first.is_complete() {
                // There is room for more files ahead, and another one may pass the budget now.
                self.shared.flight.bell.ring();
            }
            for FileEvents { ino, size, events } in files {
                events.into_iter().try_for_each(|event| self.take(event, ino, size))?;
            }
        }
    }

    fn take(&mut self, event: Event, ino: u32, size: u64) -> Result<()> {
        match event {
            Event::Hole { start } => {
                self.current.extents.push(RawExtent {
                    file_offset: start.into(),
                    chunk: HOLE.into(),
                    chunk_offset: 0.into(),
                });
            }
            Event::Chunk { start, len, digest } => {
                let (chunk, is_new) = self.number(&digest, len)?;
                if !is_new {
                    self.current.duplicate_chunks += 1;
                    self.current.duplicate_chunk_bytes += u64::from(len);
                }
                self.current.extents.push(RawExtent {
                    file_offset: start.into(),
                    chunk: chunk.into(),
                    chunk_offset: 0.into(),
                });
            }
            Event::Small { window } => self.current.small = Some(window),
            Event::End(summary) => self.end(summary, ino, size)?,
        }
        Ok(())
    }

    /// The index of a chunk, and whether it is a new one: its bytes were not met before.
    fn number(&mut self, digest: &Digest, len: u32) -> Result<(u32, bool)> {
        let mut state = self.shared.state();
        let chunk = state
            .chunks
            .entry(*digest)
            .or_insert(ChunkState { index: UNNUMBERED, stored: Progressed::Unclaimed });
        let is_new = chunk.index == UNNUMBERED;
        if is_new {
            chunk.index = self.numbered;
            self.unwritten.push_back(*digest);
            self.map.raw_digests.push(*digest);
            self.map.figures.chunk_raw_bytes += u64::from(len);
            self.numbered = next_index(self.numbered)?;
        }
        Ok((chunk.index, is_new))
    }

    /// Ends the content of a file.
    fn end(&mut self, summary: Summary, ino: u32, size: u64) -> Result<()> {
        let Summary { digest, blocks } = summary;
        let Current { mut extents, small, duplicate_chunks, duplicate_chunk_bytes } =
            std::mem::take(&mut self.current);
        self.map.figures.raw_bytes += size;
        let (content, is_new) = self.shared.state().contents.add(digest);
        if !is_new {
            self.map.figures.duplicate_files += 1;
            self.map.figures.duplicate_bytes += size;
            self.map.files.push((ino, content));
            return Ok(());
        }
        next_index(content)?;
        let blocks = u32::try_from(blocks)
            .map_err(|_| too_many("blocks of 4096 bytes that are not zero in a file"))?;
        self.map.figures.content_bytes += size;
        self.map.figures.duplicate_chunks += duplicate_chunks;
        self.map.figures.duplicate_chunk_bytes += duplicate_chunk_bytes;
        let holes = hole_bytes(&extents, size);
        self.map.figures.hole_bytes += holes;
        if size <= PLAIN_DIGEST_MAX {
            self.map.plain_hole_bytes += holes;
        }
        self.map.files.push((ino, content));
        self.map.content_blocks.push(blocks);
        self.map.content_map.push(self.map.extents.len() as u32);
        if let Some(window) = small {
            self.append_to_group(&window.bytes, &digest)?;
        } else {
            self.map.extents.append(&mut extents);
        }
        if self.map.extents.len() as u64 > INDEX_MAX {
            return Err(too_many("extents"));
        }
        Ok(())
    }

    fn append_to_group(&mut self, content: &[u8], digest: &Digest) -> Result<()> {
        let profile = &self.shared.profile;
        let extent = self.map.extents.len();
        if self.group.is_full(content.len(), profile) {
            self.close_group()?;
        }
        self.group_digest = self.group.is_empty().then_some(*digest);
        let (offset, end) = self.group.append(content, digest, profile);
        self.map.extents.push(RawExtent {
            file_offset: 0.into(),
            chunk: HOLE.into(),
            chunk_offset: offset.into(),
        });
        self.group_extents.push(extent);
        self.map.figures.grouped_contents += 1;
        if end == GroupEnd::Closed {
            self.close_group()?;
        }
        Ok(())
    }

    /// Stores the open group as a chunk.
    fn close_group(&mut self) -> Result<()> {
        let bytes = self.group.take();
        let digest = self.group_digest.take().unwrap_or_else(|| sha256(&bytes));
        self.map.figures.groups += 1;
        // Where a job for the same bytes waits, it need not any more.
        let claimed = self.shared.claim(digest);
        let (chunk, is_new) = self.number(&digest, bytes.len() as u32)?;
        if !is_new {
            self.map.figures.duplicate_chunks += 1;
            self.map.figures.duplicate_chunk_bytes += bytes.len() as u64;
        }
        for extent in self.group_extents.drain(..) {
            if let Some(extent) = self.map.extents.get_mut(extent) {
                extent.chunk = chunk.into();
            }
        }
        if claimed {
            let nobody = Arc::new(AtomicU64::new(0));
            let permit = self.shared.permit(bytes.len() as u64, &nobody);
            let range = 0..bytes.len();
            let window = Arc::new(Window { bytes: Arc::new(bytes), _permit: permit });
            self.shared.state().jobs.push_back(Job { window, range, digest, claimed: true });
            self.shared.flight.bell.ring();
        }
        Ok(())
    }

    /// Writes chunks as far as they are there, in order.
    fn write_ready(&mut self) -> Result<bool> {
        let mut busy = false;
        while let Some(digest) = self.unwritten.front() {
            if let Some(known) = self.shared.known.get(digest) {
                self.add(known)?;
                self.unwritten.pop_front();
                busy = true;
                continue;
            }
            let stored = {
                let mut state = self.shared.state();
                let Some(chunk) = state.chunks.get_mut(digest) else { return Ok(busy) };
                match std::mem::replace(&mut chunk.stored, Progressed::Written) {
                    Progressed::Ready(stored) => stored,
                    other => {
                        chunk.stored = other;
                        return Ok(busy);
                    }
                }
            };
            self.unwritten.pop_front();
            self.write(&stored)?;
            busy = true;
        }
        Ok(busy)
    }

    /// Adds a chunk that lies in a pack of a parent.
    fn add(&mut self, known: &KnownChunk) -> Result<()> {
        let chunk = known.to_chunk(ChunkIndex(self.map.chunks.len() as u32));
        self.push(&chunk)
    }

    fn push(&mut self, chunk: &Chunk) -> Result<()> {
        self.map.chunks.push(chunk.to_raw().ok_or_else(|| too_many("bytes in a pack"))?);
        self.map.chunk_digests.push(chunk.digest);
        self.map.figures.stored_bytes += u64::from(chunk.stored_len);
        self.map.figures.plain_chunks += u64::from(chunk.codec == Codec::Plain);
        self.map.figures.filtered_chunks += u64::from(chunk.codec == Codec::ZstdX86);
        Ok(())
    }

    fn write(&mut self, stored: &Stored) -> Result<()> {
        let bytes = stored.bytes();
        let chunk = Chunk {
            index: ChunkIndex(self.map.chunks.len() as u32),
            pack: PackIndex(0),
            offset: self.map.pack_bytes,
            codec: stored.codec,
            stored_len: bytes.len() as u32,
            raw_len: stored.raw_len,
            digest: stored.digest,
        };
        self.push(&chunk)?;
        self.map.pack_bytes += bytes.len() as u64;
        self.pack.append(bytes)
    }
}

/// Bytes in the holes of a content.
fn hole_bytes(extents: &[RawExtent], size: u64) -> u64 {
    let ends = extents.iter().skip(1).map(|next| next.file_offset.get()).chain([size]);
    let holes = extents.iter().zip(ends).filter(|(extent, _)| extent.chunk.get() == HOLE);
    holes.map(|(extent, end)| end - extent.file_offset.get()).sum()
}

fn next_index(index: u32) -> Result<u32> {
    let next = index + 1;
    if u64::from(next) > INDEX_MAX {
        return Err(too_many("chunks or contents"));
    }
    Ok(next)
}

fn too_many(what: &'static str) -> Error {
    Error::TooMany(what)
}
