// SPDX-License-Identifier: GPL-2.0
//! Reads that do not come back for a while.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;

use super::{abort_connections, drain, ended_within, Image, Store};
use crate::fuse::{Fault, Lasts, Pages, Served};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::{longest, read};
use crate::suite::Suite;
use crate::waits::{A_WHILE, SOON};

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("reads-stall", || stall(plan, Pages::Direct, End::Answers));
    suite.test("reads-stall-and-the-connection-ends", || stall(plan, Pages::Direct, End::Aborts));
    suite.test("reads-of-a-page-cache-stall", || stall(plan, Pages::Cached, End::Answers));
}

/// How reads that stall come to an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Answers,
    Aborts,
}

/// Some reads do not come back for a while. The readers that need those bytes wait, and no others; and a reader
/// that is killed ends, unless FUSE itself waits for its server: without a page cache, a request that the server
/// has taken ends with the answer or with the connection.
fn stall(plan: &Plan, pages: Pages, end: End) -> Result<String> {
    let bytes = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
    let expected = Manifest::load(&on_disk(&plan.small.manifest))?;
    let image = Image { served: Served::with(bytes, pages)?, expected };
    let (waiting_for, other) = (longest(plan)?, &on_disk(&plan.signed.good[0].image));
    let mount = image.mount(Store::File)?.context("failed to mount")?;
    let path = waiting_for.below(mount.path());
    let unaffected = Mount::image(other, Path::new("/mnt/other"), "").context("failed to mount")?;
    // Opening a file takes reads, too.
    let open = || File::open(&path).with_context(|| format!("failed to open {}", path.display()));
    let (first, second) = (open()?, open()?);
    drop_caches()?;
    image.served.arm(Fault::Stalls, Lasts::Everywhere, 0);
    let mut killed = drain(first)?;
    let begin = Instant::now();
    while image.served.happened() == 0 {
        ensure!(begin.elapsed() < SOON, "no read stalls");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut patient = drain(second)?;
    // The same bytes from another image: they are not waited for where they stall.
    read(&waiting_for, unaffected.path()).context("in another image")?;
    killed.kill().context("failed to kill a reader")?;
    if pages == Pages::Cached {
        ensure!(ended_within(&mut killed, SOON)?, "a killed reader waits for pages on their way");
    } else {
        // If it ever does, SECURITY.md can promise more.
        ensure!(!ended_within(&mut killed, A_WHILE)?, "FUSE lets go of a request that its server holds");
    }
    ensure!(patient.try_wait()?.is_none(), "a reader ended that had nothing to read");
    if end == End::Aborts {
        abort_connections()?;
        ensure!(ended_within(&mut killed, SOON)?, "a killed reader outlives the connection");
    }
    image.served.call_off();
    ensure!(ended_within(&mut killed, SOON)?, "a killed reader goes on when its read is answered");
    ensure!(killed.wait()?.signal() == Some(libc::SIGKILL), "the killed reader went on");
    ensure!(ended_within(&mut patient, SOON)?, "the reader that was not killed does not end");
    let is_right = patient.wait()?.success() == (end == End::Answers);
    ensure!(is_right, "the reader that was not killed: {}", patient.wait()?);
    if end == End::Answers {
        read(&waiting_for, mount.path()).context("when the fault is over")?;
    }
    unaffected.unmount()?;
    mount.unmount()?;
    image.served.unmount()?;
    Ok(String::new())
}
