// SPDX-License-Identifier: GPL-2.0-or-later

//! Ranges of regular files, from their chunks, each verified before it is decoded.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use tesserafs_format::{
    Chunk, ChunkIndex, Extent, FileKind, FormatError, Image, Inode, PackIndex, Place, Rule, Target,
};

use super::ahead::Ahead;
use super::cache::{ChunkCache, Claim, Found};
use super::decoders::Decoders;
use super::plan::{pieces, Piece};
use crate::error::Broken;
use crate::metadata::VerifiedMetadata;
use crate::packs::Packs;

/// The kind of byte that [`Files::seek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte of a hole, or the end of the file, which is one.
    Hole,
}

/// Reads files. All threads share it.
#[derive(Debug)]
pub struct Files<'a> {
    image: Image<'a, VerifiedMetadata<'a>>,
    packs: Packs<'a>,
    cache: ChunkCache,
    ahead: Ahead,
    decoders: Decoders,
    decoded: AtomicU64,
}

impl<'a> Files<'a> {
    /// Opens the packs of an image: those that are not embedded are files in `pack_dir`, of the length that the image says, and begin as
    /// it says. Of decoded chunks `cached` bytes are kept.
    pub fn open(metadata: &'a VerifiedMetadata<'a>, pack_dir: &Path, cached: usize) -> Result<Self, Broken> {
        let image = Image::new(metadata.superblock(), metadata);
        let packs: Result<Vec<_>, Broken> = (0..image.sb.layout.packs.records())
            .map(|number| image.pack(PackIndex(u16::try_from(number).unwrap_or(u16::MAX))).map(Some))
            .collect();
        let packs = Packs::open(metadata.source(), &packs?, pack_dir)?;
        packs.check_first(&image)?;
        let cache = ChunkCache::new(cached);
        Ok(Self {
            image,
            packs,
            cache,
            ahead: Ahead::default(),
            decoders: Decoders::default(),
            decoded: AtomicU64::new(0),
        })
    }

    /// Bytes that were decoded so far: no more than are read, as long as nobody jumps about.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    /// Hands `take` the bytes of `range`, or those of them that the file has. Of a file that is not a regular one there are none.
    ///
    /// They lie in `buf`, whose memory serves for many reads, or in a decoded chunk.
    pub fn read<T>(
        &self,
        inode: &Inode,
        range: Range<u64>,
        buf: &mut Vec<u8>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Broken> {
        let FileKind::Regular { size, content: Some(content) } = inode.kind else { return Ok(take(&[])) };
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(take(&[]));
        }
        let extents = self.image.extents(content, size)?;
        let pieces = pieces(&self.image, &extents, range)?;
        self.look_ahead(&pieces);
        if let [piece @ Piece { chunk: Some(chunk), .. }] = &*pieces {
            if !piece.is_whole_chunk() {
                let raw = self.wait_for(chunk, piece)?;
                return Ok(take(part(&raw, piece)?));
            }
        }
        let len = pieces.iter().map(Piece::len).sum();
        buf.resize(len, 0);
        self.fill(&pieces, buf)?;
        Ok(take(buf))
    }

    /// Fills `buf` with the bytes of `pieces`: first those that nobody else is decoding.
    fn fill(&self, pieces: &[Piece], buf: &mut [u8]) -> Result<(), Broken> {
        let mut rest = buf;
        let mut busy = Vec::new();
        for piece in pieces {
            let (room, behind) = std::mem::take(&mut rest).split_at_mut(piece.len());
            rest = behind;
            let Some(chunk) = &piece.chunk else {
                room.fill(0);
                continue;
            };
            if let Some(room) = self.try_fill(chunk, piece, room)? {
                busy.push((chunk, piece, room));
            }
        }
        for (chunk, piece, mut room) in busy {
            while let Some(same) = self.try_fill(chunk, piece, room)? {
                self.cache.wait(chunk.index.0);
                room = same;
            }
        }
        Ok(())
    }

    /// Fills `room` with the bytes of a piece; gives it back where somebody else is decoding the chunk.
    fn try_fill<'b>(
        &self,
        chunk: &Chunk,
        piece: &Piece,
        room: &'b mut [u8],
    ) -> Result<Option<&'b mut [u8]>, Broken> {
        let raw = match self.cache.find(chunk.index.0, piece.wanted()) {
            Found::Busy => return Ok(Some(room)),
            Found::Claim(claim) if piece.is_whole_chunk() => {
                self.decoders.with(|decoder| self.packs.read_into(chunk, decoder, room))?;
                self.decoded.fetch_add(room.len() as u64, Ordering::Relaxed);
                drop(claim);
                return Ok(None);
            }
            Found::Claim(claim) => self.decode(chunk, piece.wanted(), claim)?,
            Found::Raw(raw) => raw,
        };
        room.copy_from_slice(part(&raw, piece)?);
        self.let_go(piece, chunk);
        Ok(None)
    }

    /// The decoded bytes of a chunk up to the end of a piece, at least.
    fn wait_for(&self, chunk: &Chunk, piece: &Piece) -> Result<Arc<Vec<u8>>, Broken> {
        loop {
            let raw = match self.cache.find(chunk.index.0, piece.wanted()) {
                Found::Busy => {
                    self.cache.wait(chunk.index.0);
                    continue;
                }
                Found::Claim(claim) => self.decode(chunk, piece.wanted(), claim)?,
                Found::Raw(raw) => raw,
            };
            self.let_go(piece, chunk);
            return Ok(raw);
        }
    }

    /// Decodes a chunk, or its beginning, and keeps it.
    fn decode(&self, chunk: &Chunk, wanted: u32, claim: Claim<'_>) -> Result<Arc<Vec<u8>>, Broken> {
        // A reader who comes for more of a chunk may come again.
        let wanted = if claim.is_for_more { chunk.raw_len } else { wanted };
        let buffer = self.cache.buffer();
        let raw = self.decoders.with(|decoder| self.packs.read_beginning(chunk, wanted, decoder, buffer))?;
        self.decoded.fetch_add(raw.len() as u64, Ordering::Relaxed);
        Ok(claim.fill(raw))
    }

    fn let_go(&self, piece: &Piece, chunk: &Chunk) {
        if piece.is_end_of_chunk() {
            self.cache.let_go(chunk.index.0);
        }
    }

    fn look_ahead(&self, pieces: &[Piece]) {
        if pieces.iter().all(Piece::is_random) {
            return;
        }
        let chunks = || pieces.iter().filter_map(|piece| piece.chunk).map(|chunk| chunk.index.0);
        let (Some(first), Some(last)) = (chunks().next(), chunks().next_back()) else { return };
        let all = u32::try_from(self.image.sb.layout.chunks.records()).unwrap_or(u32::MAX);
        // Of chunks that are elsewhere, too, nobody knows what comes next.
        let is_in_order = last.checked_sub(first).is_some_and(|more| (more as usize) < pieces.len());
        let last = if is_in_order { last } else { first };
        self.ahead.note(first..last.saturating_add(1), all);
    }

    /// Decodes ahead of readers who read in order, until [`stop`](Self::stop): for a thread of its own, or several.
    pub fn work_ahead(&self) {
        self.ahead.begin();
        while let Some(index) = self.ahead.next() {
            let Some(claim) = self.cache.claim(index) else { continue };
            // A reader meets the same failure when it gets there, and reports it.
            let Ok(chunk) = self.image.chunk(ChunkIndex(index)) else { continue };
            let _ = self.decode(&chunk, chunk.raw_len, claim);
        }
    }

    /// Lets the threads that decode ahead go.
    pub fn stop(&self) {
        self.ahead.end();
    }

    /// The next data or hole at or behind `offset`; `None` where there is none, because the file ends before.
    pub fn seek(&self, inode: &Inode, offset: u64, seek: Seek) -> Result<Option<u64>, Broken> {
        let FileKind::Regular { size, content: Some(content) } = inode.kind else { return Ok(None) };
        if offset >= size {
            return Ok(None);
        }
        let extents = self.image.extents(content, size)?;
        let mut extent = self.image.extent_at(&extents, offset)?;
        let is_wanted = |extent: &Extent| (extent.target == Target::Hole) == (seek == Seek::Hole);
        while !is_wanted(&extent) {
            let next = extent.index.saturating_add(1);
            if next >= extents.end {
                break;
            }
            extent = self.image.extent(&extents, next)?;
        }
        // A program that copies the data only must miss none that a reader finds.
        self.image.check_run(&extents, &extent)?;
        Ok(match seek {
            _ if is_wanted(&extent) => Some(offset.max(extent.start)),
            Seek::Hole => Some(size),
            Seek::Data => None,
        })
    }
}

/// The bytes of a piece in the decoded bytes of its chunk.
fn part<'b>(raw: &'b [u8], piece: &Piece) -> Result<&'b [u8], Broken> {
    let range = piece.in_chunk();
    let end = range.end as u64;
    raw.get(range).ok_or_else(|| {
        // `check_range` has proven that the piece lies in the chunk, and `wanted` that so much was decoded.
        let index = piece.chunk.map_or(0, |chunk| chunk.index.0);
        FormatError::new(Rule::ExtentRange, Place::Chunk(index), end, raw.len() as u64).into()
    })
}
