// SPDX-License-Identifier: GPL-2.0-or-later

//! Calls again and again while work goes on, so that a step that reports nothing is told of, too.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// When something is said of work that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After so long at first.
    pub first: Duration,
    /// And then after so long each time.
    pub every: Duration,
    /// And once when the work is done.
    pub last: bool,
}

impl Pace {
    /// For a log that is to show progress.
    pub const LOG: Self = Self { first: Duration::from_secs(5), every: Duration::from_secs(5), last: false };

    /// For a log that nobody asked progress for: nothing of work that is done soon, and of any other that it goes on.
    pub const PATIENT: Self =
        Self { first: Duration::from_secs(10), every: Duration::from_secs(30), last: false };
}

/// A thread that calls at a pace, until this is dropped.
#[derive(Debug)]
pub struct Ticker {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Begins to call `tick`. Where the system gives no thread, nothing calls it.
    pub fn start(pace: Pace, mut tick: impl FnMut() + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            let mut wait = pace.first;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                tick();
                wait = pace.every;
            }
            if pace.last {
                tick();
            }
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(work).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_ticker_calls_until_it_is_dropped() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let pace = Pace { first: Duration::from_millis(1), every: Duration::from_millis(1), last: false };
        let ticker = Ticker::start(pace, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        while calls.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        drop(ticker);
        let last = calls.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(calls.load(Ordering::Relaxed), last);
    }

    #[test]
    fn work_that_is_done_soon_is_not_told_of() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        drop(Ticker::start(Pace::PATIENT, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
}
