// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree of an archive that was read.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::names::{self, Named};
use super::node::{Node, Sparse, What};
use crate::source::{join, overlay};
use crate::tree::Attributes;

/// The tree of an archive: all inodes by number.
#[derive(Debug)]
pub(in crate::source) struct Nodes {
    nodes: Vec<Node>,
    root: u32,
    attributes: Vec<Attributes>,
    names: Arc<names::Sorted>,
}

impl Nodes {
    pub(super) fn new(
        mut nodes: Vec<Node>,
        root: u32,
        attributes: Vec<Attributes>,
        names: names::Growing,
    ) -> Self {
        nodes.shrink_to_fit();
        let names = Arc::new(names.sort(|node| nodes[node as usize].what.is_directory()));
        Self { nodes, root, attributes, names }
    }

    /// The names.
    pub(super) fn all_names(&self) -> &Arc<names::Sorted> {
        &self.names
    }

    /// How many files have bytes.
    pub(super) fn files(&self) -> usize {
        let has_bytes = |node: &&Node| match &node.what {
            What::Regular { size, .. } => *size > 0,
            What::Sparse(sparse) => sparse.size > 0,
            _ => false,
        };
        self.nodes.iter().filter(has_bytes).count()
    }

    /// The files with holes, by number.
    pub(super) fn sparse(&self) -> HashMap<u32, Arc<Sparse>> {
        let sparse = |node: &Node| match &node.what {
            What::Sparse(sparse) => Some(sparse.clone()),
            _ => None,
        };
        (0..).zip(&self.nodes).filter_map(|(number, node)| Some((number, sparse(node)?))).collect()
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
                    return Some((join(&self.names.path(self.root, dir), name), said));
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
        attributes.mtime = node.mtime();
        if matches!(node.what, What::Directory { opaque: true, .. }) {
            attributes.xattrs.retain(|(name, _)| !overlay::OPAQUE.contains(&&name[..]));
            let marks = overlay::OPAQUE.map(|name| (name.to_vec(), overlay::OPAQUE_VALUE.to_vec()));
            attributes.xattrs.extend(marks);
        }
        attributes
    }
}
