// SPDX-License-Identifier: GPL-2.0

//! A worker: reads, hashes, cuts and compresses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tesserafs_format::limits::{FRAME_BLOCK, PLAIN_DIGEST_MAX};
use tesserafs_format::{chunk_digest, x86, Codec};
use zstd_safe::{CCtx, CParameter, ParamSwitch};

use super::chunk::{Event, FileEvents, Job, Progressed, Stored, StoredBytes, Window};
use super::digest::{sha256, Sha2};
use super::permit::Permit;
use super::shared::Shared;
use super::WINDOW;
use crate::chunker::{ContentHasher, Cutter, FastCdc, Piece, Summary};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::source::{FileTask, OpenFile, Source};

/// Bytes that the file the sequencer waits for may have in flight beyond the budget.
const HEAD_EXTRA: u64 = 8 << 20;

/// Zeros that are digested before the thread looks whether the build has ended: some hundredths of a second.
const ZEROS: u64 = 32 << 20;

/// A thread that reads, hashes, cuts and compresses.
pub(super) struct Worker<'a, F> {
    shared: &'a Shared<F>,
    compressor: CCtx<'static>,
    scratch: Vec<u8>,
    filtered: Vec<u8>,
    cdc: FastCdc,
}

impl<'a, F: Send> Worker<'a, F> {
    pub(super) fn new(shared: &'a Shared<F>) -> Result<Self> {
        let mut compressor = CCtx::try_create().ok_or(Error::Compress("out of memory"))?;
        let parameters = [
            CParameter::CompressionLevel(shared.profile.level as i32),
            CParameter::MaxBlockSize(FRAME_BLOCK),
            CParameter::UseBlockSplitter(ParamSwitch::Disable),
        ];
        for parameter in parameters {
            let set = compressor.set_parameter(parameter);
            set.map_err(|code| Error::Compress(zstd_safe::get_error_name(code)))?;
        }
        let cdc = FastCdc::new(&shared.profile);
        Ok(Self { shared, compressor, scratch: Vec::new(), filtered: Vec::new(), cdc })
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
        let (seq, task) = state.tasks.pop_front()?;
        state.files.push_back(FileEvents { ino: task.ino, size: task.size, events: VecDeque::new() });
        Some((seq, task))
    }

    /// Hashes and compresses a chunk, if there is one to do.
    fn run_job(&mut self) -> Result<bool> {
        let Some(job) = self.shared.state().jobs.pop_front() else { return Ok(false) };
        let shared = self.shared;
        let raw = &job.window.bytes[job.range.clone()];
        let digest = *job.digest.get_or_init(|| sha256(raw));
        let claimed = job.claimed || shared.state().claim(digest);
        if !claimed {
            shared.nudge();
            return Ok(true);
        }
        let codec = self.compress(raw)?;
        let nobody = Arc::new(AtomicU64::new(0));
        let stored = if self.scratch.len() < raw.len() {
            Stored {
                digest: chunk_digest::<Sha2>(&self.scratch),
                raw_len: raw.len() as u32,
                codec,
                bytes: StoredBytes::Compressed(self.scratch.as_slice().to_vec()),
                _permit: shared.permit(self.scratch.len() as u64, &nobody),
            }
        } else {
            Stored {
                digest: chunk_digest::<Sha2>(raw),
                raw_len: raw.len() as u32,
                codec: Codec::Plain,
                bytes: StoredBytes::Plain(job.window.clone(), job.range.clone()),
                _permit: shared.permit(0, &nobody),
            }
        };
        if let Some(chunk) = shared.state().chunks.get_mut(&digest) {
            chunk.stored = Progressed::Ready(Box::new(stored));
        }
        shared.nudge();
        Ok(true)
    }

    /// Compresses raw bytes into the scratch memory, by the codec that suits them.
    fn compress(&mut self, raw: &[u8]) -> Result<Codec> {
        let (codec, from) = if x86::is_worthwhile(raw) {
            self.filtered.clear();
            self.filtered.extend_from_slice(raw);
            x86::encode(&mut self.filtered);
            (Codec::ZstdX86, self.filtered.as_slice())
        } else {
            (Codec::Zstd, raw)
        };
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(from.len()));
        self.compressor
            .compress2(&mut self.scratch, from)
            .map_err(|code| Error::Compress(zstd_safe::get_error_name(code)))?;
        Ok(codec)
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
        // Of a longer file none are digested.
        let step = if task.size <= PLAIN_DIGEST_MAX { ZEROS } else { task.size };
        let mut pos = 0;
        // The bytes that a window leaves to the next one, a chunk and some zeros at most, have no permit of
        // their own.
        while pos < task.size {
            let data = open.data(pos)?;
            let gap = data.start - pos;
            if gap > 0 {
                let mut rest = gap;
                while rest > 0 && !shared.stopped() {
                    let part = rest.min(step);
                    hasher.zeros(part);
                    rest -= part;
                }
                if let Some(bytes) = cutter.skip_zeros(gap, &mut pieces) {
                    let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
                    self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), None);
                }
                progress.read(gap);
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
        let known = self.shared.state().contents.contains_key(&summary.digest);
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
