// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree of an archive, as its entries make it one after the other (`FORMAT.md` 4.9).

use std::collections::HashMap;

use tesserafs_format::Timestamp;

use super::acl::{Owners, Texts};
use super::header::Parsed;
use super::layers::{implied_over, Place};
use super::mark::{is_mark, Mark};
use super::names::{self, components};
use super::node::{Distinct, Node, What};
use super::nodes::Nodes;
use super::reader::{EntryKind, TarEntry};
use crate::error::{path_of, Shown};
use crate::source::AclNames;
use crate::tree::Attributes;

/// The place that an entry got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the tree.
    Inside,
    /// It is in the tree, where a directory was.
    Replacing,
    /// Its path has no more names than are to be taken off.
    Stripped,
}

/// The tree of an archive that is still being read: all inodes by number.
#[derive(Debug)]
pub(super) struct Growing<'a> {
    pub(super) nodes: Vec<Node>,
    pub(super) root: u32,
    pub(super) attributes: Distinct,
    pub(super) names: names::Growing,
    /// Lists as text, which wait for the names of all users, by node.
    pub(super) acls: HashMap<u32, Texts>,
    /// How many names at the start of each path are taken off.
    strip: usize,
    /// Its place among layers.
    pub(super) place: Place<'a>,
}

impl Growing<'_> {
    /// A root.
    pub(super) fn new(strip: usize) -> Parsed<Self> {
        let mut growing = Self {
            nodes: Vec::new(),
            root: 0,
            attributes: Distinct::default(),
            names: names::Growing::default(),
            acls: HashMap::new(),
            strip,
            place: Place::Alone,
        };
        growing.root = growing.push(implied(), What::directory(true))?;
        Ok(growing)
    }

    pub(super) fn node(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }

    /// Adds a node without a name.
    pub(super) fn push(&mut self, attributes: Attributes, what: What) -> Parsed<u32> {
        let number = u32::try_from(self.nodes.len()).map_err(|_| "the archive has more than 2^32 files")?;
        let mtime = attributes.mtime;
        self.nodes.push(Node::new(mtime, self.attributes.number(attributes), what));
        Ok(number)
    }

    /// Adds an empty directory with the attributes of another one, in whose place it is.
    pub(super) fn push_emptied(&mut self, dir: u32) -> Parsed<u32> {
        let number = u32::try_from(self.nodes.len()).map_err(|_| "the archive has more than 2^32 files")?;
        let emptied = &self.nodes[dir as usize];
        let implied = matches!(emptied.what, What::Directory { implied: true, .. });
        self.nodes.push(Node::new(emptied.mtime(), emptied.attributes, What::directory(implied)));
        if let Some(acls) = self.acls.remove(&dir) {
            self.acls.insert(number, acls);
        }
        Ok(number)
    }

    /// Gives a node other attributes.
    pub(super) fn set_attributes(&mut self, number: u32, attributes: Attributes, acls: Texts) {
        let mtime = attributes.mtime;
        let attributes = self.attributes.number(attributes);
        let node = self.node(number);
        node.set_mtime(mtime);
        node.attributes = attributes;
        self.set_acls(number, acls);
    }

    pub(super) fn set_acls(&mut self, number: u32, acls: Texts) {
        if acls == Texts::default() {
            self.acls.remove(&number);
        } else {
            self.acls.insert(number, acls);
        }
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
        let Some(name) = names.pop() else {
            // The root, `.` or `/`.
            if !is_directory {
                return Err("the root of the archive is not a directory".into());
            }
            self.set_attributes(self.root, entry.attributes, entry.acls);
            self.set_implied(self.root, false);
            return Ok(Added::Inside);
        };
        let parent = self.parent(&names)?;
        if let Some(mark) = Mark::of(name)? {
            self.mark(parent, mark, entry.attributes.mtime)?;
            return Ok(Added::Inside);
        }
        let old = self.names.find(parent, name);
        let over_directory = old.is_some_and(|old| self.nodes[old as usize].what.is_directory());
        match What::of(entry.kind) {
            Ok(what) => self.insert((parent, name), old, entry.attributes, entry.acls, what)?,
            Err(target) => {
                let node = self.target(&target)?;
                self.names.set(parent, name, node)?;
                self.place.note_link(parent, name, node);
            }
        }
        // That a layer does so is nothing to note.
        let is_noted = over_directory && !is_directory && !matches!(self.place, Place::Over { .. });
        Ok(if is_noted { Added::Replacing } else { Added::Inside })
    }

    /// The node that a hard link names.
    fn target(&mut self, target: &[u8]) -> Parsed<u32> {
        let shown = || Shown(path_of(target));
        let names = components(target).unwrap_or_default();
        if names.len() <= self.strip && self.strip > 0 {
            return Err(format!("a hard link to {}, which --strip leaves out", shown()));
        }
        let names = names.get(self.strip..).unwrap_or_default();
        let found = match self.find(names) {
            _ if names.is_empty() => None,
            Some(node) => Some(node),
            None => self.copy_of_lower(names)?,
        };
        let node = found
            .ok_or_else(|| format!("a hard link to {}, which is not in the archive before it", shown()))?;
        match self.nodes[node as usize].what {
            What::Directory { .. } => Err(format!("a hard link to the directory {}", shown())),
            // A mark on what lower layers have, and no file; it may become a directory yet.
            What::Whiteout { oci: true } => Err(format!("a hard link to {}, which is a whiteout", shown())),
            _ => Ok(node),
        }
    }

    /// The node of these names.
    pub(super) fn find(&self, names: &[&[u8]]) -> Option<u32> {
        names.iter().try_fold(self.root, |dir, name| self.names.find(dir, name))
    }

    /// Heeds a mark in a directory.
    fn mark(&mut self, dir: u32, mark: Mark<'_>, mtime: Timestamp) -> Parsed<()> {
        match (mark, &mut self.place) {
            // It was, before the first entry of the layer: see `hide`.
            (_, Place::Over { .. }) => Ok(()),
            (Mark::Name(hidden), _) => self.whiteout(dir, hidden, mtime),
            (Mark::All, Place::Apart { root, .. }) if dir == self.root => {
                // Nothing reads the mark of an opaque directory on the root of a layer. A second mark says nothing more.
                let root = std::mem::take(root);
                root.iter().try_for_each(|name| self.whiteout(dir, name, mtime))
            }
            (Mark::All, _) => {
                if let What::Directory { opaque, .. } = &mut self.node(dir).what {
                    *opaque = true;
                }
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, dir: u32, hidden: &[u8], mtime: Timestamp) -> Parsed<()> {
        let attributes = Attributes { mtime, ..Attributes::default() };
        let old = self.names.find(dir, hidden);
        self.insert((dir, hidden), old, attributes, Texts::default(), What::Whiteout { oci: true })
    }

    /// Puts a new node where a name in a directory is, which stands for an `old` one or for none.
    fn insert(
        &mut self,
        (parent, name): (u32, &[u8]),
        old: Option<u32>,
        attributes: Attributes,
        acls: Texts,
        mut what: What,
    ) -> Parsed<()> {
        let is_apart = matches!(self.place, Place::Apart { .. });
        if let Some(old) = old {
            match (&mut self.node(old).what, &mut what) {
                // A whiteout hides what lower layers have, never what this one has.
                (What::Whiteout { oci: true }, What::Directory { opaque, .. }) => *opaque = true,
                (What::Directory { opaque, .. }, What::Whiteout { oci: true }) => {
                    *opaque = true;
                    return Ok(());
                }
                (What::Whiteout { oci: true }, What::Whiteout { oci: true }) => {
                    self.node(old).set_mtime(attributes.mtime);
                    return Ok(());
                }
                (_, What::Whiteout { oci: true }) => return Ok(()),
                (What::Directory { .. }, What::Directory { .. }) => {
                    self.set_attributes(old, attributes, acls);
                    self.set_implied(old, false);
                    return Ok(());
                }
                // What lower layers have there was hidden by what this one had before.
                (_, What::Directory { opaque, .. }) if is_apart => *opaque = true,
                _ => {}
            }
        }
        let node = self.push(attributes, what)?;
        self.set_acls(node, acls);
        self.names.set(parent, name, node)
    }

    fn set_implied(&mut self, node: u32, value: bool) {
        if let What::Directory { implied, .. } = &mut self.node(node).what {
            *implied = value;
        }
    }

    /// The directory of these names; those that the archive does not name are made.
    fn parent(&mut self, names: &[&[u8]]) -> Parsed<u32> {
        let mut dir = self.root;
        let mut lower = self.place.lower_root();
        for (place, name) in names.iter().enumerate() {
            if is_mark(name) {
                return Err(format!("lies below the OCI whiteout {}", path(&names[..=place])));
            }
            lower = lower.and_then(|(below, node)| Some((below, below.names.find(node, name)?)));
            dir = match self.names.find(dir, name) {
                Some(next) if !self.gives_way(dir, name, next) => next,
                _ => {
                    let (attributes, acls) = implied_over(lower);
                    let new = self.push(attributes, What::directory(true))?;
                    self.set_acls(new, acls);
                    self.names.set(dir, name, new)?;
                    new
                }
            };
            if let What::Whiteout { oci: true } = self.node(dir).what {
                // Hidden below, and there again.
                self.set_attributes(dir, implied(), Texts::default());
                self.node(dir).what = What::Directory { opaque: true, implied: true };
            }
            let what = &self.node(dir).what;
            if !what.is_directory() {
                let (path, what) = (path(&names[..=place]), what.name());
                return Err(format!("lies below {path}, which is {what}, no directory"));
            }
        }
        Ok(dir)
    }

    /// The tree, once the archive is read. Access control lists become xattrs; the error says why that cannot be for an inode of
    /// the tree, with its path.
    pub(super) fn finish(mut self, owners: &Owners, names: AclNames) -> Parsed<Nodes> {
        let mut refused = HashMap::new();
        for (number, acls) in std::mem::take(&mut self.acls) {
            let node = &self.nodes[number as usize];
            let mut attributes = self.attributes.get(node.attributes).clone();
            attributes.mtime = node.mtime();
            match acls.apply(&mut attributes, owners, names) {
                Ok(()) => self.set_attributes(number, attributes, Texts::default()),
                Err(reason) => drop(refused.insert(number, reason)),
            }
        }
        let nodes = Nodes::new(self.nodes, self.root, self.attributes.finish(), self.names);
        // A later entry may have taken the place of the one that is wrong.
        match nodes.first_of(&refused) {
            Some((path, reason)) => Err(format!("{}: {reason}", Shown(path_of(&path)))),
            None => Ok(nodes),
        }
    }
}

/// The attributes of a directory that no entry is for.
pub(super) fn implied() -> Attributes {
    Attributes { mode: 0o755, ..Attributes::default() }
}

/// Names as a path.
fn path(names: &[&[u8]]) -> String {
    Shown(path_of(&names.join(&b'/'))).to_string()
}
