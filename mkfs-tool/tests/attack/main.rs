// SPDX-License-Identifier: GPL-2.0-or-later

//! Input that is meant to do harm, and ends that come early: an image that keeps all rules, or an error that names the
//! place; nothing outside of the image, nothing left of one that is not finished, nothing that a terminal obeys.

#[path = "../common/archive.rs"]
mod archive;
mod archives;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod swaps;
mod terminal;

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that any of these programs may take before the test takes it for one that hangs.
const HANG: Duration = Duration::from_secs(60);

/// Waits for a program, which must not hang; its output is less than a pipe holds.
pub(crate) fn end(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > HANG {
            child.kill().unwrap();
            panic!("it hangs: {command:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

/// The output of a program holds nothing that a terminal obeys.
pub(crate) fn assert_plain(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        let obeyed = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(obeyed), "{}", bytes.escape_ascii());
    }
}
