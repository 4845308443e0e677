// SPDX-License-Identifier: GPL-2.0-or-later

//! The data: every pack, every stored and decoded chunk, and every content against its digest.
//!
//! Threads take jobs in the order of contents, which is about that of storage. Each has a content of several chunks to itself, until
//! no other is left; then it decodes chunks of another thread's. The bytes of a content go into its digest in order, by
//! whichever thread has the next ones. A chunk with several small contents is decoded once for all of them. Memory is bounded by
//! the number of decoded chunks that may wait or are kept.
//!
//! Most of the time goes into SHA-256. So the raw bytes of a chunk are digested together with the contents in them, which takes three
//! quarters of the time of one after the other. And what begins with the same bytes is hashed once up to where it differs: the first
//! chunk of a content, and the first content in a chunk.
//!
//! `jobs` gives out the work, `stream` puts pieces in order, `gate` and `kept` bound the memory.

mod atomic_bits;
mod gate;
mod jobs;
mod kept;
mod stream;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tesserafs_format::{ChunkIndex, ContentIndex, Digest, Place, Rule};

use self::atomic_bits::AtomicBits;
use self::gate::Gate;
use self::jobs::{Job, Jobs};
use self::kept::Kept;
use self::stream::Piece;
use crate::check_map::{Map, Member};
use tesserafs_image::error::Error;
use tesserafs_image::finding::Finding;
use tesserafs_image::hash::{sha256, sha256_each, BlockCounter, Hasher, Summary};
use tesserafs_image::packs::{DataError, Decoder, Packs};
use tesserafs_image::parallel::First;
use tesserafs_image::walk::Tree;
use tesserafs_image::Context;

/// Decoded chunks that may wait for their turn, for each thread.
const WAITING_PER_THREAD: usize = 8;

/// Contents of one chunk that are digested between two looks at whether to go on.
const MEMBERS_AT_ONCE: usize = 64;

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
        jobs: Mutex::new(Jobs::new(chunks)?),
        gate: Gate::new(context.threads * WAITING_PER_THREAD),
        spare: Mutex::default(),
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
    /// Memory of pieces that were digested, one for each thread at most, for the next ones: the system would have to zero it again.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Why the check ends.
    first: First,
    /// Why a chunk could not be read, at first: the check goes on, and says so at its end.
    unreadable: First,
}

impl Data<'_> {
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
            let mut own = None;
            while !self.first.is_set() {
                self.context.cancel.check()?;
                if !self.gate.enter(&self.first) {
                    break;
                }
                let Some(job) = self.next_job(&mut own)? else {
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
                        if let Some(decoded) = self.chunk(chunk, &mut decoder, &mut raw)? {
                            self.check_raw_alone(&decoded, &raw)?;
                        }
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

    /// Decodes a chunk into `raw`; `None` where it is broken.
    fn chunk(&self, index: u32, decoder: &mut Decoder, raw: &mut Vec<u8>) -> Result<Option<Decoded>, Error> {
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
        Ok(Some(Decoded { index, is_first }))
    }

    /// Compares `found`, the digest of the raw bytes of a chunk, with the one that the image holds.
    fn check_raw(&self, index: u32, found: Digest) -> Result<(), Error> {
        if let Some(expected) = self.context.note(self.context.image.raw_digest(ChunkIndex(index)))? {
            if found != expected {
                let place = Place::Chunk(index);
                self.context.findings.add(Finding::new(Rule::RawDigest, place, found, expected));
            }
        }
        Ok(())
    }

    /// Checks the raw digest of a chunk whose bytes nothing else is digested beside.
    fn check_raw_alone(&self, decoded: &Decoded, raw: &[u8]) -> Result<(), Error> {
        match decoded.is_first {
            true => self.check_raw(decoded.index, sha256(raw)),
            false => Ok(()),
        }
    }

    /// Checks the contents that lie in one chunk.
    fn shared(&self, index: u32, decoder: &mut Decoder, raw: &mut Vec<u8>) -> Result<(), Error> {
        let members = self.map.members_of(index);
        let Some(decoded) = self.chunk(index, decoder, raw)? else {
            members.iter().for_each(|member| self.context.progress.advance(member.len.into()));
            return Ok(());
        };
        let mut whole = Whole::new(raw);
        for members in members.chunks(MEMBERS_AT_ONCE) {
            self.context.cancel.check()?;
            // Each lies in the chunk, by the check of its extent.
            let bytes = |member: &Member| {
                let start = member.offset as usize;
                raw.get(start..start.saturating_add(member.len as usize)).unwrap_or_default()
            };
            let parts: Vec<&[u8]> = members.iter().map(bytes).collect();
            let digests = match (decoded.is_first, members) {
                (true, [first, ..]) => whole.digest_beside(first.offset as usize, &parts),
                _ => sha256_each(&parts),
            };
            for ((member, bytes), digest) in members.iter().zip(parts).zip(digests) {
                self.context.progress.advance(member.len.into());
                let mut blocks = BlockCounter::default();
                blocks.update(bytes);
                self.compare(member.content, Summary { digest, blocks: blocks.finish() })?;
            }
        }
        match decoded.is_first {
            true => self.check_raw(index, whole.finish()),
            false => Ok(()),
        }
    }

    /// The bytes of a range of a chunk.
    fn part(
        &self,
        index: u32,
        range: Range<usize>,
        decoder: &mut Decoder,
        kept: &mut Kept,
    ) -> Result<Piece, Error> {
        if let Some(raw) = kept.get(index) {
            return Ok(raw.get(range).map_or(Piece::Lost, |part| Piece::Bytes(part.to_vec(), None)));
        }
        let mut raw = lock(&self.spare).pop().unwrap_or_default();
        let Some(decoded) = self.chunk(index, decoder, &mut raw)? else { return Ok(Piece::Lost) };
        if range == (0..raw.len()) {
            return Ok(Piece::Bytes(raw, decoded.is_first.then_some(index)));
        }
        self.check_raw_alone(&decoded, &raw)?;
        let part = raw.get(range).map_or(Piece::Lost, |part| Piece::Bytes(part.to_vec(), None));
        kept.put(index, raw);
        Ok(part)
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

    /// Keeps the memory of a piece for another one, if not enough of it is kept.
    fn reuse(&self, bytes: Vec<u8>) {
        let mut spare = lock(&self.spare);
        if spare.len() < self.context.threads {
            spare.push(bytes);
        }
    }
}

/// A chunk that was decoded.
struct Decoded {
    index: u32,
    /// Nobody decoded it before: its raw digest is still to be checked.
    is_first: bool,
}

/// The digest of a chunk's raw bytes while the contents in them are digested.
struct Whole<'a> {
    raw: &'a [u8],
    hasher: Hasher,
    /// Raw bytes that the hasher has taken.
    at: usize,
}

impl<'a> Whole<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, hasher: Hasher::default(), at: 0 }
    }

    /// The digests of `parts`, the first of which begins at `start`; meanwhile takes as many raw bytes as they have.
    fn digest_beside(&mut self, start: usize, parts: &[&[u8]]) -> Vec<Digest> {
        let mut digests = Vec::with_capacity(parts.len());
        let mut rest = parts;
        if let (0, 0, [first, others @ ..]) = (self.at, start, parts) {
            // The chunk begins with these bytes.
            self.hasher.update(first);
            self.at = first.len();
            digests.push(self.hasher.clone().finish());
            rest = others;
        }
        let len: usize = rest.iter().map(|part| part.len()).sum();
        let end = self.at.saturating_add(len).min(self.raw.len());
        digests.append(&mut self.hasher.update_beside(&self.raw[self.at..end], rest));
        self.at = end;
        digests
    }

    /// The digest of all raw bytes.
    fn finish(mut self) -> Digest {
        self.hasher.update(&self.raw[self.at..]);
        self.hasher.finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
