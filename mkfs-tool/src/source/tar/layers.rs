// SPDX-License-Identifier: GPL-2.0-or-later

//! Layers of a container image (OCI image specification, "Applying Changesets"), beside what holds for an archive alone.
//!
//! A layer hides names of the layers below it, never of itself, wherever in it the mark stands: so its marks are heeded before
//! its entries. A directory without an entry is that of the layers below, and a hard link may be to a file of theirs.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use super::acl::{Owners, Texts};
use super::growing::{implied, Growing};
use super::header::Parsed;
use super::index::Index;
use super::mark::Mark;
use super::names::components;
use super::node::What;
use super::nodes::Nodes;
use super::reader::{Reader, TarEntry};
use super::{stamp, TarSource};
use crate::error::{path_of, Error, Result, Shown};
use crate::source::oci::UnpackedLayer;
use crate::source::{overlay, Filter};
use crate::tree::Attributes;

impl TarSource {
    /// The tree that layers in a file make, the lowest first; `path` is that of their image in messages.
    pub(in crate::source) fn of_layers(
        file: &File,
        path: &Path,
        layers: &[UnpackedLayer],
        filter: Filter,
    ) -> Result<Self> {
        let stamp = stamp(file).map_err(Error::io("stat", path))?;
        let mut all = Index::new(&filter, Growing::of_layers().map_err(refused(path))?);
        for layer in layers {
            all.nodes.begin_layer();
            all.hide(file, layer)?;
            all.layer(file, layer)?;
        }
        let file = file.try_clone().map_err(Error::io("open", path))?;
        Ok(Self::new(all.finish(path)?, file, stamp, path.to_owned(), filter))
    }

    /// Hands out each layer as a tree with marks of what it hides.
    pub(in crate::source) fn each_layer(
        file: &File,
        layers: &[UnpackedLayer],
        filter: &Filter,
        mut with: impl FnMut(Self) -> Result<()>,
    ) -> Result<()> {
        let Some(first) = layers.first() else { return Ok(()) };
        let stamp = stamp(file).map_err(Error::io("stat", &first.path))?;
        let mut below = Index::new(filter, Growing::of_layers().map_err(refused(&first.path))?);
        // A name in an access control list is that of an owner in any layer, as where all are one tree.
        let mut owners = Owners::default();
        for layer in layers {
            owners = each_entry(file, layer, owners, |_| Ok(()))?;
        }
        for layer in layers {
            let root = below.nodes.root_names();
            below.nodes.begin_layer();
            below.hide(file, layer)?;
            let apart = Growing::apart(&below.nodes, root).map_err(refused(&layer.path))?;
            let mut own = Index::new(filter, apart);
            own.owners = owners.clone();
            own.layer(file, layer)?;
            let handle = file.try_clone().map_err(Error::io("open", &layer.path))?;
            let indexed = own.finish(&layer.path)?;
            indexed.nodes.refuse_overlay().map_err(refused(&layer.path))?;
            with(Self::new(indexed, handle, stamp, layer.path.clone(), filter.clone()))?;
            below.layer(file, layer)?;
        }
        Ok(())
    }
}

/// The error for a tree that is too large.
fn refused(path: &Path) -> impl FnOnce(String) -> Error + '_ {
    move |reason| Error::unsupported(path, reason)
}

/// Hands out the entries of a layer; the owners that it names are added to others.
fn each_entry(
    file: &File,
    layer: &UnpackedLayer,
    owners: Owners,
    mut take: impl FnMut(&[u8]) -> Parsed<()>,
) -> Result<Owners> {
    let path = &layer.path;
    if layer.bytes.is_empty() {
        return Ok(owners);
    }
    let handle = file.try_clone().map_err(Error::io("open", path))?;
    let mut reader = Reader::new(handle, path, layer.bytes.clone());
    reader.owners = owners;
    while let Some(TarEntry { path: entry, offset, .. }) = reader.next()? {
        take(&entry).map_err(|reason| {
            let reason = format!("{}: {reason}", Shown(path_of(&entry)));
            Error::Archive { path: path.clone(), offset, reason }
        })?;
    }
    Ok(reader.owners)
}

impl Index<'_> {
    /// Removes what a layer hides.
    fn hide(&mut self, file: &File, layer: &UnpackedLayer) -> Result<()> {
        each_entry(file, layer, Owners::default(), |path| self.nodes.hide(path)).map(drop)
    }

    /// Adds what a layer has.
    fn layer(&mut self, file: &File, layer: &UnpackedLayer) -> Result<()> {
        // Some programs write no end mark where there is no entry.
        if layer.bytes.is_empty() {
            return Ok(());
        }
        self.archive(file, &layer.path, layer.bytes.clone())
    }
}

/// The place of an archive among layers.
#[derive(Clone, Debug)]
pub(super) enum Place<'a> {
    /// None: it is all there is, and its marks are kept for whom it is a layer to.
    Alone,
    /// Put over the layers below it, which are in the same tree.
    Over {
        /// Its own nodes are those from this one on.
        first: u32,
        /// Names that it has, by hard links, of nodes of lower layers.
        links: HashSet<(u32, Box<[u8]>)>,
    },
    /// A layer to itself, with its marks.
    Apart {
        /// The tree of the layers below, but what this one hides.
        below: &'a Growing<'a>,
        /// The names that the root had below, until they are hidden.
        root: Rc<[Box<[u8]>]>,
        /// Copies of lower files, by the node of these.
        copies: HashMap<u32, u32>,
    },
}

impl<'a> Place<'a> {
    /// The root of the tree below.
    pub(super) fn lower_root(&self) -> Option<(&'a Growing<'a>, u32)> {
        match self {
            Self::Apart { below, .. } => Some((*below, below.root)),
            _ => None,
        }
    }

    /// Notes that a name is a hard link.
    pub(super) fn note_link(&mut self, dir: u32, name: &[u8], node: u32) {
        if let Self::Over { first, links } = self {
            if node < *first {
                links.insert((dir, name.into()));
            }
        }
    }
}

/// The attributes of a directory without an entry, where lower layers have this in its place.
pub(super) fn implied_over(lower: Option<(&Growing<'_>, u32)>) -> (Attributes, Texts) {
    let is_directory = |(below, node): &(&Growing<'_>, u32)| below.nodes[*node as usize].what.is_directory();
    match lower.filter(is_directory) {
        Some((below, node)) => {
            (below.attributes_of(node), below.acls.get(&node).cloned().unwrap_or_default())
        }
        None => (implied(), Texts::default()),
    }
}

impl Growing<'_> {
    /// The tree of layers, which come now, the lowest first.
    pub(super) fn of_layers() -> Parsed<Self> {
        let mut growing = Growing::new(0)?;
        growing.begin_layer();
        Ok(growing)
    }

    /// A layer to itself. `root` are the names that the root below had before this layer hid any.
    pub(super) fn apart<'a>(below: &'a Growing<'a>, root: Rc<[Box<[u8]>]>) -> Parsed<Growing<'a>> {
        let mut growing = Growing::new(0)?;
        let (attributes, acls) = implied_over(Some((below, below.root)));
        growing.set_attributes(growing.root, attributes, acls);
        growing.place = Place::Apart { below, root, copies: HashMap::new() };
        Ok(growing)
    }

    /// Another layer comes, first what it hides, and then its entries: all nodes from here on are its.
    pub(super) fn begin_layer(&mut self) {
        // Nodes are counted by `push`.
        self.place = Place::Over { first: self.nodes.len() as u32, links: HashSet::new() };
    }

    /// Removes what the entry of this path hides.
    fn hide(&mut self, path: &[u8]) -> Parsed<()> {
        let names = components(path)?;
        let Some((name, above)) = names.split_last() else { return Ok(()) };
        let Some(mark) = Mark::of(name)? else { return Ok(()) };
        let Some(dir) = self.find(above) else { return Ok(()) };
        match mark {
            Mark::Name(hidden) => self.names.remove(dir, hidden),
            // A second mark says nothing more.
            Mark::All if matches!(self.place, Place::Over { first, .. } if dir >= first) => {}
            Mark::All if !self.node(dir).what.is_directory() => {}
            Mark::All => {
                let emptied = self.push_emptied(dir)?;
                match above.split_last() {
                    None => self.root = emptied,
                    Some((name, above)) => {
                        if let Some(parent) = self.find(above) {
                            self.names.set(parent, name, emptied)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The names in the root.
    fn root_names(&self) -> Rc<[Box<[u8]>]> {
        self.names.of(self.root).map(Box::from).collect()
    }

    /// Whether the node of a name is no obstacle to a directory in its place: it is of a lower layer, and not by this one's link.
    pub(super) fn gives_way(&self, dir: u32, name: &[u8], node: u32) -> bool {
        match &self.place {
            Place::Over { first, links } if node < *first => {
                !self.nodes[node as usize].what.is_directory() && !links.contains(&(dir, name.into()))
            }
            _ => false,
        }
    }

    /// A copy, in this layer, of the file that lower ones have under these names.
    pub(super) fn copy_of_lower(&mut self, names: &[&[u8]]) -> Parsed<Option<u32>> {
        let Place::Apart { below, copies, .. } = &self.place else { return Ok(None) };
        let below = *below;
        let Some(node) = below.find(names) else { return Ok(None) };
        if let Some(copy) = copies.get(&node) {
            return Ok(Some(*copy));
        }
        let copy = self.push(below.attributes_of(node), below.nodes[node as usize].what.clone())?;
        self.set_acls(copy, below.acls.get(&node).cloned().unwrap_or_default());
        if let Place::Apart { copies, .. } = &mut self.place {
            copies.insert(node, copy);
        }
        Ok(Some(copy))
    }

    fn attributes_of(&self, node: u32) -> Attributes {
        let node = &self.nodes[node as usize];
        Attributes { mtime: node.mtime(), ..self.attributes.get(node.attributes).clone() }
    }
}

impl Nodes {
    /// Refuses what `compose` would take for a mark of this layer, and is none: files and xattrs of overlayfs itself.
    fn refuse_overlay(&self) -> Parsed<()> {
        match self.first_that(|what, attributes| match what {
            What::Whiteout { oci: false } => Some("a device 0:0".to_owned()),
            _ => attributes.xattrs.iter().find(|(name, _)| overlay::is_own(name)).map(|(name, _)| {
                format!("an xattr {}", Shown(path_of(name)))
            }),
        }) {
            Some((path, what)) => Err(format!(
                "{}: {what}, which means something to overlayfs and to compose, and nothing to a container image; build one image of all \
                 layers, without --layers",
                Shown(path_of(&path))
            )),
            None => Ok(()),
        }
    }
}
