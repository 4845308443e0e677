// SPDX-License-Identifier: GPL-2.0
//! The traffic that passed the proxy.

use super::Fault;

/// Requests and bytes of a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    /// In the order in which they ended.
    pub(crate) requests: Vec<Seen>,
    /// Connections that clients opened.
    pub(crate) connections: u64,
    /// Bytes that clients got, with heads.
    pub(crate) down: u64,
    /// Bytes that they sent, with heads.
    pub(crate) up: u64,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// As the client sent it.
    pub(crate) target: String,
    /// The range that it asked for.
    pub(crate) range: Option<String>,
    /// Whether it carried credentials.
    pub(crate) is_authorized: bool,
    /// Of the answer; nothing where there was none.
    pub(crate) status: Option<u16>,
    /// Of the answer's body, as far as they were sent.
    pub(crate) bytes: u64,
    /// The fault that it met.
    pub(crate) fault: Option<Fault>,
}

impl Traffic {
    /// The requests of a method whose paths have this in them.
    pub(crate) fn of<'t>(&'t self, method: &'t str, part: &'t str) -> impl Iterator<Item = &'t Seen> {
        self.requests.iter().filter(move |seen| seen.method == method && seen.target.contains(part))
    }

    /// Bytes of the bodies that such requests brought.
    pub(crate) fn bytes(&self, method: &str, part: &str) -> u64 {
        self.of(method, part).map(|seen| seen.bytes).sum()
    }

    /// How many requests were answered otherwise than the registry does.
    pub(crate) fn faults(&self) -> usize {
        self.requests.iter().filter(|seen| seen.fault.is_some()).count()
    }
}
