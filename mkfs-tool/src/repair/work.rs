// SPDX-License-Identifier: GPL-2.0-or-later

//! The new file: it has no name until it is whole, and then has that of the damaged one, with its mode, owner and xattrs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{fchown, fgetxattr, flistxattr, fsetxattr, Gid, Uid, XattrFlags};
use rustix::io::Errno;
use tesserafs_format::limits::{XATTR_LIST_MAX, XATTR_VALUE_MAX};
use tesserafs_image::Source;

use super::donor::read_some;
use crate::error::{path_of, Error, Result, Shown};
use crate::output::{identity, Output};

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// A file that is being written.
pub(super) struct Work {
    output: Output,
    file: File,
    target: PathBuf,
    /// The damaged file that it replaces.
    replaced: Option<File>,
}

impl Work {
    /// Begins the file that will be `target`, in the place of this one.
    pub(super) fn create(target: &Path, replaced: Option<&Source>) -> Result<Self> {
        let dir = match target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let output = Output::create_in(dir)?;
        let file = output.file()?;
        let replaced = replaced.map(|replaced| replaced.file().try_clone()).transpose();
        let replaced = replaced.map_err(Error::io("open", target))?;
        Ok(Self { output, file, target: target.to_owned(), replaced })
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Copies a range of a file that may be damaged; zeros stand for what it has not.
    pub(super) fn copy(&self, from: &Source, start: u64, end: u64) -> Result<()> {
        let mut piece = vec![0; PIECE.min(end.saturating_sub(start)) as usize];
        // Behind its end there are zeros already.
        let end = end.min(from.len());
        let mut at = start;
        while at < end {
            let piece = &mut piece[..PIECE.min(end - at) as usize];
            read_some(from, at, piece);
            self.write(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(Error::io("set the length of the new", &self.target))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write the new", &self.target))
    }

    /// The file, to be read; it is as long as it is going to be.
    pub(super) fn source(&self) -> Result<Arc<Source>> {
        let file = self.file.try_clone().map_err(Error::io("open the new", &self.target))?;
        Ok(Arc::new(Source::from_file(file, &self.target)?))
    }

    /// Gives the file its name, and the damaged one that of `keep`, if there is one. It is on the disk by then.
    pub(super) fn commit(self, keep: Option<&Path>) -> Result<()> {
        let Self { output, file, target, replaced } = self;
        if let Some(replaced) = &replaced {
            take_attributes(replaced, &file, &target)?;
            let held = replaced.metadata().map_err(Error::io("read the attributes of", &target))?;
            if identity(&target) != Some((held.dev(), held.ino())) {
                let reason = "was replaced by another file while it was repaired, which stays";
                return Err(Error::unsupported(&target, reason));
            }
        }
        let keep = keep.filter(|_| replaced.is_some());
        if let Some(keep) = keep {
            fs::hard_link(&target, keep).map_err(Error::io("keep the damaged file as", keep))?;
        }
        output.commit_as(target.clone()).inspect_err(|_| {
            if let Some(keep) = keep {
                let _ = fs::remove_file(keep);
            }
        })?;
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("force to the disk", dir))
    }
}

/// The name that a damaged file is kept under; an error if there is such a file.
pub(super) fn kept_as(target: &Path, suffix: Option<&OsStr>) -> Result<Option<PathBuf>> {
    let Some(suffix) = suffix else { return Ok(None) };
    let mut name: OsString = target.as_os_str().to_owned();
    name.push(suffix);
    let kept = PathBuf::from(name);
    if suffix.is_empty() || kept.parent() != target.parent() {
        return Err(Error::Usage(format!("--keep {}: found no suffix of a name", Shown(Path::new(suffix)))));
    }
    if kept.symlink_metadata().is_ok() {
        return Err(Error::unsupported(&kept, "exists, and --keep would replace it"));
    }
    Ok(Some(kept))
}

/// Gives a file the mode, the owner and the xattrs of another one.
fn take_attributes(old: &File, new: &File, target: &Path) -> Result<()> {
    let there = old.metadata().map_err(Error::io("read the attributes of", target))?;
    let made = new.metadata().map_err(Error::io("read the attributes of the new", target))?;
    if (there.uid(), there.gid()) != (made.uid(), made.gid()) {
        fchown(new, Some(Uid::from_raw(there.uid())), Some(Gid::from_raw(there.gid())))
            .map_err(Error::io("keep the owner of", target))?;
    }
    let mode = fs::Permissions::from_mode(there.mode() & 0o7777);
    new.set_permissions(mode).map_err(Error::io("keep the mode of", target))?;
    let mut names = Vec::with_capacity(XATTR_LIST_MAX as usize);
    match flistxattr(old, spare_capacity(&mut names)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        listed => listed.map_err(Error::io("list the xattrs of", target))?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = |file: &File| {
            let mut value = Vec::with_capacity(XATTR_VALUE_MAX as usize);
            fgetxattr(file, name, spare_capacity(&mut value)).map(|_| value)
        };
        let wanted = value(old).map_err(Error::io("read an xattr of", target))?;
        // The system may have given it some, such as a label.
        if value(new).is_ok_and(|found| found == wanted) {
            continue;
        }
        fsetxattr(new, name, &wanted, XattrFlags::empty()).map_err(|errno| {
            let errno = io::Error::from(errno);
            Error::unsupported(target, format!("cannot keep the xattr {}: {errno}", Shown(path_of(name))))
        })?;
    }
    Ok(())
}
