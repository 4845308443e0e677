// SPDX-License-Identifier: GPL-2.0
//! One measure in a tree that is mounted already, on the host: a server that is a program needs no machine of its own.
//!
//! The reader opens its files and waits, so that whoever measures can empty the server's caches.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use tesserafs_guest::reading::{Done, Plan, WAITS};

use super::faults::FAULTS;
use super::measures::{self, Cache, Subject, MEASURES};
use crate::sys;

/// Does what the measure of this name does, once a line is read; prints a [`Done`].
pub(crate) fn helper(plan: &Path, name: &OsStr, root: &Path) -> Result<()> {
    let text = std::fs::read(plan).with_context(|| format!("failed to read {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text).context("the plan is damaged")?;
    let measure = MEASURES
        .iter()
        .chain(&FAULTS)
        .find(|measure| OsStr::new(measure.name) == name)
        .with_context(|| format!("there is no measure {name:?}"))?;
    ensure!(matches!(measure.cache, Cache::Cold), "{name:?} is not of a mounted tree with empty caches");
    measures::allow_open_files()?;
    let subject = Subject::new(measure, &plan, root)?;
    println!("{WAITS}");
    ensure!(
        std::io::stdin().read_line(&mut String::new()).context("failed to read")? > 0,
        "nobody waits for this measure"
    );

    let before = sys::processor_seconds()?;
    let start = Instant::now();
    let work = (measure.run)(&subject)?;
    let seconds = start.elapsed().as_secs_f64();
    let processor = sys::processor_seconds()? - before;
    subject.end()?;
    let done = Done { seconds, processor, count: work.count, bytes: work.bytes, found: work.found };
    println!("{}", serde_json::to_string(&done).context("the work cannot be written down")?);
    Ok(())
}
