// SPDX-License-Identifier: GPL-2.0-or-later

//! The bound on what is in memory.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tesserafs_image::parallel::First;

use super::lock;

/// Lets in so many.
pub(super) struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), left: Condvar::new() }
    }

    /// Waits for a place; false once `stop` is set.
    ///
    /// The piece that a digest needs next never waits here: the thread that it was given to is inside.
    pub(super) fn enter(&self, stop: &First) -> bool {
        let mut free = lock(&self.free);
        while *free == 0 {
            if stop.is_set() {
                return false;
            }
            let wait = Duration::from_millis(50);
            free = self.left.wait_timeout(free, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        true
    }

    pub(super) fn leave(&self) {
        *lock(&self.free) += 1;
        self.left.notify_one();
    }
}
