// SPDX-License-Identifier: GPL-2.0-or-later

//! How many requests a host gets, of all threads together.
//!
//! A bucket of tokens fills at a rate; each request takes one. The rate halves when the host says that it is busy, and grows with
//! each request that it answers, so that it settles a little below what the host allows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tesserafs_image::{Cancel, Error};

use super::retry::sleep;

/// Requests a second at first, and at most: more than threads ask for.
const RATE_MAX: f64 = 2000.0;
/// The rate that is believed to be too high when a host first says that it is busy.
const RATE_BUSY: f64 = 100.0;
/// At least, however busy the host is.
const RATE_MIN: f64 = 0.5;
/// Requests at once after a pause.
const BURST: f64 = 16.0;
/// The gain of the rate by an answered request.
const GROWTH: f64 = 0.1;
/// Requests that were under way when the host became busy say so together: they halve the rate once.
const ONCE: Duration = Duration::from_secs(1);

/// The bucket of a host.
#[derive(Debug)]
pub(super) struct Bucket(Mutex<State>);

#[derive(Debug)]
struct State {
    rate: f64,
    tokens: f64,
    filled: Instant,
    /// The host wants to be left alone until then.
    closed_until: Instant,
    halved: Option<Instant>,
}

impl Bucket {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State {
            rate: RATE_MAX,
            tokens: BURST,
            filled: now,
            closed_until: now,
            halved: None,
        }))
    }

    /// Waits for a token.
    pub(super) fn take(&self, cancel: &Cancel) -> Result<(), Error> {
        loop {
            let wait = self.lock().take(Instant::now());
            if wait.is_zero() {
                return cancel.check();
            }
            sleep(wait, cancel)?;
        }
    }

    /// The host answered.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        state.rate = (state.rate + GROWTH).min(RATE_MAX);
    }

    /// The host is busy, and wants to be left alone for some time.
    pub(super) fn busy(&self, wait: Option<Duration>) {
        self.lock().busy(Instant::now(), wait);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a token, or says how long to wait before the next attempt.
    fn take(&mut self, now: Instant) -> Duration {
        let closed = self.closed_until.saturating_duration_since(now);
        if !closed.is_zero() {
            return closed;
        }
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(BURST);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / self.rate).max(Duration::from_millis(1))
    }

    fn busy(&mut self, now: Instant, wait: Option<Duration>) {
        self.closed_until = self.closed_until.max(now + wait.unwrap_or_default());
        if self.halved.is_some_and(|halved| now.saturating_duration_since(halved) < ONCE) {
            return;
        }
        self.halved = Some(now);
        self.rate = (self.rate.min(RATE_BUSY) / 2.0).max(RATE_MIN);
        // Nor does it get at once what was saved up.
        (self.tokens, self.filled) = (0.0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that are let through in a second.
    fn let_through(bucket: &Bucket, from: Instant, seconds: u64) -> u64 {
        let mut state = bucket.lock();
        (0..seconds * 1000).filter(|ms| state.take(from + Duration::from_millis(*ms)).is_zero()).count()
            as u64
    }

    #[test]
    fn a_busy_host_gets_fewer_requests_and_more_again_later() {
        let bucket = Bucket::new();
        let mut now = Instant::now();
        // As often as it is asked.
        assert_eq!(let_through(&bucket, now, 1), 1000);
        for expected in [50, 25, 12, 6] {
            now += Duration::from_secs(2);
            // Eight threads are told at once.
            (0..8).for_each(|_| bucket.lock().busy(now, None));
            let seen = let_through(&bucket, now, 1);
            assert!((expected - 1..=expected + 2).contains(&seen), "{seen}, expected {expected}");
        }
        (0..100).for_each(|_| bucket.answered());
        now += Duration::from_secs(10);
        let seen = let_through(&bucket, now, 1);
        assert!((16..=33).contains(&seen), "{seen}");
    }

    #[test]
    fn nobody_asks_while_the_host_wants_to_be_left_alone() {
        let bucket = Bucket::new();
        let now = Instant::now();
        bucket.lock().busy(now, Some(Duration::from_secs(3)));
        assert_eq!(let_through(&bucket, now, 3), 0);
        assert!(let_through(&bucket, now + Duration::from_secs(3), 1) > 0);
    }
}
