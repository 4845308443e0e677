// SPDX-License-Identifier: GPL-2.0
//! The kernel's log from one moment on.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{bail, Context, Result};

/// A reader that began at the end of the log.
pub(crate) struct Log {
    file: File,
}

impl Log {
    /// Everything said from now on.
    pub(crate) fn from_now() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("failed to open the kernel's log")?;
        file.seek(SeekFrom::End(0)).context("failed to find the end of the kernel's log")?;
        Ok(Self { file })
    }

    /// The lines of this file system since then.
    pub(crate) fn said(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    // "level,sequence,time,flags;message"
                    if let Some((_, message)) = text.split_once(';') {
                        let message = message.lines().next().unwrap_or_default();
                        if message.contains("tesserafs") {
                            lines.push(message.to_owned());
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // The log went round meanwhile; what is left follows.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("failed to read the kernel's log"),
            }
        }
    }

    /// Fails unless a line of this file system has these words.
    pub(crate) fn expect_line(&mut self, words: &str) -> Result<String> {
        let said = self.said()?;
        match said.iter().rfind(|line| line.contains(words)) {
            Some(line) => Ok(line.clone()),
            None => bail!("no line with {words:?} in the kernel's log: {said:?}"),
        }
    }
}
