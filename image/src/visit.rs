// SPDX-License-Identifier: GPL-2.0-or-later

//! The names of a tree in the order of paths, as listings and archives have them.

use tesserafs_format::limits::NAME_MAX;
use tesserafs_format::{Directory, FileKind, Inode};

use crate::context::{read, Context};
use crate::error::Error;
use crate::lookup::Found;

/// A directory whose entries are being visited.
struct Level {
    directory: Directory,
    next: u32,
    /// Bytes of its path.
    path_len: usize,
}

/// Hands `each` every name at and below what was found, with its path from there: `.` is what was found itself, if it is a
/// directory, and a file has its name. A directory comes before what is in it. The tree was checked.
pub fn visit(
    context: &Context<'_>,
    top: &Found,
    mut each: impl FnMut(&[u8], &Inode) -> Result<(), Error>,
) -> Result<(), Error> {
    let FileKind::Directory(directory) = top.inode.kind else { return each(&top.name, &top.inode) };
    each(b".", &top.inode)?;
    let mut path = Vec::new();
    let mut levels = vec![Level { directory, next: 0, path_len: 0 }];
    while let Some(last) = levels.last_mut() {
        context.cancel.check()?;
        path.truncate(last.path_len);
        let Some(entry) = read(context.image.dirent(&last.directory, last.next))? else {
            levels.pop();
            continue;
        };
        last.next += 1;
        let mut buf = [0; NAME_MAX];
        let name = read(context.image.name(&entry, &mut buf))?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let inode = read(context.image.inode(entry.ino))?;
        each(&path, &inode)?;
        if let FileKind::Directory(directory) = inode.kind {
            levels.push(Level { directory, next: 0, path_len: path.len() });
        }
    }
    Ok(())
}

/// Hands `each` the names and values of an inode's xattrs, in their order.
pub fn xattrs(
    context: &Context<'_>,
    inode: &Inode,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(index) = inode.xattrs else { return Ok(()) };
    let image = &context.image;
    let mut cursor = image.xattrs(read(image.xattr_set(index))?);
    let mut buf = [0; tesserafs_format::limits::XATTR_NAME_MAX];
    while let Some((entry, name)) = read(cursor.next(&mut buf))? {
        let mut value = vec![0; entry.value_len as usize];
        read(image.xattr_value(index, &entry, &mut value))?;
        each(name, &value)?;
    }
    Ok(())
}

/// The target of a symlink; empty of any other file.
pub fn target(context: &Context<'_>, inode: &Inode) -> Result<Vec<u8>, Error> {
    let FileKind::Symlink { offset, len } = inode.kind else { return Ok(Vec::new()) };
    let mut target = vec![0; len as usize];
    read(context.image.target(inode.ino, offset, &mut target))?;
    Ok(target)
}
