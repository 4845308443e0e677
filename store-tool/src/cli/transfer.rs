// SPDX-License-Identifier: GPL-2.0-or-later

//! The options of pulls and pushes about what they say: progress, and the report at the end.

use std::io::{self, IsTerminal};

use clap::Args;
use mkfs_tesserafs::progress::{Bar, Progress, Silent};
use tesserafs_image::{Cancel, Error};

use super::interrupt::Interrupt;
use super::store::print;

/// The options.
#[derive(Args, Debug)]
pub(super) struct TransferArgs {
    /// Report as JSON
    #[arg(long)]
    json: bool,

    /// No report, no progress
    #[arg(long, short)]
    quiet: bool,
}

/// A report, for people and for programs.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) json: String,
}

impl TransferArgs {
    /// Whether each blob is told of in a line: where nobody sees a bar.
    pub(super) fn lines(&self) -> bool {
        !self.quiet && !self.json && !io::stderr().is_terminal()
    }

    /// Runs `transfer` with a bar on a terminal, and prints its report. A signal ends it, with `state` for the user.
    pub(super) fn run(
        &self,
        cancel: &Cancel,
        state: &'static str,
        transfer: impl FnOnce(&dyn Progress) -> Result<Said, Error>,
    ) -> Result<(), String> {
        let progress: Box<dyn Progress> = match self.quiet || !io::stderr().is_terminal() {
            true => Box::new(Silent),
            false => Box::new(Bar::transfer()),
        };
        let interrupt = Interrupt::watch(cancel, state)?;
        let done = transfer(&*progress);
        drop(progress);
        let said = done.map_err(|error| interrupt.explain(&error))?;
        match (self.json, self.quiet) {
            (true, _) => print(&said.json),
            (false, false) => print(&said.text),
            (false, true) => Ok(()),
        }
    }
}
