// SPDX-License-Identifier: GPL-2.0-or-later

//! A mount by the kernel driver.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags,
};
use tesserafs_format::Digest;
use tesserafs_image::text;

use crate::attach::open_dir;
use crate::mountinfo::BY_KERNEL;
use crate::options::Options;

/// Messages of the driver that are shown, at most.
const MESSAGES: usize = 16;

/// Why the driver has not mounted an image.
#[derive(Clone, Debug)]
pub struct Refusal {
    errno: Errno,
    /// The reason, in the words of the driver where it gave any.
    pub reason: String,
}

impl Refusal {
    /// Where the driver was not asked.
    pub fn of(error: io::Error) -> Self {
        Self { errno: Errno::from_io_error(&error).unwrap_or(Errno::IO), reason: error.to_string() }
    }

    /// The same, for a path of the request.
    fn at(path: &Path, error: &io::Error) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::LOOP);
        Self { errno, reason: format!("{}: {error}", text::path(path)) }
    }

    /// Whether the driver says nothing about the image, so that FUSE may do: it is not there, or not for this user, or does not have
    /// what the image needs.
    pub fn is_of_the_driver(&self) -> bool {
        matches!(self.errno, Errno::NODEV | Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::OPNOTSUPP)
    }
}

/// Whether the driver is loaded, or built in.
pub fn is_loaded() -> bool {
    let types = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    types.lines().any(|line| line.split_whitespace().next_back() == Some(BY_KERNEL))
}

/// Mounts `image` at `dir`, both without symlinks. `id` is the one that the image must have, as the file at that path may be another
/// one by now; `pack_dir` is where its packs are, if it has any.
pub fn mount(
    image: &Path,
    dir: &Path,
    id: Option<Digest>,
    pack_dir: Option<&Path>,
    options: &Options,
) -> Result<(), Refusal> {
    let plain = |errno: Errno| Refusal::of(errno.into());
    let context = fsopen(BY_KERNEL, FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    let dir = open_dir(dir).map_err(|error| Refusal::at(dir, &error))?;
    let told = |errno: Errno| Refusal { errno, reason: reason(&context, errno) };
    fsconfig_set_string(context.as_fd(), "source", image).map_err(told)?;
    fsconfig_set_flag(context.as_fd(), "ro").map_err(told)?;
    if let Some(id) = id {
        fsconfig_set_string(context.as_fd(), "digest", format!("sha256:{id}")).map_err(told)?;
    }
    if let Some(pack_dir) = pack_dir {
        // Open, as a string has 255 bytes at most.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(pack_dir, flags, Mode::empty());
        let open = open.map_err(|errno| Refusal::at(pack_dir, &errno.into()))?;
        fsconfig_set_fd(context.as_fd(), "packdir", open.as_fd()).map_err(told)?;
    }
    match options.acl {
        Some(true) => fsconfig_set_flag(context.as_fd(), "acl").map_err(told)?,
        Some(false) => fsconfig_set_flag(context.as_fd(), "noacl").map_err(told)?,
        None => (),
    }
    if options.private_pages {
        fsconfig_set_flag(context.as_fd(), "private_pages").map_err(told)?;
    }
    fsconfig_create(context.as_fd()).map_err(told)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, options.nosuid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, options.nodev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, options.noexec);
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(told)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", dir.as_fd(), "", flags).map_err(plain)
}

/// The words of the driver about an error, or the error itself. Each read gives one message: a letter for its kind, a space, and the text.
fn reason(context: &OwnedFd, errno: Errno) -> String {
    let mut said = Vec::new();
    if let Ok(context) = context.try_clone() {
        let mut context = fs::File::from(context);
        let mut message = [0; 1024];
        while said.len() < MESSAGES {
            let Ok(len) = context.read(&mut message) else { break };
            let text = message.get(2..len).unwrap_or_default();
            said.push(text::escape(text.trim_ascii()));
        }
    }
    if said.is_empty() {
        return io::Error::from(errno).to_string();
    }
    said.join("; ")
}
