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
    /// Whether the registry has answered a range by a range.
    has_ranges: AtomicBool,
    line: Mutex<Line>,
}

/// What is known of the way to the registry.
#[derive(Debug, Default)]
struct Line {
    /// The least time from a request to the first byte of its answer.
    first_byte: Option<Duration>,
    /// Bytes, and the time between the first and the last of them, of the longest answer.
    longest: Option<(u64, Duration)>,
}

impl<'f> Fetcher<'f> {
    pub(super) fn new(repository: &'f Repository, request: &'f Request, progress: &'f dyn Progress) -> Self {
        let (fetched, requests) = (AtomicU64::new(0), AtomicU64::new(0));
        let (has_ranges, line) = (AtomicBool::new(false), Mutex::default());
        Self { repository, request, progress, fetched, requests, has_ranges, line }
    }

    /// The repository.
    pub(super) fn repository(&self) -> &Repository {
        self.repository
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
    pub(super) fn fetch(&self, blob: Blob, file: &Unfinished, pieces: &Pieces) -> Result<(), Error> {
        self.progress.found(pieces.lacking_bytes());
        let wrong = Mutex::new(None);
        for _ in 0..ROUNDS {
            let ranges = pieces.ranges(self.gap());
            if ranges.is_empty() {
                return Ok(());
            }
            let mut rest = ranges.as_slice();
            if !self.has_ranges.load(Ordering::Relaxed) {
                // One alone, as an answer with all of the blob is the answer to all requests.
                let (first, others) = ranges.split_at(1);
                rest = others;
                match self.range(blob, file, pieces, &first[0], &wrong)? {
                    Answer::Part => self.has_ranges.store(true, Ordering::Relaxed),
                    Answer::Whole => rest = &[],
                }
            }
            let threads = self.request.connections.get();
            let cancel = &self.request.options.cancel;
            parallel::for_each(threads, rest.len() as u64, cancel, |number| {
                let range = &rest[number as usize];
                let is_lacking = pieces.at(range.start)..pieces.at(range.end - 1) + 1;
                if is_lacking.into_iter().all(|number| pieces.is_there(number)) {
                    return Ok(());
                }
                self.range(blob, file, pieces, range, &wrong).map(drop)
            })?;
            if pieces.lacking().next().is_some() {
                self.repository.drop_mirrors();
            }
        }
        match (pieces.lacking().next(), wrong.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (None, _) => Ok(()),
            (Some(_), Some(why)) => Err(Error::Refused(why)),
            (Some((_, piece)), None) => Err(Error::Refused(format!(
                "{}: bytes {} to {} of the blob sha256:{} did not come",
                self.shown(),
                piece.start,
                piece.end(),
                blob.digest
            ))),
        }
    }

    /// One request.
    fn range(
        &self,
        blob: Blob,
        file: &Unfinished,
        pieces: &Pieces,
        range: &Range<u64>,
        wrong: &Mutex<Option<String>>,
    ) -> Result<Answer, Error> {
        let mut sink =
            Sink { pieces, file, next: range.start, number: pieces.at(range.start), piece: Vec::new() };
        let started = Instant::now();
        let mut first = None;
        let mut bytes = 0;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.repository.read(&blob, range.clone(), &mut |offset, part| {
            first.get_or_insert_with(|| started.elapsed());
            bytes += part.len() as u64;
            self.fetched.fetch_add(part.len() as u64, Ordering::Relaxed);
            self.progress.read(part.len() as u64);
            sink.take(offset, part, |why| {
                let said = format!("{}: the blob sha256:{}: {why}", self.shown(), blob.digest);
                wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
            })
        })?;
        if let Some(first) = first {
            self.line.lock().unwrap_or_else(PoisonError::into_inner).learn(
                first,
                bytes,
                started.elapsed() - first,
            );
        }
        Ok(answer)
    }

    /// Bytes that are not worth a request of their own: as many as come while one is answered, for one of the connections.
    fn gap(&self) -> u64 {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first_byte), Some((bytes, time))) = (line.first_byte, line.longest) else { return GAP_MIN };
        let by_connection = bytes as f64 / time.as_secs_f64().max(1e-6);
        let bytes = by_connection * first_byte.as_secs_f64() / self.request.connections.get() as f64;
        (bytes as u64).clamp(GAP_MIN, GAP_MAX)
    }

    fn shown(&self) -> String {
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
    pieces: &'s Pieces,
    file: &'s Unfinished,
    /// The offset that is expected.
    next: u64,
    /// The piece that it lies in or before.
    number: usize,
    /// The bytes of that piece so far.
    piece: Vec<u8>,
}

impl Sink<'_> {
    fn take(&mut self, offset: u64, mut bytes: &[u8], mut wrong: impl FnMut(String)) -> Result<(), Error> {
        if offset != self.next {
            self.number = self.pieces.at(offset);
            self.piece.clear();
        }
        let mut at = offset;
        self.next = offset + bytes.len() as u64;
        while let Some(piece) = self.pieces.all().get(self.number).filter(|_| !bytes.is_empty()) {
            let skipped = piece.start.saturating_sub(at).min(bytes.len() as u64);
            (at, bytes) = (at + skipped, &bytes[skipped as usize..]);
            let is_begun = at == piece.start + self.piece.len() as u64;
            let now = piece.end().saturating_sub(at).min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(now);
            // What another connection has brought, or what began before the first byte here, is no use.
            let is_wanted = is_begun && !self.pieces.is_there(self.number);
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
                        self.file.write_at(piece.start, &self.piece)?;
                        self.pieces.is_there_now(self.number);
                    }
                }
            }
            self.piece.clear();
            self.number += 1;
        }
        Ok(())
    }
}
