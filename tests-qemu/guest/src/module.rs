// SPDX-License-Identifier: GPL-2.0
//! The module under test, as the kernel knows it.

use std::ops::Range;

use anyhow::{Context, Result};

/// Where its code is: no farther than all that it has from the beginning of it.
pub(crate) fn text() -> Result<Range<u64>> {
    let modules = std::fs::read_to_string("/proc/modules").context("failed to read /proc/modules")?;
    text_of(&modules).context("the module is not loaded")
}

/// Lines are `name size users used-by state address`.
fn text_of(modules: &str) -> Option<Range<u64>> {
    let mut words = modules.lines().find(|line| line.starts_with("tesserafs "))?.split_whitespace();
    let size: u64 = words.nth(1)?.parse().ok()?;
    let start = words.find_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())?;
    Some(start..start.saturating_add(size))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_is_found() {
        let modules =
            "dummy 4096 0 - Live 0xffffffffa0100000\ntesserafs 8192 0 - Live 0xffffffffa0000000 (O)\n";
        assert_eq!(super::text_of(modules), Some(0xffff_ffff_a000_0000..0xffff_ffff_a000_2000));
        assert_eq!(super::text_of(""), None);
    }
}
