// SPDX-License-Identifier: GPL-2.0
//! How much of the kernel's stack the deepest chain of calls takes: a write to ext4 whose bytes are fetched from an image
//! in an image on that ext4. Kernels with a stack tracer measure it; Debian's has one.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use super::itself;
use super::place::{disk, mount_disk};
use super::TARGET;
use crate::boot::start_processors;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing::longest;
use crate::suite::Suite;

const SWITCH: &str = "/proc/sys/kernel/stack_tracer_enabled";

/// The processor beside the first one.
const OTHER: &str = "/sys/devices/system/cpu/cpu1/online";

/// What an interrupt has to find free, of 16 KiB in all: its own stack is another one, its entry is not.
const TAKEN_MAX: usize = 12 << 10;

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    if Path::new(SWITCH).exists() {
        suite.test("an-image-in-an-image-leaves-stack", || stacked(plan));
    }
}

/// The tracer, which is switched off with the value.
struct Tracer {
    folder: Mount,
}

impl Tracer {
    fn start() -> Result<Self> {
        let folder = Mount::new(
            Path::new("tracefs"),
            Path::new("/sys/kernel/tracing"),
            "tracefs",
            MountFlags::empty(),
            "",
        )
        .context("failed to mount tracefs")?;
        std::fs::write(folder.path().join("stack_max_size"), "0").context("failed to reset the tracer")?;
        switch("1").context("failed to switch the tracer on")?;
        Ok(Self { folder })
    }

    /// The bytes of the deepest stack so far, and its functions.
    fn deepest(&self) -> Result<(usize, String)> {
        let read = |name: &str| {
            std::fs::read_to_string(self.folder.path().join(name))
                .with_context(|| format!("failed to read {name}"))
        };
        let bytes = read("stack_max_size")?.trim().parse().context("the size of a stack is no number")?;
        Ok((bytes, read("stack_trace")?))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if switch("0").is_err() {
            eprintln!("init: the stack tracer stays on");
        }
    }
}

/// Switches the tracer, which rewrites the beginning of each function, while the other processor is off: an emulated one may run into an
/// instruction that is half rewritten, which is an oops of its kernel.
fn switch(state: &str) -> Result<()> {
    if Path::new(OTHER).exists() {
        std::fs::write(OTHER, "0").context("the second processor does not switch off")?;
    }
    let switched = std::fs::write(SWITCH, state).context("the tracer does not switch");
    start_processors().and(switched)
}

fn stacked(plan: &Plan) -> Result<String> {
    let below = mount_disk("ext4", disk("ext4")?, MountFlags::empty())?;
    let nest = plan.nests.iter().find(|nest| nest.kind == "tesserafs").context("no image holds an image")?;
    let outer_image: PathBuf = below.path().join("outer.tess");
    std::fs::copy(on_disk(&nest.file), &outer_image).context("failed to copy the outer image")?;
    let outer =
        Mount::image(&outer_image, Path::new("/mnt/outer"), "").context("failed to mount the outer image")?;
    let inner = Mount::image(&outer.path().join(&plan.small.image), Path::new(TARGET), "")
        .context("failed to mount the inner image")?;
    let written = below.path().join("written");
    std::fs::write(&written, "").context("failed to create a file")?;
    drop_caches()?;
    let tracer = Tracer::start()?;
    itself::write_from(&written, &longest(plan)?.below(inner.path()))?;
    let (bytes, functions) = tracer.deepest()?;
    drop(tracer);
    inner.unmount()?;
    outer.unmount()?;
    below.unmount()?;
    ensure!(functions.contains("tesserafs"), "the deepest stack is another one:\n{functions}");
    ensure!(bytes <= TAKEN_MAX, "{bytes} bytes, {TAKEN_MAX} at most:\n{functions}");
    Ok(format!("{bytes} bytes"))
}
