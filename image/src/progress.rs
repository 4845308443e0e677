// SPDX-License-Identifier: GPL-2.0-or-later

//! How far a piece of work is, and which steps of it are going on.

mod steps;
mod ticker;

use std::fmt;

pub use self::steps::{Step, Steps, LONG};
pub use self::ticker::{Pace, Ticker};

/// Hears how far the work is. Called from all threads.
pub trait Progress: Sync + fmt::Debug {
    /// A stage begins, of `total` units (bytes or records).
    fn begin(&self, stage: &'static str, total: u64);
    /// So many units more are done.
    fn advance(&self, units: u64);
    /// Nothing more comes.
    fn end(&self);
    /// Where steps that may take long are named; `None` where nobody reads them.
    fn steps(&self) -> Option<&Steps> {
        None
    }
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &'static str, _total: u64) {}
    fn advance(&self, _units: u64) {}
    fn end(&self) {}
}
