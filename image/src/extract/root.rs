// SPDX-License-Identifier: GPL-2.0-or-later

//! The directory that is extracted to.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, CWD};
use rustix::io::Errno;

use crate::error::Error;
use crate::text;

/// The name that mkfs of other filesystems puts in a root directory.
pub(super) const LOST_FOUND: &[u8] = b"lost+found";

/// An xattr that gives what is created in a directory an ACL.
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The directory, open.
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) has_lost_found: bool,
}

impl Root {
    /// Creates `dir`, or proves that it is as good as empty, and opens it.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let shown = text::path(dir);
        let fail =
            |what: &str, source: io::Error| Error::Io { what: format!("cannot {what} {shown}"), source };
        // Others may enter it once it is complete and the image says so.
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fail("create directory", source));
            }
            _ => (),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(|errno| fail("open directory", errno.into()))?;
        // By the descriptor: the name may stand for another directory by now.
        let cannot_read = |errno: Errno| fail("read directory", errno.into());
        let mut has_lost_found = false;
        for entry in rustix::fs::Dir::read_from(&fd).map_err(cannot_read)? {
            let entry = entry.map_err(cannot_read)?;
            let name = entry.file_name();
            match name.to_bytes() {
                b"." | b".." => (),
                LOST_FOUND if is_directory(&fd, LOST_FOUND) => has_lost_found = true,
                other => {
                    let other = text::escape(other);
                    return Err(Error::Refused(format!("{shown} is not empty: it has {other}")));
                }
            }
        }
        // Files that are created in it must not inherit an ACL.
        match rustix::fs::fremovexattr(&fd, DEFAULT_ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => (),
            // A directory of somebody else's: only if there is one does it matter.
            Err(errno) => match rustix::fs::fgetxattr(&fd, DEFAULT_ACL, &mut [0_u8; 0][..]) {
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => (),
                _ => return Err(fail("remove the default ACL of", errno.into())),
            },
        }
        Ok(Self { fd, has_lost_found })
    }
}

fn is_directory(dir: &OwnedFd, name: &[u8]) -> bool {
    let stat = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Whether a directory has no entry.
pub(super) fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
