// SPDX-License-Identifier: GPL-2.0
//! An image while it is mounted: it is cut, removed or written over.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree;

use super::ByFuse;
use crate::compare::compare;
use crate::flips::right_as_far_as_read;
use crate::mounts::{drop_caches, on_disk};
use crate::suite::Suite;

/// A copy of an image that comes to harm.
const COPY: &str = "/tmp/harmed.tess";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    let small = &plan.small;
    suite.test("truncated-image", || truncated(small));
    suite.test("vanished-image", || vanished(small));
    suite.test("image-that-changes", || changed(small));
}

/// A copy of an image, mounted.
fn harmed(image: &Image) -> Result<ByFuse> {
    std::fs::copy(on_disk(&image.image), COPY).context("failed to copy the image")?;
    ByFuse::new(Path::new(COPY))
}

/// What is left of a tree of which parts give errors: all of it is right, and each error is one of these.
fn rest_of(image: &Image, root: &Path, allowed: &[i32]) -> Result<usize> {
    let scan = tree::scan_damaged(root, 2);
    for (path, error) in &scan.errors {
        let is_allowed = error.raw_os_error().is_some_and(|errno| allowed.contains(&errno));
        ensure!(is_allowed, "/{}: {error}, not one of {allowed:?}", path.escape_ascii());
    }
    right_as_far_as_read(&Manifest::load(&on_disk(&image.manifest))?, &scan.manifest)?;
    Ok(scan.errors.len())
}

/// Bytes that an image has no more are `EIO`, and nothing else goes wrong.
fn truncated(image: &Image) -> Result<String> {
    let mut notes = Vec::new();
    let whole = std::fs::metadata(on_disk(&image.image)).context("failed to look at the image")?.len();
    for length in [0, 4096, 8192, whole / 2] {
        let served = harmed(image)?;
        File::options().write(true).open(COPY).and_then(|file| file.set_len(length)).context("not cut")?;
        drop_caches()?;
        let errors = rest_of(image, served.path(), &[libc::EIO])?;
        ensure!(errors > 0, "an image of {length} bytes was read to its end");
        notes.push(format!("{length} bytes: {errors} errors"));
        served.unmount()?;
    }
    Ok(notes.join(", "))
}

/// An image that is removed is there as long as it is mounted; one whose device or filesystem is gone is not tried here.
fn vanished(image: &Image) -> Result<String> {
    let served = harmed(image)?;
    std::fs::remove_file(COPY).context("failed to remove the image")?;
    drop_caches()?;
    let note = compare(image, served.path())?;
    served.unmount()?;
    Ok(note)
}

/// An image that is written over gives errors where it has changed, and never another byte; put right, it is whole again.
fn changed(image: &Image) -> Result<String> {
    let served = harmed(image)?;
    let good = std::fs::read(COPY).context("failed to read the image")?;
    let file = File::options().write(true).open(COPY).context("failed to open the image")?;
    let step = 16 << 10;
    for place in (0..good.len()).step_by(step) {
        file.write_all_at(&[!good[place]], place as u64).context("failed to change the image")?;
    }
    drop_caches()?;
    let allowed = [libc::EBADMSG, libc::EIO];
    let errors = rest_of(image, served.path(), &allowed)?;
    ensure!(errors > 0, "nothing of a changed image fails");
    file.write_all_at(&good, 0).context("failed to put the image right")?;
    drop_caches()?;
    let note = compare(image, served.path())?;
    served.unmount()?;
    Ok(format!("{errors} errors, then {note}"))
}
