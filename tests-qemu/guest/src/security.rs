// SPDX-License-Identifier: GPL-2.0
//! Security modules of the kernel: SELinux, which judges by the labels of an image or by that of its mount, and
//! lockdown, which cannot be taken back and comes last.

use std::io;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::{Plan, LABEL_OPEN, LABEL_SECRET};
use tesserafs_guest::tree;

use crate::boot;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;

const TARGET: &str = "/mnt/image";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("selinux-takes-a-policy", || load_policy(plan));
    suite.test("selinux-judges-by-the-labels-of-the-image", || own_labels(plan));
    suite.test("selinux-judges-by-the-label-of-the-mount", || label_of_the_mount(plan));
    suite.test("lockdown-lets-images-be-read", || locked_down(plan));
}

/// With `lockdown=integrity` on the command line the kernel takes no module without a signature that it knows, and
/// the one under test has none.
pub(crate) fn locked_down_at_boot(suite: &mut Suite) {
    suite.test("an-unsigned-module-is-refused", || {
        let security = mount_securityfs()?;
        let modes = std::fs::read_to_string(security.path().join("lockdown"))
            .context("failed to read how the kernel is locked down")?;
        ensure!(modes.contains("[integrity]"), "the kernel is not locked down: {}", modes.trim());
        security.unmount()?;
        let errno = boot::module_is_refused()?;
        ensure!(errno == Errno::PERM, "the module is refused with {errno}");
        Ok(String::new())
    });
}

/// Mounts the files of the security modules.
fn mount_securityfs() -> Result<Mount> {
    let folder = Path::new("/sys/kernel/security");
    Mount::new(Path::new("securityfs"), folder, "securityfs", MountFlags::empty(), "")
        .context("failed to mount securityfs")
}

/// Loads the policy, and has it enforced.
fn load_policy(plan: &Plan) -> Result<String> {
    let folder = Path::new("/sys/fs/selinux");
    // It stays mounted: there is no way back.
    let mount = Mount::new(Path::new("selinuxfs"), folder, "selinuxfs", MountFlags::empty(), "");
    std::mem::forget(mount.context("failed to mount selinuxfs")?);
    let policy = std::fs::read(on_disk(&plan.labels.policy)).context("failed to read the policy")?;
    std::fs::write(folder.join("load"), policy).context("failed to load the policy")?;
    std::fs::write(folder.join("enforce"), "1").context("failed to have the policy enforced")?;
    Ok(String::new())
}

/// The label that a program sees.
fn label(path: &Path) -> Result<String> {
    let mut room = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, "security.selinux", &mut room[..])
        .with_context(|| format!("failed to read the label of {}", path.display()))?;
    room.truncate(length);
    let text = String::from_utf8(room).context("a label is no text")?;
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Both files of the tree have these labels; they are read by system call and by mapping, and `secret` only if it
/// may be.
fn check(root: &Path, labels: [&str; 2], may_read_secret: bool) -> Result<()> {
    for (name, expected, may) in [("open", labels[0], true), ("secret", labels[1], may_read_secret)] {
        let path = root.join(name);
        let found = label(&path)?;
        ensure!(found == expected, "{name} is labelled {found}, and not {expected}");
        match std::fs::read(&path) {
            Ok(bytes) => {
                ensure!(may, "{name} can be read");
                ensure!(bytes == name.as_bytes(), "{name} has other bytes");
            }
            Err(error) => ensure!(!may && error.kind() == io::ErrorKind::PermissionDenied, "{name}: {error}"),
        }
    }
    Ok(())
}

fn own_labels(plan: &Plan) -> Result<String> {
    let mount = Mount::image(&on_disk(&plan.labels.image.image), Path::new(TARGET), "")
        .context("failed to mount the image")?;
    check(mount.path(), [LABEL_OPEN, LABEL_SECRET], false)?;
    drop_caches()?;
    check(mount.path(), [LABEL_OPEN, LABEL_SECRET], false).context("once more")?;
    mount.unmount()?;
    Ok(String::new())
}

fn label_of_the_mount(plan: &Plan) -> Result<String> {
    let image = on_disk(&plan.labels.image.image);
    let option = format!("context={LABEL_OPEN}");
    let mount = Mount::image(&image, Path::new(TARGET), &option)
        .with_context(|| format!("failed to mount the image with {option}"))?;
    check(mount.path(), [LABEL_OPEN, LABEL_OPEN], true)?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
    let line = table.lines().find(|line| line.contains(TARGET)).context("the mount is not listed")?;
    ensure!(line.contains(&option), "the mount is listed without its label: {line}");
    // The same file at once by its own label: the rights by one mount say nothing about the other one.
    let other =
        Mount::image(&image, Path::new("/mnt/other"), "").context("failed to mount the image again")?;
    check(other.path(), [LABEL_OPEN, LABEL_SECRET], false).context("beside a mount with a label")?;
    other.unmount()?;
    mount.unmount()?;
    match Mount::image(&image, Path::new(TARGET), "context=nobody") {
        Err(Errno::INVAL) => Ok(String::new()),
        Err(errno) => bail!("a label that does not exist is refused with {errno}"),
        Ok(_) => bail!("the image is mounted with a label that does not exist"),
    }
}

/// `lockdown=integrity`, once the module is loaded: it goes on reading, and another unsigned module is refused.
fn locked_down(plan: &Plan) -> Result<String> {
    let security = mount_securityfs()?;
    let before = boot::module_is_refused()?;
    ensure!(before == Errno::EXIST, "before, the module is refused with {before}");
    std::fs::write(security.path().join("lockdown"), "integrity")
        .context("failed to lock the kernel down")?;
    security.unmount()?;
    let after = boot::module_is_refused()?;
    ensure!(
        after == Errno::PERM,
        "an unsigned module is refused with {after}: the kernel is not locked down"
    );
    let expected = Manifest::load(&on_disk(&plan.small.manifest))?;
    for image in [on_disk(&plan.small.image), on_disk(&plan.signed.good[0].image)] {
        let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount")?;
        drop_caches()?;
        expected.expect_equal(&tree::scan(mount.path(), 2)?)?;
        mount.unmount()?;
    }
    Ok(String::new())
}
