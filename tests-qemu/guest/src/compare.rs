// SPDX-License-Identifier: GPL-2.0
//! The mounted image is its source, in every attribute and byte, whatever the image lies on.

use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree;

use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;

const MNT: &str = "/mnt/image";

/// The second virtio disk: the root image, raw.
pub(crate) const DEVICE: &str = "/dev/vdb";

/// Threads that read a tree.
pub(crate) const THREADS: usize = 2;

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("file-on-ext4", || {
        let mount = mounted(&on_disk(&plan.root.image))?;
        let note = compare(&plan.root, mount.path())?;
        mount.unmount()?;
        Ok(note)
    });
    suite.test("file-on-tmpfs", || {
        let copy = Path::new("/tmp/root.tess");
        std::fs::copy(on_disk(&plan.root.image), copy).context("failed to copy the image")?;
        let mount = mounted(copy)?;
        let note = compare(&plan.root, mount.path())?;
        mount.unmount()?;
        std::fs::remove_file(copy).context("failed to remove the copy")?;
        Ok(note)
    });
    suite.test("block-device", || {
        let mount = mounted(Path::new(DEVICE))?;
        let note = compare(&plan.root, mount.path())?;
        mount.unmount()?;
        Ok(note)
    });
    suite.test("overlay-on-top", || overlay_on_top(&plan.root, mounted(&on_disk(&plan.root.image))?));
    suite.test("image-on-overlay", || image_on_overlay(&plan.small));
    suite.test("file-of-2^63-1-bytes", || {
        let mount = mounted(&on_disk(&plan.sparse.image))?;
        let note = compare(&plan.sparse, mount.path())?;
        mount.unmount()?;
        Ok(note)
    });
    suite.test("two-mounts-of-one-image", || {
        let first = mounted(&on_disk(&plan.small.image))?;
        let second =
            Mount::by_program(&["-t", "tesserafs"], &on_disk(&plan.small.image), Path::new("/mnt/second"))?;
        compare(&plan.small, first.path())?;
        first.unmount()?;
        let note = compare(&plan.small, second.path())?;
        second.unmount()?;
        Ok(note)
    });
}

/// Mounts an image with util-linux's `mount`, as a user types it.
pub(crate) fn mounted(image: &Path) -> Result<Mount> {
    Mount::by_program(&["-t", "tesserafs"], image, Path::new(MNT))
}

/// Reads everything below `root` and compares it with the manifest.
pub(crate) fn compare(image: &Image, root: &Path) -> Result<String> {
    let expected = Manifest::load(&on_disk(&image.manifest))?;
    let start = Instant::now();
    let found = tree::scan(root, THREADS)?;
    let seconds = start.elapsed().as_secs_f64();
    expected.expect_equal(&found)?;
    Ok(format!("{} names, {} MB in {seconds:.1} s", found.entries.len(), expected.data_bytes() / 1_000_000))
}

/// overlayfs shows the image without its whiteouts, and takes changes that the image does not see.
pub(crate) fn overlay_on_top(image: &Image, lower: Mount) -> Result<String> {
    let tmpfs = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay = Mount::overlay(lower.path(), tmpfs.path(), Path::new("/mnt/overlay"), "")?;
    let mut expected = Manifest::load(&on_disk(&image.manifest))?;
    let whiteout = |mode: u32| mode & 0o170_000 == 0o020_000;
    let before = expected.entries.len();
    expected.entries.retain(|entry| !whiteout(entry.mode));
    let whiteouts = before - expected.entries.len();
    ensure!(whiteouts > 0, "the source has no whiteout: the test would prove nothing");

    let mut scan = tree::scan_damaged(overlay.path(), THREADS);
    // A directory that is in one layer only is listed as it is: a hidden name shows, and is not there.
    scan.errors.retain(|(_, error)| error.raw_os_error() != Some(libc::ENOENT));
    if let Some((path, error)) = scan.errors.first() {
        anyhow::bail!("failed to read /{}: {error}", path.escape_ascii());
    }
    // The root of an overlay is the upper layer's folder, which was made a moment ago.
    let (Some(root), Some(found)) = (expected.entries.first(), scan.manifest.entries.first_mut()) else {
        anyhow::bail!("an empty tree");
    };
    *found = root.clone();
    expected.expect_equal(&scan.manifest)?;

    let at = |name: &str| overlay.path().join(name);
    std::fs::write(at("etc/hostname"), "changed\n").context("failed to change a file")?;
    std::fs::remove_file(at("etc/debian_version")).context("failed to remove a file")?;
    std::fs::create_dir(at("etc/new")).context("failed to make a folder")?;
    std::fs::rename(at("etc/issue"), at("etc/new/issue")).context("failed to move a file")?;
    ensure!(
        std::fs::read(at("etc/hostname")).context("failed to read back")? == b"changed\n",
        "the change is lost"
    );
    ensure!(!at("etc/debian_version").exists(), "the removed file is still there");
    ensure!(at("etc/new/issue").exists(), "the moved file is gone");
    overlay.unmount()?;
    for name in ["etc/debian_version", "etc/issue"] {
        ensure!(lower.path().join(name).exists(), "the image lost {name}");
    }
    tmpfs.unmount()?;
    lower.unmount()?;
    Ok(format!("{} names, {whiteouts} whiteouts hidden", scan.manifest.entries.len()))
}

/// An image that lies on an overlayfs.
fn image_on_overlay(image: &Image) -> Result<String> {
    let tmpfs = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay =
        Mount::overlay(Path::new(crate::mounts::DISK), tmpfs.path(), Path::new("/mnt/overlay"), "")?;
    let mount = mounted(&overlay.path().join(&image.image))?;
    let note = compare(image, mount.path())?;
    mount.unmount()?;
    overlay.unmount()?;
    tmpfs.unmount()?;
    Ok(note)
}
