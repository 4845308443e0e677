// SPDX-License-Identifier: GPL-2.0-or-later

//! The line to the registry: how fast it is, and whether ranges come by it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::registry::Answer;

/// Bytes between two pieces that are fetched rather than asking twice, by what is known of the line: these at least, and at most.
const GAP_MIN: u64 = 16 << 10;
const GAP_MAX: u64 = 256 << 10;

/// Measurements of the line.
#[derive(Debug, Default)]
pub(super) struct Speed(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    /// The least time from a request to the first byte of its answer.
    first_byte: Option<Duration>,
    /// Bytes, and the time between the first and the last of them, of the longest answer.
    longest: Option<(u64, Duration)>,
}

impl Speed {
    /// Takes an answer of `bytes`: the time until it began, and from then on.
    pub(super) fn learn(&self, first: Duration, bytes: u64, rest: Duration) {
        let mut measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        measured.first_byte = Some(measured.first_byte.map_or(first, |least| least.min(first)));
        if measured.longest.is_none_or(|(longest, _)| bytes > longest) {
            measured.longest = Some((bytes, rest));
        }
    }

    /// Bytes that are not worth a request of their own: as many as come while one is answered, for one of the connections.
    pub(super) fn gap(&self, connections: usize) -> u64 {
        let measured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first_byte), Some((bytes, time))) = (measured.first_byte, measured.longest) else {
            return GAP_MIN;
        };
        let by_connection = bytes as f64 / time.as_secs_f64().max(1e-6);
        let bytes = by_connection * first_byte.as_secs_f64() / connections as f64;
        (bytes as u64).clamp(GAP_MIN, GAP_MAX)
    }
}

/// Whether a registry answers a range by a range. The first request of several finds out, and the others wait until its answer begins: an
/// answer with all of a blob is the answer to all requests for it.
#[derive(Debug)]
pub(super) struct Ranges {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Unknown,
    Asked,
    Known(Answer),
    /// The first request failed.
    Failed,
}

/// The permission to ask for a range.
#[derive(Debug)]
pub(super) struct Permit<'r>(&'r Ranges);

impl Ranges {
    /// Begins with what is known from requests before.
    pub(super) fn new(known: Option<Answer>) -> Self {
        Self { state: Mutex::new(known.map_or(State::Unknown, State::Known)), changed: Condvar::new() }
    }

    /// Waits until ranges may be asked for; never, where the registry ignores them, or the first request failed.
    pub(super) fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        loop {
            match *state {
                State::Unknown => {
                    *state = State::Asked;
                    return Some(Permit(self));
                }
                State::Asked => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Known(Answer::Part) => return Some(Permit(self)),
                State::Known(Answer::Whole) | State::Failed => return None,
            }
        }
    }

    /// The answer to the request for a range began. One with all of a blob is not forgotten when another one has a range: permits were
    /// refused since, and the ranges that were not asked for come with whole blobs.
    pub(super) fn learn(&self, answer: Answer) {
        let mut state = self.lock();
        if !matches!(*state, State::Known(Answer::Whole)) {
            *state = State::Known(answer);
        }
        self.changed.notify_all();
    }

    /// How a range is answered, if a request has found out.
    pub(super) fn known(&self) -> Option<Answer> {
        match *self.lock() {
            State::Known(answer) => Some(answer),
            State::Unknown | State::Asked | State::Failed => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // This is the first request then, and no answer began.
        if matches!(*state, State::Asked) {
            *state = State::Failed;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_comes_while_a_request_is_answered() {
        let speed = Speed::default();
        assert_eq!(speed.gap(1), GAP_MIN);
        speed.learn(Duration::from_millis(100), 1_000_000, Duration::from_secs(1));
        speed.learn(Duration::from_millis(200), 10, Duration::from_secs(1));
        assert_eq!((speed.gap(1), speed.gap(2), speed.gap(100)), (100_000, 50_000, GAP_MIN));
        speed.learn(Duration::from_millis(300), 100_000_000, Duration::ZERO);
        assert_eq!(speed.gap(4), GAP_MAX);
    }

    /// How many of eight others may ask for ranges, when the first request has ended so.
    fn permitted(first: impl FnOnce(&Ranges, Permit<'_>)) -> usize {
        let ranges = Ranges::new(None);
        let permit = ranges.permit().expect("nothing is known");
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..8).map(|_| scope.spawn(|| ranges.permit().is_some())).collect();
            first(&ranges, permit);
            others.into_iter().map(|other| usize::from(other.join().expect("a thread"))).sum()
        })
    }

    #[test]
    fn the_first_request_tells_all_others_whether_there_are_ranges() {
        assert_eq!(permitted(|ranges, _| ranges.learn(Answer::Part)), 8);
        assert_eq!(permitted(|ranges, _| ranges.learn(Answer::Whole)), 0);
        assert_eq!(permitted(|_, permit| drop(permit)), 0);
        let ranges = Ranges::new(Some(Answer::Part));
        assert!(ranges.permit().is_some() && ranges.permit().is_some());
        assert_eq!(ranges.known(), Some(Answer::Part));
        assert!(Ranges::new(Some(Answer::Whole)).permit().is_none());
        // Permits were refused meanwhile.
        ranges.learn(Answer::Whole);
        ranges.learn(Answer::Part);
        assert_eq!(ranges.known(), Some(Answer::Whole));
    }
}
