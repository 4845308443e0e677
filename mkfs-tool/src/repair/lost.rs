// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes that no file has, by the names of the files that lose them.

use std::collections::HashSet;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::superblock::Layout;
use tesserafs_format::SuperBlock;
use tesserafs_image::{text, walk, Cancel, Context, Findings, Silent, VerifiedMetadata};

use super::blocks::Mended;
use super::contents::parts;
use super::fill::Lacking;
use super::report::{LostBlock, LostDead, LostFile};
use crate::convert::Tables;
use crate::error::Result;

/// Bytes that no file has.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) signature: bool,
    pub(super) blocks: Vec<LostBlock>,
    /// Blocks that nothing proves, as the hashes of them are among these.
    pub(super) unproven: u64,
    pub(super) chunks: u64,
    pub(super) files: Vec<LostFile>,
    pub(super) dead: Vec<LostDead>,
    pub(super) otherwise: u64,
    pub(super) why: Option<String>,
}

impl Lost {
    pub(super) fn nothing(signature: bool) -> Self {
        Self { signature, ..Self::default() }
    }

    /// Whether all is there; a signature may be left out.
    pub(super) fn is_nothing(&self, drop_signature: bool) -> bool {
        (!self.signature || drop_signature)
            && self.blocks.is_empty()
            && self.chunks == 0
            && self.dead.is_empty()
    }

    /// Blocks of metadata. Which files they are of, nothing tells: names and places are in them.
    pub(super) fn of_blocks(sb: &SuperBlock, mended: &Mended, signature: bool) -> Self {
        let layout = &sb.layout;
        let block = |number: &u64| LostBlock {
            block: *number,
            offset: layout.tree_offset + number * BLOCK_BYTES,
            tables: tables_in(layout, *number),
        };
        let blocks = mended.lost.iter().map(block).collect();
        Self { signature, blocks, unproven: mended.unproven, ..Self::default() }
    }

    /// Chunks, as ranges of the files whose bytes are in them.
    pub(super) fn of_chunks(
        metadata: &VerifiedMetadata<'_>,
        tables: &Tables,
        lacking: &Lacking,
        signature: bool,
    ) -> Result<Self> {
        let lost = Self {
            signature,
            chunks: lacking.chunks.len() as u64,
            otherwise: lacking.otherwise,
            why: lacking.why.clone(),
            ..Self::default()
        };
        if lacking.chunks.is_empty() {
            return Ok(lost);
        }
        let numbers: HashSet<u32> = lacking.chunks.iter().copied().collect();
        let mut ranges: Vec<(u32, u64, u64, u32)> = Vec::new();
        for (chunk, parts) in parts(tables, &numbers) {
            ranges.extend(parts.iter().map(|part| (part.content, part.start, part.len, chunk)));
        }
        ranges.sort_unstable();
        let (findings, cancel) = (Findings::default(), Cancel::default());
        let context = Context::new(metadata, &findings, &Silent, &cancel);
        let tree = walk::walk(&context)?;
        let name = |content: u32| match walk::content_path(&context, &tree, content) {
            Some(path) => text::escape(&path),
            None => format!("content {content}, which no name leads to"),
        };
        let mut files: Vec<LostFile> = Vec::new();
        let mut last = None;
        for (content, offset, bytes, chunk) in ranges {
            match files.last_mut().filter(|_| last == Some(content)) {
                // What follows the one before is one range with it.
                Some(file) if file.offset + file.bytes == offset => {
                    file.bytes += bytes;
                    file.chunks.push(chunk);
                }
                _ => files.push(LostFile { path: name(content), offset, bytes, chunks: vec![chunk] }),
            }
            last = Some(content);
        }
        files.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        Ok(Self { files, ..lost })
    }
}

/// The names of the tables that a block has some of.
fn tables_in(layout: &Layout, number: u64) -> Vec<&'static str> {
    if number >= layout.geometry.metadata_blocks() {
        return vec!["hashes"];
    }
    let start = layout.tree_offset + number * BLOCK_BYTES;
    let of_tree = [
        "attributes",
        "inodes",
        "entries",
        "names",
        "symlink targets",
        "xattr sets",
        "xattr entries",
        "content digests",
    ];
    let of_map = [
        "packs",
        "chunks",
        "chunk digests",
        "content map",
        "extents",
        "raw digests",
        "annotations",
        "annotation data",
    ];
    let tables =
        layout.tree_tables().into_iter().zip(of_tree).chain(layout.map_tables().into_iter().zip(of_map));
    let has = tables.filter(|(table, _)| table.offset() < start + BLOCK_BYTES && table.end() > start);
    has.map(|(_, name)| name).collect()
}
