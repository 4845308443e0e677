// SPDX-License-Identifier: GPL-2.0
//! Memory that nothing refers to any more, as the kernel's own detector (kmemleak) finds it.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::module;
use crate::mounts::{drop_caches, Mount};

/// The detector does not report objects that are younger than five seconds.
const AGE: Duration = Duration::from_secs(6);

/// As much of a report as fits into a message and is worth reading.
const SHOWN: usize = 8000;

/// Where the code of the module is, or was.
static TEXT: OnceLock<Range<u64>> = OnceLock::new();

/// Fails if the detector reports anything, of whichever part of the kernel; says each leak once.
pub(crate) fn none() -> Result<String> {
    if let Ok(text) = module::text() {
        TEXT.get_or_init(|| text);
    }
    let debug = Mount::debugfs()?;
    let detector = debug.path().join("kmemleak");
    // Cached objects are not leaked, and take long to look through.
    drop_caches()?;
    std::thread::sleep(AGE);
    // It refuses once it has switched itself off, as it does when its memory runs out.
    std::fs::write(&detector, "scan").context("the leak detector does not work")?;
    let found = std::fs::read(&detector).context("failed to read what leaked")?;
    if !found.is_empty() {
        let found = named(&String::from_utf8_lossy(&found), TEXT.get());
        let count = found.matches("unreferenced object").count();
        // The next scan is to report new leaks only.
        std::fs::write(&detector, "clear").context("failed to clear the list of leaks")?;
        bail!("{count} objects:\n{}", found.chars().take(SHOWN).collect::<String>());
    }
    debug.unmount()?;
    Ok(String::new())
}

/// Addresses in the code of a module that is gone have no names any more: they become offsets.
fn named(report: &str, text: Option<&Range<u64>>) -> String {
    let line = |line: &str| -> Option<String> {
        let (text, word) = (text?, line.trim_start());
        let address = u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()?;
        let indent = line.strip_suffix(word)?;
        text.contains(&address).then(|| format!("{indent}tesserafs+{:#x}", address - text.start))
    };
    report.lines().map(|text| line(text).unwrap_or_else(|| text.to_owned()) + "\n").collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_module_did_is_told_when_it_is_gone() {
        let report =
            "unreferenced object 0x1000 (size 8):\n    0x1010\n    0x2000\n    vfs_get_tree+0x85/0x210\n";
        let told = "unreferenced object 0x1000 (size 8):\n    tesserafs+0x10\n    0x2000\n    vfs_get_tree+0x85/0x210\n";
        assert_eq!(super::named(report, Some(&(0x1000..0x1100))), told);
        assert_eq!(super::named(report, None), report);
    }
}
