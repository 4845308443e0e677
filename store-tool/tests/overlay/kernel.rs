// SPDX-License-Identifier: GPL-2.0-or-later

//! Mounts of overlayfs that are at no path, and so gone when the test is.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, FsMountFlags, FsOpenFlags,
    MountAttrFlags,
};

/// An overlay of directories.
pub(crate) struct Overlay(OwnedFd);

impl Overlay {
    /// Mounts one; the first directory is the lowest. The way to say one directory after the other, and the marks of overlays in layers,
    /// are of Linux 6.8.
    pub(crate) fn new(layers: &[PathBuf], userxattr: bool) -> io::Result<Self> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in layers.iter().rev() {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        if userxattr {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        Ok(Self(mount))
    }

    /// Its root.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/.", self.0.as_raw_fd()).into()
    }

    /// The names without a file that it shows in directories that are of one layer: of whiteouts there (`FORMAT.md` 4.9).
    pub(crate) fn names_without_a_file(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.path(), Path::new("/"), &mut names);
        names
    }
}

fn collect(directory: &Path, path: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        let (file, path) = (directory.join(&name), path.join(&name));
        match file.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => collect(&file, &path, names),
            Ok(_) => (),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}", path.display());
                let text = String::from_utf8(path.as_os_str().as_bytes().to_vec()).expect("UTF-8");
                names.push(text);
            }
        }
    }
}
