// SPDX-License-Identifier: GPL-2.0-or-later

//! Directories: `.` and `..` at the positions 0 and 1, then the entries in the order of names, as the kernel driver counts them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{FileAttr, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use tesserafs_format::{Directory, Dirent, Ino, Inode};
use tesserafs_image::serve::Tree;
use tesserafs_image::Broken;

use super::attributes;
use super::server::FOR_EVER;

/// Positions before the first entry.
const DOTS: u64 = 2;

/// Where names go.
pub(super) trait Names {
    /// Adds `.` or `..`; whether that was one too many.
    fn add_dot(&mut self, name: &str, ino: Ino, next: u64) -> bool;

    /// Adds an entry of the directory `ino`; whether that was one too many.
    fn add(&mut self, tree: &Tree<'_>, ino: Ino, entry: &Dirent, name: &[u8], next: u64) -> bool;
}

/// Adds the names of a directory from `position` on. An error behind the first of them is for the next call to meet: as from the kernel
/// driver, what was found before it is shown.
pub(super) fn list(
    tree: &Tree<'_>,
    inode: &Inode,
    directory: &Directory,
    position: u64,
    names: &mut impl Names,
) -> Result<(), Broken> {
    if position == 0 && names.add_dot(".", inode.ino, 1) {
        return Ok(());
    }
    if position <= 1 && names.add_dot("..", directory.parent, DOTS) {
        return Ok(());
    }
    // A position that no entry can have is behind the last one.
    let first = u32::try_from(position.saturating_sub(DOTS)).unwrap_or(u32::MAX);
    let mut has_any = position < DOTS;
    let listed = tree.entries(directory, first, |n, entry, name| {
        let is_full = names.add(tree, inode.ino, entry, name, u64::from(n).saturating_add(DOTS + 1));
        has_any |= !is_full;
        !is_full
    });
    listed.or_else(|failure| if has_any { Ok(()) } else { Err(failure) })
}

impl Names for ReplyDirectory {
    fn add_dot(&mut self, name: &str, ino: Ino, next: u64) -> bool {
        self.add(INodeNo(ino.get().into()), next, FileType::Directory, name)
    }

    fn add(&mut self, _tree: &Tree<'_>, _ino: Ino, entry: &Dirent, name: &[u8], next: u64) -> bool {
        let (ino, kind) = (INodeNo(entry.ino.get().into()), attributes::kind(entry.file_type));
        ReplyDirectory::add(self, ino, next, kind, OsStr::from_bytes(name))
    }
}

impl Names for ReplyDirectoryPlus {
    fn add_dot(&mut self, name: &str, ino: Ino, next: u64) -> bool {
        // Of these two the kernel takes the number only.
        let attr = FileAttr { kind: FileType::Directory, ..numbered(ino) };
        self.add(attr.ino, next, name, &FOR_EVER, &attr, Generation(0))
    }

    fn add(&mut self, tree: &Tree<'_>, ino: Ino, entry: &Dirent, name: &[u8], next: u64) -> bool {
        let attr = match tree.entry(ino, entry) {
            Ok(inode) => attributes::of(&inode),
            // The name is shown, with its number. With a size that no file can have, the kernel takes no attributes from here: a
            // program that wants them makes the kernel ask for them, and gets the error.
            Err(_) => {
                FileAttr { kind: attributes::kind(entry.file_type), size: u64::MAX, ..numbered(entry.ino) }
            }
        };
        ReplyDirectoryPlus::add(
            self,
            attr.ino,
            next,
            OsStr::from_bytes(name),
            &FOR_EVER,
            &attr,
            Generation(0),
        )
    }
}

fn numbered(ino: Ino) -> FileAttr {
    FileAttr { ino: INodeNo(ino.get().into()), ..attributes::none() }
}
