// SPDX-License-Identifier: GPL-2.0-or-later

//! A worker with files: reads, hashes and cuts them, and hands over what it found.

use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use tesserafs_format::Digest;
use tesserafs_image::hash::sha256_each;
use tesserafs_image::text::size;

use super::chunk::{Event, Job, Window};
use super::permit::Permit;
use super::worker::Worker;
use super::WINDOW;
use crate::chunker::{ContentHasher, Cutter, Piece, Summary};
use crate::error::{Error, Result, Shown};
use crate::progress::{step, Progress, LONG};
use crate::source::{FileTask, OpenFile, Source};

impl<F: Send> Worker<'_, F> {
    /// Reads, hashes and cuts files that lie in a window together.
    ///
    /// The permit is for all of them, as none is handed over before all are read: one that the sequencer waits for must not wait
    /// for the bytes of another.
    pub(super) fn read_together<S: Source<File = F>>(
        &mut self,
        source: &S,
        seq: u64,
        tasks: &[FileTask<F>],
        progress: &dyn Progress,
    ) -> Result<()> {
        let in_flight = Arc::new(AtomicU64::new(0));
        let total = tasks.iter().map(|task| task.size).sum();
        let Some(mut permit) = self.acquire(total, seq, &in_flight)? else { return Ok(()) };
        let mut open = Vec::with_capacity(tasks.len());
        let mut contents = Vec::with_capacity(tasks.len());
        for task in tasks {
            let mut file = source.open(task)?;
            let mut content = Vec::new();
            file.read(0..task.size, &mut content)?;
            open.push(file);
            contents.push(content);
        }
        let summaries = Summary::of_each(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for (mut file, summary) in open.into_iter().zip(&summaries) {
            file.confirm(summary)?;
            file.close()?;
        }
        progress.read(total);
        for ((seq, content), summary) in (seq..).zip(contents).zip(summaries) {
            let own = permit.split(content.len() as u64);
            self.finish_whole(seq, content, summary, own);
        }
        Ok(())
    }

    /// Reads, hashes and cuts a file that is longer than a window: the chunks that it finds are hashed beside the content.
    pub(super) fn read<S: Source<File = F>>(
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
                    self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), each, None);
                }
                pos = data.start;
            }
            let end = data.end.min(pos + WINDOW as u64);
            let Some(permit) = self.acquire(end - pos, seq, &in_flight)? else { return Ok(()) };
            let window = cutter.window();
            let carried = window.len();
            open.read(pos..end, window)?;
            let bytes = cutter.advance(false, WINDOW, &mut pieces);
            let digests = |bytes: &[u8], chunks: &[&[u8]]| hasher.data_beside(&bytes[carried..], chunks);
            self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), digests, None);
            progress.read(end - pos);
            pos = end;
        }
        let summary = hasher.finish();
        open.confirm(&summary)?;
        open.close()?;
        let bytes = cutter.advance(true, 0, &mut pieces);
        let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
        self.deliver(seq, bytes, permit, pieces, each, Some(summary));
        Ok(())
    }

    /// Goes on with a file that lies in one window.
    fn finish_whole(&self, seq: u64, content: Vec<u8>, summary: Summary, permit: Permit) {
        let known = self.shared.state().contents.get(&summary.digest).is_some();
        if known {
            self.hand_over(seq, vec![Event::End(summary)], Vec::new());
            return;
        }
        let size = content.len();
        let mut cutter = Cutter::new(self.cdc, &self.shared.profile);
        *cutter.window() = content;
        let mut pieces = Vec::new();
        let bytes = cutter.advance(true, 0, &mut pieces);
        let has_hole = pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. }));
        if !has_hole && size <= self.shared.profile.small_max as usize {
            let window = Arc::new(Window { bytes, _permit: permit });
            self.hand_over(seq, vec![Event::Small { window }, Event::End(summary)], Vec::new());
            return;
        }
        let digests = |bytes: &[u8], chunks: &[&[u8]]| match chunks {
            // A content that is one chunk has the chunk's digest.
            [_] => vec![summary.digest],
            _ => each(bytes, chunks),
        };
        self.deliver(seq, bytes, permit, pieces, digests, Some(summary));
    }

    /// Turns pieces of a window into events and jobs; `digests` digests the bytes of each, and `end` is about a content that is
    /// complete.
    fn deliver(
        &self,
        seq: u64,
        bytes: Arc<Vec<u8>>,
        permit: Permit,
        pieces: Vec<Piece>,
        digests: impl FnOnce(&[u8], &[&[u8]]) -> Vec<Digest>,
        end: Option<Summary>,
    ) {
        let chunk_bytes = |piece: &Piece| match piece {
            Piece::Hole { .. } => 0..0,
            Piece::Chunk { range, .. } => range.clone(),
        };
        let chunks: Vec<&[u8]> = pieces.iter().map(|piece| &bytes[chunk_bytes(piece)]).collect();
        let digests = digests(&bytes, &chunks);
        let window = Arc::new(Window { bytes, _permit: permit });
        let mut events = Vec::with_capacity(pieces.len() + 1);
        let mut jobs = Vec::with_capacity(pieces.len());
        for (piece, digest) in pieces.into_iter().zip(digests) {
            events.push(match piece {
                Piece::Hole { start } => Event::Hole { start },
                Piece::Chunk { start, range } => {
                    let len = range.len() as u32;
                    jobs.push(Job { window: window.clone(), range, digest, claimed: false });
                    Event::Chunk { start, len, digest }
                }
            });
        }
        events.extend(end.map(Event::End));
        self.hand_over(seq, events, jobs);
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
}

/// The digests of chunks, where nothing else is to be digested meanwhile.
fn each(_bytes: &[u8], chunks: &[&[u8]]) -> Vec<Digest> {
    sha256_each(chunks)
}
