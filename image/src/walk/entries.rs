// SPDX-License-Identifier: GPL-2.0-or-later

//! The second pass: entries and names, in the order of directories; and the third: links.

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{NAME_ALIGN, NAME_MAX};
use tesserafs_format::{FileType, Place, Rule};

use super::order::{Next, Numbering};
use super::tree::{Directory, Tree};
use super::{ino_of, inode, step};
use crate::context::Context;
use crate::error::Error;
use crate::finding::Finding;
use crate::text;

/// The state that the second pass carries from entry to entry.
struct Entries<'a> {
    context: &'a Context<'a>,
    numbers: Numbering,
    names: Next,
}

/// Second pass: the entries, in the order of directories.
pub(super) fn check_entries(context: &Context<'_>, tree: &mut Tree) -> Result<(), Error> {
    let total = context.image.sb.layout.dirents.records();
    // The root has no name: 2 is the first number that an entry gives.
    let mut state = Entries { context, numbers: Numbering { next: 2, gap: false }, names: Next(Some(0)) };
    let mut records = Next(Some(0));
    let mut covered = 0;
    let mut last_ino = 0;
    for index in 0..tree.directories.len() {
        let directory = tree.directories[index];
        if u64::from(directory.ino) != last_ino + 1 && !tree.is_whole {
            // A directory that could not be read may have entries and names before these.
            records = skipped(tree, last_ino + 1, directory.ino.into(), records);
            state.names = skipped(tree, last_ino + 1, directory.ino.into(), state.names);
        }
        last_ino = directory.ino.into();
        let first = u64::from(directory.tables.first);
        // With the fence.
        let len = u64::from(directory.tables.entries) + 1;
        if let Err(expected) = records.take(first, len) {
            let place = Place::Ino(directory.ino);
            context.findings.add(Finding::new(Rule::TreeEntries, place, first, expected));
        }
        if covered < first {
            // Entries that no directory has may have names.
            (state.names, state.numbers.gap) = (Next(None), true);
        }
        // Entries that two directories have belong to the first.
        let from = u32::try_from(covered.saturating_sub(first)).unwrap_or(u32::MAX);
        state.directory(tree, directory, from.min(directory.tables.entries))?;
        covered = covered.max(first.saturating_add(len));
    }
    if tree.is_whole && covered < total {
        let place = Place::Dirent(u32::try_from(covered).unwrap_or(u32::MAX));
        context.findings.add(Finding::new(Rule::TreeEntries, place, total, covered));
    }
    if covered < total {
        state.names = Next(None);
    }
    if let Some(found) = state.names.misses(context.image.sb.layout.names.records()) {
        let records = context.image.sb.layout.names.records();
        context.findings.add(Finding::new(Rule::TreeNames, Place::SuperBlock(0x58), records, found));
    }
    Ok(())
}

/// `next`, unless one of the inodes `from..to` is unreadable.
fn skipped(tree: &Tree, from: u64, to: u64, next: Next) -> Next {
    let is_readable = |number: u64| tree.types.get(number as usize - 1).is_some_and(|kind| *kind != 0);
    if (from..to).all(is_readable) {
        next
    } else {
        Next(None)
    }
}

impl Entries<'_> {
    /// Checks the entries of one directory, from entry `from` on.
    fn directory(&mut self, tree: &mut Tree, directory: Directory, from: u32) -> Result<(), Error> {
        let context = self.context;
        let tables = directory.tables;
        let mut is_whole = from == 0;
        let mut subdirectories = 0_u64;
        let mut before: Vec<u8> = Vec::new();
        if let Err(expected) = self.names.take(tables.names, 0) {
            let place = Place::Ino(directory.ino);
            context.findings.add(Finding::new(Rule::TreeNames, place, tables.names, expected));
        }
        for n in from..tables.entries {
            step(context, n.into())?;
            let place = Place::Dirent(tables.first.saturating_add(n));
            let Some(entry) = context.note(context.image.dirent(&tables, n))?.flatten() else {
                (self.names, self.numbers.gap) = (Next(None), true);
                (tree.is_whole, is_whole) = (false, false);
                before.clear();
                continue;
            };
            if let Err(expected) = self.names.take(entry.name_offset, entry.name_len.into()) {
                context.findings.add(Finding::new(Rule::TreeNames, place, entry.name_offset, expected));
            }
            let mut buf = [0; NAME_MAX];
            match context.note(context.image.name(&entry, &mut buf))? {
                Some(name) => {
                    if name <= before.as_slice() {
                        let name = text::escape(name);
                        let expected = format!("a name behind {}", text::escape(&before));
                        context.findings.add(Finding::new(Rule::DirentOrder, place, name, expected));
                    }
                    before.clear();
                    before.extend_from_slice(name);
                }
                None => before.clear(),
            }
            let number = entry.ino.get();
            let inode = entry.ino.index() as usize;
            let known = tree.types[inode];
            let stored = entry.file_type.value();
            if known != 0 && known != stored {
                context.findings.add(Finding::new(
                    Rule::DirentType,
                    place,
                    u32::from(stored),
                    u32::from(known),
                ));
            }
            let is_directory = known == FileType::Directory.value();
            subdirectories += u64::from(is_directory || known == 0 && stored == FileType::Directory.value());
            self.number(tree, directory, n, number, is_directory);
        }
        self.fence(directory)?;
        if is_whole {
            self.links(directory, subdirectories)?;
        }
        Ok(())
    }

    /// Checks what stands behind the entries and the names of a directory.
    fn fence(&mut self, directory: Directory) -> Result<(), Error> {
        let context = self.context;
        let table = &context.image.sb.layout.names;
        let Some(len) = context.note(context.image.fence(&directory.tables))? else {
            self.names = Next(None);
            return Ok(());
        };
        let place = Place::Ino(directory.ino);
        let end = directory.tables.names.saturating_add(len.into());
        let aligned = end.next_multiple_of(NAME_ALIGN);
        if aligned > table.records() {
            self.names = Next(None);
            context.findings.add(Finding::new(Rule::TreeNames, place, aligned, table.records()));
            return Ok(());
        }
        let mut padding = [0; NAME_ALIGN as usize];
        let padding = &mut padding[..(aligned - end) as usize];
        context.note(context.metadata.read(table.offset().saturating_add(end), padding))?;
        if let Some(found) = padding.iter().find(|byte| **byte != 0) {
            let finding = Finding::new(Rule::TreeNames, place, u32::from(*found), 0_u32);
            context.findings.add(finding.detail("the bytes behind the names of a directory are zero"));
        }
        self.names.0 = self.names.0.map(|_| aligned);
        Ok(())
    }

    /// Takes the name that entry `n` of a directory gives inode `number`.
    fn number(&mut self, tree: &mut Tree, directory: Directory, n: u32, number: u32, is_directory: bool) {
        let findings = self.context.findings;
        let inode = number as usize - 1;
        let parent = directory.ino;
        let place = Place::Dirent(directory.tables.first.saturating_add(n));
        if let Err(expected) = self.numbers.take(number.into()) {
            findings.add(Finding::new(Rule::TreeOrder, place, number, expected));
        }
        tree.names[inode] = tree.names[inode].saturating_add(1);
        if tree.names[inode] == 1 {
            tree.named_by[inode] = parent;
            tree.first_name[inode] = n;
        }
        if !is_directory {
            return;
        }
        if number <= parent {
            let finding = Finding::new(Rule::TreeOrder, place, number, u64::from(parent) + 1);
            findings.add(finding.detail("a directory is named in itself, or by one with a higher number"));
        }
        let names = tree.names[inode];
        if names > 1 {
            let finding = Finding::new(Rule::TreeUnreachable, Place::Ino(number), names, 1_u32);
            findings.add(finding.detail("the directory has more than one name"));
        } else if tree.parents[inode] != parent {
            findings.add(Finding::new(Rule::TreeParent, Place::Ino(number), tree.parents[inode], parent));
        }
    }

    /// Compares the link count of a directory.
    fn links(&self, directory: Directory, subdirectories: u64) -> Result<(), Error> {
        let context = self.context;
        let Some(inode) = inode(context, ino_of(directory.ino.into()))? else { return Ok(()) };
        let expected = subdirectories + 2;
        if u64::from(inode.nlink) != expected {
            let place = Place::Ino(directory.ino);
            context.findings.add(Finding::new(Rule::TreeNlink, place, inode.nlink, expected));
        }
        Ok(())
    }
}

/// Third pass: that every inode has a name, and a file as many as it says.
pub(super) fn check_links(context: &Context<'_>, tree: &Tree) -> Result<(), Error> {
    if !tree.is_whole {
        // Names that could not be read may be the missing ones.
        return Ok(());
    }
    for number in 2..=context.image.sb.layout.inodes.records() {
        step(context, number)?;
        let ino = ino_of(number);
        let place = Place::Ino(ino.get());
        let names = tree.names[ino.index() as usize];
        if names == 0 {
            context.findings.add(Finding::new(Rule::TreeUnreachable, place, 0_u32, 1_u32));
            continue;
        }
        if tree.types[ino.index() as usize] == FileType::Directory.value() {
            continue;
        }
        let Some(inode) = inode(context, ino)? else { continue };
        if inode.nlink != names {
            context.findings.add(Finding::new(Rule::TreeNlink, place, inode.nlink, names));
        }
    }
    Ok(())
}
