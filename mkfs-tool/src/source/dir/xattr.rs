// SPDX-License-Identifier: GPL-2.0-or-later

//! The xattrs of files in a directory.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::buffer::spare_capacity;
use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;
use tesserafs_format::limits::{XATTR_LIST_MAX, XATTR_VALUE_MAX};
use tesserafs_format::xattr::is_valid_name;

use super::DirSource;
use crate::error::{path_of, Error, Result, Shown};
use crate::source::LeftOut;
use crate::tree::Xattrs;

/// Buffers for the xattrs of a file.
pub(super) struct Buffers {
    /// The directory is the working directory of this thread.
    pub(super) is_here: bool,
    path: Vec<u8>,
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            is_here: false,
            path: Vec::new(),
            list: Vec::with_capacity(XATTR_LIST_MAX as usize),
            value: Vec::with_capacity(XATTR_VALUE_MAX as usize),
        }
    }
}

impl DirSource {
    /// The xattrs of `name` in the open directory `dir`, whose number is `number`.
    pub(super) fn xattrs(
        &self,
        dir: &OwnedFd,
        number: u32,
        name: &[u8],
        buffers: &mut Buffers,
        left_out: &mut LeftOut,
    ) -> Result<Xattrs> {
        let Buffers { is_here, path, list, value } = buffers;
        path.clear();
        if *is_here {
            // The name alone is its path.
        } else if self.procfs {
            path.extend_from_slice(format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes());
        } else {
            path.extend_from_slice(self.shown(&self.directories.path(number)).as_os_str().as_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let full = || if name == b"." { self.directories.path(number) } else { self.path_in(number, name) };
        let shown = || self.shown(&full());
        list.clear();
        match llistxattr(path.as_slice(), spare_capacity(list)) {
            Ok(_) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list the xattrs of", &shown())(error)),
        }
        let mut xattrs = Vec::new();
        for attr in list.split(|byte| *byte == 0).filter(|attr| !attr.is_empty()) {
            if !is_valid_name(attr) {
                left_out.xattrs += 1;
                let what = format!("xattr {}, which an image does not hold", Shown(path_of(attr)));
                left_out.names.push(full, what);
                continue;
            }
            value.clear();
            match lgetxattr(path.as_slice(), attr, spare_capacity(value)) {
                Ok(_) => xattrs.push((attr.to_vec(), value.clone())),
                Err(Errno::NODATA) => {
                    return Err(Error::Changed { path: shown(), what: "an xattr went away" });
                }
                Err(error) => return Err(Error::io("read the xattrs of", &shown())(error)),
            }
        }
        Ok(xattrs)
    }
}

/// The xattrs of an open file that an image holds, to be compared with those that it had.
pub(super) fn again(file: &impl std::os::fd::AsFd) -> rustix::io::Result<Xattrs> {
    let mut buffers = Buffers::new();
    match flistxattr(file, spare_capacity(&mut buffers.list)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut xattrs = Vec::new();
    for attr in buffers.list.split(|byte| *byte == 0).filter(|attr| is_valid_name(attr)) {
        buffers.value.clear();
        fgetxattr(file, attr, spare_capacity(&mut buffers.value))?;
        xattrs.push((attr.to_vec(), buffers.value.clone()));
    }
    Ok(xattrs)
}
