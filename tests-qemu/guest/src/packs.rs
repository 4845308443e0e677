// SPDX-License-Identifier: GPL-2.0
//! Packs: chunks in files of their own, which images share. Where a mounter says that they are; which files are refused, and by
//! whom; and what becomes of readers when something happens to one.

mod damaged;
mod refused;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount, FsMountFlags,
    FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags,
};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree;

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::sharing;
use crate::suite::Suite;
use crate::sys::Mapping;

const TARGET: &str = "/mnt/packed";

/// Processes that are killed while they mount and read.
const KILLS: u64 = 20;

/// Every so many of the reads that go wrong are tried.
pub(crate) fn tests(suite: &mut Suite, plan: &Plan, every: usize) {
    suite
        .test("in-a-directory-by-its-path", || in_directory(plan, &plan.packed.next, &plan.packed.directory));
    suite.test("in-as-many-packs-as-there-can-be", || {
        in_directory(plan, &plan.packed.many, &plan.packed.many_directory)
    });
    suite.test("in-a-directory-that-is-open", || open_directory(plan));
    suite.test("that-are-open", || open_packs(plan));
    suite.test("options-show-the-directory", || shown(plan));
    suite.test("two-images-over-one-pack", || shared(plan));
    suite.test("nothing-is-opened-later", || opened_once(plan));
    suite.test("killed-while-mounting-and-reading", || killed(plan));
    suite.test("a-composed-image-is-what-an-overlay-shows", || composed(plan));
    refused::tests(suite, plan);
    damaged::tests(suite, plan, every);
}

/// Where packs are, as a mounter says it.
enum Packs<'a> {
    /// A path.
    Path(&'a str),
    /// An open directory.
    Directory(&'a File),
    /// The packs, open, in the order of the table.
    Open(Vec<&'a File>),
}

/// Mounts an image by the calls that take open files.
fn mount(image: &Path, packs: &Packs<'_>) -> Result<Mount, Errno> {
    let context = fsopen("tesserafs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", image)?;
    match packs {
        Packs::Path(path) => fsconfig_set_string(&context, "packdir", *path)?,
        Packs::Directory(directory) => fsconfig_set_fd(&context, "packdir", directory.as_fd())?,
        Packs::Open(packs) => {
            packs.iter().try_for_each(|pack| fsconfig_set_fd(&context, "packdir", pack.as_fd()))?;
        }
    }
    fsconfig_create(&context)?;
    attach(&context)
}

/// Attaches what a context has created.
fn attach(context: &OwnedFd) -> Result<Mount, Errno> {
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // A folder that cannot be made shows as the mount's own ENOENT.
    let _ = fs::create_dir_all(TARGET);
    move_mount(&mount, "", CWD, TARGET, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(Mount::adopted(Path::new(TARGET)))
}

/// A pack of the plan, by its name.
fn pack(plan: &Plan, name: &str) -> PathBuf {
    on_disk(&plan.packed.directory).join(name)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("failed to open {}", path.display()))
}

/// Fails unless everything of the image is there.
fn is_whole(mount: &Mount, image: &Image) -> Result<()> {
    drop_caches()?;
    Manifest::load(&on_disk(&image.manifest))?.expect_equal(&tree::scan(mount.path(), 2)?)
}

fn in_directory(_: &Plan, image: &Image, directory: &str) -> Result<String> {
    let options = format!("packdir={}", on_disk(directory).display());
    let mount =
        Mount::image(&on_disk(&image.image), Path::new(TARGET), &options).context("failed to mount")?;
    is_whole(&mount, image)?;
    mount.unmount()?;
    Ok(format!("{} packs", fs::read_dir(on_disk(directory)).context("failed to list packs")?.count()))
}

fn open_directory(plan: &Plan) -> Result<String> {
    let image = &plan.packed.next;
    let directory = open(&on_disk(&plan.packed.directory))?;
    let mount = mount(&on_disk(&image.image), &Packs::Directory(&directory)).context("failed to mount")?;
    is_whole(&mount, image)?;
    mount.unmount()?;
    Ok(String::new())
}

fn open_packs(plan: &Plan) -> Result<String> {
    let packed = &plan.packed;
    let (base, next) = (open(&pack(plan, &packed.base_pack))?, open(&pack(plan, &packed.next_pack))?);
    let mount =
        mount(&on_disk(&packed.next.image), &Packs::Open(vec![&base, &next])).context("failed to mount")?;
    is_whole(&mount, &packed.next)?;
    mount.unmount()?;
    Ok(String::new())
}

/// The mount table names the directory, with what would end an option escaped.
fn shown(plan: &Plan) -> Result<String> {
    let directory = "/tmp/packs, and more";
    fs::create_dir(directory).context("failed to create a directory")?;
    for name in [&plan.packed.base_pack, &plan.packed.next_pack] {
        fs::copy(pack(plan, name), Path::new(directory).join(name)).context("failed to copy a pack")?;
    }
    let image = on_disk(&plan.packed.next.image);
    let line = || -> Result<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
        let line = mounts.lines().find(|line| line.contains(TARGET)).context("the mount is not there")?;
        Ok(line.to_owned())
    };
    let by_path = mount(&image, &Packs::Path(directory)).context("failed to mount")?;
    let of_path = line()?;
    by_path.unmount()?;
    let expected = r"packdir=/tmp/packs\054\040and\040more";
    ensure!(of_path.contains(expected), "{of_path} does not say {expected}");
    let opened = open(Path::new(directory))?;
    let by_directory = mount(&image, &Packs::Directory(&opened)).context("failed to mount")?;
    let of_directory = line()?;
    by_directory.unmount()?;
    ensure!(of_directory.contains(expected), "{of_directory} does not say {expected}");
    fs::remove_dir_all(directory).context("failed to remove a directory")?;
    Ok(expected.to_owned())
}

/// Pages of a file that both images have are in memory once.
fn shared(plan: &Plan) -> Result<String> {
    let packed = &plan.packed;
    let options = format!("packdir={}", on_disk(&packed.directory).display());
    let mount = |image: &Image, target: &str| {
        Mount::image(&on_disk(&image.image), Path::new(target), &options).context("failed to mount")
    };
    let (base, next) = (mount(&packed.base, "/mnt/base")?, mount(&packed.next, "/mnt/next")?);
    drop_caches()?;
    let entry = sharing::longest(plan)?;
    sharing::read(&entry, base.path())?;
    let file = open(&entry.below(next.path()))?;
    let mapping = Mapping::new(&file, entry.size as usize).context("failed to map a file")?;
    let there = mapping.resident().context("mincore failed")?;
    let all = entry.size.div_ceil(4096) as usize;
    ensure!(there == all, "{there} of {all} pages are shared");
    drop((mapping, file));
    base.unmount()?;
    is_whole(&next, &packed.next)?;
    next.unmount()?;
    Ok(format!("{all} pages"))
}

/// A copy of the packs, in a directory of its own.
pub(crate) fn copies(plan: &Plan, directory: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).context("failed to create a directory")?;
    for name in [&plan.packed.base_pack, &plan.packed.next_pack] {
        fs::copy(pack(plan, name), directory.join(name)).context("failed to copy a pack")?;
    }
    Ok(())
}

/// Packs that get another file under their name, or lose it, stay what they were for a mount.
fn opened_once(plan: &Plan) -> Result<String> {
    let directory = Path::new("/tmp/packs");
    copies(plan, directory)?;
    let image = &plan.packed.next;
    let mount = mount(&on_disk(&image.image), &Packs::Path("/tmp/packs")).context("failed to mount")?;
    let (base, next) = (directory.join(&plan.packed.base_pack), directory.join(&plan.packed.next_pack));
    let other = directory.join("other");
    fs::write(&other, vec![0; fs::metadata(&base).context("failed to stat a pack")?.len() as usize])
        .and_then(|()| fs::rename(&other, &base))
        .and_then(|()| fs::remove_file(&next))
        .context("failed to replace packs")?;
    is_whole(&mount, image)?;
    mount.unmount()?;
    fs::remove_dir_all(directory).context("failed to remove a directory")?;
    Ok(String::new())
}

/// A composed image has the tree that overlayfs shows over mounts of its layers, but for numbers of links.
fn composed(plan: &Plan) -> Result<String> {
    let packed = &plan.packed;
    let options = format!("packdir={}", on_disk(&packed.directory).display());
    let mount = |image: &str, target: &str| {
        Mount::image(&on_disk(image), Path::new(target), &options)
            .with_context(|| format!("failed to mount {image}"))
    };
    let mut layers = Vec::new();
    for (number, layer) in packed.layers.iter().enumerate() {
        layers.push(mount(&layer.image, &format!("/mnt/layer-{number}"))?);
    }
    let lower: Vec<String> = layers.iter().rev().map(|layer| layer.path().display().to_string()).collect();
    let lower = format!("lowerdir={}", lower.join(":"));
    let target = Path::new("/mnt/overlay");
    let overlay = Mount::new(Path::new("overlay"), target, "overlay", MountFlags::RDONLY, &lower)
        .context("failed to mount an overlay")?;
    let composed = mount(&packed.composed, TARGET)?;
    let scan = |mount: &Mount| -> Result<Manifest> {
        let mut found = tree::scan(mount.path(), 1)?;
        for entry in &mut found.entries {
            (entry.nlink, entry.first_name) = (0, None);
        }
        Ok(found)
    };
    let (shown, own) = (scan(&overlay)?, scan(&composed)?);
    shown.expect_equal(&own).context("the overlay is the measure")?;
    composed.unmount()?;
    overlay.unmount()?;
    layers.into_iter().try_for_each(Mount::unmount)?;
    Ok(format!("{} names", own.entries.len()))
}

/// Processes that mount an image with packs, read it and unmount it are killed at any moment.
fn killed(plan: &Plan) -> Result<String> {
    let mut random = fastrand::Rng::with_seed(17);
    for _ in 0..KILLS {
        let mut child = Command::new("/proc/self/exe")
            .arg("mount-and-read")
            .arg(on_disk(&plan.packed.next.image))
            .arg(format!("packdir={}", on_disk(&plan.packed.directory).display()))
            .spawn()
            .context("failed to start a process")?;
        std::thread::sleep(Duration::from_micros(random.u64(0..200_000)));
        ensure!(child.try_wait().context("failed to wait for a process")?.is_none(), "a process ended");
        child.kill().and_then(|()| child.wait()).context("failed to kill a process")?;
    }
    in_directory(plan, &plan.packed.next, &plan.packed.directory)?;
    Ok(format!("{KILLS} processes killed"))
}
