// SPDX-License-Identifier: GPL-2.0
//! Packs that change, or whose filesystem fails, while an image over them is mounted: no byte is wrong, and another image over other
//! files reads on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use super::{copies, mount, open, pack, Packs};
use crate::backing::{abort_connections, is_seen};
use crate::flips::right_as_far_as_read;
use crate::fuse::{Fault, Lasts, Served};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;

const DIRECTORY: &str = "/tmp/packs";

/// Bits that are flipped.
const FLIPS: u64 = 50;

/// More reads of a pack than a mount, a listing and reading everything take.
const READS_MAX: u32 = 100_000;

pub(super) fn tests(suite: &mut Suite, plan: &Plan, every: usize) {
    suite.test("flipped-bits", || flips(plan));
    suite.test("a-pack-is-cut", || while_mounted(plan, |file, len| file.set_len(len / 2)));
    suite.test("a-pack-is-overwritten", || {
        while_mounted(plan, |file, len| file.write_all_at(&vec![0x5a; len as usize], 0))
    });
    for (name, fault) in [
        ("fail", Fault::Fails),
        ("end-early", Fault::Ends),
        ("come-short", Fault::ComesShort),
        ("give-other-bytes", Fault::Changes),
    ] {
        suite.test(&format!("reads-of-a-pack-{name}"), || one_by_one(plan, fault, every));
    }
    suite.test("the-filesystem-of-a-pack-goes-away", || goes_away(plan));
}

/// Errors that readers of broken packs get.
const BROKEN: [Errno; 2] = [Errno::BADMSG, Errno::IO];

/// Reads everything; whether something could not be read, with one of these errors.
fn look(mount: &Mount, expected: &Manifest, errors: &[Errno]) -> Result<bool> {
    drop_caches()?;
    let scan = tree::scan_damaged(mount.path(), 1);
    for (path, error) in &scan.errors {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let is_right = errno.is_some_and(|errno| errors.contains(&errno));
        ensure!(is_right, "/{} cannot be read because of {error}", path.escape_ascii());
    }
    right_as_far_as_read(expected, &scan.manifest)?;
    if scan.errors.is_empty() {
        expected.expect_equal(&scan.manifest)?;
    }
    Ok(!scan.errors.is_empty())
}

fn manifest(plan: &Plan) -> Result<Manifest> {
    Manifest::load(&on_disk(&plan.packed.next.manifest))
}

/// One bit of a pack, before the mount: either that is refused, or something cannot be read.
fn flips(plan: &Plan) -> Result<String> {
    let expected = manifest(plan)?;
    let image = on_disk(&plan.packed.next.image);
    copies(plan, Path::new(DIRECTORY))?;
    let mut random = fastrand::Rng::with_seed(5);
    let (mut refused, mut dead) = (0, 0);
    for number in 0..FLIPS {
        let name = if number % 2 == 0 { &plan.packed.base_pack } else { &plan.packed.next_pack };
        let file = File::options()
            .read(true)
            .write(true)
            .open(Path::new(DIRECTORY).join(name))
            .context("failed to open a pack")?;
        let place = random.u64(0..file.metadata().context("failed to stat a pack")?.len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).context("failed to read a pack")?;
        file.write_all_at(&[byte[0] ^ 1 << random.u8(0..8)], place).context("failed to flip a bit")?;
        drop_caches()?;
        match mount(&image, &Packs::Path(DIRECTORY)) {
            Err(Errno::BADMSG) => refused += 1,
            Err(errno) => bail!("byte {place} of {name}: the mount is refused with {errno}"),
            Ok(mount) => {
                let failed = look(&mount, &expected, &[Errno::BADMSG])
                    .with_context(|| format!("byte {place} of {name}"))?;
                // The second image does not use all of the first pack.
                dead += u32::from(!failed);
                mount.unmount()?;
            }
        }
        file.write_all_at(&byte, place).context("failed to flip a bit back")?;
    }
    fs::remove_dir_all(DIRECTORY).context("failed to remove a directory")?;
    ensure!(dead < 5, "{dead} flips were not noticed");
    Ok(format!("{FLIPS} flips: {refused} mounts refused, {dead} in bytes that no file has"))
}

/// Something happens to a pack while the image is mounted.
fn while_mounted(plan: &Plan, damage: impl FnOnce(&File, u64) -> std::io::Result<()>) -> Result<String> {
    copies(plan, Path::new(DIRECTORY))?;
    let mount =
        mount(&on_disk(&plan.packed.next.image), &Packs::Path(DIRECTORY)).context("failed to mount")?;
    let path = Path::new(DIRECTORY).join(&plan.packed.base_pack);
    let file = File::options().write(true).open(&path).context("failed to open a pack")?;
    let len = file.metadata().context("failed to stat a pack")?.len();
    damage(&file, len).context("failed to damage a pack")?;
    ensure!(look(&mount, &manifest(plan)?, &BROKEN)?, "nothing is broken");
    // What comes back is read again.
    let whole = fs::read(pack(plan, &plan.packed.base_pack)).context("failed to read a pack")?;
    file.write_all_at(&whole, 0).context("failed to mend a pack")?;
    ensure!(!look(&mount, &manifest(plan)?, &[])?, "something is broken that was mended");
    mount.unmount()?;
    fs::remove_dir_all(DIRECTORY).context("failed to remove a directory")?;
    Ok(String::new())
}

/// The image of two packs, of which the first one is served.
fn served(plan: &Plan) -> Result<(Served, File, File)> {
    let bytes = fs::read(pack(plan, &plan.packed.base_pack)).context("failed to read a pack")?;
    let served = Served::new(bytes)?;
    let (base, next) = (open(&served.file())?, open(&pack(plan, &plan.packed.next_pack))?);
    Ok((served, base, next))
}

/// Lets a fault happen to the first read of a pack, to another one, and so on.
fn one_by_one(plan: &Plan, fault: Fault, every: usize) -> Result<String> {
    let expected = manifest(plan)?;
    let image = on_disk(&plan.packed.next.image);
    let (served, base, next) = served(plan)?;
    let errors: &[Errno] = if fault == Fault::Changes { &[Errno::BADMSG] } else { &[Errno::IO] };
    let (mut faults, mut refused, mut failed) = (0, 0, 0);
    for lasts in [Lasts::Once, Lasts::There] {
        for after in (0..).step_by(every) {
            ensure!(after < READS_MAX, "no end of reads");
            served.arm(fault, lasts, after);
            drop_caches()?;
            let mount = match mount(&image, &Packs::Open(vec![&base, &next])) {
                Ok(mount) => mount,
                Err(errno) => {
                    ensure!(errors.contains(&errno), "after {after} reads the mount is refused with {errno}");
                    ensure!(served.call_off() > 0, "a mount without a fault is refused");
                    refused += 1;
                    continue;
                }
            };
            let is_broken = look(&mount, &expected, errors)
                .with_context(|| format!("{fault:?} {lasts:?} after {after} reads"))?;
            let happened = served.call_off();
            ensure!(!is_broken || happened > 0, "errors without a fault");
            if is_broken {
                failed += 1;
                ensure!(!look(&mount, &expected, &[])?, "something is broken when the fault is over");
            }
            mount.unmount()?;
            if happened == 0 {
                break;
            }
            faults += 1;
        }
    }
    drop((base, next));
    served.unmount()?;
    // The rest of a short read is asked for again.
    let is_harmless = fault == Fault::ComesShort;
    ensure!(faults * every > 5, "{faults} faults only");
    ensure!(is_seen(failed, is_harmless, every), "{failed} times something cannot be read");
    ensure!(is_seen(refused, is_harmless, every), "{refused} mounts are refused");
    Ok(format!("{faults} faults after the mount, {refused} mounts refused, {failed} times something unread"))
}

/// The server of the filesystem that a pack lies on ends while the image is mounted.
fn goes_away(plan: &Plan) -> Result<String> {
    let (served, base, next) = served(plan)?;
    let mount = mount(&on_disk(&plan.packed.next.image), &Packs::Open(vec![&base, &next]))
        .context("failed to mount")?;
    drop((base, next));
    abort_connections()?;
    ensure!(look(&mount, &manifest(plan)?, &[Errno::IO])?, "nothing is missing");
    mount.unmount()?;
    served.unmount()?;
    Ok(String::new())
}
