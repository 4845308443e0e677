// SPDX-License-Identifier: GPL-2.0-or-later

//! The options of all verbs that make an image, and the report of it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use mkfs_tesserafs::output;
use mkfs_tesserafs::progress::{Bar, Progress, Silent};

/// The options.
#[derive(Args, Debug)]
pub(super) struct Made {
    /// Replace an existing NEW
    #[arg(long, short)]
    pub(super) force: bool,

    /// Report as JSON
    #[arg(long)]
    json: bool,

    /// No report, no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
}

impl Made {
    /// Reports an image: on standard error where standard output has the image.
    pub(super) fn report(
        &self,
        image: &Path,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> String,
    ) -> Result<(), String> {
        let report = match (self.json, self.quiet) {
            (true, _) => json(),
            (false, false) => text(),
            (false, true) => return Ok(()),
        };
        let said = if output::is_stdout(image) {
            io::stderr().write_all(report.as_bytes())
        } else {
            io::stdout().write_all(report.as_bytes())
        };
        match said {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot report: {error}")),
            _ => Ok(()),
        }
    }
}

/// A bar on a terminal.
pub(super) fn bar(made: &Made) -> Box<dyn Progress> {
    if made.quiet || !io::stderr().is_terminal() {
        Box::new(Silent)
    } else {
        Box::new(Bar::new())
    }
}

/// From here on a signal leaves nothing of an unfinished image.
pub(super) fn remove_on_signal() -> Result<(), String> {
    output::remove_on_signal().map_err(|error| format!("cannot wait for signals: {error}"))
}
