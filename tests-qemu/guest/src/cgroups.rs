// SPDX-License-Identifier: GPL-2.0
//! Control groups, version 2.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

use crate::mounts::Mount;

/// The mounted hierarchy, with one controller for the groups in it.
pub(crate) struct Groups(Mount);

impl Groups {
    /// Mounts it; an error where the kernel lacks the controller.
    pub(crate) fn mount(controller: &str) -> Result<Self> {
        let mount = mount()?;
        std::fs::write(mount.path().join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("there is no controller of {controller}"))?;
        Ok(Self(mount))
    }

    /// A group with a limit: the contents of the file of that name.
    pub(crate) fn make(&self, name: &str, file: &str, limit: &str) -> Result<PathBuf> {
        let group = self.0.path().join(name);
        std::fs::create_dir(&group).context("failed to create a group")?;
        std::fs::write(group.join(file), limit)
            .with_context(|| format!("failed to set {file} of a group to {limit}"))?;
        Ok(group)
    }

    /// Lets go of the hierarchy.
    pub(crate) fn unmount(self) -> Result<()> {
        self.0.unmount()
    }
}

fn mount() -> Result<Mount> {
    Mount::new(Path::new("cgroup2"), Path::new("/sys/fs/cgroup"), "cgroup2", MountFlags::empty(), "")
        .context("failed to mount the control groups")
}

/// Whether the kernel has a controller.
pub(crate) fn has(controller: &str) -> Result<bool> {
    let mount = mount()?;
    let controllers = std::fs::read_to_string(mount.path().join("cgroup.controllers"))
        .context("failed to list the controllers")?;
    mount.unmount()?;
    Ok(controllers.split_whitespace().any(|name| name == controller))
}

/// Moves this process into a control group.
pub(crate) fn join(group: &Path) -> Result<()> {
    std::fs::write(group.join("cgroup.procs"), "0").context("failed to join a group")
}
