// SPDX-License-Identifier: GPL-2.0
//! Messages from the guest to the host, one JSON object a line, over a virtio port of their own.
//!
//! The console is not used for them, so the output of a test there cannot be mistaken for a result.

use serde::{Deserialize, Serialize};

/// Name of the virtio port; the guest finds its device by it.
pub const PORT: &str = "tesserafs.verdict";

/// One line from guest to host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A test begins. Everything that the machine says until the next message belongs to it.
    Started {
        /// Full name, `group/test`.
        name: String,
    },
    /// A test ended.
    Finished {
        /// Full name, `group/test`.
        name: String,
        /// Why it failed; `None` is success.
        error: Option<String>,
        /// Something worth reading in a success: counts, rates.
        note: String,
        /// How long it took, in the guest's time.
        seconds: f64,
    },
    /// A line to show as it is (the demonstration).
    Say {
        /// The line.
        text: String,
    },
    /// The last message: every test of the group was run.
    Done {
        /// How many succeeded.
        passed: u32,
        /// How many failed.
        failed: u32,
    },
}
