// SPDX-License-Identifier: GPL-2.0-or-later

//! A worker: takes files, and chunks to compress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use tesserafs_format::{chunk_digest, Codec};
use tesserafs_image::hash::Sha2;

use super::chunk::{FileEvents, Progressed, Stored, StoredBytes};
use super::compress::Compressor;
use super::permit::Permit;
use super::shared::Shared;
use super::WINDOW;
use crate::chunker::FastCdc;
use crate::error::Result;
use crate::progress::Progress;
use crate::source::{FileTask, Source};

/// Bytes that the file the sequencer waits for may have in flight beyond the budget.
const HEAD_EXTRA: u64 = 8 << 20;

/// Files that workers may have taken and the sequencer not finished.
const FILES_AHEAD: usize = 1024;

/// Small files that a worker takes at once, and hands over with one message.
const TOGETHER: usize = 32;

/// A thread that reads, hashes, cuts and compresses.
pub(super) struct Worker<'a, F> {
    pub(super) shared: &'a Shared<'a, F>,
    compressor: Compressor,
    pub(super) cdc: FastCdc,
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
            if shared.flight.has_room(1) {
                let (seq, tasks) = self.take_tasks();
                if let [task] = &tasks[..] {
                    if task.size > WINDOW as u64 {
                        self.read(source, seq, task, progress)?;
                        continue;
                    }
                }
                if !tasks.is_empty() {
                    self.read_together(source, seq, &tasks, progress)?;
                    continue;
                }
            }
            shared.wake_sequencer();
            shared.flight.bell.wait(seen);
        }
    }

    /// Takes the next file that is longer than a window, or some small ones; none where there is nothing to take. The first one's
    /// number, which those of the others follow.
    fn take_tasks(&self) -> (u64, Vec<FileTask<F>>) {
        let mut state = self.shared.state();
        let seq = state.taken;
        let mut tasks: Vec<FileTask<F>> = Vec::new();
        let mut bytes: u64 = 0;
        // The bell rings where some of the files ahead end.
        while tasks.len() < TOGETHER && state.files.len() < FILES_AHEAD {
            let Some((ino, size)) = state.tasks.front().map(|next| (next.ino, next.size)) else { break };
            bytes = bytes.saturating_add(size);
            if !tasks.is_empty() && bytes > WINDOW as u64 {
                break;
            }
            state.taken += 1;
            state.files.push_back(FileEvents { ino, size, events: Vec::new() });
            tasks.extend(state.tasks.pop_front());
        }
        // The walk may have been a million files ahead: the queue gives its memory back as it empties, for the tables need it.
        let room = state.tasks.capacity();
        if state.walked && room > FILES_AHEAD && state.tasks.len() < room / 4 {
            state.tasks.shrink_to(room / 2);
        }
        (seq, tasks)
    }

    /// Compresses a chunk, if there is one to do.
    fn run_job(&mut self) -> Result<bool> {
        let Some(job) = self.shared.state().jobs.pop_front() else { return Ok(false) };
        let shared = self.shared;
        let raw = &job.window.bytes[job.range.clone()];
        let claimed = job.claimed || shared.claim(job.digest);
        if !claimed {
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
        if let Some(chunk) = shared.state().chunks.get_mut(&job.digest) {
            chunk.stored = Progressed::Ready(Box::new(stored));
        }
        shared.nudge();
        Ok(true)
    }

    /// Waits until `bytes` more may be in flight for file `seq`, and works on chunks meanwhile; `None` to stop.
    pub(super) fn acquire(&mut self, bytes: u64, seq: u64, file: &Arc<AtomicU64>) -> Result<Option<Permit>> {
        let shared = self.shared;
        // `Permit::drop` relies on it.
        debug_assert!(bytes <= WINDOW as u64);
        loop {
            let seen = shared.flight.bell.count();
            if shared.stopped() {
                return Ok(None);
            }
            // Chunks first, but so that some are left for the others while this thread reads.
            let jobs = shared.state().jobs.len();
            let fits = shared.flight.has_room(bytes);
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
}
