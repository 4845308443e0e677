// SPDX-License-Identifier: GPL-2.0

//! The data: every pack, every stored and decoded chunk, and every content against its digest.
//!
//! Threads take jobs in the order of contents, which is about that of storage, and decode out of order; the bytes of a
//! content go into its digest in order, by whichever thread has the next ones. A chunk with several small contents is
//! decoded once for all of them. Memory is bounded by the number of decoded chunks that may wait or are kept.

mod bits;
mod gate;
mod kept;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tesserafs_format::extent::Extents;
use tesserafs_format::{Chunk, ChunkIndex, ContentIndex, Digest, Extent, Place, Rule, Target};

use self::bits::AtomicBits;
use self::gate::Gate;
use self::kept::Kept;
use crate::check_map::{Bits, Map};
use tesserafs_image::error::Error;
use tesserafs_image::finding::Finding;
use tesserafs_image::hash::{sha256, BlockCounter, ContentHasher, Summary};
use tesserafs_image::packs::{DataError, Decoder, Packs};
use tesserafs_image::parallel::First;
use tesserafs_image::progress::Step;
use tesserafs_image::walk::{self, Tree};
use tesserafs_image::{text, Context};

/// Decoded chunks that may wait for their turn, for each thread.
const WAITING_PER_THREAD: usize = 8;

/// Checks all data.
pub(crate) fn check(context: &Context<'_>, tree: &Tree, map: &Map) -> Result<(), Error> {
    context.progress.begin("data", tree.file_bytes());
    let chunks = context.image.sb.layout.chunks.records();
    let data = Data {
        context,
        tree,
        map,
        packs: Packs::open(context.metadata.source(), &map.packs, &context.pack_dir)?,
        seen: AtomicBits::new(chunks)?,
        failed: Mutex::default(),
        jobs: Mutex::new(Jobs {
            pack: 0,
            content: 0,
            stream: None,
            shared: Bits::new(chunks, "a bit for each chunk")?,
            rest: 0,
        }),
        gate: Gate::new(context.threads * WAITING_PER_THREAD),
        first: First::default(),
        unreadable: First::default(),
    };
    thread::scope(|scope| {
        for _ in 1..context.threads {
            // Where the system gives no more threads, those that there are do all of it.
            if thread::Builder::new().spawn_scoped(scope, || data.work()).is_err() {
                break;
            }
        }
        data.work();
    });
    data.first.into_result().and(data.unreadable.into_result())
}

/// The state that all threads share.
struct Data<'a> {
    context: &'a Context<'a>,
    tree: &'a Tree,
    map: &'a Map,
    packs: Packs<'a>,
    /// Chunks that were decoded, or are being.
    seen: AtomicBits,
    /// Chunks that break a rule: said once each.
    failed: Mutex<HashSet<u32>>,
    jobs: Mutex<Jobs<'a>>,
    gate: Gate,
    /// Why the check ends.
    first: First,
    /// Why a chunk could not be read, at first: the check goes on, and says so at its end.
    unreadable: First,
}

/// The work that is still to be done.
struct Jobs<'a> {
    pack: usize,
    content: u32,
    /// The content whose extents are being given out, and the next one.
    stream: Option<(Arc<Stream<'a>>, Extents, u32)>,
    /// Chunks that were given out for the contents in them.
    shared: Bits,
    rest: u32,
}

enum Job<'a> {
    /// The digest of a pack.
    Pack(usize),
    /// A chunk, with the contents that lie in it.
    Shared(u32),
    /// An extent of a content of several.
    Piece(Arc<Stream<'a>>, Extent, u32),
    /// A chunk that no content which can be followed uses.
    Rest(u32),
}

/// A content whose digest is being computed from several extents.
struct Stream<'a> {
    content: u32,
    pieces: u32,
    state: Mutex<StreamState>,
    /// Named as long as the content is digested.
    _step: Option<Step<'a>>,
}

struct StreamState {
    /// The piece that the digest needs next.
    next: u32,
    waiting: BTreeMap<u32, Piece>,
    /// Absent while a thread uses it.
    hasher: Option<ContentHasher>,
    /// A piece is missing, and with it the digest.
    lost: bool,
}

/// A part of a content.
enum Piece {
    Bytes(Vec<u8>),
    Zeros(u64),
    Lost,
}

impl<'a> Data<'a> {
    /// Does jobs until there are none.
    fn work(&self) {
        // A thread that panics must not leave the others waiting for its piece.
        struct Panic<'a>(&'a First);
        impl Drop for Panic<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.set(Error::Refused("a thread of the check failed".to_owned()));
                }
            }
        }
        let _panic = Panic(&self.first);
        let result = Decoder::new().and_then(|mut decoder| {
            let mut raw = Vec::new();
            let mut kept = Kept::default();
            while !self.first.is_set() {
                self.context.cancel.check()?;
                if !self.gate.enter(&self.first) {
                    break;
                }
                let Some(job) = self.next_job()? else {
                    self.gate.leave();
                    break;
                };
                match job {
                    // A piece leaves when the digest has taken it.
                    Job::Piece(stream, extent, number) => {
                        self.piece(&stream, &extent, number, &mut decoder, &mut kept)?;
                        continue;
                    }
                    Job::Pack(index) => self.pack(index)?,
                    Job::Shared(chunk) => self.shared(chunk, &mut decoder, &mut raw)?,
                    Job::Rest(chunk) => {
                        self.chunk(chunk, &mut decoder, &mut raw)?;
                    }
                }
                self.gate.leave();
            }
            Ok(())
        });
        if let Err(error) = result {
            self.first.set(error);
        }
    }

    fn next_job(&self) -> Result<Option<Job<'a>>, Error> {
        let mut guard = lock(&self.jobs);
        let jobs = &mut *guard;
        if jobs.pack < self.packs.len() {
            jobs.pack += 1;
            return Ok(Some(Job::Pack(jobs.pack - 1)));
        }
        loop {
            if let Some((stream, extents, next)) = &mut jobs.stream {
                if *next < extents.end {
                    let extent = self.context.note(self.context.image.extent(extents, *next))?;
                    let number = *next - extents.first;
                    *next += 1;
                    match extent {
                        Some(extent) => return Ok(Some(Job::Piece(stream.clone(), extent, number))),
                        // It could be read before: the file changed meanwhile.
                        None => jobs.stream = None,
                    }
                    continue;
                }
                jobs.stream = None;
            }
            let Some(size) = self.tree.sizes.get(jobs.content as usize) else { break };
            let content = ContentIndex(jobs.content);
            jobs.content += 1;
            if self.map.broken.get(content.0) || self.map.too_many_holes {
                continue;
            }
            let Some(extents) = self.context.note(self.context.image.extents(content, *size))? else {
                continue;
            };
            if extents.end - extents.first == 1 {
                let extent = self.context.note(self.context.image.extent(&extents, extents.first))?;
                if let Some(Extent { target: Target::Chunk { index, .. }, .. }) = extent {
                    if jobs.shared.set(index.0) {
                        return Ok(Some(Job::Shared(index.0)));
                    }
                    continue;
                }
            }
            let state = StreamState {
                next: 0,
                waiting: BTreeMap::new(),
                hasher: Some(ContentHasher::new(*size)),
                lost: false,
            };
            let pieces = extents.end - extents.first;
            let step = self.context.step(*size, || {
                let path = walk::content_path(self.context, self.tree, content.0);
                format!("digesting {}", text::escape(&path.unwrap_or_default()))
            });
            let stream = Stream { content: content.0, pieces, state: Mutex::new(state), _step: step };
            jobs.stream = Some((Arc::new(stream), extents, extents.first));
        }
        while u64::from(jobs.rest) < self.context.image.sb.layout.chunks.records() {
            let chunk = jobs.rest;
            jobs.rest += 1;
            if self.map.sound.get(chunk) && !self.seen.get(chunk) {
                return Ok(Some(Job::Rest(chunk)));
            }
        }
        Ok(None)
    }

    /// Checks the digest of a pack.
    fn pack(&self, index: usize) -> Result<(), Error> {
        let bytes = self.map.packs.get(index).copied().flatten().map_or(0, |pack| pack.bytes);
        let _step = self.context.step(bytes, || format!("digesting pack {index}"));
        match self.packs.check_digest(index, self.context.cancel) {
            Ok(()) => Ok(()),
            Err(DataError::Broken(finding)) => {
                self.context.findings.add(*finding);
                Ok(())
            }
            Err(DataError::Stop(error @ Error::Io { .. })) => {
                self.unreadable.set(error);
                Ok(())
            }
            Err(DataError::Stop(error)) => Err(error),
        }
    }

    /// Decodes a chunk into `raw`, and checks its raw digest the first time; its record, or `None` where it is broken.
    fn chunk(
        &self,
        index: u32,
        decoder: &mut Decoder,
        raw: &mut Vec<u8>,
    ) -> Result<Option<(Chunk, Option<Digest>)>, Error> {
        // Said once, and not to be read again for each extent in it.
        if lock(&self.failed).contains(&index) {
            return Ok(None);
        }
        let is_first = self.seen.set(index);
        let Some(chunk) = self.context.note(self.context.image.chunk(ChunkIndex(index)))? else {
            return Ok(None);
        };
        match self.packs.read(&chunk, decoder, raw) {
            Ok(None) => (),
            Ok(Some(finding)) => {
                if is_first {
                    self.context.findings.add(finding);
                }
            }
            Err(DataError::Broken(finding)) => {
                if lock(&self.failed).insert(index) {
                    self.context.findings.add(*finding);
                }
                return Ok(None);
            }
            Err(DataError::Stop(error @ Error::Io { .. })) => {
                self.unreadable.set(error);
                return Ok(None);
            }
            Err(DataError::Stop(error)) => return Err(error),
        }
        if !is_first {
            return Ok(Some((chunk, None)));
        }
        let found = sha256(raw);
        if let Some(expected) = self.context.note(self.context.image.raw_digest(ChunkIndex(index)))? {
            if found != expected {
                let place = Place::Chunk(index);
                self.context.findings.add(Finding::new(Rule::RawDigest, place, found, expected));
            }
        }
        Ok(Some((chunk, Some(found))))
    }

    /// Checks the contents that lie in one chunk.
    fn shared(&self, index: u32, decoder: &mut Decoder, raw: &mut Vec<u8>) -> Result<(), Error> {
        let members = self.map.members_of(index);
        let whole = self.chunk(index, decoder, raw)?;
        for member in members {
            self.context.cancel.check()?;
            self.context.progress.advance(member.len.into());
            let Some((_, digest)) = &whole else { continue };
            let start = member.offset as usize;
            let Some(bytes) = raw.get(start..start.saturating_add(member.len as usize)) else { continue };
            let digest = match digest {
                Some(digest) if bytes.len() == raw.len() => *digest,
                _ => sha256(bytes),
            };
            let mut blocks = BlockCounter::default();
            blocks.update(bytes);
            self.compare(member.content, Summary { digest, blocks: blocks.finish() })?;
        }
        Ok(())
    }

    /// The bytes of a range of a chunk; `None` where it is broken.
    fn part(
        &self,
        index: u32,
        range: Range<usize>,
        decoder: &mut Decoder,
        kept: &mut Kept,
    ) -> Result<Option<Vec<u8>>, Error> {
        if let Some(raw) = kept.get(index) {
            return Ok(raw.get(range).map(<[u8]>::to_vec));
        }
        let mut raw = Vec::new();
        if self.chunk(index, decoder, &mut raw)?.is_none() {
            return Ok(None);
        }
        if range == (0..raw.len()) {
            return Ok(Some(raw));
        }
        let part = raw.get(range).map(<[u8]>::to_vec);
        kept.put(index, raw);
        Ok(part)
    }

    /// Decodes an extent, and hands it to the digest of its content.
    fn piece(
        &self,
        stream: &Stream<'_>,
        extent: &Extent,
        number: u32,
        decoder: &mut Decoder,
        kept: &mut Kept,
    ) -> Result<(), Error> {
        let piece = match extent.target {
            Target::Hole => Piece::Zeros(extent.len()),
            Target::Chunk { index, offset } => {
                let len = usize::try_from(extent.len()).unwrap_or(usize::MAX);
                let range = offset as usize..(offset as usize).saturating_add(len);
                self.part(index.0, range, decoder, kept)?.map_or(Piece::Lost, Piece::Bytes)
            }
        };
        if extent.target != Target::Hole {
            self.context.progress.advance(extent.len());
        }
        let mut state = lock(&stream.state);
        state.waiting.insert(number, piece);
        // The thread that has the hasher takes all pieces that wait, this one too.
        let Some(mut hasher) = state.hasher.take() else { return Ok(()) };
        loop {
            let next = state.next;
            let Some(piece) = state.waiting.remove(&next) else { break };
            state.next += 1;
            state.lost |= matches!(piece, Piece::Lost);
            let lost = state.lost;
            drop(state);
            match &piece {
                Piece::Zeros(len) if lost => self.context.progress.advance(*len),
                _ if lost => (),
                _ => self.take(&mut hasher, &piece)?,
            }
            drop(piece);
            self.gate.leave();
            state = lock(&stream.state);
        }
        if state.next < stream.pieces {
            state.hasher = Some(hasher);
        } else if !state.lost {
            drop(state);
            self.compare(stream.content, hasher.finish())?;
        }
        Ok(())
    }

    fn take(&self, hasher: &mut ContentHasher, piece: &Piece) -> Result<(), Error> {
        match piece {
            Piece::Bytes(bytes) => hasher.update(bytes),
            Piece::Zeros(len) => hasher.zeros_until(*len, |part| {
                self.context.progress.advance(part);
                self.context.cancel.check()
            })?,
            Piece::Lost => (),
        }
        Ok(())
    }

    fn compare(&self, content: u32, found: Summary) -> Result<(), Error> {
        let expected = self.context.note(self.context.image.content_digest(ContentIndex(content)))?;
        let Some(expected) = expected else { return Ok(()) };
        let place = Place::Content(content);
        if found.digest != expected {
            self.context.findings.add(Finding::new(Rule::ContentDigest, place, found.digest, expected));
            return Ok(());
        }
        // All inodes of a content were compared with the first.
        let blocks = self.tree.blocks[content as usize];
        if found.blocks != blocks {
            self.context.findings.add(Finding::new(Rule::InodeBlocks, place, blocks, found.blocks));
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
