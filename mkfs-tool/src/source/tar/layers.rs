// SPDX-License-Identifier: GPL-2.0-or-later

//! Layers of a container image (OCI image specification, "Applying Changesets"), beside what holds for an archive alone.
//!
//! What a layer hides, it hides of the layers below it, never of itself, wherever in it the mark stands: so its marks are heeded before
//! its entries. A directory without an entry is that of the layers below, and a hard link may be to a file of theirs.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use super::header::Parsed;
use super::index::Index;
use super::mark::Mark;
use super::node::What;
use super::nodes::{components, implied, Growing};
use super::reader::{Reader, TarEntry};
use super::TarSource;
use crate::error::{path_of, Error, Result, Shown};
use crate::source::oci::UnpackedLayer;
use crate::source::Filter;
use crate::tree::Attributes;

impl TarSource {
    /// The tree that layers in a file make, the lowest first; `path` is that of their image in messages.
    pub(in crate::source) fn of_layers(
        file: &File,
        path: &Path,
        layers: &[UnpackedLayer],
        filter: Filter,
    ) -> Result<Self> {
        let mut all = Index::new(&filter, Growing::of_layers().map_err(refused(path))?);
        for layer in layers {
            all.hide(file, layer)?;
            all.add_layer(file, layer)?;
        }
        let file = file.try_clone().map_err(Error::io("open", path))?;
        Self::of_index(all, file, path.to_owned(), filter)
    }

    /// Hands out each layer as a tree with marks of what it hides.
    pub(in crate::source) fn each_layer(
        file: &File,
        layers: &[UnpackedLayer],
        filter: &Filter,
        mut with: impl FnMut(Self) -> Result<()>,
    ) -> Result<()> {
        let Some(first) = layers.first() else { return Ok(()) };
        let mut below = Index::new(filter, Growing::of_layers().map_err(refused(&first.path))?);
        for layer in layers {
            let root = below.nodes.root_names();
            below.hide(file, layer)?;
            let apart = Growing::apart(&below.nodes, root).map_err(refused(&layer.path))?;
            let mut own = Index::new(filter, apart);
            own.archive(file, &layer.path, layer.bytes.clone())?;
            let handle = file.try_clone().map_err(Error::io("open", &layer.path))?;
            with(Self::of_index(own, handle, layer.path.clone(), filter.clone())?)?;
            below.add_layer(file, layer)?;
        }
        Ok(())
    }
}

/// The error for a tree that is too large.
fn refused(path: &Path) -> impl FnOnce(String) -> Error + '_ {
    move |reason| Error::unsupported(path, reason)
}

impl Index<'_> {
    /// Removes what a layer hides.
    fn hide(&mut self, file: &File, layer: &UnpackedLayer) -> Result<()> {
        let path = &layer.path;
        let handle = file.try_clone().map_err(Error::io("open", path))?;
        let mut reader = Reader::new(handle, path, layer.bytes.clone());
        while let Some(TarEntry { path: entry, offset, .. }) = reader.next()? {
            self.nodes.hide(&entry).map_err(|reason| {
                let reason = format!("{}: {reason}", Shown(path_of(&entry)));
                Error::Archive { path: path.clone(), offset, reason }
            })?;
        }
        Ok(())
    }

    /// Adds what a layer has.
    fn add_layer(&mut self, file: &File, layer: &UnpackedLayer) -> Result<()> {
        self.nodes.begin_layer();
        self.archive(file, &layer.path, layer.bytes.clone())
    }
}

/// The place of an archive among layers.
#[derive(Clone, Debug)]
pub(super) enum Place<'a> {
    /// None: it is all there is, and its marks are kept for whom it is a layer to.
    Alone,
    /// Put over the layers below it, which are in the same tree: its nodes are those from this one on.
    Over { first: u32 },
    /// A layer to itself, with its marks.
    Apart {
        /// The tree of the layers below, but what this one hides.
        below: &'a Growing<'a>,
        /// The names that the root had below.
        root: Rc<[Box<[u8]>]>,
        /// Copies of lower files, by the node of these.
        copies: HashMap<u32, u32>,
    },
}

impl Growing<'_> {
    /// The tree of layers, which come now, the lowest first.
    pub(super) fn of_layers() -> Parsed<Self> {
        let mut growing = Growing::new(0)?;
        growing.place = Place::Over { first: 0 };
        Ok(growing)
    }

    /// A layer to itself. `root` are the names that the root below had before this layer hid any.
    pub(super) fn apart<'a>(below: &'a Growing<'a>, root: Rc<[Box<[u8]>]>) -> Parsed<Growing<'a>> {
        let mut growing = Growing::new(0)?;
        growing.place = Place::Apart { below, root, copies: HashMap::new() };
        Ok(growing)
    }

    /// All nodes from here on are those of another layer.
    pub(super) fn begin_layer(&mut self) {
        // Nodes are counted by `push`.
        self.place = Place::Over { first: self.nodes.len() as u32 };
    }

    /// Removes what the entry of this path hides, before any entry of its layer is added.
    pub(super) fn hide(&mut self, path: &[u8]) -> Parsed<()> {
        let names = components(path)?;
        let Some((name, above)) = names.split_last() else { return Ok(()) };
        let Some(mark) = Mark::of(name)? else { return Ok(()) };
        let Some(dir) = self.find(above) else { return Ok(()) };
        match mark {
            Mark::Name(hidden) => self.names.remove(dir, hidden),
            Mark::All => {
                let attributes = self.attributes_of(dir);
                let acls = self.acls.get(&dir).cloned().unwrap_or_default();
                let What::Directory { implied, .. } = self.node(dir).what else { return Ok(()) };
                let emptied = self.push(attributes, What::directory(implied))?;
                self.set_acls(emptied, acls);
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
    pub(super) fn root_names(&self) -> Rc<[Box<[u8]>]> {
        self.names.of(self.root).map(Box::from).collect()
    }

    /// Whether something is no obstacle to a directory in its place: it is of a lower layer.
    pub(super) fn gives_way(&self, node: u32) -> bool {
        matches!(self.place, Place::Over { first } if node < first)
            && !self.nodes[node as usize].what.is_directory()
    }

    /// The attributes of a directory of these names that no entry is for.
    pub(super) fn implied(&self, names: &[&[u8]]) -> Attributes {
        let Place::Apart { below, .. } = &self.place else { return implied() };
        let lower = below.find(names).filter(|node| below.nodes[*node as usize].what.is_directory());
        lower.map_or_else(implied, |node| below.attributes_of(node))
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
        Attributes { mtime: node.mtime, ..self.attributes.get(node.attributes).clone() }
    }
}
