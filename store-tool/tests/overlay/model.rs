// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree that overlayfs shows over layers, after `Documentation/filesystems/overlayfs.rst`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::layer::{Kind, Layer, Node};

/// How often layers did to each other what they can: a test that never met something has not tested it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<&'static str, u64>);

impl Counts {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

const PREFIXES: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// The tree, from layers of which the first is the lowest.
pub(crate) fn merge(layers: &[Layer], counts: &mut Counts) -> Layer {
    let mut model = Model { layers, names: HashMap::new(), tree: Layer(Vec::new()), counts };
    // Roots hide nothing of each other.
    let stack: Vec<_> = (0..layers.len()).rev().map(|layer| (layer, 0)).collect();
    let root = model.shown(stack[0]);
    model.tree.0.push(root);
    model.directory(0, &stack);
    for ((layer, node), number) in &model.names {
        let shown = model.tree.0.iter().filter_map(|node| match &node.kind {
            Kind::Directory(entries) => Some(entries.values().filter(|entry| *entry == number).count()),
            _ => None,
        });
        let (shown, all) = (shown.sum::<usize>(), names_of(&layers[*layer], *node));
        if shown > 1 {
            model.counts.count("a hard link is seen by several names");
        }
        if shown < all {
            model.counts.count("a hard link is not seen by all of its names");
        }
    }
    model.tree
}

struct Model<'a> {
    layers: &'a [Layer],
    /// The files that were shown, by layer and node.
    names: HashMap<(usize, usize), usize>,
    tree: Layer,
    counts: &'a mut Counts,
}

impl Model<'_> {
    /// Fills a directory with what is seen of those that it is made of, the uppermost first.
    fn directory(&mut self, shown: usize, stack: &[(usize, usize)]) {
        let names: BTreeSet<Vec<u8>> = stack
            .iter()
            .flat_map(|(layer, node)| self.layers[*layer].entries(*node).keys().cloned())
            .collect();
        for name in names {
            let mut parts: Vec<(usize, usize)> = Vec::new();
            let mut stopped = None;
            for (layer, parent) in stack {
                let Some(node) = self.layers[*layer].entries(*parent).get(&name) else { continue };
                if let Some(why) = stopped {
                    self.counts.count(why);
                    break;
                }
                if let Some(why) = self.whiteout(*layer, *parent, *node) {
                    stopped = Some(why);
                } else if let Kind::Directory(_) = self.layers[*layer].0[*node].kind {
                    parts.push((*layer, *node));
                    if self.has_mark(*layer, *node, "opaque", b"y") {
                        stopped = Some("an opaque directory hides a file");
                    }
                } else if parts.is_empty() {
                    parts.push((*layer, *node));
                    stopped = Some("a file hides another one");
                } else {
                    stopped = Some("a file below a directory hides a file below it");
                    self.counts.count("a directory hides a file");
                }
            }
            let Some(first) = parts.first().copied() else { continue };
            if let Some(known) = self.names.get(&first) {
                self.tree.insert(shown, &name, *known);
                continue;
            }
            let node = self.shown(first);
            let is_directory = matches!(node.kind, Kind::Directory(_));
            let number = self.tree.add(shown, &name, node);
            if is_directory {
                if parts.len() > 1 {
                    self.counts.count("a directory of several");
                }
                self.directory(number, &parts);
            } else {
                self.names.insert(first, number);
            }
        }
    }

    /// Whether a file is a whiteout, and of which kind.
    fn whiteout(&self, layer: usize, parent: usize, node: usize) -> Option<&'static str> {
        match &self.layers[layer].0[node].kind {
            Kind::Whiteout => Some("a whiteout hides a file"),
            Kind::File(bytes) if bytes.is_empty() && self.has_mark(layer, parent, "opaque", b"x") => {
                let xattrs = &self.layers[layer].0[node].attributes.xattrs;
                let is_marked =
                    PREFIXES.iter().any(|prefix| xattrs.contains_key(&format!("{prefix}whiteout")));
                is_marked.then_some("a whiteout that is a file hides a file")
            }
            _ => None,
        }
    }

    fn has_mark(&self, layer: usize, node: usize, mark: &str, value: &[u8]) -> bool {
        let xattrs = &self.layers[layer].0[node].attributes.xattrs;
        PREFIXES.iter().any(|prefix| xattrs.get(&format!("{prefix}{mark}")).is_some_and(|v| v == value))
    }

    /// A file of a layer, with the xattrs that are seen of it, and no names yet.
    fn shown(&mut self, (layer, node): (usize, usize)) -> Node {
        let mut node = self.layers[layer].0[node].clone();
        if let Kind::Directory(entries) = &mut node.kind {
            entries.clear();
        }
        let mut xattrs = BTreeMap::new();
        for (name, value) in node.attributes.xattrs {
            match PREFIXES.iter().find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?))) {
                None => drop(xattrs.insert(name, value)),
                Some((prefix, rest)) => {
                    if let Some(rest) = rest.strip_prefix("overlay.") {
                        self.counts.count("a mark of an overlay in a layer");
                        xattrs.insert(format!("{prefix}{rest}"), value);
                    }
                }
            }
        }
        node.attributes.xattrs = xattrs;
        node
    }
}

/// The number of names that a file has.
fn names_of(layer: &Layer, node: usize) -> usize {
    let entries = layer.0.iter().filter_map(|other| match &other.kind {
        Kind::Directory(entries) => Some(entries),
        _ => None,
    });
    entries.flat_map(|entries| entries.values()).filter(|entry| **entry == node).count()
}
