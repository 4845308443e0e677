// SPDX-License-Identifier: GPL-2.0-or-later

//! The next item in tables that are filled in order.

/// The next place in a table that is filled in order; unknown behind a record that could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next(pub(super) Option<u64>);

impl Next {
    /// Takes `len` from `start`; the expected start is the error if that is another.
    pub(super) fn take(&mut self, start: u64, len: u64) -> Result<(), u64> {
        let expected = self.0.replace(start.saturating_add(len));
        match expected {
            Some(expected) if expected != start => Err(expected),
            _ => Ok(()),
        }
    }

    /// Whether the table ends elsewhere.
    pub(super) fn misses(&self, end: u64) -> Option<u64> {
        self.0.filter(|at| *at != end)
    }
}

/// Indices that are given in the order of their first use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbering {
    pub(super) next: u64,
    /// Whether a record that could not be read may have used the next one.
    pub(super) gap: bool,
}

impl Numbering {
    /// Takes a use of `index`; the expected index is the error if this skips it.
    pub(super) fn take(&mut self, index: u64) -> Result<(), u64> {
        let expected = self.next;
        if index < expected {
            return Ok(());
        }
        self.next = index.saturating_add(1);
        if index == expected || std::mem::take(&mut self.gap) {
            Ok(())
        } else {
            Err(expected)
        }
    }
}
