// SPDX-License-Identifier: GPL-2.0-or-later

//! Waking all threads that wait for a change of something that they share.
//!
//! Workers wait for any of three things: a chunk to compress, a file to read, room in the budget. A channel wakes one
//! thread for one thing; the bell lets all of them look again. The sequencer alone waits for one thing, news, and has a channel.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Wakes threads that wait for a change, without losing one: read the count, look around, wait while the count stands.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Rung>,
    waiters: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    count: u64,
    waiting: usize,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    pub(super) fn ring(&self) {
        let mut state = self.state();
        state.count += 1;
        // A notification without a waiter is a system call all the same.
        if state.waiting > 0 {
            self.waiters.notify_all();
        }
    }

    pub(super) fn wait(&self, seen: u64) {
        let mut state = self.state();
        state.waiting += 1;
        while state.count == seen {
            state = self.waiters.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}
