// SPDX-License-Identifier: GPL-2.0

//! Extended attributes, POSIX ACLs among them.

use kernel::prelude::*;

use tesserafs_format::limits::XATTR_NAME_MAX;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::Image;

use crate::error::Failure;
use crate::mount::Tesserafs;
use crate::vfs::inode::INode;
use crate::vfs::xattr::{self, Names};

/// The xattrs of all inodes.
pub(crate) struct Xattrs;

impl xattr::Operations for Xattrs {
    type FileSystem = Tesserafs;

    fn get(inode: &INode<Tesserafs>, name: &[u8], value: &mut [u8]) -> Result<usize> {
        get(inode, name, value).map_err(|failure| inode.super_block().data().stats.report(failure))
    }

    fn list(inode: &INode<Tesserafs>, names: &mut Names<'_>) -> Result {
        list(inode, names).map_err(|failure| inode.super_block().data().stats.report(failure))
    }
}

fn get(inode: &INode<Tesserafs>, wanted: &[u8], value: &mut [u8]) -> Result<usize, Failure> {
    let Some(index) = inode.data().xattrs else {
        return Err(ENODATA.into());
    };
    let mounted = inode.super_block().data();
    let meta = mounted.meta(inode.super_block());
    let image = Image::new(&mounted.sb, &meta);
    let mut xattrs = image.xattrs(image.xattr_set(index)?);
    let mut buf = [0; XATTR_NAME_MAX];
    while let Some((entry, name)) = xattrs.next(&mut buf)? {
        if name != wanted {
            continue;
        }
        let len = usize_from_u32(entry.value_len);
        if !value.is_empty() {
            let value = value.get_mut(..len).ok_or(ERANGE)?;
            image.xattr_value(index, &entry, value)?;
        }
        return Ok(len);
    }
    Err(ENODATA.into())
}

fn list(inode: &INode<Tesserafs>, names: &mut Names<'_>) -> Result<(), Failure> {
    let Some(index) = inode.data().xattrs else {
        return Ok(());
    };
    let mounted = inode.super_block().data();
    let meta = mounted.meta(inode.super_block());
    let image = Image::new(&mounted.sb, &meta);
    let mut xattrs = image.xattrs(image.xattr_set(index)?);
    let mut buf = [0; XATTR_NAME_MAX];
    while let Some((_, name)) = xattrs.next(&mut buf)? {
        names.push(name)?;
    }
    Ok(())
}
