// SPDX-License-Identifier: GPL-2.0
//! Runs the tests of a group and reports each.

use std::fs::File;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

use anyhow::{anyhow, Context, Result};
use tesserafs_guest::message::Message;

/// A group of tests, with the line to the host.
pub(crate) struct Suite {
    port: File,
    group: String,
    filter: Option<String>,
    passed: u32,
    failed: u32,
}

/// Tests that every group needs, with any filter.
const ALWAYS: [&str; 4] =
    ["module-loads", "no-leak-while-loaded", "module-unloads", "no-leak-after-unloading"];

impl Suite {
    pub(crate) fn new(port: File, group: &str, filter: Option<String>) -> Self {
        Self { port, group: group.to_owned(), filter, passed: 0, failed: 0 }
    }

    /// Runs one test, if the filter wants it. A panic is a failure like any other.
    pub(crate) fn test(&mut self, name: &str, test: impl FnOnce() -> Result<String>) {
        let full = format!("{}/{name}", self.group);
        let wanted = self.filter.as_ref().is_none_or(|filter| full.starts_with(filter.as_str()));
        if !wanted && !ALWAYS.contains(&name) {
            return;
        }
        self.send(&Message::Started { name: full.clone() });
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(anyhow!("the test panicked: {text}"))
        });
        let (error, note) = match result {
            Ok(note) => {
                self.passed += 1;
                (None, note)
            }
            Err(error) => {
                self.failed += 1;
                (Some(format!("{error:#}")), String::new())
            }
        };
        self.send(&Message::Finished { name: full, error, note, seconds: start.elapsed().as_secs_f64() });
    }

    /// Shows a line on the host.
    pub(crate) fn say(&mut self, text: &str) {
        self.send(&Message::Say { text: text.to_owned() });
    }

    /// The verdict.
    pub(crate) fn finish(mut self) -> Result<()> {
        let (passed, failed) = (self.passed, self.failed);
        self.write(&Message::Done { passed, failed }).context("failed to send the verdict")
    }

    /// A message that gets lost makes the host miss a result, and the run fails there.
    fn send(&mut self, message: &Message) {
        if let Err(error) = self.write(message) {
            eprintln!("init: {error:#}");
        }
    }

    fn write(&mut self, message: &Message) -> Result<()> {
        let mut line = serde_json::to_vec(message).context("a message cannot be written down")?;
        line.push(b'\n');
        self.port.write_all(&line).context("failed to write to the host")
    }
}
