// SPDX-License-Identifier: GPL-2.0
//! How much memory is in use, and for what.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

use super::Work;
use crate::mounts::{drop_caches, Mount};

/// Bytes in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Used {
    /// All that is not free.
    pub(super) all: f64,
    /// Pages of files and of block devices.
    pub(super) cache: f64,
    /// Inodes, dentries and other small objects.
    pub(super) slab: f64,
    /// Memory that nobody has.
    free: f64,
}

/// The figures of `/proc/meminfo` now.
pub(super) fn used() -> Result<Used> {
    parse(&std::fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?)
}

fn parse(text: &str) -> Result<Used> {
    let of = |name: &str| -> Result<f64> {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("/proc/meminfo has no {name}"))?;
        let kibibytes: u32 = value.parse().with_context(|| format!("{name} is {value:?}"))?;
        Ok(f64::from(kibibytes) * 1024.0)
    };
    let free = of("MemFree")?;
    Ok(Used { all: of("MemTotal")? - free, cache: of("Cached")? + of("Buffers")?, slab: of("Slab")?, free })
}

/// Waits until the leftovers of the last mounts are gone. If they went later, that would count as less than
/// nothing.
pub(super) fn settle() -> Result<()> {
    drop_caches()?;
    // An unmount frees by and by.
    std::thread::sleep(Duration::from_millis(300));
    drop_caches()
}

/// Tells the host how much more is in use now than before.
pub(super) fn report(before: &Used, system: &str, round: usize, work: Work) -> Result<()> {
    let after = used()?;
    for (measure, bytes) in [
        ("memory: all", after.all - before.all),
        ("memory: page cache", after.cache - before.cache),
        ("memory: slab", after.slab - before.slab),
    ] {
        super::report(measure, system, round, bytes, work)?;
    }
    Ok(())
}

/// Memory that stays free when all else is touched, in bytes.
const RESERVE: f64 = 96e6;

/// Writes to nearly all free memory once.
///
/// To the host this machine's memory is a file with holes: the first touch of a page costs more than any
/// later one, and the first system would pay for it.
pub(super) fn touch() -> Result<()> {
    let folder = Path::new("/mnt/touch");
    let tmpfs = Mount::new(Path::new("tmpfs"), folder, "tmpfs", MountFlags::empty(), "size=100%")
        .context("failed to mount a tmpfs")?;
    let mut file = std::fs::File::create(folder.join("file")).context("failed to create a file")?;
    let block = vec![1; 8 << 20];
    while used()?.free > RESERVE {
        file.write_all(&block).context("failed to fill memory")?;
    }
    drop(file);
    tmpfs.unmount()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_kibibytes() {
        let text =
            "MemTotal: 100 kB\nMemFree: 40 kB\nBuffers: 1 kB\nCached: 20 kB\nSwapCached: 9 kB\nSlab: 5 kB\n";
        let expected =
            Used { all: 60.0 * 1024.0, cache: 21.0 * 1024.0, slab: 5.0 * 1024.0, free: 40.0 * 1024.0 };
        assert_eq!(parse(text).unwrap(), expected);
    }
}
