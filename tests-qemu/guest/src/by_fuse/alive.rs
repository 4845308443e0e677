// SPDX-License-Identifier: GPL-2.0
//! A mount while it is used: it is unmounted, others are mounted in it, its daemon is killed or stopped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::{unmount, MountFlags, UnmountFlags};
use rustix::process::{kill_process, Signal};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree;

use super::{ended, said, ByFuse, PROGRAM, TARGET};
use crate::compare::compare;
use crate::mounts::{drop_caches, on_disk, Mount, DISK};
use crate::suite::Suite;
use crate::sys;

/// A file of the small image with several chunks.
const LARGE: &str = "data/prose";

/// Threads that use a mount while something befalls it.
const READERS: usize = 4;

/// How long a mount is left alone, or used.
const WHILE: Duration = Duration::from_secs(3);

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    let small = &plan.small;
    suite.test("idle-mount-serves-on", || idle(small));
    suite.test("busy-mount-is-not-unmounted", || busy(small));
    suite.test("open-files-outlive-their-mount", || open_files(small));
    suite.test("mounts-in-mounts", || nested(small));
    suite.test("image-on-an-overlay-and-on-a-device", || elsewhere(small));
    suite.test("many-mounts-of-one-image", || many(small));
    suite.test("killed-daemon", || killed(small));
    suite.test("killed-daemon-under-readers", || killed_under_readers(small));
    suite.test("killed-daemon-under-an-overlay", || killed_under_overlay(small));
    suite.test("readers-are-killed-while-the-daemon-waits", || stopped(small));
    suite.test("unmounted-while-it-is-read", || unmounted_under_readers(small));
}

/// `tesserafs umount`, and why it did not.
fn by_program(arguments: &[&str], target: &Path) -> Result<Result<(), String>> {
    let output = Command::new(PROGRAM).arg("umount").args(arguments).arg(target).output();
    let output = output.with_context(|| format!("failed to start {PROGRAM}"))?;
    match output.status.code() {
        Some(0) => Ok(Ok(())),
        Some(1) => Ok(Err(said(&output))),
        _ => bail!("{PROGRAM} umount: {}: {}", output.status, said(&output)),
    }
}

/// Whether something is mounted there.
fn is_mounted(target: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    let target = target.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*target)))
}

fn expect_errno<T>(what: &str, result: std::io::Result<T>, allowed: &[i32]) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} was done"),
        Err(error) => {
            ensure!(
                error.raw_os_error().is_some_and(|errno| allowed.contains(&errno)),
                "{what}: {error}, not one of {allowed:?}"
            );
            Ok(())
        }
    }
}

/// A mount that nobody uses for a while, with nothing in memory afterwards, serves on, root and others.
fn idle(image: &Image) -> Result<String> {
    let served = ByFuse::at(&on_disk(&image.image), Path::new(TARGET), &["--allow-other"])?;
    compare(image, served.path())?;
    std::thread::sleep(WHILE);
    drop_caches()?;
    let user = sys::acting_as(1000, &[1000], || std::fs::read(served.path().join(LARGE)));
    user.context("failed to act as a user")?.context("a user cannot read")?;
    let note = compare(image, served.path())?;
    served.unmount()?;
    Ok(note)
}

/// As long as a file is open, a folder somebody's, or another mount in it, unmounting is refused; afterwards it is not.
fn busy(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    let (target, daemon) = (served.path().to_path_buf(), served.daemon);
    let file = File::open(target.join(LARGE)).context("failed to open")?;
    let refused = unmount(&target, UnmountFlags::empty());
    ensure!(refused == Err(Errno::BUSY), "umount2 of a busy mount: {refused:?}");
    let Err(why) = by_program(&[], &target)? else { bail!("a busy mount is unmounted") };
    ensure!(why.contains("busy") && why.contains(TARGET), "it says: {why}");
    // The refusal has done it no harm.
    compare(image, &target)?;
    drop(file);
    by_program(&[], &target)?.map_err(|why| anyhow!("not unmounted: {why}"))?;
    ensure!(ended(daemon)?.exit_status() == Some(0), "the daemon did not end well");
    ensure!(!is_mounted(&target)?, "it is still mounted");
    std::mem::forget(served);
    Ok(why)
}

/// Taken out of the tree, a mount serves files that are open, mapped ones too; the daemon ends with the last of them.
fn open_files(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    let (target, daemon) = (served.path().to_path_buf(), served.daemon);
    let expected = std::fs::read(target.join(LARGE)).context("failed to read")?;
    let file = File::open(target.join(LARGE)).context("failed to open")?;
    let folder = File::open(&target).context("failed to open the root")?;
    let mapping = sys::Mapping::new(&file, expected.len()).context("failed to map")?;
    by_program(&["--lazy"], &target)?.map_err(|why| anyhow!("not unmounted: {why}"))?;
    std::mem::forget(served);
    ensure!(!is_mounted(&target)?, "it is still in the tree");
    drop_caches()?;
    let mut bytes = vec![0; expected.len()];
    file.read_exact_at(&mut bytes, 0).context("failed to read an open file")?;
    ensure!(bytes == expected, "an open file has other bytes");
    drop_caches()?;
    ensure!(mapping.bytes() == expected, "a mapping has other bytes");
    let names = crate::fstests::listing(&folder, 4096).context("failed to list an open folder")?;
    ensure!(names.len() > 3, "{} names", names.len());
    ensure!(super::daemons()?.iter().any(|(pid, _)| *pid == daemon), "the daemon ended before its files");
    drop((file, folder));
    drop(mapping);
    ensure!(ended(daemon)?.exit_status() == Some(0), "the daemon did not end well");
    Ok(String::new())
}

/// Other filesystems are mounted in it, and it again in those: nothing goes before what is in it.
fn nested(image: &Image) -> Result<String> {
    let outer = ByFuse::new(&on_disk(&image.image))?;
    let place = outer.path().join("many");
    let tmpfs = Mount::new(Path::new("tmpfs"), &place, "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs in it")?;
    let inner = ByFuse::at(&on_disk(&image.image), &place.join("inner"), &[])?;
    let deep = ByFuse::at(&on_disk(&image.image), &inner.path().join("special"), &[])?;
    for (mount, inside) in [(&outer, &place), (&inner, &deep.path().to_path_buf())] {
        let refused = unmount(mount.path(), UnmountFlags::empty());
        ensure!(refused == Err(Errno::BUSY), "{}: {refused:?}", inside.display());
    }
    let note = compare(image, deep.path())?;
    deep.unmount()?;
    compare(image, inner.path())?;
    inner.unmount()?;
    tmpfs.unmount()?;
    compare(image, outer.path())?;
    outer.unmount()?;
    Ok(note)
}

/// An image that lies on an overlay, and one that is a block device.
fn elsewhere(image: &Image) -> Result<String> {
    let tmpfs = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay = Mount::overlay(Path::new(DISK), tmpfs.path(), Path::new("/mnt/overlay"), "")?;
    let served = ByFuse::new(&overlay.path().join(&image.image))?;
    compare(image, served.path())?;
    served.unmount()?;
    overlay.unmount()?;
    tmpfs.unmount()?;
    let file = File::open(on_disk(&image.image)).context("failed to open the image")?;
    let (device, _first_user) = sys::loop_device(&file).context("failed to make a loop device")?;
    let served = ByFuse::new(&device)?;
    let note = compare(image, served.path())?;
    served.unmount()?;
    Ok(note)
}

/// One image, mounted many times: each mount is whole, and goes without the others.
fn many(image: &Image) -> Result<String> {
    let file = on_disk(&image.image);
    let targets: Vec<PathBuf> = (0..8).map(|number| PathBuf::from(format!("/mnt/many-{number}"))).collect();
    let served = targets.iter().map(|target| ByFuse::at(&file, target, &[])).collect::<Result<Vec<_>>>()?;
    let count = served.len();
    for mount in served {
        compare(image, mount.path())?;
        mount.unmount()?;
    }
    Ok(format!("{count} mounts"))
}

/// Whose daemon is killed, that mount answers `ENOTCONN` to everything, and can be unmounted.
fn killed(image: &Image) -> Result<String> {
    for by_tool in [true, false] {
        let served = ByFuse::new(&on_disk(&image.image))?;
        let (target, daemon) = (served.path().to_path_buf(), served.daemon);
        let file = File::open(target.join(LARGE)).context("failed to open")?;
        kill_process(daemon, Signal::KILL).context("failed to kill the daemon")?;
        let status = ended(daemon)?;
        ensure!(status.terminating_signal() == Some(libc::SIGKILL), "the daemon ended with {status:?}");
        drop_caches()?;
        let gone = [libc::ENOTCONN];
        expect_errno("stat", std::fs::metadata(target.join("special/one")), &gone)?;
        // Files in use are known still; a name that is not, and the names of a folder, would have to be asked for.
        expect_errno("open", File::open(target.join("data/noise")), &gone)?;
        let names = std::fs::read_dir(target.join("data"));
        expect_errno("readdir", names.and_then(|mut names| names.next().transpose()), &gone)?;
        // Bytes that nobody has in memory cannot be had any more.
        let read = file.read_at(&mut [0; 4096], 400_000);
        expect_errno("read", read, &[libc::ENOTCONN, libc::ECONNABORTED, libc::EIO])?;
        drop(file);
        if by_tool {
            by_program(&[], &target)?.map_err(|why| anyhow!("not unmounted: {why}"))?;
            std::mem::forget(served);
        } else {
            served.mount.unmount()?;
        }
        ensure!(!is_mounted(&target)?, "it is still mounted");
        // And mounted again, as if nothing had been.
        let again = ByFuse::new(&on_disk(&image.image))?;
        compare(image, again.path())?;
        again.unmount()?;
    }
    Ok(String::new())
}

/// Reads everything again and again, on several threads, while `then` is done. Bytes that are read are right; errors are told.
fn under_readers(image: &Image, root: &Path, then: impl FnOnce() -> Result<()>) -> Result<Vec<i32>> {
    let manifest = Manifest::load(&on_disk(&image.manifest))?;
    let is_over = AtomicBool::new(false);
    let (manifest, is_over) = (&manifest, &is_over);
    let errors = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                scope.spawn(move || -> Result<Vec<i32>> {
                    let (mut errors, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
                    let files = manifest.entries.iter().filter(|entry| tree::is_file(entry.mode));
                    for entry in files.cycle().skip(number * 97) {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        match tree::checksum(&entry.below(root), entry.size, &mut buffer) {
                            Ok(sum) => ensure!(
                                sum == entry.content,
                                "/{} has other bytes",
                                entry.path.escape_ascii()
                            ),
                            Err(error) => errors.push(error.raw_os_error().unwrap_or(0)),
                        }
                    }
                    Ok(errors)
                })
            })
            .collect();
        std::thread::sleep(WHILE);
        let done = then();
        std::thread::sleep(Duration::from_millis(200));
        is_over.store(true, Ordering::Relaxed);
        let joined =
            readers.into_iter().map(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?);
        let errors = joined.collect::<Result<Vec<_>>>().map(|errors| errors.concat());
        done.and(errors)
    });
    let mut errors = errors?;
    errors.sort_unstable();
    errors.dedup();
    Ok(errors)
}

/// No reader waits for a daemon that is gone, and none gets a wrong byte.
fn killed_under_readers(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    let daemon = served.daemon;
    let errors = under_readers(image, served.path(), || {
        drop_caches()?;
        kill_process(daemon, Signal::KILL).context("failed to kill the daemon")?;
        ended(daemon)?;
        drop_caches()
    })?;
    let allowed = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO];
    ensure!(!errors.is_empty() && errors.iter().all(|errno| allowed.contains(errno)), "errors {errors:?}");
    served.mount.unmount()?;
    Ok(format!("errors {errors:?}"))
}

/// An overlay over it gives errors, too, and both are unmounted.
fn killed_under_overlay(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    let tmpfs = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay = Mount::overlay(served.path(), tmpfs.path(), Path::new("/mnt/overlay"), "")?;
    std::fs::write(overlay.path().join("special/one"), "changed\n").context("failed to change a file")?;
    kill_process(served.daemon, Signal::KILL).context("failed to kill the daemon")?;
    ended(served.daemon)?;
    drop_caches()?;
    let read = std::fs::read(overlay.path().join(LARGE));
    expect_errno("read through the overlay", read, &[libc::ENOTCONN, libc::ECONNABORTED, libc::EIO])?;
    overlay.unmount()?;
    tmpfs.unmount()?;
    served.mount.unmount()?;
    Ok(String::new())
}

/// Readers of a daemon that does not answer can be killed; when it goes on, it serves the others.
fn stopped(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    // The kernel tells the daemon of the first file that is closed, and waits for the answer, even of one who is killed; the
    // answer is that it need not do so again.
    std::fs::read(served.path().join(LARGE)).context("failed to read")?;
    let file = File::open(served.path().join(LARGE)).context("failed to open")?;
    drop_caches()?;
    kill_process(served.daemon, Signal::STOP).context("failed to stop the daemon")?;
    // The command, which has the file, too, is gone after this line.
    let reader = Command::new("/proc/self/exe").arg("drain").stdin(file).spawn();
    let mut reader = reader.context("failed to start a reader")?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(reader.try_wait().context("failed to wait")?.is_none(), "it has read without the daemon");
    reader.kill().context("failed to kill a reader")?;
    // Where a reader cannot be killed, this ends with the machine's time.
    reader.wait().context("failed to wait for a reader")?;
    kill_process(served.daemon, Signal::CONT).context("failed to let the daemon go on")?;
    let note = compare(image, served.path())?;
    served.unmount()?;
    Ok(note)
}

/// A mount that is taken away from under its readers gives `ENOENT` for names, and ends with the last reader.
fn unmounted_under_readers(image: &Image) -> Result<String> {
    let served = ByFuse::new(&on_disk(&image.image))?;
    let (target, daemon) = (served.path().to_path_buf(), served.daemon);
    let errors = under_readers(image, &target, || {
        by_program(&["--lazy"], &target)?.map_err(|why| anyhow!("not unmounted: {why}"))
    })?;
    std::mem::forget(served);
    ensure!(errors.iter().all(|errno| *errno == libc::ENOENT), "errors {errors:?}");
    ensure!(ended(daemon)?.exit_status() == Some(0), "the daemon did not end well");
    Ok(format!("errors {errors:?}"))
}
