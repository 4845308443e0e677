// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree region in memory, built in the order that it has (`FORMAT.md` 4).
//!
//! [`TreeBuilder`] numbers inodes as they are added. It wants them in the order of the format: directory after directory
//! by number, the entries of each in ascending order of their names. So a source that walks its tree in this order
//! can hand contents to the encoder while it still walks.

mod builder;

use tesserafs_format::limits::{
    DIRECTORY_NAMES_MAX, FILE_SIZE_MAX, INODES_MAX, NAME_ALIGN, NAME_BYTES_MAX, NAME_MAX, SYMLINK_MAX,
    TARGET_BYTES_MAX,
};
use tesserafs_format::raw::{RawAttributes, RawDirent, RawXattrSet};
use tesserafs_format::{FileType, Timestamp};

pub use self::builder::TreeBuilder;

/// The attributes that all inodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// The extended attributes of an inode: names and values, in any order.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The type of an inode, with the fields that only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes; its content comes from the encoder.
    Regular {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A whiteout.
    Whiteout,
}

impl Kind {
    /// The type as stored.
    pub const fn file_type(&self) -> FileType {
        match self {
            Kind::Regular { .. } => FileType::Regular,
            Kind::Directory => FileType::Directory,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::Whiteout => FileType::Whiteout,
        }
    }
}

/// An inode of the finished tree.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its type.
    pub file_type: FileType,
    /// Index of its attributes.
    pub attributes: u32,
    /// Links.
    pub nlink: u32,
    /// Modification time, as in the record.
    pub mtime: u64,
    /// As in the record: bytes of a file or a target, entries and names of a directory.
    pub size: u64,
    /// As in the record: first entry, or offset of the target; of regular files the encoder knows the content.
    pub start: u32,
    /// Directory: the one that names it.
    pub parent: u32,
}

/// A tree in the order of the format.
#[derive(Debug, Default)]
pub struct Tree {
    /// Inodes by number, from 1.
    pub nodes: Vec<Node>,
    /// The attribute table.
    pub attributes: Vec<RawAttributes>,
    /// The entry table.
    pub entries: Vec<RawDirent>,
    /// The name table.
    pub names: Vec<u8>,
    /// The target table.
    pub targets: Vec<u8>,
    /// The xattr set table.
    pub xattr_sets: Vec<RawXattrSet>,
    /// The xattr entry table.
    pub xattr_entries: Vec<u8>,
    /// Files that are copies of others, by inode, with the other one: its content is theirs.
    pub copies: Vec<(u32, u32)>,
    /// Xattrs that were left out.
    pub refused_xattrs: Vec<RefusedXattr>,
}

/// An xattr that setxattr(2) would refuse, and that is left out.
#[derive(Debug)]
pub struct RefusedXattr {
    /// The directory of the file; of the root the root.
    pub dir: u32,
    /// Its name there; the root has none.
    pub file: Box<[u8]>,
    /// The name of the xattr.
    pub xattr: Box<[u8]>,
    /// Why.
    pub why: &'static str,
}

impl Tree {
    /// The path of a directory; the root's is empty.
    pub fn path(&self, dir: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = dir;
        while at > 1 {
            let parent = self.nodes[at as usize - 1].parent;
            names.push(self.name_in(parent, at));
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The name of an inode in a directory that names it.
    fn name_in(&self, dir: u32, ino: u32) -> &[u8] {
        let node = &self.nodes[dir as usize - 1];
        let (count, names) = (node.size as u32 as usize, (node.size >> 32) * NAME_ALIGN);
        // A directory that could not be closed has no fence.
        let entries = &self.entries[node.start as usize..];
        let entries = &entries[..entries.len().min(count + 1)];
        let offset = |entry: &RawDirent| (names + u64::from(entry.name.get() & ((1 << 29) - 1))) as usize;
        let found = entries.windows(2).find(|pair| pair[0].ino.get() == ino);
        found.map_or(&[], |pair| &self.names[offset(&pair[0])..offset(&pair[1])])
    }
}

/// Why a tree cannot be in an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More inodes or names than an image holds.
    #[error("more than {INODES_MAX} inodes or names, or {NAME_BYTES_MAX} bytes of names")]
    Full,
    /// A directory with more names than its entries can say where they are.
    #[error("the names of its directory have more than {DIRECTORY_NAMES_MAX} bytes")]
    DirectoryFull,
    /// More symlink targets than an image holds.
    #[error("the targets of all symlinks have more than {TARGET_BYTES_MAX} bytes")]
    TargetsFull,
    /// A name that is empty, too long, `.`, `..`, or has a slash or a NUL.
    #[error("its name is no name for a directory entry (1 to {NAME_MAX} bytes, no slash, no NUL)")]
    Name,
    /// A symlink's target is empty, too long or has a NUL.
    #[error("its target has no bytes, more than {SYMLINK_MAX}, or a NUL")]
    Target,
    /// The owner or the group is the number that stands for nobody.
    #[error("its owner or group is {}, which is no owner", u32::MAX)]
    Owner,
    /// A file is too long.
    #[error("it has more than {FILE_SIZE_MAX} bytes")]
    Size,
    /// An xattr name or value is out of range.
    #[error("its xattr {0} is not representable, twice there, or passes a limit")]
    Xattr(String),
    /// A modification time out of range.
    #[error(
        "its mtime, {} s + {} ns, is not between 1901-12-13 20:45:52 and 2446-05-10 22:38:55 UTC \
         (--clamp-mtime makes earlier ones later and later ones earlier, to what fits; SOURCE_DATE_EPOCH makes later ones earlier)",
        .0.sec, .0.nsec
    )]
    Time(Timestamp),
}

#[cfg(test)]
mod tests;
