// SPDX-License-Identifier: GPL-2.0-or-later

//! Everything of the metadata that is bytes rather than records: the Merkle tree, the tree ID, padding.

use std::thread;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::{Digest, Place, Rule, Table};
use zerocopy::IntoBytes;

use tesserafs_image::error::{Broken, Error};
use tesserafs_image::finding::Finding;
use tesserafs_image::hash::Hasher;
use tesserafs_image::metadata::VerifiedMetadata;
use tesserafs_image::parallel;
use tesserafs_image::Context;

/// Blocks that are read at once, 64 KiB. For 128 KiB or more the allocator asks the system each time, which zeroes them.
const BLOCKS_AT_ONCE: u64 = 16;

/// Checks every metadata and hash block, the tree ID, and the bytes between tables.
pub(crate) fn check(context: &Context<'_>) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let tree_bytes = layout.map_offset - layout.tree_offset;
    context.progress.begin("metadata", layout.image_bytes - layout.tree_offset + tree_bytes);
    for level in hash_levels(context) {
        check_level(context, &level, 0)?;
    }
    let leaves = Level { start: 0, blocks: layout.geometry.metadata_blocks(), digests: None };
    let tree_blocks = tree_bytes / BLOCK_BYTES;
    let tree_id = thread::scope(|scope| {
        let beside = thread::Builder::new().spawn_scoped(scope, || tree_id(context, &leaves, tree_blocks));
        let map = check_level(context, &leaves, tree_blocks);
        let tree_id = match beside {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system gives no more threads.
            Err(_) => tree_id(context, &leaves, tree_blocks),
        };
        map.and(tree_id)
    })?;
    if let Some(found) = tree_id.filter(|found| *found != context.image.sb.tree_id) {
        let expected = context.image.sb.tree_id;
        context.findings.add(Finding::new(Rule::TreeId, Place::SuperBlock(0x100), found, expected));
    }
    check_padding(context, &layout.tree_tables(), layout.map_offset)?;
    check_padding(context, &layout.map_tables(), layout.hash_offset)
}

/// Checks the blocks of the tree region; the SHA-256 of the tree descriptor and these (`FORMAT.md` 4.8), if all are authentic.
///
/// All of it is hashed twice, by blocks and as a whole: at once, which takes less time than one after the other.
fn tree_id(context: &Context<'_>, leaves: &Level, tree_blocks: u64) -> Result<Option<Digest>, Error> {
    let mut hasher = Hasher::default();
    hasher.update(context.image.sb.raw_tree().as_bytes());
    let mut buf = Vec::new();
    let mut authentic = true;
    let mut at = 0;
    while at < tree_blocks {
        context.cancel.check()?;
        let blocks = BLOCKS_AT_ONCE.min(tree_blocks - at);
        authentic &= check_blocks(context, leaves, at, blocks, &mut buf, Some(&mut hasher))?;
        context.progress.advance(2 * blocks * BLOCK_BYTES);
        at += blocks;
    }
    Ok(authentic.then(|| hasher.finish()))
}

/// A level of the Merkle tree, the metadata itself included.
struct Level {
    start: u64,
    blocks: u64,
    /// Digests in its blocks; `None` for metadata.
    digests: Option<u64>,
}

/// The levels of hash blocks, from the root down: so a block under one that is not authentic has no digest to be compared with, and only
/// the upper one is a finding.
fn hash_levels(context: &Context<'_>) -> Vec<Level> {
    let geometry = &context.image.sb.layout.geometry;
    let mut below = geometry.metadata_blocks();
    let mut levels: Vec<Level> = Vec::new();
    for (start, blocks) in geometry.levels() {
        levels.push(Level { start, blocks, digests: Some(below) });
        below = blocks;
    }
    levels.reverse();
    levels
}

/// Checks the blocks of a level from number `first` on.
fn check_level(context: &Context<'_>, level: &Level, first: u64) -> Result<(), Error> {
    let windows = level.blocks.saturating_sub(first).div_ceil(BLOCKS_AT_ONCE);
    parallel::for_each(context.threads, windows, context.cancel, |window| {
        let first = first + window * BLOCKS_AT_ONCE;
        let blocks = BLOCKS_AT_ONCE.min(level.blocks - first);
        check_blocks(context, level, first, blocks, &mut Vec::new(), None)?;
        context.progress.advance(blocks * BLOCK_BYTES);
        Ok(())
    })
}

/// Checks `blocks` blocks from number `first` of the level, and hands them to `beside`; whether all are authentic. Memory comes from `buf`.
fn check_blocks(
    context: &Context<'_>,
    level: &Level,
    first: u64,
    blocks: u64,
    buf: &mut Vec<u8>,
    beside: Option<&mut Hasher>,
) -> Result<bool, Error> {
    let metadata = context.metadata;
    let start = level.start + first;
    buf.resize((blocks * BLOCK_BYTES) as usize, 0);
    metadata.source().read_at(metadata.offset(start), buf)?;
    let mut authentic = true;
    let results = metadata.compare_all(start, buf, beside);
    for ((number, block), result) in (start..).zip(buf.chunks_exact(BLOCK_SIZE)).zip(results) {
        match result {
            Ok(()) => (),
            Err(Broken::Rule(error)) => {
                authentic = false;
                // That of a parent was found with its level.
                if error.place == Place::Block(number) {
                    context.findings.add(Finding::from(error).detail(block_name(context, number)));
                }
                continue;
            }
            Err(Broken::Stop(error)) => return Err(error),
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
