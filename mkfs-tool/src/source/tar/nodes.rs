// SPDX-License-Identifier: GPL-2.0

//! The tree of an archive, as its entries make it one after the other (`FORMAT.md` 4.9).

use std::collections::{BTreeMap, HashMap, VecDeque};

use tesserafs_format::limits::NAME_MAX;

use super::acl::{Owners, Texts};
use super::header::Parsed;
use super::reader::{EntryKind, TarEntry};
use super::sparse::Segment;
use super::trail::Trail;
use crate::error::{path_of, Shown};
use crate::source::{overlay, AclNames};
use crate::tree::Attributes;

/// The prefix by which OCI marks a name that is to disappear.
const WHITEOUT: &[u8] = b".wh.";
/// The entry by which OCI marks a directory whose lower contents are to disappear.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of the names of AUFS's own files.
const AUFS: &[u8] = b".wh..wh.";
/// The index of the root among the nodes.
pub(super) const ROOT: usize = 0;

/// An inode, perhaps of several names.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    /// Its lists as text, which wait for the names of all users.
    acls: Option<Box<Texts>>,
    pub(super) what: What,
}

/// The node that a name in the archive stands for.
#[derive(Debug)]
pub(super) enum What {
    Directory {
        names: BTreeMap<Box<[u8]>, usize>,
        opaque: bool,
        /// No entry of the archive is for it.
        implied: bool,
    },
    Regular {
        size: u64,
        segments: Box<[Segment]>,
    },
    Symlink(Vec<u8>),
    Fifo,
    /// A character device 0:0, or an OCI whiteout.
    Whiteout {
        oci: bool,
    },
    Device,
}

impl What {
    const fn directory(implied: bool) -> Self {
        What::Directory { names: BTreeMap::new(), opaque: false, implied }
    }

    /// In words.
    const fn name(&self) -> &'static str {
        match self {
            What::Directory { .. } => "a directory",
            What::Regular { .. } => "a file",
            What::Symlink(_) => "a symlink",
            What::Fifo => "a FIFO",
            What::Whiteout { .. } => "a whiteout",
            What::Device => "a device",
        }
    }
}

impl Node {
    fn implied() -> Self {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        Self { attributes, acls: None, what: What::directory(true) }
    }

    /// Whether whiteouts in this directory hide nothing; `above` says that of the one that names it.
    pub(super) fn hides_all(&self, above: bool) -> bool {
        let is_marked = matches!(self.what, What::Directory { opaque: true, .. });
        is_marked || overlay::hides_all(&self.attributes.xattrs, above)
    }

    /// The attributes with the marks of an opaque directory.
    pub(super) fn marked_attributes(&self) -> Attributes {
        let mut attributes = self.attributes.clone();
        if matches!(self.what, What::Directory { opaque: true, .. }) {
            attributes.xattrs.retain(|(name, _)| !overlay::OPAQUE.contains(&&name[..]));
            let marks = overlay::OPAQUE.map(|name| (name.to_vec(), overlay::OPAQUE_VALUE.to_vec()));
            attributes.xattrs.extend(marks);
        }
        attributes
    }
}

/// Whether a name is one of AUFS's own files, which are no part of a tree.
pub(super) fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS)
}

/// The place that an entry got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the tree.
    Inside,
    /// Its path has no more names than are to be taken off.
    Stripped,
}

/// All inodes by index, the root first.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// How many names at the start of each path are taken off.
    strip: usize,
}

impl Nodes {
    /// A root.
    pub(super) fn new(strip: usize) -> Self {
        Self { nodes: vec![Node::implied()], strip }
    }

    /// The node of that index.
    pub(super) fn get(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The names of a directory; none where it is no directory.
    pub(super) fn names(&self, index: usize) -> impl Iterator<Item = (&[u8], usize)> {
        let names = match &self.nodes[index].what {
            What::Directory { names, .. } => Some(names),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, index)| (&**name, *index))
    }

    /// Adds an entry of the archive; the error says what is wrong with it.
    pub(super) fn add(&mut self, mut entry: TarEntry) -> Parsed<Added> {
        let path = std::mem::take(&mut entry.path);
        self.add_at(&path, entry).map_err(|reason| format!("{}: {reason}", Shown(path_of(&path))))
    }

    fn add_at(&mut self, path: &[u8], entry: TarEntry) -> Parsed<Added> {
        let all = components(path)?;
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        if all.len() < self.strip || all.len() == self.strip && self.strip > 0 && !is_directory {
            // A directory says no more than its name here.
            return Ok(if is_directory { Added::Inside } else { Added::Stripped });
        }
        let mut names = all[self.strip..].to_vec();
        let acls = (entry.acls != Texts::default()).then(|| Box::new(entry.acls));
        let Some(name) = names.pop() else {
            // The root, `.` or `/`.
            if !is_directory {
                return Err("the root of the archive is not a directory".into());
            }
            let root = &mut self.nodes[ROOT];
            (root.attributes, root.acls) = (entry.attributes, acls);
            root.set_implied(false);
            return Ok(Added::Inside);
        };
        let parent = self.parent(&names)?;
        if name == OPAQUE {
            if let What::Directory { opaque, .. } = &mut self.nodes[parent].what {
                *opaque = true;
            }
            return Ok(Added::Inside);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| !is_aufs(name)) {
            if hidden.is_empty() {
                return Err("an OCI whiteout without a name".into());
            }
            if matches!(hidden, b"." | b"..") || hidden.len() > NAME_MAX {
                return Err(format!("an OCI whiteout of {}, which is no name", Shown(path_of(hidden))));
            }
            let attributes = Attributes { mtime: entry.attributes.mtime, ..Attributes::default() };
            self.insert(parent, hidden, Node { attributes, acls: None, what: What::Whiteout { oci: true } });
            return Ok(Added::Inside);
        }
        let what = match entry.kind {
            EntryKind::Directory => What::directory(false),
            EntryKind::Regular { size, segments } => What::Regular { size, segments },
            EntryKind::Symlink(target) => What::Symlink(target),
            EntryKind::Fifo => What::Fifo,
            EntryKind::Device { whiteout: true } => What::Whiteout { oci: false },
            EntryKind::Device { whiteout: false } => What::Device,
            EntryKind::HardLink(target) => {
                let node = self.target(&target)?;
                self.link(parent, name, node);
                return Ok(Added::Inside);
            }
        };
        self.insert(parent, name, Node { attributes: entry.attributes, acls, what });
        Ok(Added::Inside)
    }

    /// The node that a hard link names.
    fn target(&self, target: &[u8]) -> Parsed<usize> {
        let shown = || Shown(path_of(target));
        let names = components(target).unwrap_or_default();
        if names.len() <= self.strip && self.strip > 0 {
            return Err(format!("a hard link to {}, which --strip leaves out", shown()));
        }
        let found = names.get(self.strip..).filter(|names| !names.is_empty());
        let node = found
            .and_then(|names| self.find(ROOT, names))
            .ok_or_else(|| format!("a hard link to {}, which is not in the archive before it", shown()))?;
        match self.nodes[node].what {
            What::Directory { .. } => Err(format!("a hard link to the directory {}", shown())),
            // A mark on what lower layers have, and no file; it may become a directory yet.
            What::Whiteout { oci: true } => Err(format!("a hard link to {}, which is a whiteout", shown())),
            _ => Ok(node),
        }
    }

    /// Puts a new node where `name` is.
    fn insert(&mut self, parent: usize, name: &[u8], mut node: Node) {
        let old = self.find_in(parent, name);
        let old_what = old.map(|old| &mut self.nodes[old]);
        match (old_what, &mut node.what) {
            // A whiteout hides what lower layers have, never what this one has.
            (Some(Node { what: What::Whiteout { oci: true }, .. }), What::Directory { opaque, .. }) => {
                *opaque = true;
            }
            (Some(Node { what: What::Directory { opaque, .. }, .. }), What::Whiteout { oci: true }) => {
                *opaque = true;
                return;
            }
            (Some(Node { what: What::Whiteout { oci: true }, .. }), What::Whiteout { oci: true }) => {}
            (Some(_), What::Whiteout { oci: true }) => return,
            (Some(old @ Node { what: What::Directory { .. }, .. }), What::Directory { .. }) => {
                (old.attributes, old.acls) = (node.attributes, node.acls);
                old.set_implied(false);
                return;
            }
            _ => {}
        }
        self.nodes.push(node);
        self.link(parent, name, self.nodes.len() - 1);
    }

    fn link(&mut self, parent: usize, name: &[u8], node: usize) {
        if let What::Directory { names, .. } = &mut self.nodes[parent].what {
            names.insert(name.into(), node);
        }
    }

    fn find_in(&self, dir: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[dir].what {
            What::Directory { names, .. } => names.get(name).copied(),
            _ => None,
        }
    }

    /// The node of these names below `dir`.
    pub(super) fn find(&self, dir: usize, names: &[&[u8]]) -> Option<usize> {
        names.iter().try_fold(dir, |dir, name| self.find_in(dir, name))
    }

    /// The directory of these names; those that the archive does not name are made.
    fn parent(&mut self, names: &[&[u8]]) -> Parsed<usize> {
        let mut dir = ROOT;
        for (place, name) in names.iter().enumerate() {
            if *name == OPAQUE || name.starts_with(WHITEOUT) && !is_aufs(name) {
                return Err(format!("lies below the OCI whiteout {}", path(&names[..=place])));
            }
            dir = match self.find_in(dir, name) {
                Some(next) => next,
                None => {
                    self.insert(dir, name, Node::implied());
                    self.nodes.len() - 1
                }
            };
            let node = &mut self.nodes[dir];
            if let What::Whiteout { oci: true } = node.what {
                // Hidden below, and there again.
                *node = Node::implied();
                if let What::Directory { opaque, .. } = &mut node.what {
                    *opaque = true;
                }
            }
            if !matches!(node.what, What::Directory { .. }) {
                let (path, what) = (path(&names[..=place]), node.what.name());
                return Err(format!("lies below {path}, which is {what}, no directory"));
            }
        }
        Ok(dir)
    }

    /// Makes xattrs of all access control lists; why that cannot be for an inode of the tree, with its path.
    pub(super) fn apply_acls(&mut self, owners: &Owners, names: AclNames) -> Parsed<()> {
        let mut refused = HashMap::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(Err(reason)) =
                node.acls.take().map(|acls| acls.apply(&mut node.attributes, owners, names))
            {
                refused.insert(index, reason);
            }
        }
        // A later entry may have taken the place of the one that is wrong.
        let mut trail = Trail::new();
        let mut queue = VecDeque::from([(ROOT, 0)]);
        while let Some((dir, place)) = queue.pop_front().filter(|_| !refused.is_empty()) {
            if let Some(reason) = refused.get(&dir) {
                return Err(format!("{}: {reason}", Shown(path_of(&trail.path(place)))));
            }
            for (name, index) in self.names(dir) {
                queue.push_back((index, trail.add(place, name)));
            }
        }
        Ok(())
    }
}

impl Node {
    fn set_implied(&mut self, value: bool) {
        if let What::Directory { implied, .. } = &mut self.what {
            *implied = value;
        }
    }
}

/// Names as a path.
fn path(names: &[&[u8]]) -> String {
    Shown(path_of(&names.join(&b'/'))).to_string()
}

/// The names of a path. Leading slashes and `.` say nothing; `..` is refused.
pub(super) fn components(path: &[u8]) -> Parsed<Vec<&[u8]>> {
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return Err("its path leaves the archive by way of ..".into());
    }
    Ok(names)
}
