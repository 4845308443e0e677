// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes in flight: what windows and compressed chunks hold of the budget.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::bell::Bell;
use super::WINDOW;

/// Bytes in flight, and the bell that workers wait for.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) bytes: AtomicU64,
    /// So many bytes may be in flight.
    pub(super) budget: u64,
    pub(super) bell: Bell,
}

impl Flight {
    /// Nothing in flight.
    pub(super) fn new(budget: u64) -> Self {
        Self { bytes: AtomicU64::new(0), budget, bell: Bell::default() }
    }

    /// Whether so many more bytes fit.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes.load(Ordering::SeqCst) + bytes <= self.budget
    }
}

/// Bytes in flight; they land when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    pub(super) flight: Arc<Flight>,
    pub(super) file: Arc<AtomicU64>,
    pub(super) bytes: u64,
}

impl Permit {
    /// Takes some of the bytes out of it.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { flight: self.flight.clone(), file: self.file.clone(), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.file.fetch_sub(self.bytes, Ordering::SeqCst);
        let before = self.flight.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        // Nobody asks for more than a window at once: a worker that waits found less room than that, and the drop that makes it sees so here.
        // Jobs and files have rings of their own.
        if before + WINDOW as u64 > self.flight.budget {
            self.flight.bell.ring();
        }
    }
}
