// SPDX-License-Identifier: GPL-2.0
//! The program that reads the mounted tree: the init of the test machine, which has the same measures there.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::reading::{Done, HELPER, WAITS};

use crate::run;

/// How long one sample may take on a slow machine that others use, too.
const LIMIT: Duration = Duration::from_secs(900);

/// A reader whose files are open, and which waits for the word to begin.
pub(super) struct Reader {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Reader {
    /// Starts it, and waits until it waits.
    pub(super) fn start(guest: &Path, plan: &Path, measure: &str, root: &Path) -> Result<Self> {
        let mut command = run::command(guest);
        command.args([OsStr::new(HELPER), plan.as_os_str(), OsStr::new(measure), root.as_os_str()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start `{}`", run::shown(&command)))?;
        let stdin = child.stdin.take().context("the reader has no standard input")?;
        let stdout = child.stdout.take().context("the reader has no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = sender.send(line);
            }
        });
        let reader = Self { child, stdin, lines };
        let line = reader.line()?;
        ensure!(line == WAITS, "the reader said {line:?}, not {WAITS:?}");
        Ok(reader)
    }

    /// Lets it read, to its end.
    pub(super) fn read(mut self) -> Result<Done> {
        self.stdin.write_all(b"\n").context("failed to write to the reader")?;
        let line = self.line()?;
        let done = serde_json::from_str(&line).with_context(|| format!("the reader said {line:?}"))?;
        let status = self.child.wait().context("failed to wait for the reader")?;
        ensure!(status.success(), "the reader ended with {status}");
        Ok(done)
    }

    fn line(&self) -> Result<String> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the reader is not done within {} s", LIMIT.as_secs())
            }
            // It has said why on standard error.
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the reader has failed"),
        }
    }
}

impl Drop for Reader {
    /// Ends a reader that failed or hangs: a mount in use cannot be unmounted.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
