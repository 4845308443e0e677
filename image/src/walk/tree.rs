// SPDX-License-Identifier: GPL-2.0-or-later

//! The facts that a walk learns of the tree.

use super::users::Users;
use crate::context::Context;
use crate::error::{vec_of, Error};

/// A directory: its number, and where its entries and names are.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Its inode number.
    pub ino: u32,
    /// Where its entries and names are.
    pub tables: tesserafs_format::Directory,
}

/// The facts that the walk learned; indexed by inode number less 1, or by content.
#[derive(Debug, Default)]
pub struct Tree {
    /// Stored type, 0 of an inode that could not be read.
    pub(super) types: Vec<u8>,
    /// Parent that the inode says, of directories.
    pub(super) parents: Vec<u32>,
    /// Entries that point to it.
    pub(super) names: Vec<u32>,
    /// Directory of its first name; 0 for none.
    pub(super) named_by: Vec<u32>,
    /// The entry of that directory that is its first name; nothing where there is none.
    pub(super) first_name: Vec<u32>,
    /// All directories that could be read, by number.
    pub directories: Vec<Directory>,
    /// Bytes of each content; 0 where no file has it.
    pub sizes: Vec<u64>,
    /// Blocks of each content that are not all zero, as its first inode says.
    pub blocks: Vec<u64>,
    /// First inode that has it; 0 for none.
    pub(super) content_users: Vec<u32>,
    /// Whether every inode and entry could be read.
    pub(super) is_whole: bool,
    /// First users of the xattr sets that findings are about, once looked for.
    pub(super) set_users: Option<Vec<u32>>,
    /// Contents of the chunks and extents that findings are about, once looked for.
    pub(super) map_users: Option<Users>,
}

impl Tree {
    pub(super) fn empty(context: &Context<'_>) -> Result<Self, Error> {
        let layout = &context.image.sb.layout;
        let (inodes, contents) = (layout.inodes.records(), layout.content_digests.records());
        Ok(Self {
            types: vec_of(inodes, "a record for each inode")?,
            parents: vec_of(inodes, "a record for each inode")?,
            names: vec_of(inodes, "a record for each inode")?,
            named_by: vec_of(inodes, "a record for each inode")?,
            first_name: vec_of(inodes, "a record for each inode")?,
            sizes: vec_of(contents, "a record for each content")?,
            blocks: vec_of(contents, "a record for each content")?,
            content_users: vec_of(contents, "a record for each content")?,
            is_whole: true,
            ..Self::default()
        })
    }

    /// Bytes of all contents.
    pub fn file_bytes(&self) -> u64 {
        self.sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size))
    }

    /// The directory of the first name of an inode, and that entry of it.
    pub fn first_name(&self, ino: u32) -> Option<(&Directory, u32)> {
        let index = ino.checked_sub(1)? as usize;
        let number = *self.named_by.get(index)?;
        let at = self.directories.binary_search_by_key(&number, |directory| directory.ino).ok()?;
        Some((&self.directories[at], self.first_name[index]))
    }

    /// The directory of that inode number.
    pub fn directory(&self, ino: u32) -> Option<Directory> {
        let at = self.directories.binary_search_by_key(&ino, |directory| directory.ino).ok()?;
        self.directories.get(at).copied()
    }
}
