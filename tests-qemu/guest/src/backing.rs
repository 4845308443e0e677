// SPDX-License-Identifier: GPL-2.0
//! The backing store of an image goes wrong: reads fail, end early, come short, give other bytes than before
//! or never come back; the file is cut, overwritten, full of holes, or gone with its filesystem.
//!
//! After any fault of one read, in a mount or when everything is listed and read, no byte is wrong. Only the
//! data that the read was for cannot be had, and it can be when the fault is over.

mod stalls;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use rustix::fs::{fallocate, FallocateFlags};
use rustix::io::Errno;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::flips::{refusals, right_as_far_as_read};
use crate::fuse::{Fault, Lasts, Served};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys;

const TARGET: &str = "/mnt/image";

/// More reads than a mount, a listing and reading everything take.
const READS_MAX: u32 = 100_000;

/// Every so many of the reads of [`one_by_one`] are tried.
pub(crate) fn tests(suite: &mut Suite, plan: &Plan, every: usize) {
    for (name, fault) in [
        ("fail", Fault::Fails),
        ("end-early", Fault::Ends),
        ("come-short", Fault::ComesShort),
        ("give-other-bytes", Fault::Changes),
    ] {
        suite.test(&format!("reads-of-a-file-{name}"), || one_by_one(plan, fault, Store::File, every));
        suite.test(&format!("reads-of-a-device-{name}"), || one_by_one(plan, fault, Store::Device, every));
    }
    suite.test("all-reads-come-short", || all_short(plan));
    stalls::tests(suite, plan);
    suite.test("the-filesystem-below-goes-away", || goes_away(plan));
    suite.test("the-file-is-cut", || damaged(plan, |file, len| file.set_len(len)));
    suite.test("the-file-is-overwritten", || {
        damaged(plan, |file, len| file.write_all_at(&vec![0x5a; len as usize], len))
    });
    suite.test("holes-are-punched-into-the-file", || {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        damaged(plan, |file, len| Ok(fallocate(file, flags, len, len)?))
    });
}

/// How the served file is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    File,
    /// A loop device over it.
    Device,
}

/// An image that is served, and what must be found in it.
struct Image {
    served: Served,
    expected: Manifest,
}

impl Image {
    fn small(plan: &Plan) -> Result<Self> {
        let bytes = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
        let expected = Manifest::load(&on_disk(&plan.small.manifest))?;
        Ok(Self { served: Served::new(bytes)?, expected })
    }

    fn mount(&self, store: Store) -> Result<Result<Mount, Errno>> {
        drop_caches()?;
        let target = Path::new(TARGET);
        if store == Store::File {
            return Ok(Mount::image(&self.served.file(), target, ""));
        }
        let file = File::open(self.served.file()).context("failed to open the served file")?;
        let (path, _user) = sys::loop_device(&file).context("failed to make a loop device")?;
        Ok(Mount::image(&path, target, ""))
    }
}

/// Lets a fault happen to the first read, to another one, and so on: that one alone, and all of the same bytes
/// from then on.
fn one_by_one(plan: &Plan, fault: Fault, store: Store, every: usize) -> Result<String> {
    let image = Image::small(plan)?;
    let (mut faults, mut refused, mut failed) = (0, 0, 0);
    for lasts in [Lasts::Once, Lasts::There] {
        for after in (0..).step_by(every) {
            ensure!(after < READS_MAX, "no end of reads");
            image.served.arm(fault, lasts, after);
            let effect = look(&image, fault, store)
                .with_context(|| format!("{fault:?} {lasts:?} after {after} reads"))?;
            match effect {
                Effect::Refused => refused += 1,
                Effect::Failed => failed += 1,
                Effect::Right => {}
                Effect::NoFault => break,
            }
            faults += 1;
        }
    }
    ensure!(faults * every > 20, "{faults} faults only");
    // The rest of a short read is asked for again; but the loop driver takes it for zeros.
    let is_harmless = (fault, store) == (Fault::ComesShort, Store::File);
    ensure!(is_seen(refused, is_harmless, every), "{refused} mounts are refused");
    ensure!(is_seen(failed, is_harmless, every), "{failed} times something cannot be read");
    image.served.unmount()?;
    Ok(format!("{faults} faults: {refused} mounts refused, {failed} times something unread"))
}

/// Whether it is right that faults had an effect so often: harmless ones never, others if all reads were tried.
pub(crate) fn is_seen(effects: usize, is_harmless: bool, every: usize) -> bool {
    if is_harmless {
        effects == 0
    } else {
        effects > 0 || every > 1
    }
}

/// The effect of a fault.
enum Effect {
    Refused,
    /// Something could not be read.
    Failed,
    /// It made no difference.
    Right,
    /// It did not happen.
    NoFault,
}

/// Mounts and reads everything, while the fault happens and again when it is over.
fn look(image: &Image, fault: Fault, store: Store) -> Result<Effect> {
    let mount = match image.mount(store)? {
        Ok(mount) => mount,
        Err(errno) => {
            ensure!(may_refuse(fault, store, errno), "the mount is refused with {errno}");
            ensure!(image.served.call_off() > 0, "a mount without a fault is refused");
            return Ok(Effect::Refused);
        }
    };
    let scan = tree::scan_damaged(mount.path(), 1);
    let happened = image.served.call_off();
    for (path, error) in &scan.errors {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let is_right = errno.is_some_and(|errno| errors(fault, store).contains(&errno));
        ensure!(is_right, "/{} cannot be read because of {error}", path.escape_ascii());
    }
    right_as_far_as_read(&image.expected, &scan.manifest)?;
    if !scan.errors.is_empty() {
        ensure!(happened > 0, "errors without a fault");
        // Bytes that the device gave stay in its own page cache.
        if store == Store::Device {
            drop_caches()?;
        }
        image.expected.expect_equal(&tree::scan(mount.path(), 1).context("when the fault is over")?)?;
    }
    mount.unmount()?;
    Ok(match (happened, scan.errors.is_empty()) {
        (0, _) => Effect::NoFault,
        (_, true) => Effect::Right,
        (_, false) => Effect::Failed,
    })
}

/// The errors that a reader may get.
fn errors(fault: Fault, store: Store) -> &'static [Errno] {
    match (fault, store) {
        (Fault::Changes, _) => &[Errno::BADMSG],
        // The loop driver takes missing bytes for zeros, or says that they are missing.
        (Fault::Ends | Fault::ComesShort, Store::Device) => &[Errno::BADMSG, Errno::IO],
        _ => &[Errno::IO],
    }
}

/// Whether a mount may be refused with that.
fn may_refuse(fault: Fault, store: Store, errno: Errno) -> bool {
    match (fault, store) {
        (Fault::Changes, _) | (Fault::ComesShort, Store::Device) => refusals("superblock").contains(&errno),
        // The file is shorter than the superblock says, and the device has zeros there or nothing.
        (Fault::Ends, Store::File) => [Errno::IO, Errno::UCLEAN].contains(&errno),
        (Fault::Ends, Store::Device) => errno == Errno::IO || refusals("superblock").contains(&errno),
        _ => errno == Errno::IO,
    }
}

/// No read gives all that it was asked for.
fn all_short(plan: &Plan) -> Result<String> {
    let image = Image::small(plan)?;
    image.served.arm(Fault::ComesShort, Lasts::Everywhere, 0);
    let mount = image.mount(Store::File)?.context("failed to mount")?;
    image.expected.expect_equal(&tree::scan(mount.path(), 1)?)?;
    mount.unmount()?;
    let reads = image.served.call_off();
    ensure!(reads > 100, "{reads} reads came short");
    image.served.unmount()?;
    Ok(format!("{reads} reads"))
}

/// Whether a process has ended, or does so within this time.
pub(crate) fn ended_within(process: &mut Child, time: Duration) -> Result<bool> {
    let begin = Instant::now();
    loop {
        if process.try_wait().context("failed to wait for a process")?.is_some() {
            return Ok(true);
        }
        if begin.elapsed() > time {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that reads a file to its end.
pub(crate) fn drain(file: File) -> Result<Child> {
    Command::new("/proc/self/exe").arg("drain").stdin(file).spawn().context("failed to start a reader")
}

/// The server of the filesystem that the image lies on ends while the image is mounted.
fn goes_away(plan: &Plan) -> Result<String> {
    let image = Image::small(plan)?;
    let mount = image.mount(Store::File)?.context("failed to mount")?;
    abort_connections()?;
    let scan = tree::scan_damaged(mount.path(), 1);
    ensure!(!scan.errors.is_empty(), "everything can be read from nothing");
    right_as_far_as_read(&image.expected, &scan.manifest)?;
    mount.unmount()?;
    image.served.unmount()?;
    Ok(format!("{} errors", scan.errors.len()))
}

/// Ends all FUSE connections, as if their servers had died.
pub(crate) fn abort_connections() -> Result<()> {
    let control = Mount::new(
        Path::new("fusectl"),
        Path::new("/sys/fs/fuse/connections"),
        "fusectl",
        rustix::mount::MountFlags::empty(),
        "",
    )
    .context("failed to mount fusectl")?;
    for connection in control.path().read_dir().context("failed to list connections")? {
        let abort = connection.context("failed to list connections")?.path().join("abort");
        std::fs::write(&abort, "1").with_context(|| format!("failed to write {}", abort.display()))?;
    }
    control.unmount()
}

/// Damages a copy of the image while it is mounted: `damage` gets it, and a third of its length.
fn damaged(plan: &Plan, damage: impl Fn(&File, u64) -> std::io::Result<()>) -> Result<String> {
    let (copy, expected) = (Path::new("/tmp/damaged"), Manifest::load(&on_disk(&plan.small.manifest))?);
    let mut errors = 0;
    for store in [Store::File, Store::Device] {
        std::fs::copy(on_disk(&plan.small.image), copy).context("failed to copy the image")?;
        let file = File::options().read(true).write(true).open(copy).context("failed to open the copy")?;
        let len = file.metadata().context("failed to look at the copy")?.len();
        drop_caches()?;
        let mount = match store {
            Store::File => Mount::image(copy, Path::new(TARGET), ""),
            Store::Device => {
                let (path, _user) = sys::loop_device(&file).context("failed to make a loop device")?;
                Mount::image(&path, Path::new(TARGET), "")
            }
        }
        .context("failed to mount the copy")?;
        damage(&file, len / 3).context("failed to damage the copy")?;
        drop_caches()?;
        let scan = tree::scan_damaged(mount.path(), 1);
        ensure!(!scan.errors.is_empty(), "everything can be read from a damaged image");
        for (path, error) in &scan.errors {
            let is_right = matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADMSG));
            ensure!(is_right, "/{} cannot be read because of {error}", path.escape_ascii());
        }
        right_as_far_as_read(&expected, &scan.manifest)?;
        errors += scan.errors.len();
        let whole = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
        file.write_all_at(&whole, 0).context("failed to mend the copy")?;
        drop_caches()?;
        expected.expect_equal(&tree::scan(mount.path(), 1).context("when the image is whole again")?)?;
        mount.unmount()?;
    }
    Ok(format!("{errors} errors, as there must be"))
}
