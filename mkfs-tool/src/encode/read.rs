// SPDX-License-Identifier: GPL-2.0-or-later

//! A worker with files: reads, hashes and cuts them, and hands over what it found.

use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use tesserafs_format::limits::BLOCK_SIZE;
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

/// Files that a worker has open at once: they are hashed in less time together.
const OPEN_TOGETHER: usize = 8;

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
        let mut jobs = Vec::new();
        let mut files = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks(OPEN_TOGETHER) {
            let (open, contents): (Vec<_>, Vec<_>) = source.read_each(tasks)?.into_iter().unzip();
            debug_assert_eq!(contents.len(), tasks.len());
            let summaries = Summary::of_each(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (mut file, summary) in open.into_iter().zip(&summaries) {
                file.confirm(summary)?;
                file.close()?;
            }
            for (content, summary) in contents.into_iter().zip(summaries) {
                let own = permit.split(content.len() as u64);
                files.push(self.whole(content, summary, own, &mut jobs));
            }
        }
        progress.read(total);
        self.hand_over(seq, files, jobs);
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

    /// Cuts a file that lies in one window; its events.
    fn whole(&self, content: Vec<u8>, summary: Summary, permit: Permit, jobs: &mut Vec<Job>) -> Vec<Event> {
        let size = content.len();
        let small = |bytes, permit| {
            let window = Arc::new(Window { bytes, _permit: permit });
            vec![Event::Small { window }, Event::End(summary)]
        };
        let is_small = size <= self.shared.profile.small_max as usize;
        let has_zeros = summary.blocks < size.div_ceil(BLOCK_SIZE) as u64;
        if is_small && !has_zeros {
            // The sequencer sees whether it is known: there is nothing to be saved here.
            return small(Arc::new(content), permit);
        }
        if self.shared.state().contents.get(&summary.digest).is_some() {
            return vec![Event::End(summary)];
        }
        let mut cutter = Cutter::new(self.cdc, &self.shared.profile);
        *cutter.window() = content;
        let mut pieces = Vec::new();
        let bytes = cutter.advance(true, 0, &mut pieces);
        let has_hole = pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. }));
        if is_small && !has_hole {
            return small(bytes, permit);
        }
        let digests = |bytes: &[u8], chunks: &[&[u8]]| match chunks {
            // A content that is one chunk has the chunk's digest.
            [_] => vec![summary.digest],
            _ => each(bytes, chunks),
        };
        let mut events = chunk_events(bytes, permit, pieces, digests, jobs);
        events.push(Event::End(summary));
        events
    }

    /// Hands over what was found in a window; `end` is about a content that is complete.
    fn deliver(
        &self,
        seq: u64,
        bytes: Arc<Vec<u8>>,
        permit: Permit,
        pieces: Vec<Piece>,
        digests: impl FnOnce(&[u8], &[&[u8]]) -> Vec<Digest>,
        end: Option<Summary>,
    ) {
        let mut jobs = Vec::with_capacity(pieces.len());
        let mut events = chunk_events(bytes, permit, pieces, digests, &mut jobs);
        events.extend(end.map(Event::End));
        self.hand_over(seq, vec![events], jobs);
    }

    /// Hands what was found in files, from number `seq`, to the sequencer, and their chunks to the workers.
    fn hand_over(&self, seq: u64, files: Vec<Vec<Event>>, jobs: Vec<Job>) {
        let mut state = self.shared.state();
        let head = state.head;
        // The sequencer has finished none of them.
        let first = (seq - head) as usize;
        for (file, events) in state.files.iter_mut().skip(first).zip(files) {
            if file.events.is_empty() {
                file.events = events;
            } else {
                file.events.extend(events);
            }
        }
        state.jobs.extend(jobs);
        // This worker takes one of them itself.
        let several = state.jobs.len() > 1;
        drop(state);
        if several {
            self.shared.flight.bell.ring();
        }
        if seq == head {
            self.shared.nudge();
        }
    }
}

/// Turns pieces of a window into events and jobs; `digests` digests the bytes of each.
fn chunk_events(
    bytes: Arc<Vec<u8>>,
    permit: Permit,
    pieces: Vec<Piece>,
    digests: impl FnOnce(&[u8], &[&[u8]]) -> Vec<Digest>,
    jobs: &mut Vec<Job>,
) -> Vec<Event> {
    let chunk_bytes = |piece: &Piece| match piece {
        Piece::Hole { .. } => 0..0,
        Piece::Chunk { range, .. } => range.clone(),
    };
    let chunks: Vec<&[u8]> = pieces.iter().map(|piece| &bytes[chunk_bytes(piece)]).collect();
    let digests = digests(&bytes, &chunks);
    let window = Arc::new(Window { bytes, _permit: permit });
    let event = |(piece, digest)| match piece {
        Piece::Hole { start } => Event::Hole { start },
        Piece::Chunk { start, range } => {
            let len = range.len() as u32;
            jobs.push(Job { window: window.clone(), range, digest, claimed: false });
            Event::Chunk { start, len, digest }
        }
    };
    pieces.into_iter().zip(digests).map(event).collect()
}

/// The digests of chunks, where nothing else is to be digested meanwhile.
fn each(_bytes: &[u8], chunks: &[&[u8]]) -> Vec<Digest> {
    sha256_each(chunks)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::super::chunk::FileEvents;
    use super::super::shared::Shared;
    use super::super::{sha256, Resources};
    use super::*;
    use crate::config::default_profile;
    use crate::packs::Parents;

    #[test]
    fn jobs_that_come_one_by_one_wake_the_others() {
        let known = Parents::default();
        let profile = default_profile(1);
        let (to_sequencer, _news) = sync_channel(1);
        let resources = Resources { threads: 2, budget: 64 << 20 };
        let shared = Shared::<()>::new(0, &known, to_sequencer, resources, &profile);
        let worker = Worker::new(&shared).unwrap();
        shared.state().files.push_back(FileEvents { ino: 2, size: 1 << 30, events: Vec::new() });
        let hand_over = |number: u8| {
            let before = shared.flight.bell.count();
            let permit = shared.permit(1, &Arc::default());
            let window = Arc::new(Window { bytes: Arc::new(vec![number]), _permit: permit });
            let job = Job { window, range: 0..1, digest: sha256(&[number]), claimed: false };
            worker.hand_over(0, vec![Vec::new()], vec![job]);
            shared.flight.bell.count() > before
        };
        assert!(!hand_over(0), "a job that the worker takes itself");
        assert!(hand_over(1) && hand_over(2));
    }
}
