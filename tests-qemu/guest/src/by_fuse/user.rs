// SPDX-License-Identifier: GPL-2.0
//! A user other than root mounts an image in a user namespace, where no kernel driver would be had.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use super::{daemons, said, ByFuse, PATIENCE};
use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;
use crate::sys;

/// Somebody.
const USER: u32 = 1000;

/// A folder, in which the namespace mounts.
const TARGET: &str = "/tmp/by-user";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("a-user-mounts-in-a-namespace", || {
        std::fs::create_dir_all(TARGET).with_context(|| format!("failed to create {TARGET}"))?;
        // As udev does.
        std::fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666))
            .context("failed to let all use /dev/fuse")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("mount-by-fuse-in-namespace");
        command.arg(on_disk(&plan.small.image)).arg(on_disk(&plan.small.manifest));
        sys::as_user(&mut command, USER);
        let output = command.output().context("failed to start a process")?;
        ensure!(output.status.success(), "{}: {}", output.status, said(&output));
        // Its daemon ends a moment after its mount.
        let start = Instant::now();
        while !daemons()?.is_empty() {
            ensure!(start.elapsed() < PATIENCE, "the daemon goes on after its mount is gone");
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    });
}

/// `mount-by-fuse-in-namespace IMAGE MANIFEST`: all is there but what only root of the machine sees.
pub(crate) fn mount_in_namespace(image: &Path, manifest: &Path) -> Result<()> {
    sys::become_root_of_a_namespace().context("failed to make a user namespace")?;
    let target = Path::new(TARGET);
    let output = ByFuse::attempt(image, target, &[])?;
    ensure!(output.status.success(), "not mounted: {}: {}", output.status, said(&output));
    let mount = Mount::adopted(target);
    let mut expected = Manifest::load(manifest)?;
    for entry in &mut expected.entries {
        entry.xattrs.retain(|(name, _)| !name.starts_with(b"trusted."));
        // Nobody but root is known in the namespace.
        entry.uid = if entry.uid == 0 { 0 } else { sys::NOBODY };
        entry.gid = if entry.gid == 0 { 0 } else { sys::NOBODY };
    }
    expected.expect_equal(&tree::scan(mount.path(), 1)?)?;
    mount.unmount()?;
    print!("{} names", expected.entries.len());
    Ok(())
}
