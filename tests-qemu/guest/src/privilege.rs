// SPDX-License-Identifier: GPL-2.0
//! The powers of a user other than root: to mount in a user namespace, and to use mounts of others.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree;

use crate::fuse::{Fault, Lasts, Served};
use crate::kmsg::Log;
use crate::mounts::{on_disk, Mount};
use crate::observe;
use crate::signatures::{reason, require, trust};
use crate::suite::Suite;
use crate::sys;

/// Somebody, and somebody else.
const USER: u32 = 1000;
const OTHER: u32 = 2000;

/// Ends with the low byte of its effective user ID; it is root's, and set-user-ID.
const SETUID: &str = "special/setuid";

/// Its exit status, run by [`OTHER`].
const OTHER_ENDS: i32 = (OTHER & 0xff) as i32;

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    let signed = &plan.signed;
    suite.test("set-user-id-of-a-mount-of-root", || set_user_id(plan));
    suite.test("an-opaque-directory-is-opaque-to-all", || opaque(plan));
    suite.test("a-user-needs-a-namespace", || {
        let (image, target) = (on_disk(&signed.good[0].image), Path::new("/tmp/plain"));
        std::fs::create_dir(target).context("failed to create a folder")?;
        let errno = said_by(&mut user("mount-as-user", &image, target, "")?)?;
        ensure!(errno == Some(Errno::PERM), "a user without a namespace gets {errno:?}");
        Ok(String::new())
    });
    suite.test("a-user-needs-the-policy", || {
        trust(plan)?;
        refused(&signed.good[0], &[Errno::PERM])
    });
    suite.test("a-user-needs-a-signature", || {
        require()?;
        trust(plan)?;
        refused(&signed.unsigned, &[Errno::NODATA])?;
        refused(&signed.stranger, &[Errno::NOKEY])?;
        refused(&signed.tampered, &[Errno::KEYREJECTED])?;
        refused(&signed.transplanted, &[Errno::KEYREJECTED])
    });
    suite.test("a-user-mounts-no-device", || {
        require()?;
        trust(plan)?;
        let image = File::open(on_disk(&signed.good[0].image)).context("failed to open an image")?;
        let (device, _user) = sys::loop_device(&image).context("failed to make a loop device")?;
        let root = Mount::image(&device, Path::new("/mnt/device"), "").context("root cannot mount it")?;
        root.unmount()?;
        sys::let_all_read(&device).context("failed to let others read a device")?;
        refused_at(&device, &[Errno::PERM])
    });
    suite.test("a-user-mounts-nothing-that-is-served", || {
        require()?;
        trust(plan)?;
        let image = std::fs::read(on_disk(&signed.good[0].image)).context("failed to read an image")?;
        let served = Served::new(image)?;
        // Nothing is read: it might never come back.
        served.arm(Fault::Fails, Lasts::Everywhere, 0);
        let said = refused_at(&served.file(), &[Errno::PERM])?;
        ensure!(served.call_off() == 0, "the file was read");
        served.unmount()?;
        Ok(said)
    });
    suite.test("a-user-mounts-a-signed-image", || {
        require()?;
        trust(plan)?;
        mounted_by_user(&signed.good[0])
    });
}

/// A program of root's that is set-user-ID: it is one where root has mounted the image, if root wants it so.
fn set_user_id(plan: &Plan) -> Result<String> {
    for (flags, expected) in [(MountFlags::empty(), 0), (MountFlags::NOSUID, OTHER_ENDS)] {
        let image = on_disk(&plan.small.image);
        let mount =
            Mount::new(&image, Path::new("/mnt/image"), "tesserafs", flags, "").context("failed to mount")?;
        let code = run_by_other(&mount.path().join(SETUID))?;
        ensure!(code == expected, "with {flags:?} it ends with {code}");
        mount.unmount()?;
    }
    Ok(String::new())
}

/// A directory of a layer hides that of the layer below, in an overlay of root's and in one of a user, for which
/// overlayfs reads other attributes.
fn opaque(plan: &Plan) -> Result<String> {
    let layer =
        Mount::image(&on_disk(&plan.opaque), Path::new("/mnt/layer"), "").context("failed to mount")?;
    let below = Path::new("/tmp/below");
    let directory = below.join("directory");
    std::fs::create_dir_all(&directory).context("failed to create a directory")?;
    std::fs::write(directory.join("hidden"), "").context("failed to write a file")?;
    let layers = format!("lowerdir={}:{}", layer.path().display(), below.display());
    let overlay =
        Mount::new(Path::new("overlay"), Path::new("/mnt/overlay"), "overlay", MountFlags::RDONLY, &layers)
            .context("failed to mount an overlay")?;
    let of_root = names(&overlay.path().join("directory"))?;
    overlay.unmount()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("list-overlay-in-namespace").arg(format!("{layers},userxattr")).arg(target()?);
    sys::as_user(&mut command, USER);
    let output = command.output().context("failed to start a process")?;
    ensure!(output.status.success(), "a user: {}", String::from_utf8_lossy(&output.stderr).trim());
    let of_user = String::from_utf8(output.stdout).context("a name is no text")?;
    layer.unmount()?;
    std::fs::remove_dir_all(below).context("failed to remove a directory")?;
    ensure!(of_root == "new", "root finds {of_root}");
    ensure!(of_user == "new", "a user finds {of_user}");
    Ok(String::new())
}

/// The names in a directory, in their order.
fn names(directory: &Path) -> Result<String> {
    let entries = std::fs::read_dir(directory).context("failed to list a directory")?;
    let names: Result<Vec<_>, _> =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.context("failed to list a directory")?;
    names.sort();
    Ok(names.join(" "))
}

/// The helper that [`opaque`] starts: prints what the directory of an overlay holds.
pub(crate) fn list_overlay(options: &OsStr, target: &Path) -> Result<()> {
    sys::become_root_of_a_namespace().context("failed to make a user namespace")?;
    let options = options.to_str().context("options that are no text")?;
    let overlay = Mount::new(Path::new("overlay"), target, "overlay", MountFlags::RDONLY, options)
        .context("failed to mount an overlay")?;
    print!("{}", names(&overlay.path().join("directory"))?);
    overlay.unmount()
}

/// The exit status of the program, if [`OTHER`] runs it.
fn run_by_other(program: &Path) -> Result<i32> {
    let mut command = Command::new(program);
    sys::as_user(&mut command, OTHER);
    let status = command.status().with_context(|| format!("failed to run {}", program.display()))?;
    status.code().with_context(|| format!("{} ended with {status}", program.display()))
}

/// Fails unless a user cannot mount the image, with one of these errors and a line in the log.
fn refused(image: &Image, allowed: &[Errno]) -> Result<String> {
    refused_at(&on_disk(&image.image), allowed)
}

fn refused_at(image: &Path, allowed: &[Errno]) -> Result<String> {
    let mut log = Log::from_now()?;
    match refused_to_user(image, "")? {
        Some(Errno::PERM) if allowed.contains(&Errno::PERM) => log.expect_line("in a user namespace"),
        Some(errno) if allowed.contains(&errno) => log.expect_line(reason(errno)?),
        said => bail!("a user gets {said:?} for {}, not one of {allowed:?}", image.display()),
    }
}

/// The error that a user gets, in a namespace of its own, for an image with these options; none if it can be mounted.
pub(crate) fn refused_to_user(image: &Path, options: &str) -> Result<Option<Errno>> {
    let mut child = user("mount-in-namespace", image, &target()?, options)?;
    let said = said_by(&mut child)?;
    if said.is_none() {
        drop(child.stdin.take());
        child.wait().context("failed to wait for a process")?;
    }
    Ok(said)
}

/// A folder of the user's.
fn target() -> Result<PathBuf> {
    let target = PathBuf::from("/tmp/namespace");
    std::fs::create_dir_all(&target).context("failed to create a folder")?;
    Ok(target)
}

/// A process of a user's, which mounts the image, says how that went, and ends with its standard input.
fn user(verb: &str, image: &Path, target: &Path, options: &str) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(verb).arg(image).arg(target).arg(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    sys::as_user(&mut command, USER);
    command.spawn().context("failed to start a process")
}

/// The report of a user's process: the error of its mount, or that there is none.
fn said_by(child: &mut Child) -> Result<Option<Errno>> {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().context("a process has no output")?;
    BufReader::new(stdout).read_line(&mut line).context("failed to hear of a mount")?;
    match line.trim().parse().with_context(|| format!("{line:?} is no error number"))? {
        0 => Ok(None),
        errno => {
            child.wait().context("failed to wait for a process")?;
            Ok(Some(Errno::from_raw_os_error(errno)))
        }
    }
}

/// The helper that [`user`] starts.
pub(crate) fn mount_as_user(image: &Path, target: &Path, options: &OsStr, in_namespace: bool) -> Result<()> {
    if in_namespace {
        sys::become_root_of_a_namespace().context("failed to make a user namespace")?;
    }
    let options = options.to_str().context("options that are no text")?;
    let mount = Mount::image(image, target, options);
    let errno = mount.as_ref().map_or_else(|errno| errno.raw_os_error(), |_| 0);
    println!("{errno}");
    std::io::stdout().flush().context("failed to tell of a mount")?;
    if mount.is_ok() {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest).context("failed to wait")?;
    }
    Ok(())
}

/// Everything is there but what is root's alone, and gives nobody rights.
fn mounted_by_user(image: &Image) -> Result<String> {
    let target = target()?;
    let mut child = user("mount-in-namespace", &on_disk(&image.image), &target, "")?;
    let said = said_by(&mut child)?;
    ensure!(said.is_none(), "a user gets {said:?}");
    let root = PathBuf::from(format!("/proc/{}/root", child.id())).join("tmp/namespace");
    let mut expected = Manifest::load(&on_disk(&image.manifest))?;
    for entry in &mut expected.entries {
        // Root of the namespace is the user; nobody else is known there.
        entry.uid = if entry.uid == 0 { USER } else { sys::NOBODY };
        entry.gid = if entry.gid == 0 { USER } else { sys::NOBODY };
    }
    expected.expect_equal(&tree::scan(&root, 1)?)?;
    let setuid = root.join(SETUID);
    let mode = std::fs::metadata(&setuid).context("failed to look at the program")?.mode();
    ensure!(mode & 0o4000 != 0, "the program is not set-user-ID");
    // Nobody but root gets there by its path.
    let program = File::open(&setuid).context("failed to open the program")?;
    let code = run_by_other(&PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd())))?;
    drop(program);
    ensure!(code == OTHER_ENDS, "run from outside the namespace it ends with {code}");
    // A mounter without rights over the machine has no counters in sysfs, and has chunks of its own.
    let device = std::fs::metadata(&root).context("failed to look at the mount")?.dev();
    let folder = observe::folder_of(device);
    ensure!(!folder.exists(), "{} is there", folder.display());
    drop(child.stdin.take());
    let status = child.wait().context("failed to wait for a process")?;
    ensure!(status.success(), "the user's process ended with {status}");
    Ok(format!("{} names", expected.entries.len()))
}
