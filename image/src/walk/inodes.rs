// SPDX-License-Identifier: GPL-2.0-or-later

//! The first pass: attribute records, inodes, symlink targets.

use std::collections::HashSet;

use tesserafs_format::limits::SYMLINK_MAX;
use tesserafs_format::{Attributes, AttributesIndex, FileKind, Place, Rule};

use super::order::{Next, Numbering};
use super::tree::{Directory, Tree};
use super::xattrs::Refused;
use super::{ino_of, inode, step};
use crate::context::Context;
use crate::error::Error;
use crate::finding::Finding;

/// The attribute records, and that they are distinct.
pub(super) fn check_attributes(context: &Context<'_>) -> Result<(), Error> {
    let mut seen: HashSet<Attributes> = HashSet::new();
    for number in 0..context.image.sb.layout.attributes.records() {
        step(context, number)?;
        let index = AttributesIndex(u32::try_from(number).unwrap_or(u32::MAX));
        let Some(attributes) = context.note(context.image.attributes(index))? else { continue };
        seen.try_reserve(1).map_err(|_| Error::Memory { what: "a record for each attribute record" })?;
        if !seen.insert(attributes) {
            let place = Place::Attributes(index.0);
            let finding =
                Finding::new(Rule::TreeAttributes, place, "an equal record before it", "a distinct record");
            context.findings.add(finding);
        }
    }
    Ok(())
}

/// First pass: each inode by itself, and what lies in the order of inodes.
pub(super) fn check_inodes(context: &Context<'_>, tree: &mut Tree, refused: &Refused) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let (mut attributes, mut sets, mut contents) =
        (Numbering::default(), Numbering::default(), Numbering::default());
    let mut targets = Next(Some(0));
    let add = |rule, place, found: u64, expected: u64| {
        context.findings.add(Finding::new(rule, place, found, expected));
    };
    for number in 1..=layout.inodes.records() {
        step(context, number)?;
        let ino = ino_of(number);
        let index = ino.index() as usize;
        let place = Place::Ino(ino.get());
        let Some(inode) = inode(context, ino)? else {
            tree.is_whole = false;
            (attributes.gap, sets.gap, contents.gap, targets) = (true, true, true, Next(None));
            continue;
        };
        tree.types[index] = inode.kind.file_type().value();
        if let Err(expected) = attributes.take(inode.attributes.0.into()) {
            add(Rule::TreeAttributes, place, inode.attributes.0.into(), expected);
        }
        if let Some(set) = inode.xattrs {
            if let Err(expected) = sets.take(set.0.into()) {
                add(Rule::TreeXattrs, place, set.0.into(), expected);
            }
            refused.check(context, &inode, set)?;
        }
        match inode.kind {
            FileKind::Regular { size, content: Some(content) } => {
                if let Err(expected) = contents.take(content.0.into()) {
                    add(Rule::TreeContents, place, content.0.into(), expected);
                }
                let known = &mut tree.sizes[content.0 as usize];
                let blocks = &mut tree.blocks[content.0 as usize];
                if *known == 0 {
                    (*known, *blocks) = (size, inode.blocks);
                    tree.content_users[content.0 as usize] = ino.get();
                } else if *known != size {
                    add(Rule::ContentSize, place, size, *known);
                } else if inode.blocks != *blocks {
                    add(Rule::InodeBlocks, place, inode.blocks, *blocks);
                }
            }
            FileKind::Directory(tables) => {
                tree.parents[index] = tables.parent.get();
                tree.directories.push(Directory { ino: ino.get(), tables });
            }
            FileKind::Symlink { offset, len } => {
                if let Err(expected) = targets.take(offset.into(), len) {
                    add(Rule::TreeTargets, place, offset.into(), expected);
                }
                let mut target = [0; SYMLINK_MAX as usize];
                context.note(context.image.target(ino, offset, &mut target[..len as usize]))?;
            }
            _ => (),
        }
    }
    if let Some(found) = targets.misses(layout.targets.records()) {
        add(Rule::TreeTargets, Place::SuperBlock(0x60), layout.targets.records(), found);
    }
    if tree.is_whole {
        for (rule, numbering, table, at) in [
            (Rule::TreeAttributes, attributes, layout.attributes, 0x48),
            (Rule::TreeXattrs, sets, layout.xattr_sets, 0x68),
            (Rule::TreeContents, contents, layout.content_digests, 0x78),
        ] {
            if numbering.next < table.records() {
                add(rule, Place::SuperBlock(at), table.records(), numbering.next);
            }
        }
    }
    Ok(())
}
