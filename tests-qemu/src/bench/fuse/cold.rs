// SPDX-License-Identifier: GPL-2.0
//! Takes an image out of the page cache.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::fs::{fadvise, Advice};

use crate::run;

/// How long pages may be in use: readahead is still under way when the file is closed.
const LIMIT: Duration = Duration::from_secs(5);

/// Drops the pages of a file that was written to its disk. Only this file's: other programs of the machine keep theirs.
pub(super) fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        fadvise(&file, 0, None, Advice::DontNeed)
            .with_context(|| format!("failed to drop the pages of {}", path.display()))?;
        let left = resident(path)?;
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{left} bytes of {} stay in the page cache: is it on a tmpfs?", path.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes of a file that are in memory.
fn resident(path: &Path) -> Result<u64> {
    let said =
        run::capture(run::command("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path))?;
    said.trim().parse().with_context(|| format!("fincore printed {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_forgotten_and_read_again() {
        // Not in /tmp, which may be a tmpfs.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        forget(&path).unwrap();
        assert_eq!(resident(&path).unwrap(), 0);
        std::fs::read(&path).unwrap();
        assert_eq!(resident(&path).unwrap(), 1 << 20);
    }
}
