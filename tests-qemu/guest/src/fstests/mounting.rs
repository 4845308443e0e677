// SPDX-License-Identifier: GPL-2.0
//! Cases that mount an image in a way of their own.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{anyhow, ensure, Context, Result};
use rustix::fs::{openat, Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tesserafs_guest::cases;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use super::{holds, listing, lists, look, open, refused, scratch, tmpfs};
use crate::api::shifted_namespace;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sys;

/// A name, and what is done.
type Case = (&'static str, fn(&Plan) -> Result<String>);

pub(super) const CASES: &[Case] = &[
    ("generic-003-access-times-stay", access_times),
    ("generic-050-a-read-only-block-device", read_only_device),
    ("generic-076-the-device-is-read-beside-the-mount", device_beside),
    ("generic-306-writes-go-through", writes_go_through),
    ("generic-318-lists-through-an-idmapped-mount", lists_idmapped),
    ("generic-409-mounts-are-propagated", propagated),
    ("generic-452-programs-run", programs),
    ("generic-477-handles-outlive-a-mount", handles_outlive_a_mount),
    ("generic-525-the-last-byte-there-can-be", last_byte),
    ("unmount-while-busy", busy),
];

fn image(plan: &Plan, target: &str, flags: MountFlags) -> Result<Mount> {
    Mount::new(&on_disk(&plan.cases.image), Path::new(target), "tesserafs", flags, "")
        .with_context(|| format!("failed to mount the image with {flags:?}"))
}

/// 003 and 120 mount with each option for times of access; one that is read-only never changes any, whatever the
/// option, and whether a file is read, run, or listed.
fn access_times(plan: &Plan) -> Result<String> {
    for flags in [MountFlags::STRICTATIME, MountFlags::RELATIME, MountFlags::NOATIME, MountFlags::empty()] {
        let mount = image(plan, "/mnt/image", flags)?;
        let paths = ["data/file", "owned/program", "crowd", "links/long"].map(|name| mount.path().join(name));
        let times = || -> Result<Vec<_>> {
            paths.iter().map(|path| look(path).map(|stat| (stat.atime(), stat.atime_nsec()))).collect()
        };
        let before = times()?;
        std::fs::read(&paths[0]).context("failed to read")?;
        Command::new(&paths[1]).status().context("failed to run a program")?;
        listing(&open(&paths[2])?, 4096).context("failed to list")?;
        std::fs::read_link(&paths[3]).context("failed to read a symlink")?;
        ensure!(times()? == before, "with {flags:?} the times change from {before:?}");
        mount.unmount()?;
    }
    Ok(String::new())
}

/// 050 mounts a block device that is read-only: without being asked to, the mount is read-only, and it is unmounted
/// and mounted again without a word.
fn read_only_device(plan: &Plan) -> Result<String> {
    let backing = open(&on_disk(&plan.cases.image))?;
    let (device, _user) = sys::loop_device(&backing).context("failed to make a loop device")?;
    let written = File::options().write(true).open(&device).and_then(|file| file.write_at(b"x", 0));
    refused("writing to the device", written, &[Errno::PERM, Errno::ACCESS])?;
    for flags in [MountFlags::empty(), MountFlags::RDONLY] {
        let mount = Mount::new(&device, Path::new("/mnt/image"), "tesserafs", flags, "")
            .with_context(|| format!("failed to mount with {flags:?}"))?;
        refused("making a file", File::create_new(mount.path().join("foo")), &[Errno::ROFS])?;
        holds(&mount.path().join("data/other"), b"another file\n")?;
        let again = rustix::mount::mount_remount(mount.path(), MountFlags::empty(), c"");
        // The VFS looks at the device before it asks the file system.
        refused("mounting for writing", again, &[Errno::ACCESS])?;
        mount.unmount()?;
    }
    Ok(device.display().to_string())
}

/// 076 reads the block device from end to end, over and over, while files are read from the mount.
fn device_beside(plan: &Plan) -> Result<String> {
    let path = on_disk(&plan.cases.image);
    let expected = std::fs::read(&path).context("failed to read the image")?;
    let (device, _user) = sys::loop_device(&open(&path)?).context("failed to make a loop device")?;
    let mount = Mount::image(&device, Path::new("/mnt/image"), "").context("failed to mount the device")?;
    let manifest = Manifest::load(&on_disk(&plan.cases.manifest))?;
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<u32> {
            for round in 1.. {
                let found = std::fs::read(&device).context("failed to read the device")?;
                // A device ends with a sector.
                super::same("the device", found.get(..expected.len()).unwrap_or(&found), &expected)?;
                if done.load(Ordering::Relaxed) {
                    return Ok(round);
                }
            }
            Ok(0)
        });
        let read = (0..3).try_for_each(|_| {
            drop_caches()?;
            manifest.expect_equal(&tree::scan(mount.path(), 2)?)
        });
        done.store(true, Ordering::Relaxed);
        let rounds = reader.join().map_err(|_| anyhow!("a thread panicked"))??;
        read.map(|()| rounds)
    })?;
    mount.unmount()?;
    Ok(format!("{rounds} times"))
}

/// 318 sets and reads lists in a user namespace. Here the mount has the ids of one: the ids in a list are
/// shifted as the owners are.
fn lists_idmapped(plan: &Plan) -> Result<String> {
    const SHIFT: u32 = 100_000;
    let mount = image(plan, "/mnt/image", MountFlags::empty())?;
    let namespace = shifted_namespace(SHIFT).context("failed to make a user namespace")?;
    let target = Path::new("/mnt/idmapped");
    std::fs::create_dir_all(target).context("failed to make a folder")?;
    sys::idmapped_clone(mount.path(), target, &namespace).context("failed to make an idmapped mount")?;
    let clone = Mount::adopted(target);
    let note = lists(clone.path(), SHIFT)?;
    lists(mount.path(), 0).context("without the mapping")?;
    clone.unmount()?;
    mount.unmount()?;
    Ok(note)
}

/// 306 writes on a read-only file system to files that are not of it: through a symlink to another one, and
/// to a file of another one that is mounted over one of it.
fn writes_go_through(plan: &Plan) -> Result<String> {
    let mount = image(plan, "/mnt/image", MountFlags::empty())?;
    let target = scratch("fstests-target")?;
    std::fs::write(&target, b"").context("failed to write the target")?;
    let bind = mount.path().join("links/bind");
    let paths = [mount.path().join("links/to-tmp"), bind.clone()];
    rustix::mount::mount_bind(&target, &bind).context("failed to mount a file over a file")?;
    let over = Mount::adopted(&bind);
    for path in &paths {
        for flags in [OFlags::empty(), OFlags::CREATE, OFlags::TRUNC, OFlags::CREATE | OFlags::TRUNC] {
            let file = openat(CWD, path, OFlags::WRONLY | flags, Mode::from_raw_mode(0o600))
                .with_context(|| format!("failed to open {} with {flags:?}", path.display()))?;
            let text = format!("{flags:?}\n");
            File::from(file).write_all_at(text.as_bytes(), 0).context("failed to write")?;
            let found = std::fs::read(&target).context("failed to read the target")?;
            ensure!(found.starts_with(text.as_bytes()), "{flags:?} is not written");
        }
    }
    over.unmount()?;
    holds(&bind, b"what a bind mount hides\n")?;
    refused("making a file", File::create_new(mount.path().join("new")), &[Errno::ROFS])?;
    mount.unmount()?;
    Ok(String::new())
}

/// 409 and 410 mount in trees that are shared, private and slave, and see where the mounts show.
fn propagated(plan: &Plan) -> Result<String> {
    let source = image(plan, "/mnt/image", MountFlags::empty())?;
    let set =
        |path: &Path, how| rustix::mount::mount_change(path, how).context("failed to set the propagation");
    set(source.path(), MountPropagationFlags::SHARED)?;
    let copy = Path::new("/mnt/copy");
    for (how, there, back) in [
        (MountPropagationFlags::SHARED, true, true),
        (MountPropagationFlags::DOWNSTREAM, true, false),
        (MountPropagationFlags::PRIVATE, false, false),
    ] {
        std::fs::create_dir_all(copy).context("failed to make a folder")?;
        rustix::mount::mount_bind(source.path(), copy).context("failed to bind")?;
        let copy = Mount::adopted(copy);
        set(copy.path(), how)?;
        for (from, to, expected) in [(&source, &copy, there), (&copy, &source, back)] {
            let inner = from.path().join("kinds/d");
            let inner = tmpfs(&inner.to_string_lossy())?;
            std::fs::write(inner.path().join("mark"), b"").context("failed to write a mark")?;
            let shown = to.path().join("kinds/d/mark").exists();
            ensure!(shown == expected, "{how:?}: a mount in {} shows: {shown}", from.path().display());
            inner.unmount()?;
            ensure!(
                listing(&open(&to.path().join("kinds/d"))?, 512).context("failed to list")?.len() == 2,
                "a rest"
            );
        }
        copy.unmount()?;
    }
    set(source.path(), MountPropagationFlags::UNBINDABLE)?;
    refused("binding what is unbindable", rustix::mount::mount_bind(source.path(), copy), &[Errno::INVAL])?;
    source.unmount()?;
    Ok(String::new())
}

/// 452 runs a program from a read-only mount. With `noexec` it does not run.
fn programs(plan: &Plan) -> Result<String> {
    for (flags, runs) in [(MountFlags::RDONLY, true), (MountFlags::NOEXEC, false)] {
        let mount = image(plan, "/mnt/image", flags)?;
        let program = mount.path().join("owned/program");
        let result = Command::new(&program).status();
        if runs {
            let status = result.context("failed to run a program")?;
            ensure!(status.success(), "the program ended with {status}");
        } else {
            refused("running a program", result, &[Errno::ACCESS])?;
        }
        mount.unmount()?;
    }
    Ok(String::new())
}

/// 477 opens files and folders by handles that were made in an earlier mount.
fn handles_outlive_a_mount(plan: &Plan) -> Result<String> {
    let names = ["data/file", "data/other", "kinds/d", "crowd", "crowd/999", "."];
    let mount = image(plan, "/mnt/image", MountFlags::empty())?;
    let mut handles = Vec::new();
    for name in names {
        let path = mount.path().join(name);
        let handle = sys::handle_of(&path).with_context(|| format!("no handle of {name}"))?;
        handles.push((name, look(&path)?.ino(), handle));
    }
    mount.unmount()?;
    drop_caches()?;
    let mount = image(plan, "/mnt/again", MountFlags::empty())?;
    let root = open(mount.path())?;
    for (name, ino, handle) in &mut handles {
        let mut file = sys::open_handle(&root, handle).with_context(|| format!("failed to open {name}"))?;
        ensure!(file.metadata().context("failed to stat")?.ino() == *ino, "{name} is another inode");
        if *name == "data/other" {
            let mut text = String::new();
            file.read_to_string(&mut text).context("failed to read")?;
            ensure!(text == "another file\n", "{name} is another file");
        }
    }
    drop(root);
    mount.unmount()?;
    Ok(format!("{} handles", names.len()))
}

/// 466 and 525 read the byte at 2^63-2, which is the last one.
fn last_byte(plan: &Plan) -> Result<String> {
    const LAST: u64 = i64::MAX as u64 - 1;
    let mount = Mount::image(&on_disk(&plan.sparse.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    let file = open(&mount.path().join("huge"))?;
    // No more is asked for than there can be: on any file system, a read that ends beyond is refused.
    for (start, wanted, expected) in [(LAST, 1, 1), (LAST - 10, 11, 11), (LAST + 1, 0, 0)] {
        let mut buffer = [1; 11];
        let n = file
            .read_at(&mut buffer[..wanted], start)
            .with_context(|| format!("failed to read at {start}"))?;
        ensure!(n == expected, "{n} bytes at {start}");
        ensure!(buffer[..n].iter().all(|byte| *byte == 0), "not zero at {start}");
    }
    refused("reading beyond 2^63", file.read_at(&mut [0; 2], LAST), &[Errno::INVAL])?;
    refused("reading at 2^63", file.read_at(&mut [0; 8], 1 << 63), &[Errno::INVAL])?;
    drop(file);
    mount.unmount()?;
    Ok(String::new())
}

/// A mount in use stays; one that is detached goes with its last user, which can read to the end.
fn busy(plan: &Plan) -> Result<String> {
    let mount = image(plan, "/mnt/image", MountFlags::empty())?;
    let file = open(&mount.path().join("data/file"))?;
    let unmounted = rustix::mount::unmount(mount.path(), UnmountFlags::empty());
    refused("unmounting what is in use", unmounted, &[Errno::BUSY])?;
    rustix::mount::unmount(mount.path(), UnmountFlags::DETACH).context("failed to detach")?;
    std::mem::forget(mount);
    ensure!(!Path::new("/mnt/image/data").exists(), "still mounted");
    drop_caches()?;
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).context("failed to read")?;
    super::same("the file", &bytes, &cases::bytes(0, cases::FILE))?;
    Ok(String::new())
}
