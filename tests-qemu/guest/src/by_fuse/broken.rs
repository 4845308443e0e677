// SPDX-License-Identifier: GPL-2.0
//! Broken images: behind right digests the daemon gives them the verdict that the kernel driver gives them, and behind wrong ones
//! it shows no byte that is not the source's.

use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Flip, Plan};
use tesserafs_guest::tree;

use super::{said, ByFuse};
use crate::flips::{self, right_as_far_as_read, toggle};
use crate::mounts::on_disk;
use crate::mutants::{self, judge_all, Driver, COPY, TARGET};
use crate::suite::Suite;

/// Of the random images one in so many is served, as starting a daemon takes time; of the named ones all are.
const EVERY: usize = 40;

/// Of the bits that are flipped for the kernel driver, one in so many.
const EVERY_FLIP: usize = 20;

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("broken-images-that-have-names", || {
        let mutants = mutants::load()?;
        judge_all(&Daemon, &mutants.image, mutants.list.iter().filter(|mutant| !mutant.is_random()))
    });
    suite.test("flipped-bits", || flipped(plan));
    suite.test("broken-images-at-random", || {
        let mutants = mutants::load()?;
        let random = mutants.list.iter().filter(|mutant| mutant.is_random());
        judge_all(&Daemon, &mutants.image, random.step_by(EVERY))
    });
}

/// The program, and its daemon.
struct Daemon;

impl Driver for Daemon {
    type Mounted = ByFuse;

    // Each daemon begins with nothing.
    const KEEPS_DATA: bool = false;
    // This kernel's FUSE reads pages by iomap, which makes one errno of all: the daemon's log tells them apart.
    const READS_FAIL_WITH: Option<i32> = Some(libc::EIO);

    fn mount(&self) -> Result<Result<ByFuse, Option<i32>>> {
        let (image, target) = (Path::new(COPY), Path::new(TARGET));
        let output = ByFuse::attempt(image, target, &[])?;
        match output.status.code() {
            Some(0) => ByFuse::adopted(target).map(Ok),
            Some(1) => {
                // It says which image it refuses, and why; an errno it has none.
                let said = said(&output);
                ensure!(said.contains(COPY) && !said.contains("panicked"), "the refusal says: {said}");
                Ok(Err(None))
            }
            code => bail!("it ends with {code:?}: {}", super::said(&output)),
        }
    }

    fn unmount(&self, mounted: ByFuse) -> Result<()> {
        mounted.unmount()
    }
}

/// Flips bits of a signed image, one at a time: it is refused, or what the bit belongs to cannot be read, and all else is right.
fn flipped(plan: &Plan) -> Result<String> {
    let expected = Manifest::load(&on_disk(&plan.signed.good[0].manifest))?;
    let copy = flips::copy(plan, Path::new(flips::COPY))?;
    let (mut refused, mut failed, mut silent) = (0, 0, 0);
    for flip in plan.flips.iter().step_by(EVERY_FLIP) {
        toggle(&copy, flip)?;
        match errors_of(&expected).with_context(|| format!("{flip:?}"))? {
            None => refused += 1,
            Some(0) => {
                ensure!(!is_covered(flip), "{flip:?} goes unnoticed");
                silent += 1;
            }
            Some(_) => failed += 1,
        }
        toggle(&copy, flip)?;
    }
    ensure!(errors_of(&expected)? == Some(0), "the image itself is refused or fails");
    Ok(format!("{refused} refused, {failed} fail reading, {silent} concern only tools"))
}

/// Whether a mount and a read of everything go over that bit. There are tables that only tools use.
fn is_covered(flip: &Flip) -> bool {
    matches!(&flip.region[..], "pack" | "superblock" | "signature")
}

/// How much of the copy cannot be read; nothing where it is refused.
fn errors_of(expected: &Manifest) -> Result<Option<usize>> {
    let output = ByFuse::attempt(Path::new(flips::COPY), Path::new(TARGET), &[])?;
    if output.status.code() == Some(1) {
        return Ok(None);
    }
    ensure!(output.status.success(), "it ends with {}: {}", output.status, said(&output));
    let served = ByFuse::adopted(Path::new(TARGET))?;
    let scan = tree::scan_damaged(served.path(), 2);
    served.unmount()?;
    for (path, error) in &scan.errors {
        let is_read = matches!(error.raw_os_error(), Some(libc::EBADMSG | libc::EIO));
        ensure!(is_read, "/{} cannot be read because of {error}", path.escape_ascii());
    }
    if scan.errors.is_empty() {
        expected.expect_equal(&scan.manifest)?;
    }
    right_as_far_as_read(expected, &scan.manifest)?;
    Ok(Some(scan.errors.len()))
}
