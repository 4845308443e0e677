// SPDX-License-Identifier: GPL-2.0

//! Directories: lookup by bisection, readdir in the order of names.

use kernel::prelude::*;

use tesserafs_format::limits::NAME_MAX;
use tesserafs_format::{Dirent, FileKind, FileType, FormatError, Image, Place, Rule};

use crate::error::Failure;
use crate::inode::{self, Record};
use crate::mount::Tesserafs;
use crate::vfs::dentry::{Spliced, Unhashed};
use crate::vfs::file::{self, DirEmitter, EntryType};
use crate::vfs::inode::{self as vfs_inode, INode, Ref};
use crate::xattr::Xattrs;

/// The inode operations of all inodes, and the file operations of directories.
pub(crate) struct Directory;

impl vfs_inode::Operations for Directory {
    type FileSystem = Tesserafs;
    type Xattr = Xattrs;

    /// Of every file that has content: each of its chunks is compressed, unless that would not make it
    /// shorter.
    fn is_compressed(inode: &INode<Tesserafs>) -> bool {
        matches!(
            inode.data().kind,
            FileKind::Regular {
                content: Some(_),
                ..
            }
        )
    }

    fn lookup<'a>(dir: &INode<Tesserafs>, dentry: Unhashed<'a, Tesserafs>) -> Result<Spliced<'a>> {
        let found = find(dir, dentry.name())
            .map_err(|failure| dir.super_block().data().stats.report(failure))?;
        dentry.splice_alias(found)
    }
}

/// The inode of that name in `dir`.
fn find<'a>(dir: &'a INode<Tesserafs>, name: &[u8]) -> Result<Option<Ref<'a, Tesserafs>>, Failure> {
    let FileKind::Directory(tables) = dir.data().kind else {
        return Err(ENOTDIR.into());
    };
    let sb = dir.super_block();
    let mounted = sb.data();
    let meta = mounted.meta(sb);
    let Some(dirent) = Image::new(&mounted.sb, &meta).lookup(&tables, name)? else {
        return Ok(None);
    };
    let found = inode::iget(sb, dirent.ino)?;
    check_entry(dir.data(), &dirent, found.data())?;
    Ok(Some(found))
}

/// Proves that an entry and its inode agree, and that a directory is named by its parent only: the
/// VFS could not bear a directory with two names, or one that contains itself.
fn check_entry(dir: &Record, dirent: &Dirent, found: &Record) -> Result<(), FormatError> {
    let file_type = found.kind.file_type();
    if file_type != dirent.file_type {
        let place = Place::Dirent(dirent.index);
        let (found, expected) = (dirent.file_type.value().into(), file_type.value().into());
        return Err(FormatError::new(Rule::DirentType, place, found, expected));
    }
    match found.kind {
        FileKind::Directory(tables) if tables.parent != dir.ino || found.ino == dir.ino => {
            // For a directory that names itself no parent is right.
            let expected = if found.ino == dir.ino {
                0
            } else {
                dir.ino.get()
            };
            Err(FormatError::new(
                Rule::TreeParent,
                Place::Ino(found.ino.get()),
                tables.parent.get().into(),
                expected.into(),
            ))
        }
        _ => Ok(()),
    }
}

#[vtable]
impl file::Operations for Directory {
    type FileSystem = Tesserafs;

    fn read_dir(dir: &INode<Tesserafs>, emitter: &mut DirEmitter<'_>) -> Result {
        emit_from(dir, emitter).map_err(|failure| dir.super_block().data().stats.report(failure))
    }

    fn entries(dir: &INode<Tesserafs>) -> u64 {
        dir.size()
    }
}

/// Emits the entries from the position of `emitter` on.
fn emit_from(dir: &INode<Tesserafs>, emitter: &mut DirEmitter<'_>) -> Result<(), Failure> {
    let FileKind::Directory(tables) = dir.data().kind else {
        return Err(ENOTDIR.into());
    };
    let sb = dir.super_block();
    let mounted = sb.data();
    let meta = mounted.meta(sb);
    let image = Image::new(&mounted.sb, &meta);
    let mut buf = [0; NAME_MAX];
    loop {
        // A position that no entry can have is behind the last one.
        let n = u32::try_from(emitter.index()).unwrap_or(u32::MAX);
        let Some(dirent) = image.dirent(&tables, n)? else {
            break;
        };
        let name = image.name(&dirent, &mut buf)?;
        if !emitter.emit(name, dirent.ino.get().into(), entry_type(dirent.file_type)) {
            break;
        }
    }
    Ok(())
}

/// The type that `getdents` shows.
fn entry_type(file_type: FileType) -> EntryType {
    match file_type {
        FileType::Regular => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket => EntryType::Socket,
        FileType::Whiteout => EntryType::Whiteout,
    }
}
