// SPDX-License-Identifier: GPL-2.0-or-later

//! A worker: reads, hashes, cuts and compresses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tesserafs_format::{chunk_digest, Codec};
use tesserafs_image::text::size;

use super::chunk::{Event, FileEvents, Job, Progressed, Stored, StoredBytes, Window};
use super::compress::Compressor;
use super::digest::{sha256, Sha2};
use super::permit::Permit;
use super::shared::Shared;
use super::WINDOW;
use crate::chunker::{ContentHasher, Cutter, FastCdc, Piece, Summary};
use crate::error::{Error, Result, Shown};
use crate::progress::{step, Progress, LONG};
use crate::source::{FileTask, OpenFile, Source};

/// Bytes that the file the sequencer waits for may have in flight beyond the budget.
const HEAD_EXTRA: u64 = 8 << 20;

/// Files that workers may have taken and the sequencer not finished.
const FILES_AHEAD: usize = 1024;

/// A thread that reads, hashes, cuts and compresses.
pub(super) struct Worker<'a, F> {
    shared: &'a Shared<'a, F>,
    compressor: Compressor,
    cdc: FastCdc,
}

impl<'a, F: Send> Worker<'a, F> {
    pub(super) fn new(shared: &'a Shared<'a, F>) -> Result<Self> {
        let compressor = Compressor::new(shared.profile.level)?;
        Ok(Self { shared, compressor, cdc: FastCdc::new(&shared.profile) })
    }

    pub(super) fn run<S: Source<File = F>>(mut self, source: &S, progress: &dyn Progress) -> Result<()> {
        let shared = self.shared;
        loop {
            // Before anything is looked at, `stopped` too: any later event changes the count.
            let seen = shared.flight.bell.count();
            if shared.stopped() {
                return Ok(());
            }
            if self.run_job()? {
                continue;
            }
            if shared.flight.bytes.load(Ordering::SeqCst) < shared.budget {
                if let Some((seq, task)) = self.take_task() {
                    self.read(source, seq, &task, progress)?;
                    continue;
                }
            }
            shared.wake_sequencer();
            shared.flight.bell.wait(seen);
        }
    }

    fn take_task(&self) -> Option<(u64, FileTask<F>)> {
        let mut state = self.shared.state();
        // The bell rings where the first of them ends.
        if state.files.len() >= FILES_AHEAD {
            return None;
        }
        let task = state.tasks.pop_front()?;
        let seq = state.taken;
        state.taken += 1;
        state.files.push_back(FileEvents { ino: task.ino, size: task.size, events: VecDeque::new() });
        Some((seq, task))
    }

    /// Hashes and compresses a chunk, if there is one to do.
    fn run_job(&mut self) -> Result<bool> {
        let Some(job) = self.shared.state().jobs.pop_front() else { return Ok(false) };
        let shared = self.shared;
        let raw = &job.window.bytes[job.range.clone()];
        let digest = *job.digest.get_or_init(|| sha256(raw));
        let claimed = job.claimed || shared.claim(digest);
        if !claimed {
            shared.nudge();
            return Ok(true);
        }
        let (codec, bytes) = self.compressor.compress(raw)?;
        let stored_digest = chunk_digest::<Sha2>(bytes);
        let (bytes, held) = match codec {
            Codec::Plain => (StoredBytes::Plain(job.window.clone(), job.range.clone()), 0),
            Codec::Zstd | Codec::ZstdX86 => (StoredBytes::Compressed(bytes.to_vec()), bytes.len()),
        };
        let nobody = Arc::new(AtomicU64::new(0));
        let stored = Stored {
            bytes,
            codec,
            raw_len: raw.len() as u32,
            digest: stored_digest,
            _permit: shared.permit(held as u64, &nobody),
        };
        if let Some(chunk) = shared.state().chunks.get_mut(&digest) {
            chunk.stored = Progressed::Ready(Box::new(stored));
        }
        shared.nudge();
        Ok(true)
    }

    /// Waits until `bytes` more may be in flight for file `seq`, and works on chunks meanwhile; `None` to stop.
    fn acquire(&mut self, bytes: u64, seq: u64, file: &Arc<AtomicU64>) -> Result<Option<Permit>> {
        let shared = self.shared;
        loop {
            let seen = shared.flight.bell.count();
            if shared.stopped() {
                return Ok(None);
            }
            // Chunks first, but so that some are left for the others while this thread reads.
            let jobs = shared.state().jobs.len();
            let fits = shared.flight.bytes.load(Ordering::SeqCst) + bytes <= shared.budget;
            let head = || shared.state().head == seq && file.load(Ordering::SeqCst) + bytes <= HEAD_EXTRA;
            if fits || head() {
                if jobs <= shared.threads {
                    return Ok(Some(shared.permit(bytes, file)));
                }
                self.run_job()?;
            } else if !self.run_job()? {
                shared.wake_sequencer();
                shared.flight.bell.wait(seen);
            }
        }
    }

    /// Hands what was found in a file to the sequencer, and its chunks to the workers.
    fn hand_over(&self, seq: u64, events: Vec<Event>, jobs: Vec<Job>) {
        let several = jobs.len() > 1;
        let mut state = self.shared.state();
        let head = state.head;
        if let Some(file) = state.files.get_mut((seq - head) as usize) {
            file.events.extend(events);
        }
        state.jobs.extend(jobs);
        drop(state);
        if several {
            self.shared.flight.bell.ring();
        }
        if seq == head {
            self.shared.nudge();
        }
    }

    /// Reads, hashes and cuts a file.
    fn read<S: Source<File = F>>(
        &mut self,
        source: &S,
        seq: u64,
        task: &FileTask<F>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let shared = self.shared;
        let in_flight = Arc::new(AtomicU64::new(0));
        let name = || format!("reading {} ({})", Shown(&source.path(task)), size(task.size));
        let _step = if task.size >= LONG { step(progress, name) } else { None };
        let mut open = source.open(task)?;
        let mut cutter = Cutter::new(self.cdc, &shared.profile);
        if task.size <= WINDOW as u64 {
            let Some(permit) = self.acquire(task.size, seq, &in_flight)? else { return Ok(()) };
            open.read(0..task.size, cutter.window())?;
            let summary = Summary::of(cutter.window());
            open.confirm(&summary)?;
            open.close()?;
            progress.read(task.size);
            self.finish_whole(seq, cutter, summary, permit);
            return Ok(());
        }
        let mut pieces = Vec::new();
        let mut hasher = ContentHasher::new(task.size);
        let mut pos = 0;
        // The bytes that a window leaves to the next one, a chunk and some zeros at most, have no permit of
        // their own.
        while pos < task.size {
            let data = open.data(pos)?;
            let gap = data.start - pos;
            if gap > 0 {
                hasher.zeros_until(gap, |bytes| {
                    progress.read(bytes);
                    if shared.stopped() {
                        Err(Error::Stopped)
                    } else {
                        Ok(())
                    }
                })?;
                if let Some(bytes) = cutter.skip_zeros(gap, &mut pieces) {
                    let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
                    self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), None);
                }
                pos = data.start;
            }
            let end = data.end.min(pos + WINDOW as u64);
            let Some(permit) = self.acquire(end - pos, seq, &in_flight)? else { return Ok(()) };
            let window = cutter.window();
            let carried = window.len();
            open.read(pos..end, window)?;
            hasher.data(&window[carried..]);
            let bytes = cutter.advance(false, WINDOW, &mut pieces);
            self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), None);
            progress.read(end - pos);
            pos = end;
        }
        let summary = hasher.finish();
        open.confirm(&summary)?;
        open.close()?;
        let bytes = cutter.advance(true, 0, &mut pieces);
        let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
        self.deliver(seq, bytes, permit, pieces, Some(summary));
        Ok(())
    }

    /// Goes on with a file that lies in one window.
    fn finish_whole(&self, seq: u64, mut cutter: Cutter, summary: Summary, permit: Permit) {
        let known = self.shared.state().contents.get(&summary.digest).is_some();
        if known {
            self.hand_over(seq, vec![Event::End(summary)], Vec::new());
            return;
        }
        let size = cutter.window().len();
        let mut pieces = Vec::new();
        let bytes = cutter.advance(true, 0, &mut pieces);
        let has_hole = pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. }));
        if !has_hole && size <= self.shared.profile.small_max as usize {
            let window = Arc::new(Window { bytes, _permit: permit });
            self.hand_over(seq, vec![Event::Small { window }, Event::End(summary)], Vec::new());
        } else {
            self.deliver(seq, bytes, permit, pieces, Some(summary));
        }
    }

    /// Turns pieces of a window into events and jobs; `end` is the digest of a content that is complete.
    fn deliver(
        &self,
        seq: u64,
        bytes: Arc<Vec<u8>>,
        permit: Permit,
        pieces: Vec<Piece>,
        end: Option<Summary>,
    ) {
        let window = Arc::new(Window { bytes, _permit: permit });
        let mut events = Vec::with_capacity(pieces.len() + 1);
        let mut jobs = Vec::with_capacity(pieces.len());
        for piece in pieces {
            events.push(match piece {
                Piece::Hole { start } => Event::Hole { start },
                Piece::Chunk { start, range } => {
                    let digest = Arc::new(OnceLock::new());
                    // A content that is one chunk has the chunk's digest.
                    if let (Some(end), true) = (end, start == 0 && range == (0..window.bytes.len())) {
                        let _ = digest.set(end.digest);
                    }
                    let len = range.len() as u32;
                    jobs.push(Job { window: window.clone(), range, digest: digest.clone(), claimed: false });
                    Event::Chunk { start, len, digest }
                }
            });
        }
        events.extend(end.map(Event::End));
        self.hand_over(seq, events, jobs);
    }
}
