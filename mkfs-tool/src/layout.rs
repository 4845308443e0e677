// SPDX-License-Identifier: GPL-2.0-or-later

//! From a tree and a map to the counts of the superblock, and so to the place of every table.

use tesserafs_format::limits::{plain_holes_max, BLOCK_BYTES};
use tesserafs_format::raw::{RawMap, RawTree};
use tesserafs_format::superblock::Layout;

use crate::encode::Map;
use crate::error::{Error, Result};
use crate::image::Annotations;
use crate::source::holes::TOO_MANY;
use crate::tree::Tree;

/// The tree descriptor.
pub fn raw_tree(tree: &Tree, map: &Map) -> RawTree {
    RawTree {
        inodes: (tree.nodes.len() as u64).into(),
        attributes: (tree.attributes.len() as u64).into(),
        dirents: (tree.entries.len() as u64).into(),
        name_bytes: (tree.names.len() as u64).into(),
        target_bytes: (tree.targets.len() as u64).into(),
        xattr_sets: (tree.xattr_sets.len() as u64).into(),
        xattr_bytes: (tree.xattr_entries.len() as u64).into(),
        contents: (map.content_digests.len() as u64).into(),
    }
}

/// The map descriptor.
pub fn raw_map(map: &Map, annotations: &Annotations) -> RawMap {
    let annotation_bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    RawMap {
        // Pack 0, and those beside it.
        packs: (1 + map.packs.len() as u64).into(),
        chunks: (map.chunks.len() as u64).into(),
        extents: (map.extents.len() as u64).into(),
        annotations: (annotations.len() as u64).into(),
        annotation_bytes: (annotation_bytes as u64).into(),
        reserved: Default::default(),
    }
}

/// Where everything is.
pub fn layout(tree: &RawTree, map: &Map, annotations: &Annotations) -> Result<Layout> {
    let tree_offset = (BLOCK_BYTES + map.pack_bytes).next_multiple_of(BLOCK_BYTES);
    let layout = Layout::new(tree_offset, tree, &raw_map(map, annotations))?;
    let elsewhere = map.figures.stored_bytes - map.pack_bytes;
    if map.plain_hole_bytes > plain_holes_max(layout.image_bytes + elsewhere) {
        return Err(Error::TooMany(TOO_MANY));
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Attributes, TreeBuilder};

    #[test]
    fn holes_that_nobody_would_digest_are_refused() {
        let tree = TreeBuilder::new(Attributes::default()).and_then(TreeBuilder::finish).unwrap();
        let with_holes = |plain_hole_bytes| {
            let map = Map { plain_hole_bytes, ..Map::default() };
            layout(&raw_tree(&tree, &map), &map, &Annotations::new())
        };
        let image_bytes = with_holes(0).unwrap().image_bytes;
        let limit = (1 << 36) + 64 * image_bytes;
        assert!(with_holes(limit).is_ok());
        assert!(matches!(with_holes(limit + 1), Err(Error::TooMany(_))));
    }
}
