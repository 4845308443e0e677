// SPDX-License-Identifier: GPL-2.0-or-later

//! Signals by which a user ends a program.

use std::fs;

/// Those of `signals` that this process does not ignore. It ignores some from its start where `nohup` started it, or a shell as a job in
/// the background, and a handler would take the place of that.
///
/// All of them where `/proc` does not tell.
pub fn not_ignored(signals: [i32; 3]) -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signals.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect()
}
