// SPDX-License-Identifier: GPL-2.0-or-later

//! Whether an image in the shared form is canonical: whether that in one file is, which it unpacks to (`FORMAT.md` 9.1).
//!
//! Neither is written. The tree region of both is that of the image, and the bytes of pack 0 follow from the digests of chunks in the order
//! in which a builder stores them. So it is enough that the tree is what is built, that contents are cut and grouped in the same way, and
//! that the chunks in that order have the same digests.

use mkfs_tesserafs::convert::{storage_order, Tables};
use mkfs_tesserafs::encode::Map;
use mkfs_tesserafs::image::Written;
use tesserafs_format::{FormatError, Place, Rule};
use tesserafs_image::context::read;
use tesserafs_image::walk::Tree;
use tesserafs_image::{Contents, Context, Error};

use super::difference::{Explanation, FirstByte, Freedom};
use super::{chunks, contents};

/// Where the superblock has the compat bits, and the tree ID.
const COMPAT_AT: u64 = 0x10;
const TREE_ID_AT: u64 = 0x100;

/// The first difference, and the byte of the image that it is at: the record of the content or chunk.
pub(super) fn compare(
    context: &Context<'_>,
    tree: &Tree,
    data: &Contents<'_>,
    map: &Map,
    written: &Written,
) -> Result<Option<(FirstByte, Explanation)>, Error> {
    let sb = context.image.sb;
    let at = |offset, explanation| {
        let first = FirstByte { offset, found: None, expected: None };
        Ok(Some((first, explanation)))
    };
    let other = |found, expected| Explanation { found, expected, ..Explanation::new(Freedom::Other) };
    if sb.compat != 0 {
        return at(COMPAT_AT, other(format!("the bits {:#x}", sb.compat), "none".to_owned()));
    }
    if let Some(explanation) = contents::compare(context, tree, map)? {
        return at(place(context, explanation.about), explanation);
    }
    let order = storage_order(&read(Tables::read(&context.image))?, &sb.profile);
    if let Some(explanation) = chunks::compare(context, data, map, &order)? {
        return at(place(context, explanation.about), explanation);
    }
    let (found, expected) = (sb.tree_id, written.superblock.tree_id);
    if found != expected {
        return at(TREE_ID_AT, other(format!("the tree {found}"), expected.to_string()));
    }
    if order.len() != map.chunks.len() {
        let (found, expected) = (order.len() as u64, map.chunks.len() as u64);
        let error = FormatError::new(Rule::Canonical, Place::SuperBlock(0x88), found, expected);
        return Err(super::not_compared(&error.to_string()));
    }
    Ok(None)
}

/// The byte of the image where it says of a content or a chunk.
fn place(context: &Context<'_>, about: Option<Place>) -> u64 {
    let layout = &context.image.sb.layout;
    let record = match about {
        Some(Place::Content(content)) => layout.content_map.record(content.into()),
        Some(Place::Chunk(chunk)) => layout.chunks.record(chunk.into()),
        _ => None,
    };
    record.unwrap_or(layout.map_offset)
}
