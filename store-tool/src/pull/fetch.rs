// SPDX-License-Identifier: GPL-2.0-or-later

//! Pieces of blobs, from the registry to their places: each is compared with its digest first.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mkfs_tesserafs::progress::Progress;
use tesserafs_format::chunk_digest;
use tesserafs_image::hash::Sha2;
use tesserafs_image::{parallel, text, Error};

use super::ranges::Pieces;
use super::Request;
use crate::artifact::Blob;
use crate::registry::{Answer, Repository};
use crate::store::Unfinished;

/// Times that wrong bytes are asked for again.
const ROUNDS: usize = 3;

/// Bytes between two pieces that are fetched rather than asking twice, by what is known of the line: these at least, and at most.
const GAP_MIN: u64 = 16 << 10;
const GAP_MAX: u64 = 256 << 10;

/// The way to the blobs of a repository.
pub(super) struct Fetcher<'f> {
    repository: &'f Repository,
    request: &'f Request,
    progress: &'f dyn Progress,
    fetched: AtomicU64,
    requests: AtomicU64,
    /// Whether the registry answers a range by a range, once that is known.
    has_ranges: Mutex<Option<bool>>,
    line: Mutex<Line>,
}

/// Measurements of the way to the registry.
#[derive(Debug, Default)]
struct Line {
    /// The least time from a request to the first byte of its answer.
    first_byte: Option<Duration>,
    /// Bytes, and the time between the first and the last of them, of the longest answer.
    longest: Option<(u64, Duration)>,
}

/// Pieces of a blob that are wanted, and the file that they go to.
pub(super) struct Target<'t> {
    blob: Blob,
    file: &'t Unfinished,
    pieces: &'t Pieces,
    /// Bytes that came for it.
    fetched: AtomicU64,
    /// The first wrong chunk.
    wrong: Mutex<Option<String>>,
    /// Whether nothing has to be told of its end any more.
    is_told: AtomicBool,
}

impl<'t> Target<'t> {
    pub(super) fn new(blob: Blob, file: &'t Unfinished, pieces: &'t Pieces) -> Self {
        let (fetched, wrong) = (AtomicU64::new(0), Mutex::default());
        Self { blob, file, pieces, fetched, wrong, is_told: AtomicBool::new(true) }
    }

    /// The end of it is the end of a file, which the progress counts.
    pub(super) fn counted(self) -> Self {
        Self { is_told: AtomicBool::new(false), ..self }
    }

    /// Bytes that came for it, those between its pieces too.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.pieces.has_all()
    }

    /// Whether all pieces in a range are there.
    fn has(&self, range: &Range<u64>) -> bool {
        (self.pieces.at(range.start)..=self.pieces.at(range.end - 1))
            .all(|number| self.pieces.is_there(number))
    }

    /// One request for all of the blob.
    fn whole(&self) -> Range<u64> {
        0..self.blob.len
    }
}

/// Something to ask for.
type Task<'r, 't> = (&'r Target<'t>, Range<u64>);

impl<'f> Fetcher<'f> {
    pub(super) fn new(repository: &'f Repository, request: &'f Request, progress: &'f dyn Progress) -> Self {
        let (fetched, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        let (has_ranges, line) = (Mutex::default(), Mutex::default());
        Self { repository, request, progress, fetched, requests, has_ranges, line }
    }

    /// The repository.
    pub(super) fn repository(&self) -> &Repository {
        self.repository
    }

    /// The progress, for parts of it that are no bytes.
    pub(super) fn progress(&self) -> &dyn Progress {
        self.progress
    }

    /// Bytes that came so far.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Ranges and blobs that were asked for.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Brings all pieces that are lacking.
    pub(super) fn fetch(&self, targets: &[Target<'_>]) -> Result<(), Error> {
        self.progress.found(targets.iter().map(|target| target.pieces.lacking_bytes()).sum());
        targets.iter().for_each(|target| self.tell(target));
        for _ in 0..ROUNDS {
            if targets.iter().all(Target::is_done) {
                return Ok(());
            }
            self.round(targets)?;
            if !targets.iter().all(Target::is_done) {
                self.repository.drop_mirrors();
            }
        }
        let Some(target) = targets.iter().find(|target| !target.is_done()) else { return Ok(()) };
        let wrong = target.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(Error::Refused(wrong.unwrap_or_else(|| {
            format!("{}: some bytes of the blob sha256:{} did not come", self.shown(), target.blob.digest)
        })))
    }

    /// Asks once for each piece that is lacking.
    fn round(&self, targets: &[Target<'_>]) -> Result<(), Error> {
        let gap = self.gap();
        let mut tasks: Vec<Task<'_, '_>> = Vec::new();
        for target in targets {
            tasks.extend(target.pieces.ranges(gap).into_iter().map(|range| (target, range)));
        }
        if self.has_ranges().is_none() {
            // One alone, as an answer with all of a blob is the answer to all requests for it.
            if let Some((target, range)) = tasks.iter().find(|(target, range)| *range != target.whole()) {
                self.range(target, range)?;
            }
        }
        if self.has_ranges() == Some(false) {
            let lacking = targets.iter().filter(|target| !target.is_done());
            tasks = lacking.map(|target| (target, target.whole())).collect();
        }
        tasks.retain(|(target, range)| !target.has(range));
        let (threads, cancel) = (self.request.connections.get(), &self.request.options.cancel);
        parallel::for_each(threads, tasks.len() as u64, cancel, |number| {
            let (target, range) = &tasks[number as usize];
            match target.has(range) {
                // An answer with all of the blob had it.
                true => Ok(()),
                false => self.range(target, range),
            }
        })
    }

    /// Tells once that a file is done.
    fn tell(&self, target: &Target<'_>) {
        if target.is_done() && !target.is_told.swap(true, Ordering::Relaxed) {
            self.progress.files_done(1);
        }
    }

    fn has_ranges(&self) -> Option<bool> {
        *self.has_ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request.
    fn range(&self, target: &Target<'_>, range: &Range<u64>) -> Result<(), Error> {
        let Target { blob, pieces, .. } = target;
        let mut sink = Sink {
            target,
            progress: self.progress,
            next: range.start,
            number: pieces.at(range.start),
            piece: Vec::new(),
        };
        let started = Instant::now();
        let mut first = None;
        let mut bytes = 0;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.repository.read(blob, range.clone(), &mut |offset, part| {
            first.get_or_insert_with(|| started.elapsed());
            bytes += part.len() as u64;
            self.fetched.fetch_add(part.len() as u64, Ordering::Relaxed);
            target.fetched.fetch_add(part.len() as u64, Ordering::Relaxed);
            sink.take(offset, part, |why| {
                let said = format!("{}: the blob sha256:{}: {why}", self.shown(), blob.digest);
                target.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
            })
        })?;
        self.tell(target);
        if *range != target.whole() {
            let mut has_ranges = self.has_ranges.lock().unwrap_or_else(PoisonError::into_inner);
            *has_ranges = Some(answer == Answer::Part);
        }
        if let Some(first) = first {
            self.line.lock().unwrap_or_else(PoisonError::into_inner).learn(
                first,
                bytes,
                started.elapsed() - first,
            );
        }
        Ok(())
    }

    /// Bytes that are not worth a request of their own: as many as come while one is answered, for one of the connections.
    fn gap(&self) -> u64 {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first_byte), Some((bytes, time))) = (line.first_byte, line.longest) else { return GAP_MIN };
        let by_connection = bytes as f64 / time.as_secs_f64().max(1e-6);
        let bytes = by_connection * first_byte.as_secs_f64() / self.request.connections.get() as f64;
        (bytes as u64).clamp(GAP_MIN, GAP_MAX)
    }

    /// The reference, for a message.
    pub(super) fn shown(&self) -> String {
        text::escape(self.request.reference.to_string().as_bytes())
    }
}

impl Line {
    fn learn(&mut self, first: Duration, bytes: u64, rest: Duration) {
        self.first_byte = Some(self.first_byte.map_or(first, |least| least.min(first)));
        if self.longest.is_none_or(|(longest, _)| bytes > longest) {
            self.longest = Some((bytes, rest));
        }
    }
}

/// Takes bytes of a blob in order, and writes those of pieces.
struct Sink<'s> {
    target: &'s Target<'s>,
    progress: &'s dyn Progress,
    /// The offset that is expected.
    next: u64,
    /// The piece that it lies in or before.
    number: usize,
    /// The bytes of that piece so far.
    piece: Vec<u8>,
}

impl Sink<'_> {
    /// Two connections may bring one piece at once: they write the same bytes.
    fn take(&mut self, offset: u64, mut bytes: &[u8], mut wrong: impl FnMut(String)) -> Result<(), Error> {
        let Target { pieces, file, .. } = self.target;
        if offset != self.next {
            self.number = pieces.at(offset);
            self.piece.clear();
        }
        let mut at = offset;
        self.next = offset + bytes.len() as u64;
        while let Some(piece) = pieces.all().get(self.number).filter(|_| !bytes.is_empty()) {
            let skipped = piece.start.saturating_sub(at).min(bytes.len() as u64);
            (at, bytes) = (at + skipped, &bytes[skipped as usize..]);
            let is_begun = at == piece.start + self.piece.len() as u64;
            let now = piece.end().saturating_sub(at).min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(now);
            // Bytes that another connection has brought, or that began before the first byte here, are of no use.
            let is_wanted = is_begun && !pieces.is_there(self.number);
            if is_wanted {
                self.piece.extend_from_slice(now);
            }
            (at, bytes) = (at + now.len() as u64, rest);
            if at < piece.end() {
                continue;
            }
            if is_wanted {
                let found = piece
                    .chunk
                    .map(|(number, expected)| (number, expected, chunk_digest::<Sha2>(&self.piece)));
                match found {
                    Some((number, expected, found)) if found != expected => wrong(format!(
                        "chunk {number}, at byte {}, has the digest {found}, expected {expected}",
                        piece.start
                    )),
                    _ => {
                        file.write_at(piece.start, &self.piece)?;
                        // Bytes that come twice, or lie between pieces, are no progress.
                        if pieces.is_there_now(self.number) {
                            self.progress.read(u64::from(piece.len));
                        }
                    }
                }
            }
            self.piece.clear();
            self.number += 1;
        }
        Ok(())
    }
}
