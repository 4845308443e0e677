// SPDX-License-Identifier: GPL-2.0-or-later

//! How far a check is, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The work that is being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    /// Empty between stages.
    pub(super) name: &'static str,
    /// How many stages there were, this one included.
    pub(super) number: u32,
    pub(super) begun: Instant,
}

/// The stage, and how much of it is done.
#[derive(Debug)]
pub(super) struct Far {
    total: AtomicU64,
    done: AtomicU64,
    stage: Mutex<Stage>,
}

impl Default for Far {
    fn default() -> Self {
        let stage = Stage { name: "", number: 0, begun: Instant::now() };
        Self { total: AtomicU64::new(0), done: AtomicU64::new(0), stage: Mutex::new(stage) }
    }
}

impl Far {
    pub(super) fn begin(&self, name: &'static str, total: u64) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        *stage = Stage { name, number: stage.number + 1, begun: Instant::now() };
    }

    /// No stage goes on.
    pub(super) fn end(&self) {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).name = "";
    }

    pub(super) fn advance(&self, units: u64) {
        // An image may say anything of its sizes.
        let add = |done: u64| Some(done.saturating_add(units));
        let _ = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn percent(&self) -> u128 {
        let total = self.total.load(Ordering::Relaxed).max(1);
        let done = self.done.load(Ordering::Relaxed).min(total);
        // A product of two numbers of bytes needs more than 64 bits.
        u128::from(done) * 100 / u128::from(total)
    }
}
