// SPDX-License-Identifier: GPL-2.0-or-later

//! Building a tree, in the order of the format.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::sync::Arc;

use tesserafs_format::limits::{
    FILE_SIZE_MAX, INDEX_MAX, INODES_MAX, NAME_ALIGN, NAME_BYTES_MAX, NAME_MAX, SYMLINK_MAX,
    TARGET_BYTES_MAX, XATTR_LIST_MAX, XATTR_VALUE_MAX,
};
use tesserafs_format::raw::{RawAttributes, RawDirent, RawXattrSet};
use tesserafs_format::xattr::is_valid_name;
use tesserafs_format::{settable, Dirent, FileType, Ino, XattrEntry};
use zerocopy::IntoBytes;

use super::{Attributes, Kind, Node, RefusedXattr, Tree, TreeError, Xattrs};
use crate::error::{path_of, Shown};
use crate::file_contexts::{FileContexts, LABEL};
use crate::source::{join, Filter};

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
    /// Whether each name of an inode becomes an inode of its own.
    hard_dereference: bool,
    /// Labels in place of the source's.
    labels: Option<Arc<FileContexts>>,
    /// Paths of directories that are not open yet, where labels want them, and of the open one.
    paths: HashMap<u32, Vec<u8>>,
    path: Vec<u8>,
    /// The attributes of the root.
    root: Attributes,
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
            hard_dereference: false,
            labels: None,
            paths: HashMap::new(),
            path: Vec::new(),
            root: root.clone(),
        };
        builder.add_node(b"", &Kind::Directory, root, 1)?;
        Ok(builder)
    }

    /// Takes what a filter says of trees. Nothing but the root has been added.
    pub fn configure(&mut self, filter: &Filter) -> Result<(), TreeError> {
        self.hard_dereference = filter.hard_dereference;
        if filter.labels.is_some() {
            let root = std::mem::take(&mut self.root);
            *self = Self { hard_dereference: self.hard_dereference, ..Self::new(root.clone())? };
            self.tree = Tree::default();
            (self.sets, self.attributes) = (HashMap::new(), HashMap::new());
            self.labels = filter.labels.clone();
            self.add_node(b"", &Kind::Directory, root, 1)?;
        }
        Ok(())
    }

    /// Makes room for so many inodes, directories among them, and names of so many bytes, as far as there is memory: fewer may come.
    pub fn make_room(&mut self, inodes: usize, directories: usize, names: usize, bytes: usize) {
        let Tree { nodes, entries, names: table, .. } = &mut self.tree;
        let _ = nodes.try_reserve(inodes);
        // Each directory has a fence behind its entries, and zeros behind its names.
        let _ = entries.try_reserve(names + directories);
        let _ = table.try_reserve(bytes + directories * NAME_ALIGN as usize);
    }

    /// Gives an inode the label of its path.
    fn relabel(&mut self, name: &[u8], file_type: FileType, attributes: &mut Attributes) {
        let Some(labels) = &self.labels else { return };
        attributes.xattrs.retain(|(xattr, _)| xattr != LABEL);
        if let Some(label) = labels.label(&join(&self.path, name), file_type) {
            attributes.xattrs.push((LABEL.to_vec(), label.to_vec()));
        }
    }

    /// The path of a directory that was added; the root's is empty.
    pub fn path(&self, ino: u32) -> Vec<u8> {
        self.tree.path(ino)
    }

    /// From here on entries belong to directory `ino`. Directories follow each other by number, from 1, and none is
    /// left out.
    pub fn open_directory(&mut self, ino: u32) -> Result<(), TreeError> {
        debug_assert!(ino > self.current || (ino == 1 && self.tree.entries.is_empty()));
        if ino != 1 {
            self.close_directory()?;
        }
        self.current = ino;
        self.path = self.paths.remove(&ino).unwrap_or_default();
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
        let ino = self.add_node(name, kind, attributes, self.current)?;
        self.add_entry(name, ino)?;
        if matches!(kind, Kind::Directory) {
            if self.labels.is_some() {
                self.paths.insert(ino, join(&self.path, name));
            }
            let parent = &mut self.tree.nodes[self.current as usize - 1];
            parent.nlink = parent.nlink.checked_add(1).ok_or(TreeError::Full)?;
        } else {
            self.tree.nodes[ino as usize - 1].nlink = 1;
        }
        Ok(ino)
    }

    /// Adds another name of inode `ino`, which is no directory.
    pub fn add_link(&mut self, name: &[u8], ino: u32) -> Result<(), TreeError> {
        if self.hard_dereference {
            return self.add_copy(name, ino);
        }
        self.add_entry(name, ino)?;
        let node = &mut self.tree.nodes[ino as usize - 1];
        node.nlink = node.nlink.checked_add(1).ok_or(TreeError::Full)?;
        Ok(())
    }

    /// Adds a name of a new inode that is like inode `ino`, which is no directory.
    fn add_copy(&mut self, name: &[u8], ino: u32) -> Result<(), TreeError> {
        let mut node = self.tree.nodes[ino as usize - 1];
        node.nlink = 1;
        if node.file_type == FileType::Symlink {
            let target = node.start as usize..node.start as usize + node.size as usize;
            let target = self.tree.targets[target].to_vec();
            node.start = self.add_target(&target)?;
        }
        let copy = self.push_node(node)?;
        if node.file_type == FileType::Regular && node.size > 0 {
            self.tree.copies.push((copy, ino));
        }
        self.add_entry(name, copy)
    }

    /// Adds a symlink's target to their table; where it begins.
    fn add_target(&mut self, target: &[u8]) -> Result<u32, TreeError> {
        let start = self.tree.targets.len() as u64;
        if start + target.len() as u64 > TARGET_BYTES_MAX {
            return Err(TreeError::TargetsFull);
        }
        self.tree.targets.extend_from_slice(target);
        Ok(start as u32)
    }

    fn push_node(&mut self, node: Node) -> Result<u32, TreeError> {
        if self.tree.nodes.len() as u64 == INODES_MAX {
            return Err(TreeError::Full);
        }
        self.tree.nodes.push(node);
        Ok(self.tree.nodes.len() as u32)
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

    fn add_node(
        &mut self,
        name: &[u8],
        kind: &Kind,
        mut attributes: Attributes,
        parent: u32,
    ) -> Result<u32, TreeError> {
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
                (node.size, node.start) = (len, self.add_target(target)?);
            }
            Kind::Fifo | Kind::Socket | Kind::Whiteout => {}
        }
        self.relabel(name, node.file_type, &mut attributes);
        let refused = &mut self.tree.refused_xattrs;
        attributes.xattrs.retain(|(xattr, value)| {
            let why = settable::refusal(node.file_type, xattr, value).filter(|_| is_valid_name(xattr));
            if let Some(why) = why {
                refused.push(RefusedXattr { dir: parent, file: name.into(), xattr: xattr[..].into(), why });
            }
            why.is_none()
        });
        node.attributes = self.add_attributes(kind, attributes)?;
        self.push_node(node)
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
        let refused = || TreeError::Xattr(Shown(path_of(name)).to_string());
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
