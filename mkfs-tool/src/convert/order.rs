// SPDX-License-Identifier: GPL-2.0-or-later

//! The order in which a builder stores chunks (`FORMAT.md` 5.1), from the tables alone.

use tesserafs_format::extent::HOLE;
use tesserafs_format::Profile;

use super::Tables;
use crate::chunker::{end_behind, is_full, GroupEnd};

/// The chunks of an image in the order in which a builder stores them: as contents are cut, in their order, and a group when it is closed.
///
/// Where groups close follows from the lengths and digests of small contents. In an image that no builder made, the contents of what
/// would be one group may lie in several chunks: these follow each other then.
pub fn storage_order(tables: &Tables, profile: &Profile) -> Vec<u32> {
    let mut stored = Stored { order: Vec::new(), is_stored: vec![false; tables.chunks.len()] };
    let mut group: Vec<u32> = Vec::new();
    let mut held = 0;
    let ends = tables.content_map.iter().skip(1).map(|end| *end as usize).chain([tables.extents.len()]);
    let contents = tables.content_map.iter().zip(ends).zip(&tables.sizes).zip(&tables.content_digests);
    for (((first, end), size), digest) in contents {
        let extents = &tables.extents[*first as usize..end];
        let chunks = extents.iter().map(|extent| extent.chunk.get()).filter(|chunk| *chunk != HOLE);
        if *size > u64::from(profile.small_max) || chunks.clone().count() != extents.len() {
            stored.extend(chunks);
            continue;
        }
        if is_full(held, *size, profile) {
            stored.extend(group.drain(..));
            held = 0;
        }
        group.extend(chunks);
        held += size;
        if end_behind(held, *size, digest, profile) == GroupEnd::Closed {
            stored.extend(group.drain(..));
            held = 0;
        }
    }
    stored.extend(group.drain(..));
    stored.order
}

struct Stored {
    order: Vec<u32>,
    is_stored: Vec<bool>,
}

impl Stored {
    /// Stores chunks, but for those that are.
    fn extend(&mut self, chunks: impl Iterator<Item = u32>) {
        for chunk in chunks {
            if !std::mem::replace(&mut self.is_stored[chunk as usize], true) {
                self.order.push(chunk);
            }
        }
    }
}
