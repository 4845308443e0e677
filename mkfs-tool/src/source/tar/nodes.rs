// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree of an archive that was read.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::names::{self, Named};
use super::node::{Node, What, NO_NAME};
use crate::source::{join, overlay};
use crate::tree::Attributes;

/// The tree of an archive: all inodes by number.
#[derive(Debug)]
pub(in crate::source) struct Nodes {
    nodes: Vec<Node>,
    root: u32,
    attributes: Vec<Attributes>,
    names: names::Sorted,
}

impl Nodes {
    pub(super) fn new(
        mut nodes: Vec<Node>,
        root: u32,
        attributes: Vec<Attributes>,
        names: names::Sorted,
    ) -> Self {
        nodes.shrink_to_fit();
        for at in 0..names.len() as u32 {
            if let What::Directory { named, .. } = &mut nodes[names.get(at).node as usize].what {
                *named = at;
            }
        }
        Self { nodes, root, attributes, names }
    }

    /// The number of the root.
    pub(super) fn root(&self) -> u32 {
        self.root
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The kind of the node of that number.
    pub(super) fn what(&self, number: u32) -> &What {
        &self.nodes[number as usize].what
    }

    /// The name of that index.
    pub(super) fn name(&self, at: u32) -> Named<'_> {
        self.names.get(at)
    }

    /// The indices of the names in a directory, in their order; none where it is no directory.
    pub(super) fn names(&self, dir: u32) -> Range<u32> {
        self.names.of(dir)
    }

    /// The node of these names below `dir`.
    pub(super) fn find(&self, dir: u32, names: &[&[u8]]) -> Option<u32> {
        names.iter().try_fold(dir, |dir, name| self.names.find(dir, name))
    }

    /// The path of a directory from `root`, one above it. It is put together only where it is shown or matched: those of
    /// directories in directories without end would take a time that is the square of their depth.
    pub(super) fn path(&self, root: u32, dir: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = dir;
        while let What::Directory { named, .. } = *self.what(at) {
            if at == root || named == NO_NAME {
                break;
            }
            let named = self.name(named);
            names.push(named.name);
            at = named.dir;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The first node of the tree that has something said of it, by its path.
    pub(super) fn first_of<'a, T>(&self, said: &'a HashMap<u32, T>) -> Option<(Vec<u8>, &'a T)> {
        if said.is_empty() {
            return None;
        }
        self.first(|node| said.get(&node))
    }

    /// The first node of the tree of which something is said, by its path.
    pub(super) fn first_that<T>(
        &self,
        say: impl Fn(&What, &Attributes) -> Option<T>,
    ) -> Option<(Vec<u8>, T)> {
        self.first(|number| {
            let node = &self.nodes[number as usize];
            say(&node.what, &self.attributes[node.attributes as usize])
        })
    }

    fn first<T>(&self, say: impl Fn(u32) -> Option<T>) -> Option<(Vec<u8>, T)> {
        if let Some(said) = say(self.root) {
            return Some((Vec::new(), said));
        }
        let mut queue = VecDeque::from([self.root]);
        while let Some(dir) = queue.pop_front() {
            for at in self.names(dir) {
                let Named { name, node, .. } = self.name(at);
                if let Some(said) = say(node) {
                    return Some((join(&self.path(self.root, dir), name), said));
                }
                if self.what(node).is_directory() {
                    queue.push_back(node);
                }
            }
        }
        None
    }

    /// Whether whiteouts in this directory hide nothing; `above` says that of the one that names it.
    pub(super) fn hides_all(&self, number: u32, above: bool) -> bool {
        let node = &self.nodes[number as usize];
        let is_marked = matches!(node.what, What::Directory { opaque: true, .. });
        is_marked || overlay::hides_all(&self.attributes[node.attributes as usize].xattrs, above)
    }

    /// The attributes with the marks of an opaque directory.
    pub(super) fn marked_attributes(&self, number: u32) -> Attributes {
        let node = &self.nodes[number as usize];
        let mut attributes = self.attributes[node.attributes as usize].clone();
        attributes.mtime = node.mtime;
        if matches!(node.what, What::Directory { opaque: true, .. }) {
            attributes.xattrs.retain(|(name, _)| !overlay::OPAQUE.contains(&&name[..]));
            let marks = overlay::OPAQUE.map(|name| (name.to_vec(), overlay::OPAQUE_VALUE.to_vec()));
            attributes.xattrs.extend(marks);
        }
        attributes
    }
}
