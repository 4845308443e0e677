// SPDX-License-Identifier: GPL-2.0
//! Memory that the driver does not get: each allocation of its own fails once, in a mount and in reading.
//!
//! An operation that fails must fail with an error, and give back all that it had: else the module cannot be
//! unloaded, or the leak detector finds it. The kernel is told by `/proc/<pid>/fail-nth`, for this thread
//! alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::module;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::{longest, read};
use crate::suite::Suite;

/// No attempt makes more allocations than this: one that does is not getting anywhere.
const ALLOCATIONS_MAX: u32 = 5000;

/// Every attempt makes more than these.
const FAULTS_MIN: u32 = 20;

/// The errors that a caller may get when there is no memory. A page that could not be filled is EIO to its
/// reader.
const ERRORS: [Errno; 2] = [Errno::NOMEM, Errno::IO];

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("mounting", || {
        let (image, target) = (on_disk(&plan.small.image), Path::new("/mnt/image"));
        each(|| {
            Mount::new(&image, target, "tesserafs", MountFlags::empty(), "").context("mounting")?.unmount()
        })
    });
    suite.test("listing", || {
        let mount = mounted(plan)?;
        let all = list(mount.path())?;
        let said = each(|| {
            let found = list(mount.path())?;
            ensure!(found == all, "{found} names and attributes of {all}, and no error");
            Ok(())
        })?;
        mount.unmount()?;
        Ok(said)
    });
    suite.test("reading", || {
        let mount = mounted(plan)?;
        let entry = longest(plan)?;
        let said = each(|| read(&entry, mount.path()))?;
        read(&entry, mount.path()).context("after all failures")?;
        mount.unmount()?;
        Ok(said)
    });
}

fn mounted(plan: &Plan) -> Result<Mount> {
    Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")
}

/// How many names some folders of the small tree have, and attributes; looks at each.
fn list(root: &Path) -> Result<usize> {
    let mut found = 0;
    for folder in ["", "many/0", "special"] {
        for entry in root.join(folder).read_dir().context("opening a folder")? {
            let path = entry.context("reading a folder")?.path();
            path.symlink_metadata().context("looking at a name")?;
            let attributes = tree::xattrs(&path).context("reading attributes")?;
            found += 1 + attributes.len();
        }
    }
    Ok(found)
}

/// Makes attempts, with cold caches, until one has had all its memory: the first allocation fails in the first,
/// the second in the second, and so on.
fn each(mut attempt: impl FnMut() -> Result<()>) -> Result<String> {
    let faults = Faults::open()?;
    let mut refused = 0;
    for nth in 1..ALLOCATIONS_MAX {
        drop_caches()?;
        let (result, happened) = faults.during(nth, &mut attempt)?;
        match result {
            Ok(()) => {}
            Err(error) if happened && is_expected(&error) => refused += 1,
            Err(error) => return Err(error.context(format!("with allocation {nth} refused"))),
        }
        if !happened {
            // Fewer mean that the driver's own were not among those that can fail.
            ensure!(refused > 0 && nth > FAULTS_MIN, "only {} allocations failed, {refused} seen", nth - 1);
            return Ok(format!("{} allocations failed, {refused} times with an error", nth - 1));
        }
    }
    bail!("no end of allocations after {ALLOCATIONS_MAX}");
}

/// Whether an error says that there was no memory.
fn is_expected(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let errno = match cause.downcast_ref::<io::Error>() {
            Some(cause) => cause.raw_os_error().map(Errno::from_raw_os_error),
            None => cause.downcast_ref::<Errno>().copied(),
        };
        errno.is_some_and(|errno| ERRORS.contains(&errno))
    })
}

/// The kernel's fault injection, set up for allocations that the driver or something below it makes.
struct Faults {
    nth: File,
    _debug: Mount,
}

impl Faults {
    fn open() -> Result<Self> {
        let debug = Mount::debugfs()?;
        let text = module::text()?;
        for kind in ["failslab", "fail_page_alloc"] {
            let set = |name: &str, value: &str| {
                let path = debug.path().join(kind).join(name);
                std::fs::write(&path, value).with_context(|| format!("failed to write {}", path.display()))
            };
            set("require-start", &text.start.to_string())?;
            set("require-end", &text.end.to_string())?;
            // By default only allocations that may not wait fail, and a trace of each is printed.
            set("ignore-gfp-wait", "N")?;
            set("verbose", "0")?;
            if kind == "fail_page_alloc" {
                set("ignore-gfp-highmem", "N")?;
                set("min-order", "0")?;
            }
        }
        let nth = File::options()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .context("failed to open fail-nth")?;
        Ok(Self { nth, _debug: debug })
    }

    /// The result of `attempt` if its allocation number `nth` fails, and whether it made that many.
    fn during<T>(&self, nth: u32, attempt: impl FnOnce() -> T) -> Result<(T, bool)> {
        let set = |nth: u32| {
            self.nth.write_all_at(nth.to_string().as_bytes(), 0).context("failed to write to fail-nth")
        };
        set(nth)?;
        let result = attempt();
        let mut left = [0; 16];
        let length = self.nth.read_at(&mut left, 0).context("failed to read fail-nth")?;
        set(0)?;
        Ok((result, left[..length].trim_ascii() == b"0"))
    }
}
