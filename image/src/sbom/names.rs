// SPDX-License-Identifier: GPL-2.0-or-later

//! The names of a tree in memory, each as a name in a directory: whole paths would take the square of their depth.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Symlinks that are followed in one path, as in Linux.
const SYMLINKS_MAX: usize = 40;

/// Bytes of a path that a system call takes, with the NUL: what is deeper cannot be in a list of paths, nor be opened by one.
pub(super) const PATH_MAX: usize = 4096;

/// A name of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u32);

impl NodeIndex {
    /// The root.
    pub const ROOT: Self = Self(0);

    /// As an index of a vector with an entry for each name.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    ino: u32,
    /// Where in the names its own begins.
    name: usize,
    name_len: u8,
    mode: u16,
    kind: Kind,
    /// Bytes of its path.
    path_len: u32,
}

/// The names of a tree.
#[derive(Debug)]
pub struct Names {
    names: Vec<u8>,
    nodes: Vec<Node>,
    /// Nodes by parent and name.
    table: HashTable<u32>,
    /// Seeded: names are chosen by whoever makes the tree.
    hasher: RandomState,
    /// Where in `target_bytes` the target of a symlink is, by inode.
    targets: HashMap<u32, (usize, u16)>,
    target_bytes: Vec<u8>,
}

impl Names {
    /// A tree of a root with this inode number.
    pub fn new(root: u32) -> Self {
        let root =
            Node { parent: 0, ino: root, name: 0, name_len: 0, mode: 0, kind: Kind::Directory, path_len: 0 };
        Self {
            names: Vec::new(),
            nodes: vec![root],
            table: HashTable::new(),
            hasher: RandomState::new(),
            targets: HashMap::new(),
            target_bytes: Vec::new(),
        }
    }

    /// Adds a name, of 255 bytes at most, to a directory that has no such name; inodes have numbers, and `mode` the bits of chmod(2).
    pub fn add(&mut self, parent: NodeIndex, name: &[u8], ino: u32, mode: u16, kind: Kind) -> NodeIndex {
        let above = self.nodes[parent.index()].path_len;
        let own = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let path_len = above.saturating_add(own).saturating_add(u32::from(parent != NodeIndex::ROOT));
        let index = self.nodes.len() as u32;
        let start = self.names.len();
        self.names.extend_from_slice(name);
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.nodes.push(Node { parent: parent.0, ino, name: start, name_len, mode, kind, path_len });
        let Self { names, nodes, table, hasher, .. } = self;
        let hash = |index: &u32| hash_of(hasher, names, &nodes[*index as usize]);
        table.insert_unique(hash(&index), index, hash);
        NodeIndex(index)
    }

    /// Whether the target of a symlink is known.
    pub fn has_target(&self, ino: u32) -> bool {
        self.targets.contains_key(&ino)
    }

    /// Says what the target of a symlink is: 4095 bytes at most.
    pub fn set_target(&mut self, ino: u32, target: &[u8]) {
        let start = self.target_bytes.len();
        self.target_bytes.extend_from_slice(target);
        self.targets.insert(ino, (start, target.len() as u16));
    }

    /// Bytes of all targets so far.
    pub fn target_bytes(&self) -> u64 {
        self.target_bytes.len() as u64
    }

    /// The target of a symlink; empty of anything else.
    pub fn target(&self, node: NodeIndex) -> &[u8] {
        let found = self.targets.get(&self.ino(node));
        found.map_or(&[], |(start, len)| &self.target_bytes[*start..*start + usize::from(*len)])
    }

    /// All names but the root, each behind its directory.
    pub fn all(&self) -> impl Iterator<Item = NodeIndex> {
        (1..self.nodes.len() as u32).map(NodeIndex)
    }

    /// How many names there are, with the root.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The directory of a name; of the root itself.
    pub fn parent(&self, node: NodeIndex) -> NodeIndex {
        NodeIndex(self.nodes[node.index()].parent)
    }

    /// The inode number.
    pub fn ino(&self, node: NodeIndex) -> u32 {
        self.nodes[node.index()].ino
    }

    /// The permission bits.
    pub fn mode(&self, node: NodeIndex) -> u16 {
        self.nodes[node.index()].mode
    }

    /// The type.
    pub fn kind(&self, node: NodeIndex) -> Kind {
        self.nodes[node.index()].kind
    }

    /// Bytes of a regular file; 0 of anything else.
    pub fn size(&self, node: NodeIndex) -> u64 {
        match self.kind(node) {
            Kind::File(size) => size,
            _ => 0,
        }
    }

    /// The last name of the path.
    pub fn name(&self, node: NodeIndex) -> &[u8] {
        name_of(&self.names, &self.nodes[node.index()])
    }

    /// Whether a list or a program can name the file by its path.
    pub fn has_path(&self, node: NodeIndex) -> bool {
        (self.nodes[node.index()].path_len as usize) < PATH_MAX
    }

    /// The path from the root, without a slash before it; that of the root is empty.
    pub fn path(&self, node: NodeIndex) -> Vec<u8> {
        let mut above = Vec::new();
        let mut at = node;
        while at != NodeIndex::ROOT {
            above.push(at);
            at = self.parent(at);
        }
        let names: Vec<&[u8]> = above.into_iter().rev().map(|node| self.name(node)).collect();
        names.join(&b'/')
    }

    /// The name in a directory.
    pub fn child(&self, dir: NodeIndex, name: &[u8]) -> Option<NodeIndex> {
        let hash = self.hasher.hash_one((dir.0, name));
        let is = |index: &u32| {
            let node = &self.nodes[*index as usize];
            node.parent == dir.0 && name_of(&self.names, node) == name
        };
        self.table.find(hash, is).copied().map(NodeIndex)
    }

    /// The name that a path ends with, as lstat(2) finds it: symlinks on the way are followed, one at its end is not.
    pub fn find(&self, path: &[u8]) -> Option<NodeIndex> {
        self.walk(NodeIndex::ROOT, path, false)
    }

    /// The same, from a directory.
    pub fn find_at(&self, dir: NodeIndex, path: &[u8]) -> Option<NodeIndex> {
        self.walk(dir, path, false)
    }

    /// The file that a path leads to, as stat(2) finds it.
    pub fn follow(&self, path: &[u8]) -> Option<NodeIndex> {
        self.walk(NodeIndex::ROOT, path, true)
    }

    fn walk(&self, dir: NodeIndex, path: &[u8], follows_last: bool) -> Option<NodeIndex> {
        let mut at = if path.first() == Some(&b'/') { NodeIndex::ROOT } else { dir };
        let mut todo: Vec<&[u8]> = path.split(|byte| *byte == b'/').rev().collect();
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            match name {
                b"" | b"." => continue,
                b".." => {
                    // Above the root is the root.
                    at = self.parent(at);
                    continue;
                }
                _ => (),
            }
            let next = self.child(at, name)?;
            let is_last = todo.iter().all(|name| name.is_empty());
            if self.kind(next) == Kind::Symlink && (follows_last || !is_last) {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return None;
                }
                let target = self.target(next);
                if target.first() == Some(&b'/') {
                    at = NodeIndex::ROOT;
                }
                todo.extend(target.split(|byte| *byte == b'/').rev());
                continue;
            }
            at = next;
        }
        Some(at)
    }
}

fn name_of<'a>(names: &'a [u8], node: &Node) -> &'a [u8] {
    &names[node.name..node.name + usize::from(node.name_len)]
}

fn hash_of(hasher: &RandomState, names: &[u8], node: &Node) -> u64 {
    hasher.hash_one((node.parent, name_of(names, node)))
}

/// Finds many paths, of which those of one directory come one after the other.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    names: &'a Names,
    /// The directory of the last path, and where it is.
    dir: Vec<u8>,
    at: Option<NodeIndex>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        Self { names, dir: Vec::new(), at: Some(NodeIndex::ROOT) }
    }

    /// As [`Names::find`].
    pub(super) fn find(&mut self, path: &[u8]) -> Option<NodeIndex> {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return self.names.find(path) };
        let (dir, name) = (&path[..slash], &path[slash + 1..]);
        if matches!(name, b"" | b"." | b"..") {
            return self.names.find(path);
        }
        if *dir != *self.dir {
            self.at = self.names.follow(dir);
            self.dir.clear();
            self.dir.extend_from_slice(dir);
        }
        self.names.child(self.at?, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_through_symlinked_directories() {
        let mut names = Names::new(1);
        let usr = names.add(NodeIndex::ROOT, b"usr", 2, 0o755, Kind::Directory);
        let bin = names.add(usr, b"bin", 3, 0o755, Kind::Directory);
        let sh = names.add(bin, b"sh", 4, 0o755, Kind::File(1));
        names.add(NodeIndex::ROOT, b"bin", 5, 0o777, Kind::Symlink);
        names.set_target(5, b"usr/bin");
        let link = names.add(usr, b"shell", 6, 0o777, Kind::Symlink);
        names.set_target(6, b"/bin/../bin/./sh");
        names.add(usr, b"loop", 7, 0o777, Kind::Symlink);
        names.set_target(7, b"loop");
        let mut finder = Finder::new(&names);
        for path in ["bin/sh", "/usr/bin/sh", "/bin/..//bin/./sh"] {
            assert_eq!(names.find(path.as_bytes()), Some(sh), "{path}");
            assert_eq!(finder.find(path.as_bytes()), Some(sh), "{path}");
        }
        assert_eq!((names.find(b"usr/shell"), names.follow(b"usr/shell")), (Some(link), Some(sh)));
        assert_eq!(
            (names.follow(b"usr/loop"), names.find(b"usr/loop/x"), names.find(b"no")),
            (None, None, None)
        );
        assert_eq!((names.path(sh), names.path(NodeIndex::ROOT)), (b"usr/bin/sh".to_vec(), Vec::new()));
    }
}
