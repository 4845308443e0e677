// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks that are decoded before a reader asks for them.
//!
//! A builder numbers chunks in the order of paths and of bytes. So one rule serves for a reader of a large file and for one who
//! reads all small files of a directory: a reader of the chunks n, n + 1 and n + 2 will want those behind them. Two neighbours alone
//! are no sign: among some hundred chunks, a random one is often the neighbour of one of the last.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Readers in order that are told apart, at most.
const STREAMS: usize = 16;

/// Chunks that are decoded ahead of a reader: of 64 KiB on average, as much as some requests of the kernel.
const DEPTH: u32 = 8;

/// Steps after which a reader is one who reads in order.
const STEPS: u32 = 2;

/// Chunks that wait to be decoded, at most.
const QUEUE: usize = 64;

/// The chunks to decode ahead, and the readers for whom.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    streams: [Stream; STREAMS],
    clock: u64,
    queue: VecDeque<u32>,
    /// Chunks that were read last: threads that serve one reader may get to its requests in another order.
    recent: VecDeque<u32>,
    workers: usize,
    is_over: bool,
}

/// A reader who reads in order, perhaps.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The chunk behind the last one that it read.
    next: u32,
    /// The chunk behind the last one that was queued for it.
    frontier: u32,
    /// How often it went on.
    steps: u32,
    /// When it read last; 0 of a stream that is none.
    asked: u64,
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that somebody reads these chunks, which are not more than a request can have, of `chunks` that there are, and queues those behind them for a reader in order.
    pub(super) fn note(&self, read: Range<u32>, chunks: u32) {
        let mut inner = self.lock();
        if inner.workers == 0 {
            return;
        }
        // Their reader decodes them now.
        inner.queue.retain(|index| !read.contains(index));
        let more = inner.advance(&read);
        inner.recent.extend(read.clone());
        let too_many = inner.recent.len().saturating_sub(QUEUE);
        inner.recent.drain(..too_many);
        let mut is_new = false;
        for index in more.start..more.end.min(chunks) {
            let is_known = inner.queue.contains(&index) || inner.recent.contains(&index);
            if inner.queue.len() < QUEUE && !is_known {
                inner.queue.push_back(index);
                is_new = true;
            }
        }
        drop(inner);
        if is_new {
            self.wake.notify_all();
        }
    }

    /// The next chunk to decode, once there is one; `None` when it is all over.
    pub(super) fn next(&self) -> Option<u32> {
        let mut inner = self.lock();
        loop {
            if inner.is_over {
                return None;
            }
            match inner.queue.pop_front() {
                Some(index) => return Some(index),
                None => inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A thread begins to ask for the next chunks.
    pub(super) fn begin(&self) {
        self.lock().workers += 1;
    }

    /// Lets all threads that ask for the next chunk go.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.wake.notify_all();
    }
}

impl Inner {
    /// Advances the stream that these chunks continue, or begins one. The result is what is to be decoded ahead.
    fn advance(&mut self, read: &Range<u32>) -> Range<u32> {
        self.clock += 1;
        let clock = self.clock;
        // The chunk in which a request ends is often the first one of the next request.
        let continues = |stream: &Stream| {
            stream.asked > 0 && (stream.next == read.start || stream.next == read.start + 1)
        };
        if let Some(stream) = self.streams.iter_mut().find(|stream| continues(stream)) {
            stream.asked = clock;
            if read.end <= stream.next {
                return 0..0;
            }
            stream.next = read.end;
            stream.steps = stream.steps.saturating_add(1);
            if stream.steps < STEPS {
                return 0..0;
            }
            let more = stream.frontier.max(read.end)..read.end.saturating_add(DEPTH);
            stream.frontier = stream.frontier.max(more.end);
            return more;
        }
        if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.asked) {
            *oldest = Stream { next: read.end, frontier: read.end, steps: 0, asked: clock };
        }
        0..0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(ahead: &Ahead) -> Vec<u32> {
        ahead.lock().queue.drain(..).collect()
    }

    #[test]
    fn readers_in_order_are_told_from_others() {
        let ahead = Ahead::default();
        ahead.begin();
        for read in [10..11, 500..501, 70..72, 3..4] {
            ahead.note(read, 1000);
            assert_eq!(queued(&ahead), [] as [u32; 0]);
        }
        ahead.note(11..12, 1000);
        assert_eq!(queued(&ahead), [] as [u32; 0]);
        ahead.note(12..13, 1000);
        assert_eq!(queued(&ahead), Vec::from_iter(13..21));
        // Nothing twice, and nothing for a reader who stays where it is.
        ahead.note(13..15, 1000);
        assert_eq!(queued(&ahead), Vec::from_iter(21..23));
        ahead.note(14..15, 1000);
        assert_eq!(queued(&ahead), [] as [u32; 0]);
        // Its last chunk once more, and on; no chunk behind the last.
        ahead.note(71..73, 75);
        ahead.note(72..74, 75);
        assert_eq!(queued(&ahead), [74]);
        // A request that overtakes the one before it.
        ahead.note(200..201, 1000);
        ahead.note(201..202, 1000);
        ahead.note(206..210, 1000);
        ahead.note(202..206, 1000);
        assert_eq!(queued(&ahead), Vec::from_iter(210..214));
    }
}
