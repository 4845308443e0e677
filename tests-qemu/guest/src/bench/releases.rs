// SPDX-License-Identifier: GPL-2.0
//! Memory after reading two releases of one distribution, mounted at once: what they have in common can be
//! there once or twice.

use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::reading::{Pair, Releases, IMAGES};

use super::measures::{allow_open_files, BUFFER};
use super::walk::{walk, Visit};
use super::{memory, mounted, report, Work};
use crate::mounts::Mount;

/// Where the two are mounted.
const TARGETS: [&str; 2] = ["/mnt/first", "/mnt/second"];

pub(super) fn run(plan: &Releases) -> Result<()> {
    allow_open_files()?;
    memory::touch().context("failed to touch all memory")?;
    let _disk = Mount::new(Path::new(&plan.disk), Path::new(IMAGES), "ext4", MountFlags::RDONLY, "")
        .context("failed to mount the disk with images")?;
    let mut work = None;
    for round in 1..=plan.rounds {
        // Another one begins each round, so that the leftovers of the one before meet all alike.
        let start = round % plan.pairs.len();
        for pair in plan.pairs[start..].iter().chain(&plan.pairs[..start]) {
            let done = sample(pair, round).with_context(|| format!("on {}", pair.system.name))?;
            ensure!(*work.get_or_insert(done) == done, "{}: {done:?} instead of {work:?}", pair.system.name);
        }
    }
    Ok(())
}

/// Mounts both, reads one after the other, and looks at the memory in use.
fn sample(pair: &Pair, round: usize) -> Result<[Work; 2]> {
    let system = &pair.system;
    memory::settle()?;
    let before = memory::used()?;
    let first = mounted(system, &system.source, TARGETS[0])?;
    let second = mounted(system, &pair.second, TARGETS[1])?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("failed to list the mounts")?;
    let mut done = [Work::default(); 2];
    for ((mount, name), done) in
        [(&first, "first release"), (&second, "second release")].iter().zip(&mut done)
    {
        // EROFS mounts without it where the image has no fingerprints, and says so in its log only.
        ensure!(
            shares(&system.options) == shares(options_of(&mounts, mount.path())),
            "{} is mounted with other options than {}",
            mount.path().display(),
            system.options
        );
        let start = Instant::now();
        *done = walk(mount.path(), "", &mut Visit::Read(&mut vec![0; BUFFER]))?;
        report(name, &system.name, round, start.elapsed().as_secs_f64(), *done)?;
    }
    let both = Work { count: done[0].count + done[1].count, bytes: done[0].bytes + done[1].bytes, found: 0 };
    memory::report(&before, &system.name, round, both)?;
    first.unmount()?;
    second.unmount()?;
    Ok(done)
}

/// Whether pages are shared between mounts by EROFS.
fn shares(options: &str) -> bool {
    options.split(',').any(|option| option == "inode_share")
}

/// The options of the mount at `target`, as the kernel tells them.
fn options_of<'m>(mounts: &'m str, target: &Path) -> &'m str {
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next().map(Path::new) == Some(target)).then(|| words.nth(1)).flatten()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_options_are_those_of_the_mount() {
        let mounts = "a /mnt/first erofs ro,user_xattr,inode_share 0 0\nb /mnt/second erofs ro 0 0\n";
        assert!(shares(options_of(mounts, Path::new("/mnt/first"))));
        assert!(!shares(options_of(mounts, Path::new("/mnt/second"))));
        assert_eq!(options_of(mounts, Path::new("/mnt")), "");
        assert!(shares("domain_id=bench,inode_share"));
    }
}
