// SPDX-License-Identifier: GPL-2.0
//! How much a mount has decompressed: one of the counters that tesserafs has in sysfs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::reading::System;

use crate::observe::folder_of;

/// How long helpers are given to decode what was read ahead when the clock stopped.
const SETTLE: Duration = Duration::from_millis(20);

/// The counter of one mount.
pub(super) struct Decoded {
    counter: PathBuf,
    before: u64,
}

impl Decoded {
    /// Starts to count; other filesystems have no such counter.
    pub(super) fn start(system: &System, root: &Path) -> Result<Option<Self>> {
        if system.kind != "tesserafs" {
            return Ok(None);
        }
        let device = std::fs::metadata(root).context("failed to look at the mount")?.dev();
        let counter = folder_of(device).join("decoded_bytes");
        let before = read(&counter)?;
        Ok(Some(Self { counter, before }))
    }

    /// Bytes that were decoded since the start.
    pub(super) fn bytes(&self) -> Result<u64> {
        std::thread::sleep(SETTLE);
        Ok(read(&self.counter)?.saturating_sub(self.before))
    }
}

fn read(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} is {text:?}", path.display()))
}
