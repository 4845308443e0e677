// SPDX-License-Identifier: GPL-2.0-or-later

//! The requests that bring pieces of blobs, on several connections.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mkfs_tesserafs::progress::Progress;
use tesserafs_image::{parallel, text, Error};

use super::chunks::LackingFile;
use super::line::{Ranges, Speed};
use super::ranges::Pieces;
use super::sink::Sink;
use super::Request;
use crate::artifact::Blob;
use crate::registry::{Answer, Repository};
use crate::store::Unfinished;

/// Times that wrong bytes are asked for again.
const ROUNDS: usize = 3;

/// The way to the blobs of a repository.
pub(super) struct Fetcher<'f> {
    repository: &'f Repository,
    request: &'f Request,
    progress: &'f dyn Progress,
    fetched: AtomicU64,
    requests: AtomicU64,
    /// How the registry answers a range, once that is known.
    answer: Mutex<Option<Answer>>,
    speed: Speed,
}

/// Pieces of a blob that are wanted, and the file that they go to.
pub(super) struct Target<'t> {
    blob: Blob,
    pub(super) file: &'t Unfinished,
    pub(super) pieces: &'t Pieces,
    /// Whether all bytes of the file before a piece that is lacking are there: those of the blob are hashed while others come.
    is_whole: bool,
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
        Self { blob, file, pieces, is_whole: false, fetched, wrong, is_told: AtomicBool::new(true) }
    }

    /// The target of a file that the progress counts when it is done. If it is then whole, its digest is nearly known, too.
    pub(super) fn of_file(file: &'t LackingFile) -> Self {
        let target = Self::new(file.blob, &file.unfinished, &file.pieces);
        Self { is_told: AtomicBool::new(false), is_whole: file.is_whole, ..target }
    }

    /// Hashes what came in order.
    pub(super) fn hash_front(&self) -> Result<(), Error> {
        if !self.is_whole {
            return Ok(());
        }
        // Where nothing is lacking any more, the file is about to be finished, which hashes the rest.
        self.pieces.front().map_or(Ok(()), |front| self.file.hash_to(front))
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
        let (answer, speed) = (Mutex::default(), Speed::default());
        Self { repository, request, progress, fetched, requests, answer, speed }
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
        let gap = self.speed.gap(self.request.connections.get());
        let mut tasks: Vec<Task<'_, '_>> = Vec::new();
        for target in targets {
            tasks.extend(target.pieces.ranges(gap).into_iter().map(|range| (target, range)));
        }
        let ranges = Ranges::new(*self.answer());
        let asked = self.ask(&tasks, &ranges);
        *self.answer() = ranges.known();
        asked?;
        if ranges.known() == Some(Answer::Whole) {
            let lacking = targets.iter().filter(|target| !target.is_done());
            tasks = lacking.map(|target| (target, target.whole())).collect();
            self.ask(&tasks, &ranges)?;
        }
        Ok(())
    }

    /// Asks for what these requests bring, unless the registry ignores ranges.
    fn ask(&self, tasks: &[Task<'_, '_>], ranges: &Ranges) -> Result<(), Error> {
        let (threads, cancel) = (self.request.connections.get(), &self.request.options.cancel);
        parallel::for_each(threads, tasks.len() as u64, cancel, |number| {
            let (target, range) = &tasks[number as usize];
            if *range == target.whole() {
                return self.range(target, range, |_| ());
            }
            let Some(_permit) = ranges.permit() else { return Ok(()) };
            match target.has(range) {
                // An answer with all of the blob had it.
                true => Ok(()),
                false => self.range(target, range, |answer| ranges.learn(answer)),
            }
        })
    }

    /// Tells once that a file is done.
    fn tell(&self, target: &Target<'_>) {
        if target.is_done() && !target.is_told.swap(true, Ordering::Relaxed) {
            self.progress.files_done(1);
        }
    }

    fn answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request. `begins` hears how it is answered.
    fn range(&self, target: &Target<'_>, range: &Range<u64>, begins: impl Fn(Answer)) -> Result<(), Error> {
        let blob = &target.blob;
        let mut sink = Sink::new(target, range.start, self.progress);
        let started = Instant::now();
        let mut first = None;
        let mut bytes = 0;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.repository.read(blob, range.clone(), &mut |answer, offset, part| {
            if first.is_none() {
                first = Some(started.elapsed());
                begins(answer);
            }
            bytes += part.len() as u64;
            self.fetched.fetch_add(part.len() as u64, Ordering::Relaxed);
            target.fetched.fetch_add(part.len() as u64, Ordering::Relaxed);
            sink.take(offset, part, |why| {
                let said = format!("{}: the blob sha256:{}: {why}", self.shown(), blob.digest);
                target.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
            })
        })?;
        self.tell(target);
        if let Some(first) = first {
            self.speed.learn(first, bytes, started.elapsed() - first);
        }
        Ok(())
    }

    /// The reference, for a message.
    pub(super) fn shown(&self) -> String {
        text::escape(self.request.reference.to_string().as_bytes())
    }
}
