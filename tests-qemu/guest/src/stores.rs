// SPDX-License-Identifier: GPL-2.0
//! Every filesystem that an image may lie on: it is read as it should, also by those who hold locks of that
//! filesystem, and by nobody's leave but the one that was asked for when it was mounted.
//!
//! The table of SECURITY.md, "On what an image may lie", says what is tried here.

mod itself;
mod nfs;
mod place;
mod questions;
mod stack;
mod suspended;

pub(crate) use itself::helper;

use std::fs::File;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::compare::compare;
use crate::fuse::Pages;
use crate::kmsg::Log;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::{self, Mapping};
use place::{Kind, Store};

const TARGET: &str = "/mnt/image";

/// A row of the table.
struct Row {
    name: &'static str,
    kind: Kind,
    verdict: Verdict,
}

/// What becomes of an image that lies there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It can be mounted, and nobody can write to it.
    ReadOnly,
    /// It can be mounted, and written to by those who may.
    Written,
    /// It can be mounted, written to, and cloned.
    Cloned,
    /// It cannot be mounted.
    Refused,
}

const fn row(name: &'static str, kind: Kind, verdict: Verdict) -> Row {
    Row { name, kind, verdict }
}

const TABLE: [Row; 13] = [
    row("ext4", Kind::Disk("ext4"), Verdict::Written),
    row("xfs", Kind::Disk("xfs"), Verdict::Cloned),
    row("btrfs", Kind::Disk("btrfs"), Verdict::Cloned),
    row("tmpfs", Kind::Memory, Verdict::Written),
    row("overlayfs-over-ext4", Kind::Overlay("ext4"), Verdict::Written),
    row("overlayfs-over-xfs", Kind::Overlay("xfs"), Verdict::Written),
    row("fuse", Kind::Served(Pages::Cached), Verdict::Written),
    row("fuse-without-pages", Kind::Served(Pages::Direct), Verdict::Written),
    row("fuse-with-passthrough", Kind::Served(Pages::PassedThrough), Verdict::Refused),
    row("nfs", Kind::Network, Verdict::Written),
    row("erofs", Kind::Nest("erofs"), Verdict::ReadOnly),
    row("squashfs", Kind::Nest("squashfs"), Verdict::ReadOnly),
    row("tesserafs", Kind::Nest("tesserafs"), Verdict::ReadOnly),
];

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    // The kernels of the tests have few of them; Debian's own has all, which the host makes sure of.
    let rows: Vec<&Row> = TABLE.iter().filter(|row| row.kind.is_known()).collect();
    for Row { name, kind, verdict } in rows {
        match verdict {
            Verdict::Refused => suite.test(&format!("refused-on-{name}"), || refused(plan, *kind)),
            _ => suite.test(&format!("on-{name}"), || whole(plan, *kind)),
        }
        suite.test(&format!("on-a-loop-device-over-{name}"), || over_loop(plan, *kind));
        if matches!(verdict, Verdict::Written | Verdict::Cloned) {
            suite.test(&format!("written-from-itself-on-{name}"), || itself::written(plan, *kind));
        }
        if *verdict == Verdict::Cloned {
            suite.test(&format!("cloned-while-read-on-{name}"), || itself::cloned(plan, *kind));
        }
    }
    suite.test("copied-up-while-mounted", || itself::copied_up(plan));
    questions::tests(suite, plan);
    suspended::tests(suite, plan);
    stack::tests(suite, plan);
}

/// The image is its source.
fn whole(plan: &Plan, kind: Kind) -> Result<String> {
    let store = Store::lay(plan, kind)?;
    let mount = Mount::image(store.image(), Path::new(TARGET), "").context("failed to mount the image")?;
    let note = read_in_all_ways(plan, mount.path())?;
    mount.unmount()?;
    store.close()?;
    Ok(note)
}

/// So is a loop device over it.
fn over_loop(plan: &Plan, kind: Kind) -> Result<String> {
    let store = Store::lay(plan, kind)?;
    let file = File::open(store.image()).context("failed to open the image")?;
    let (device, user) = sys::loop_device(&file).context("failed to make a loop device")?;
    let mount = Mount::image(&device, Path::new(TARGET), "").context("failed to mount the device")?;
    let note = read_in_all_ways(plan, mount.path())?;
    drop((user, file));
    mount.unmount()?;
    place::until_free(&device)?;
    store.close()?;
    Ok(note)
}

/// Lists everything, reads it, and reads it by mappings; from the store each time.
fn read_in_all_ways(plan: &Plan, root: &Path) -> Result<String> {
    drop_caches()?;
    let note = compare(&plan.small, root)?;
    drop_caches()?;
    let mut mapped = Vec::new();
    let manifest = Manifest::load(&on_disk(&plan.small.manifest))?;
    for entry in manifest.entries.iter().filter(|entry| tree::is_file(entry.mode) && entry.size > 0) {
        let path = entry.below(root);
        let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let mapping = Mapping::new(&file, entry.size as usize).context("failed to map a file")?;
        mapped.push((path, mapping.bytes().to_vec()));
    }
    drop_caches()?;
    for (path, bytes) in &mapped {
        let read = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        ensure!(read == *bytes, "{} has other bytes in a mapping", path.display());
    }
    ensure!(mapped.len() > 100, "{} files were mapped", mapped.len());
    Ok(note)
}

/// The mount is refused, and the log says for what filesystem.
fn refused(plan: &Plan, kind: Kind) -> Result<String> {
    let store = Store::lay(plan, kind)?;
    let mut log = Log::from_now()?;
    match Mount::image(store.image(), Path::new(TARGET), "") {
        Err(Errno::OPNOTSUPP) => {}
        Err(errno) => bail!("the mount is refused with {errno}"),
        Ok(_) => bail!("the image is mounted"),
    }
    let line = log.expect_line("the source cannot lie on fuse, ")?;
    store.close()?;
    Ok(line)
}
