// SPDX-License-Identifier: GPL-2.0

//! Inodes: from records of the inode table to inodes of the VFS.

use kernel::prelude::*;

use tesserafs_format::{FileKind, Image, Ino, Inode, XattrSetIndex};

use crate::dir::Directory;
use crate::error::Failure;
use crate::klib::buffer::Array;
use crate::meta::MetaReader;
use crate::mount::Tesserafs;
use crate::read::RegularFile;
use crate::vfs::inode::{Attributes, INode, Iget, Kind, NewINode, Ops, Ref, Target};
use crate::vfs::{address_space, export, file, Ready, SuperBlock};

/// The part of an inode's record that has no place in the `struct inode`.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) ino: Ino,
    /// Its type, with what only that type has.
    pub(crate) kind: FileKind,
    /// Its xattrs.
    pub(crate) xattrs: Option<XattrSetIndex>,
}

/// The inode of that number, from the inode cache or the image.
pub(crate) fn iget(
    sb: &SuperBlock<Tesserafs, Ready>,
    ino: Ino,
) -> Result<Ref<'_, Tesserafs>, Failure> {
    let new = match sb.iget(ino.get().into())? {
        Iget::Cached(inode) => return Ok(inode),
        Iget::New(new) => new,
    };
    let mounted = sb.data();
    let meta = mounted.meta(sb);
    let image = Image::new(&mounted.sb, &meta);
    let inode = image.inode(ino)?;
    init(new, &image, inode)
}

/// The root directory, from what was read before there was a superblock.
pub(crate) fn root(sb: &SuperBlock<Tesserafs, Ready>) -> Result<Ref<'_, Tesserafs>, Failure> {
    let new = match sb.iget(Ino::ROOT.get().into())? {
        Iget::Cached(inode) => return Ok(inode),
        Iget::New(new) => new,
    };
    let mounted = sb.data();
    let meta = mounted.meta(sb);
    init(new, &Image::new(&mounted.sb, &meta), mounted.root)
}

/// Makes the inode that a record describes. Of the image only the target of a symbolic link is read.
fn init<'a>(
    new: NewINode<'a, Tesserafs>,
    image: &Image<'_, MetaReader<'_>>,
    inode: Inode,
) -> Result<Ref<'a, Tesserafs>, Failure> {
    let size = size(&inode);
    let kind = match inode.kind {
        FileKind::Regular { .. } => Kind::Regular {
            file: file::Ops::regular::<RegularFile>(),
            mapping: address_space::Ops::new::<RegularFile>(),
        },
        FileKind::Directory(_) => Kind::Directory {
            file: file::Ops::directory::<Directory>(),
        },
        FileKind::Symlink { offset, len } => {
            let mut target = Array::zeroed(usize::try_from(len).map_err(|_| EFSCORRUPTED)?)?;
            image.target(inode.ino, offset, &mut target)?;
            Kind::Symlink(Target::from_bytes(target)?)
        }
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::Whiteout => Kind::Whiteout,
    };
    let attributes = Attributes {
        permissions: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        nlink: inode.nlink,
        size,
        // `stat` counts in units of 512 bytes.
        blocks: inode.blocks.saturating_mul(8),
        mtime: inode.mtime.sec,
        mtime_nsec: inode.mtime.nsec,
        may_have_acl: inode.xattrs.is_some(),
    };
    let record = Record {
        ino: inode.ino,
        kind: inode.kind,
        xattrs: inode.xattrs,
    };
    Ok(new.init(kind, Ops::new::<Directory>(), attributes, record)?)
}

/// The size that `stat` shows: of a directory the number of its entries.
fn size(inode: &Inode) -> u64 {
    match inode.kind {
        FileKind::Regular { size, .. } => size,
        FileKind::Directory(tables) => tables.entries.into(),
        FileKind::Symlink { len, .. } => len,
        FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => 0,
    }
}

/// File handles: inode numbers are stable, as an image never changes.
pub(crate) struct Handles;

impl export::Operations for Handles {
    type FileSystem = Tesserafs;

    fn iget(sb: &SuperBlock<Tesserafs>, ino: u64) -> Result<Ref<'_, Tesserafs>> {
        let mounted = sb.data();
        let ino = u32::try_from(ino)
            .ok()
            .and_then(|ino| Ino::new(ino, &mounted.sb.layout))
            .ok_or(ESTALE)?;
        iget(sb, ino).map_err(|failure| mounted.stats.report(failure))
    }

    fn parent<'a>(dir: &'a INode<Tesserafs>) -> Result<Ref<'a, Tesserafs>> {
        let FileKind::Directory(tables) = dir.data().kind else {
            return Err(ENOTDIR);
        };
        let sb = dir.super_block();
        iget(sb, tables.parent).map_err(|failure| sb.data().stats.report(failure))
    }
}
