// SPDX-License-Identifier: GPL-2.0-or-later

//! Steps that may take long, by name, while they go on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes from which the work on a file is a step of its own: a fraction of a second, and few files have more.
pub const LONG: u64 = 64 << 20;

/// The steps that are going on, on all threads.
#[derive(Debug, Default)]
pub struct Steps(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// In the order in which they began.
    steps: Vec<(u64, String, Instant)>,
}

/// A step, until this is dropped.
#[derive(Debug)]
#[must_use = "the step ends where this is dropped"]
pub struct Step<'a> {
    steps: &'a Steps,
    number: u64,
}

impl Steps {
    /// A step begins.
    pub fn begin(&self, what: String) -> Step<'_> {
        let mut running = self.lock();
        let number = running.next;
        running.next += 1;
        running.steps.push((number, what, Instant::now()));
        Step { steps: self, number }
    }

    /// The step that began first of those that go on, and how long ago that was.
    pub fn oldest(&self) -> Option<(String, Duration)> {
        self.lock().steps.first().map(|(_, what, begun)| (what.clone(), begun.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.steps.lock().steps.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_step_that_goes_on_is_told() {
        let steps = Steps::default();
        assert_eq!(steps.oldest(), None);
        let first = steps.begin("first".into());
        let second = steps.begin("second".into());
        let oldest = || steps.oldest().map(|(what, _)| what);
        assert_eq!(oldest().as_deref(), Some("first"));
        drop(first);
        assert_eq!(oldest().as_deref(), Some("second"));
        drop(second);
        assert_eq!(oldest(), None);
    }
}
