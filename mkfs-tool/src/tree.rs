// SPDX-License-Identifier: GPL-2.0

//! The tree region in memory, built in its canonical order (`FORMAT.md` 4).
//!
//! [`TreeBuilder`] numbers inodes as they are added. It wants them in the order of the format: directory after directory
//! by number, the entries of each in ascending order of their names. So a source that walks its tree in this order
//! can hand contents to the encoder while it still walks.

use std::collections::hash_map::Entry;
use std::collections::HashMap;

use tesserafs_format::limits::{
    DIRECTORY_NAMES_MAX, FILE_SIZE_MAX, INDEX_MAX, INODES_MAX, NAME_ALIGN, NAME_BYTES_MAX, NAME_MAX,
    SYMLINK_MAX, TARGET_BYTES_MAX, XATTR_LIST_MAX, XATTR_VALUE_MAX,
};
use tesserafs_format::raw::{RawAttributes, RawDirent, RawXattrSet};
use tesserafs_format::xattr::is_valid_name;
use tesserafs_format::{Dirent, FileType, Ino, Timestamp, XattrEntry};
use zerocopy::IntoBytes;

/// What all inodes have.
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

/// What an inode is, with what only that type has.
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

/// A tree in canonical order.
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

/// Builds a [`Tree`].
#[derive(Debug)]
pub struct TreeBuilder {
    tree: Tree,
    sets: HashMap<Vec<u8>, u32>,
    attributes: HashMap<RawAttributes, u32>,
    /// The directory whose entries are being added.
    current: u32,
    /// Where its names begin in the name table.
    names: u64,
}

impl TreeBuilder {
    /// A tree with a root directory, inode 1, which is the first to get entries.
    pub fn new(root: Attributes) -> Result<Self, TreeError> {
        let mut builder = Self {
            tree: Tree::default(),
            sets: HashMap::new(),
            attributes: HashMap::new(),
            current: 1,
            names: 0,
        };
        builder.add_node(&Kind::Directory, root, 1)?;
        Ok(builder)
    }

    /// From here on entries belong to directory `ino`. Directories follow each other by number, from 1, and none is
    /// left out.
    pub fn open_directory(&mut self, ino: u32) -> Result<(), TreeError> {
        debug_assert!(ino > self.current || (ino == 1 && self.tree.entries.is_empty()));
        if ino != 1 {
            self.close_directory()?;
        }
        self.current = ino;
        self.names = self.tree.names.len() as u64;
        let node = &mut self.tree.nodes[ino as usize - 1];
        node.start = self.tree.entries.len() as u32;
        node.size = (self.names / NAME_ALIGN) << 32;
        Ok(())
    }

    /// Ends the open directory: the fence, and zeros behind its names.
    fn close_directory(&mut self) -> Result<(), TreeError> {
        let end = self.tree.names.len() as u64;
        self.push_entry(Dirent::fence(end - self.names))?;
        let aligned = end.next_multiple_of(NAME_ALIGN);
        if aligned > NAME_BYTES_MAX {
            return Err(TreeError::Full);
        }
        self.tree.names.resize(aligned as usize, 0);
        Ok(())
    }

    fn push_entry(&mut self, entry: Option<RawDirent>) -> Result<(), TreeError> {
        if self.tree.entries.len() as u64 == INDEX_MAX {
            return Err(TreeError::Full);
        }
        self.tree.entries.push(entry.ok_or(TreeError::DirectoryFull)?);
        Ok(())
    }

    /// Adds a name of a new inode to the open directory; the inode's number.
    pub fn add(&mut self, name: &[u8], kind: &Kind, attributes: Attributes) -> Result<u32, TreeError> {
        let ino = self.add_node(kind, attributes, self.current)?;
        self.add_entry(name, ino)?;
        if matches!(kind, Kind::Directory) {
            let parent = &mut self.tree.nodes[self.current as usize - 1];
            parent.nlink = parent.nlink.checked_add(1).ok_or(TreeError::Full)?;
        } else {
            self.tree.nodes[ino as usize - 1].nlink = 1;
        }
        Ok(ino)
    }

    /// Adds another name of inode `ino`, which is no directory.
    pub fn add_link(&mut self, name: &[u8], ino: u32) -> Result<(), TreeError> {
        self.add_entry(name, ino)?;
        let node = &mut self.tree.nodes[ino as usize - 1];
        node.nlink = node.nlink.checked_add(1).ok_or(TreeError::Full)?;
        Ok(())
    }

    /// The tree.
    pub fn finish(mut self) -> Result<Tree, TreeError> {
        self.close_directory()?;
        Ok(self.tree)
    }

    fn add_entry(&mut self, name: &[u8], ino: u32) -> Result<(), TreeError> {
        let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        if !is_name || name.len() > NAME_MAX {
            return Err(TreeError::Name);
        }
        let file_type = self.tree.nodes[ino as usize - 1].file_type;
        let ino = Ino::from_number(ino).ok_or(TreeError::Full)?;
        self.push_entry(Dirent::to_raw(ino, file_type, self.tree.names.len() as u64 - self.names))?;
        self.tree.names.extend_from_slice(name);
        self.tree.nodes[self.current as usize - 1].size += 1;
        Ok(())
    }

    fn add_node(&mut self, kind: &Kind, attributes: Attributes, parent: u32) -> Result<u32, TreeError> {
        if self.tree.nodes.len() as u64 == INODES_MAX {
            return Err(TreeError::Full);
        }
        let mut node = Node {
            file_type: kind.file_type(),
            attributes: 0,
            nlink: 0,
            mtime: attributes.mtime.to_raw().ok_or(TreeError::Time(attributes.mtime))?,
            size: 0,
            start: 0,
            parent: 0,
        };
        match kind {
            Kind::Directory => (node.nlink, node.parent) = (2, parent),
            Kind::Regular { size } if *size > FILE_SIZE_MAX => return Err(TreeError::Size),
            Kind::Regular { size } => node.size = *size,
            Kind::Symlink(target) => {
                let len = target.len() as u64;
                if !(1..=SYMLINK_MAX).contains(&len) || target.contains(&0) {
                    return Err(TreeError::Target);
                }
                let start = self.tree.targets.len() as u64;
                if start + len > TARGET_BYTES_MAX {
                    return Err(TreeError::TargetsFull);
                }
                (node.size, node.start) = (len, start as u32);
                self.tree.targets.extend_from_slice(target);
            }
            Kind::Fifo | Kind::Socket | Kind::Whiteout => {}
        }
        node.attributes = self.add_attributes(kind, attributes)?;
        self.tree.nodes.push(node);
        Ok(self.tree.nodes.len() as u32)
    }

    /// Index of the record of `attributes`.
    fn add_attributes(&mut self, kind: &Kind, attributes: Attributes) -> Result<u32, TreeError> {
        let Attributes { uid, gid, mode, .. } = attributes;
        if uid == u32::MAX || gid == u32::MAX {
            return Err(TreeError::Owner);
        }
        // Systems differ in the bits of a symlink that they show, and none looks at them.
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { mode & 0o7777 };
        let raw = RawAttributes {
            file_type: kind.file_type().value(),
            reserved: 0,
            mode: mode.into(),
            uid: uid.into(),
            gid: gid.into(),
            xattrs: self.add_xattrs(attributes.xattrs)?.into(),
        };
        let next = self.tree.attributes.len() as u32;
        let index = *self.attributes.entry(raw).or_insert(next);
        if index == next {
            self.tree.attributes.push(raw);
        }
        Ok(index)
    }

    /// Index plus 1 of the set of `xattrs`, 0 for none.
    fn add_xattrs(&mut self, mut xattrs: Xattrs) -> Result<u32, TreeError> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        xattrs.sort();
        let (bytes, count) = encode_xattrs(&xattrs)?;
        let next = self.tree.xattr_sets.len() as u32;
        match self.sets.entry(bytes) {
            Entry::Occupied(set) => Ok(*set.get() + 1),
            Entry::Vacant(set) => {
                self.tree.xattr_sets.push(RawXattrSet {
                    offset: (self.tree.xattr_entries.len() as u64).into(),
                    bytes: (set.key().len() as u32).into(),
                    count: count.into(),
                });
                self.tree.xattr_entries.extend_from_slice(set.key());
                set.insert(next);
                Ok(next + 1)
            }
        }
    }
}

/// The entries of a set, from sorted xattrs, and their number.
fn encode_xattrs(xattrs: &Xattrs) -> Result<(Vec<u8>, u32), TreeError> {
    let mut bytes = Vec::new();
    let mut names = 0;
    let mut previous: Option<&[u8]> = None;
    for (name, value) in xattrs {
        let refused = || TreeError::Xattr(name.escape_ascii().to_string());
        names += name.len() + 1;
        let fits = value.len() as u64 <= XATTR_VALUE_MAX.into() && names as u64 <= XATTR_LIST_MAX.into();
        if !is_valid_name(name) || !fits || previous == Some(name) {
            return Err(refused());
        }
        let header = XattrEntry::to_raw(name, value).ok_or_else(refused)?;
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        previous = Some(name);
    }
    Ok((bytes, xattrs.len() as u32))
}

#[cfg(test)]
mod tests {
    use tesserafs_format::limits::{MTIME_MAX, MTIME_MIN};

    use super::*;

    fn with_xattrs(xattrs: &[(&str, &str)]) -> Attributes {
        let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Attributes { xattrs: xattrs.collect(), ..Attributes::default() }
    }

    #[test]
    fn xattr_sets_are_sorted_and_shared() {
        let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
        builder.open_directory(1).unwrap();
        let kind = Kind::Fifo;
        builder.add(b"a", &kind, with_xattrs(&[("user.b", "2"), ("user.a", "1")])).unwrap();
        builder.add(b"b", &kind, with_xattrs(&[("user.c", "3")])).unwrap();
        builder.add(b"c", &kind, with_xattrs(&[("user.a", "1"), ("user.b", "2")])).unwrap();
        let tree = builder.finish().unwrap();
        let xattrs = |node: &Node| tree.attributes[node.attributes as usize].xattrs.get();
        assert_eq!(tree.nodes.iter().map(xattrs).collect::<Vec<_>>(), [0, 1, 2, 1]);
        assert_eq!(tree.nodes.iter().map(|node| node.attributes).collect::<Vec<_>>(), [0, 1, 2, 1]);
        assert_eq!(tree.xattr_sets.len(), 2);
        // Header, name and value, padded to 8: user.a first.
        assert_eq!(&tree.xattr_entries[..32], b"\x01\0\0\0\x06\0\0\0user.a1\0\x01\0\0\0\x06\0\0\0user.b2\0");
    }

    #[test]
    fn what_an_image_cannot_hold_is_refused() {
        let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
        let mut add = |name: &[u8], kind: Kind, attributes| builder.add(name, &kind, attributes).err();
        let plain = Attributes::default;
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert_eq!(add(name, Kind::Fifo, plain()), Some(TreeError::Name));
        }
        assert_eq!(add(&[b'x'; 255], Kind::Fifo, plain()), None);
        assert_eq!(add(b"s", Kind::Symlink(vec![b'x'; 4096]), plain()), Some(TreeError::Target));
        assert_eq!(add(b"s", Kind::Symlink(vec![b'x'; 4095]), plain()), None);
        assert_eq!(add(b"f", Kind::Regular { size: 1 << 63 }, plain()), Some(TreeError::Size));
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
            let attributes = Attributes { uid, gid, ..plain() };
            assert_eq!(add(b"f", Kind::Fifo, attributes), Some(TreeError::Owner));
        }
        assert_eq!(add(b"f", Kind::Regular { size: (1 << 63) - 1 }, plain()), None);
        for (sec, nsec) in [(MTIME_MIN - 1, 0), (MTIME_MAX + 1, 0), (0, 1_000_000_000)] {
            let mtime = Timestamp { sec, nsec };
            let attributes = Attributes { mtime, ..plain() };
            assert_eq!(add(b"t", Kind::Fifo, attributes), Some(TreeError::Time(mtime)));
        }
        for (sec, nsec) in [(MTIME_MIN, 0), (MTIME_MAX, 999_999_999)] {
            let attributes = Attributes { mtime: Timestamp { sec, nsec }, ..plain() };
            assert_eq!(add(b"t", Kind::Fifo, attributes), None);
        }
        for bad in [&[("system.foo", "")][..], &[("user.", "")], &[("user.a", "1"), ("user.a", "1")]] {
            assert!(matches!(add(b"x", Kind::Fifo, with_xattrs(bad)), Some(TreeError::Xattr(_))));
        }
    }

    #[test]
    fn links_and_directories_are_counted() {
        let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
        builder.open_directory(1).unwrap();
        let dir = builder.add(b"d", &Kind::Directory, Attributes::default()).unwrap();
        let file = builder.add(b"f", &Kind::Fifo, Attributes::default()).unwrap();
        builder.open_directory(dir).unwrap();
        builder.add_link(b"g", file).unwrap();
        let tree = builder.finish().unwrap();
        let facts: Vec<_> =
            tree.nodes.iter().map(|node| (node.nlink, node.size, node.start, node.parent)).collect();
        // The names of the second directory begin at 16, behind those of the first and zeros.
        assert_eq!(facts, [(3, 2, 0, 1), (2, 1 | 1 << 32, 3, 1), (2, 0, 0, 0)]);
        assert_eq!(tree.names, b"df\0\0\0\0\0\0\0\0\0\0\0\0\0\0g\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let entries: Vec<_> = tree.entries.iter().map(|entry| (entry.ino.get(), entry.name.get())).collect();
        assert_eq!(entries, [(2, 2 << 29), (3, 4 << 29 | 1), (0, 2), (3, 4 << 29), (0, 1)]);
    }
}
