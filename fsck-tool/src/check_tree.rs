// SPDX-License-Identifier: GPL-2.0-or-later

//! Everything of the metadata that is bytes rather than records: the Merkle tree, the tree ID, padding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::{Place, Rule, Table};
use zerocopy::IntoBytes;

use tesserafs_image::error::{Broken, Error};
use tesserafs_image::finding::Finding;
use tesserafs_image::hash::Hasher;
use tesserafs_image::metadata::VerifiedMetadata;
use tesserafs_image::parallel;
use tesserafs_image::Context;

/// Bytes that are read at once to compute the tree ID.
const PIECE: u64 = 1 << 20;

/// Checks every metadata and hash block, the tree ID, and the bytes between tables.
pub(crate) fn check(context: &Context<'_>) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let tree_bytes = layout.map_offset - layout.tree_offset;
    context.progress.begin("metadata", layout.image_bytes - layout.tree_offset + tree_bytes);
    let tree_is_authentic = AtomicBool::new(true);
    let tree_id = thread::scope(|scope| {
        let beside = thread::Builder::new().spawn_scoped(scope, || tree_id(context));
        let blocks = check_blocks(context, &tree_is_authentic);
        let tree_id = match beside {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system gives no more threads.
            Err(_) => tree_id(context),
        };
        blocks.and(tree_id)
    })?;
    if tree_is_authentic.load(Ordering::Relaxed) && tree_id != context.image.sb.tree_id {
        findings_tree_id(context, tree_id);
    }
    check_padding(context, &layout.tree_tables(), layout.map_offset)?;
    check_padding(context, &layout.map_tables(), layout.hash_offset)
}

fn findings_tree_id(context: &Context<'_>, found: tesserafs_format::Digest) {
    let expected = context.image.sb.tree_id;
    context.findings.add(Finding::new(Rule::TreeId, Place::SuperBlock(0x100), found, expected));
}

/// The SHA-256 of the tree descriptor and the tree region (`FORMAT.md` 4.8).
fn tree_id(context: &Context<'_>) -> Result<tesserafs_format::Digest, Error> {
    let layout = &context.image.sb.layout;
    let mut hasher = Hasher::default();
    hasher.update(context.image.sb.raw_tree().as_bytes());
    let mut at = layout.tree_offset;
    let mut buf = vec![0; PIECE.min(layout.map_offset - at) as usize];
    while at < layout.map_offset {
        context.cancel.check()?;
        let piece = PIECE.min(layout.map_offset - at);
        let bytes = &mut buf[..piece as usize];
        context.metadata.source().read_at(at, bytes)?;
        hasher.update(bytes);
        context.progress.advance(piece);
        at += piece;
    }
    Ok(hasher.finish())
}

/// Checks all blocks from the root down. A block under one that is not authentic has no digest to be compared with:
/// only the upper one is a finding.
fn check_blocks(context: &Context<'_>, tree_is_authentic: &AtomicBool) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let geometry = &layout.geometry;
    let tree_blocks = (layout.map_offset - layout.tree_offset) / BLOCK_BYTES;
    let mut below = geometry.metadata_blocks();
    let mut levels: Vec<Level> = Vec::new();
    for (start, blocks) in geometry.levels() {
        levels.push(Level { start, blocks, digests: Some(below) });
        below = blocks;
    }
    levels.reverse();
    levels.push(Level { start: 0, blocks: geometry.metadata_blocks(), digests: None });
    for level in &levels {
        // All blocks of a window have their digests in one block.
        let windows = level.blocks.div_ceil(DIGESTS_PER_BLOCK);
        parallel::for_each(context.threads, windows, context.cancel, |window| {
            let first = window * DIGESTS_PER_BLOCK;
            let blocks = DIGESTS_PER_BLOCK.min(level.blocks - first);
            let is_tree = level.digests.is_none() && first < tree_blocks;
            let authentic = check_window(context, level, first, blocks)?;
            if is_tree && !authentic {
                tree_is_authentic.store(false, Ordering::Relaxed);
            }
            context.progress.advance(blocks * BLOCK_BYTES);
            Ok(())
        })?;
    }
    Ok(())
}

/// A level of the Merkle tree, the metadata itself included.
struct Level {
    start: u64,
    blocks: u64,
    /// Digests in its blocks; `None` for metadata.
    digests: Option<u64>,
}

/// Checks `blocks` blocks from number `first` of the level; whether all are authentic.
fn check_window(context: &Context<'_>, level: &Level, first: u64, blocks: u64) -> Result<bool, Error> {
    let metadata = context.metadata;
    let start = level.start + first;
    let mut bytes = vec![0; (blocks * BLOCK_BYTES) as usize];
    metadata.source().read_at(metadata.offset(start), &mut bytes)?;
    let mut authentic = true;
    for (number, block) in (start..).zip(bytes.chunks_exact(BLOCK_SIZE)) {
        let expected = match metadata.expected(number) {
            Ok(expected) => expected,
            Err(Broken::Rule(_)) => return Ok(false),
            Err(Broken::Stop(error)) => return Err(error),
        };
        if let Err(error) = metadata.compare(number, block, &expected) {
            authentic = false;
            context.findings.add(Finding::from(error).detail(block_name(context, number)));
            continue;
        }
        if let Some(digests) = level.digests {
            let used = digests - ((number - level.start) * DIGESTS_PER_BLOCK).min(digests);
            let used = used.min(DIGESTS_PER_BLOCK) as usize * DIGEST_SIZE;
            let padding = block.iter().enumerate().skip(used).find(|(_, byte)| **byte != 0);
            if let Some((at, byte)) = padding {
                let place = Place::Byte(metadata.offset(number) + at as u64);
                context.findings.add(Finding::new(Rule::HashPadding, place, u32::from(*byte), 0_u32));
            }
        }
    }
    Ok(authentic)
}

/// Checks that the bytes between `tables`, and between the last one and `end`, are zero.
fn check_padding(context: &Context<'_>, tables: &[Table], end: u64) -> Result<(), Error> {
    let starts = tables.iter().skip(1).map(Table::offset).chain([end]);
    for (table, next) in tables.iter().zip(starts) {
        // Less than a block: the layout puts tables as close as their alignment allows.
        let mut padding = [0; BLOCK_SIZE];
        let len = next.saturating_sub(table.end()).min(BLOCK_BYTES) as usize;
        match context.metadata.read(table.end(), &mut padding[..len]) {
            Ok(()) => (),
            Err(Broken::Rule(error)) if VerifiedMetadata::is_reported(&error) => continue,
            Err(Broken::Rule(error)) => context.findings.add(error),
            Err(Broken::Stop(error)) => return Err(error),
        }
        if let Some(at) = padding[..len].iter().position(|byte| *byte != 0) {
            let place = Place::Byte(table.end() + at as u64);
            context.findings.add(Finding::new(Rule::TablePadding, place, u32::from(padding[at]), 0_u32));
        }
    }
    Ok(())
}

/// In words, what metadata block `number` holds.
fn block_name(context: &Context<'_>, number: u64) -> String {
    let layout = &context.image.sb.layout;
    let start = context.metadata.offset(number);
    let end = start.saturating_add(BLOCK_BYTES);
    if start >= layout.hash_offset {
        return "the block is one of the hash region".to_owned();
    }
    let tables = [
        (layout.attributes, "attributes"),
        (layout.inodes, "inodes"),
        (layout.dirents, "entries"),
        (layout.names, "names"),
        (layout.targets, "symlink targets"),
        (layout.xattr_sets, "xattr sets"),
        (layout.xattr_entries, "xattr entries"),
        (layout.content_digests, "content digests"),
        (layout.packs, "packs"),
        (layout.chunks, "chunks"),
        (layout.chunk_digests, "chunk digests"),
        (layout.content_map, "content map"),
        (layout.extents, "extents"),
        (layout.raw_digests, "raw digests"),
        (layout.annotations, "annotations"),
        (layout.annotation_data, "annotation data"),
    ];
    let names: Vec<&str> = tables
        .iter()
        .filter(|(table, _)| table.offset() < end && table.end() > start)
        .map(|(_, name)| *name)
        .collect();
    format!("the block holds: {}", if names.is_empty() { "padding".to_owned() } else { names.join(", ") })
}
