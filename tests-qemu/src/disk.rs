// SPDX-License-Identifier: GPL-2.0
//! The guest's data disk: an ext4 file system made from a folder, without mounting anything.

use std::path::Path;

use anyhow::{Context, Result};

use crate::run;

/// Writes an ext4 image of `folder` to `path`.
pub(crate) fn write(path: &Path, folder: &Path) -> Result<()> {
    let bytes = bytes_below(folder)?;
    // Room for ext4's own tables: a fiftieth, and a little for an empty one.
    let mebibytes = bytes / 50 * 51 / (1 << 20) + 32;
    if path.exists() {
        std::fs::remove_file(path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    run::capture(
        run::command("mkfs.ext4")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            // No journal, no reserve: the guest only reads.
            .args(["-q", "-F", "-m0", "-O", "^has_journal", "-d"])
            .arg(folder)
            .arg(path)
            .arg(format!("{mebibytes}M")),
    )
    .context("failed to make the data disk")?;
    Ok(())
}

/// Bytes of all files below a folder, each in whole blocks.
fn bytes_below(folder: &Path) -> Result<u64> {
    const BLOCK: u64 = 4096;
    let mut bytes = 0;
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("failed to list {}", folder.display()))?;
        let metadata =
            entry.metadata().with_context(|| format!("failed to look at {}", entry.path().display()))?;
        bytes += metadata.len().next_multiple_of(BLOCK);
        if metadata.is_dir() {
            bytes += bytes_below(&entry.path())?;
        }
    }
    Ok(bytes)
}
