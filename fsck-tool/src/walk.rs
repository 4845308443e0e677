// SPDX-License-Identifier: GPL-2.0

//! The tree as a whole: numbering, names, links, parents, and that the tables are filled by exactly what is used.
//!
//! In a canonical image directories are numbered in the order in which they are visited, and their entries lie in that order.
//! So two passes in table order see everything that a walk from the root would, need no queue, and end whatever the entries
//! say: each record is read a bounded number of times.

use std::collections::HashSet;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{NAME_ALIGN, NAME_MAX, SYMLINK_MAX, XATTR_LIST_MAX, XATTR_NAME_MAX};
use tesserafs_format::{
    Attributes, AttributesIndex, Digest, FileKind, FileType, FormatError, Ino, Inode, Place, Rule, XattrSet,
    XattrSetIndex,
};

use crate::check::Context;
use crate::error::{vec_of, Broken, Error};
use crate::finding::Finding;
use crate::hash::Hasher;

/// Components that a path is printed with at most.
const PATH_DEPTH_MAX: usize = 256;

/// Records between two looks at the cancel flag, and two steps of the progress bar.
const STEP: u64 = 1 << 12;

/// A directory: its number, and where its entries and names are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    pub(crate) ino: u32,
    pub(crate) tables: tesserafs_format::Directory,
}

/// The facts that the walk learned; indexed by inode number less 1, or by content.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Stored type, 0 of an inode that could not be read.
    types: Vec<u8>,
    /// Parent that the inode says, of directories.
    parents: Vec<u32>,
    /// Entries that point to it.
    names: Vec<u32>,
    /// Directory of its first name; 0 for none.
    named_by: Vec<u32>,
    /// The entry of that directory that is its first name; nothing where there is none.
    first_name: Vec<u32>,
    /// All directories that could be read, by number.
    pub(crate) directories: Vec<Directory>,
    /// Bytes of each content; 0 where no file has it.
    pub(crate) sizes: Vec<u64>,
    /// Blocks of each content that are not all zero, as its first inode says.
    pub(crate) blocks: Vec<u64>,
    /// First inode that has it; 0 for none.
    content_users: Vec<u32>,
    /// Whether every inode and entry could be read.
    is_whole: bool,
    /// First users of the xattr sets that findings are about, once looked for.
    set_users: Option<Vec<u32>>,
    /// Contents of the chunks and extents that findings are about, once looked for.
    pub(crate) map_users: Option<crate::check_map::Users>,
}

impl Tree {
    fn empty(context: &Context<'_>) -> Result<Self, Error> {
        let layout = &context.image.sb.layout;
        let (inodes, contents) = (layout.inodes.records(), layout.content_digests.records());
        Ok(Self {
            types: vec_of(inodes, "a record for each inode")?,
            parents: vec_of(inodes, "a record for each inode")?,
            names: vec_of(inodes, "a record for each inode")?,
            named_by: vec_of(inodes, "a record for each inode")?,
            first_name: vec_of(inodes, "a record for each inode")?,
            sizes: vec_of(contents, "a record for each content")?,
            blocks: vec_of(contents, "a record for each content")?,
            content_users: vec_of(contents, "a record for each content")?,
            is_whole: true,
            ..Self::default()
        })
    }

    /// Bytes of all contents.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size))
    }

    /// The directory of the first name of an inode, and that entry of it.
    pub(crate) fn first_name(&self, ino: u32) -> Option<(&Directory, u32)> {
        let index = ino.checked_sub(1)? as usize;
        let number = *self.named_by.get(index)?;
        let at = self.directories.binary_search_by_key(&number, |directory| directory.ino).ok()?;
        Some((&self.directories[at], self.first_name[index]))
    }
}

/// The next place in a table that is filled in order; unknown behind a record that could not be read.
#[derive(Clone, Copy, Debug)]
struct Next(Option<u64>);

impl Next {
    /// Takes `len` from `start`; the expected start is the error if that is another.
    fn take(&mut self, start: u64, len: u64) -> Result<(), u64> {
        let expected = self.0.replace(start.saturating_add(len));
        match expected {
            Some(expected) if expected != start => Err(expected),
            _ => Ok(()),
        }
    }

    /// Whether the table ends elsewhere.
    fn misses(&self, end: u64) -> Option<u64> {
        self.0.filter(|at| *at != end)
    }
}

/// Indices that are given in the order of their first use.
#[derive(Clone, Copy, Debug, Default)]
struct Numbering {
    next: u64,
    /// Whether a record that could not be read may have used the next one.
    gap: bool,
}

impl Numbering {
    /// Takes a use of `index`; the expected index is the error if this skips it.
    fn take(&mut self, index: u64) -> Result<(), u64> {
        let expected = self.next;
        if index < expected {
            return Ok(());
        }
        self.next = index.saturating_add(1);
        if index == expected || std::mem::take(&mut self.gap) {
            Ok(())
        } else {
            Err(expected)
        }
    }
}

/// Checks the records of the tree region, and the tree that they make.
pub(crate) fn walk(context: &Context<'_>) -> Result<Tree, Error> {
    let layout = &context.image.sb.layout;
    let records = [layout.attributes, layout.inodes, layout.dirents, layout.xattr_sets]
        .iter()
        .fold(0, |sum: u64, table| sum.saturating_add(table.records()));
    context.progress.begin("tree", records);
    let mut tree = Tree::empty(context)?;
    check_attributes(context)?;
    check_inodes(context, &mut tree)?;
    check_xattr_sets(context)?;
    check_content_digests(context)?;
    check_entries(context, &mut tree)?;
    check_links(context, &tree)?;
    Ok(tree)
}

/// Looks at the cancel flag and moves the bar, now and then.
fn step(context: &Context<'_>, record: u64) -> Result<(), Error> {
    if record % STEP == 0 {
        context.cancel.check()?;
        context.progress.advance(STEP);
    }
    Ok(())
}

/// The inode of that number, which is in the table.
fn ino_of(number: u64) -> Ino {
    u32::try_from(number).ok().and_then(Ino::from_number).unwrap_or(Ino::ROOT)
}

/// The attribute records, and that they are distinct.
fn check_attributes(context: &Context<'_>) -> Result<(), Error> {
    let mut seen: HashSet<Attributes> = HashSet::new();
    for number in 0..context.image.sb.layout.attributes.records() {
        step(context, number)?;
        let index = AttributesIndex(u32::try_from(number).unwrap_or(u32::MAX));
        let Some(attributes) = context.note(context.image.attributes(index))? else { continue };
        seen.try_reserve(1)
            .map_err(|source| Error::Memory { what: "a record for each attribute record", source })?;
        if !seen.insert(attributes) {
            let place = Place::Attributes(index.0);
            let finding =
                Finding::new(Rule::TreeAttributes, place, "an equal record before it", "a distinct record");
            context.findings.add(finding);
        }
    }
    Ok(())
}

/// The inode of that number; defects of its attributes were found when those were checked.
fn inode(context: &Context<'_>, ino: Ino) -> Result<Option<Inode>, Error> {
    match context.image.inode(ino) {
        Err(Broken::Rule(FormatError { place: Place::Attributes(_), .. })) => Ok(None),
        result => context.note(result),
    }
}

/// First pass: each inode by itself, and what lies in the order of inodes.
fn check_inodes(context: &Context<'_>, tree: &mut Tree) -> Result<(), Error> {
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

/// The xattr sets: their entries, that they fill their table, and that they are distinct.
fn check_xattr_sets(context: &Context<'_>) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let mut next = Next(Some(0));
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut covered = 0;
    for number in 0..layout.xattr_sets.records() {
        step(context, number)?;
        let index = XattrSetIndex(u32::try_from(number).unwrap_or(u32::MAX));
        let place = Place::XattrSet(index.0);
        let Some(set) = context.note(context.image.xattr_set(index))? else {
            next = Next(None);
            continue;
        };
        if let Err(expected) = next.take(set.offset, set.bytes.into()) {
            context.findings.add(Finding::new(Rule::TreeXattrs, place, set.offset, expected));
        }
        // Sets that overlap are not canonical, which was just said; reading them again and again would take for ever.
        if set.offset < covered {
            continue;
        }
        covered = set.offset.saturating_add(set.bytes.into());
        let Some(digest) = context.note(check_xattr_set(context, set))? else { continue };
        seen.try_reserve(1)
            .map_err(|source| Error::Memory { what: "a digest for each xattr set", source })?;
        if !seen.insert(digest) {
            let finding = Finding::new(Rule::TreeXattrs, place, "an equal set before it", "a distinct set");
            context.findings.add(finding);
        }
    }
    if let Some(found) = next.misses(layout.xattr_entries.records()) {
        let finding =
            Finding::new(Rule::TreeXattrs, Place::SuperBlock(0x70), layout.xattr_entries.records(), found);
        context.findings.add(finding);
    }
    Ok(())
}

/// Checks the entries of a set; the digest of their bytes.
fn check_xattr_set(context: &Context<'_>, set: XattrSet) -> Result<Digest, Broken> {
    let table = &context.image.sb.layout.xattr_entries;
    let place = Place::XattrSet(set.index.0);
    let mut cursor = context.image.xattrs(set);
    let mut buf = [0; XATTR_NAME_MAX];
    let mut before: Vec<u8> = Vec::new();
    let mut list_bytes = 0_u64;
    while let Some((entry, name)) = cursor.next(&mut buf)? {
        if name <= before.as_slice() {
            let (found, expected) = (name.len() as u64, before.len() as u64);
            return Err(FormatError::new(Rule::XattrOrder, place, found, expected).into());
        }
        before.clear();
        before.extend_from_slice(name);
        list_bytes += name.len() as u64 + 1;
        let value_end = entry.value_offset + u64::from(entry.value_len);
        // Less than the 8 bytes that entries are aligned to.
        let mut padding = [0; 8];
        let padding = &mut padding[..(entry.end - value_end).min(8) as usize];
        context.metadata.read(table.offset() + value_end, padding)?;
        if let Some(found) = padding.iter().find(|byte| **byte != 0) {
            return Err(FormatError::new(Rule::XattrPadding, place, (*found).into(), 0).into());
        }
    }
    if list_bytes > XATTR_LIST_MAX.into() {
        let error = FormatError::new(Rule::XattrListLength, place, list_bytes, XATTR_LIST_MAX.into());
        return Err(error.into());
    }
    let mut hasher = Hasher::default();
    let mut piece = [0; 4096];
    let (mut at, end) = (set.offset, set.offset + u64::from(set.bytes));
    while at < end {
        let len = (end - at).min(piece.len() as u64);
        context.metadata.read(table.offset() + at, &mut piece[..len as usize])?;
        hasher.update(&piece[..len as usize]);
        at += len;
    }
    Ok(hasher.finish())
}

/// That contents are distinct.
fn check_content_digests(context: &Context<'_>) -> Result<(), Error> {
    let contents = context.image.sb.layout.content_digests.records();
    let mut seen: HashSet<Digest> = HashSet::new();
    for number in 0..contents {
        step(context, number)?;
        let index = tesserafs_format::ContentIndex(u32::try_from(number).unwrap_or(u32::MAX));
        let Some(digest) = context.note(context.image.content_digest(index))? else { continue };
        seen.try_reserve(1).map_err(|source| Error::Memory { what: "a digest for each content", source })?;
        if !seen.insert(digest) {
            let place = Place::Content(index.0);
            let finding = Finding::new(Rule::TreeContents, place, digest, "a digest no other content has");
            context.findings.add(finding);
        }
    }
    Ok(())
}

/// The state that the second pass carries from entry to entry.
struct Entries<'a> {
    context: &'a Context<'a>,
    numbers: Numbering,
    names: Next,
}

/// Second pass: the entries, in the order of directories.
fn check_entries(context: &Context<'_>, tree: &mut Tree) -> Result<(), Error> {
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
                        let name = crate::text::escape(name);
                        let expected = format!("a name behind {}", crate::text::escape(&before));
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
fn check_links(context: &Context<'_>, tree: &Tree) -> Result<(), Error> {
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

/// The first path of an inode, with a leading slash; `None` where it has none that can be read.
pub(crate) fn path(context: &Context<'_>, tree: &Tree, ino: u32) -> Option<Vec<u8>> {
    let mut components = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT.get() {
        if components.len() == PATH_DEPTH_MAX {
            components.push(b"...".to_vec());
            break;
        }
        let (directory, n) = tree.first_name(at)?;
        components.push(name(context, directory, n)?);
        at = directory.ino;
    }
    if components.is_empty() {
        return Some(b"/".to_vec());
    }
    Some(components.iter().rev().flat_map(|name| [b"/", name.as_slice()].concat()).collect())
}

/// The name of entry `n` of a directory, unless it cannot be read.
pub(crate) fn name(context: &Context<'_>, directory: &Directory, n: u32) -> Option<Vec<u8>> {
    let mut buf = [0; NAME_MAX];
    let entry = context.image.dirent(&directory.tables, n).ok()??;
    context.image.name(&entry, &mut buf).ok().map(<[u8]>::to_vec)
}

/// Says which file a finding affects, where that can be told.
pub(crate) fn name_file(context: &Context<'_>, tree: &mut Tree, finding: &mut Finding) -> Result<(), Error> {
    let ino = match finding.place {
        Place::Ino(ino) => Some(ino),
        Place::Dirent(entry) => {
            finding.path = entry_path(context, tree, entry);
            None
        }
        Place::XattrSet(set) => set_user(context, tree, set)?,
        Place::Content(content) => tree.content_users.get(content as usize).copied(),
        Place::Extent(_) | Place::Chunk(_) => {
            if tree.map_users.is_none() {
                tree.map_users = Some(crate::check_map::Users::find(context, tree)?);
            }
            let content = tree.map_users.as_ref().and_then(|users| users.content(finding.place));
            content.and_then(|content| tree.content_users.get(content as usize).copied())
        }
        _ => None,
    };
    if let Some(ino) = ino.filter(|ino| *ino != 0) {
        finding.path = path(context, tree, ino);
    }
    Ok(())
}

/// The path that an entry gives; that of its directory where the name cannot be read.
fn entry_path(context: &Context<'_>, tree: &Tree, entry: u32) -> Option<Vec<u8>> {
    // The fence counts as the directory's.
    let holds = |directory: &&Directory| {
        entry.checked_sub(directory.tables.first).is_some_and(|n| n <= directory.tables.entries)
    };
    let directory = tree.directories.iter().find(holds)?;
    let mut path = path(context, tree, directory.ino)?;
    if let Some(name) = name(context, directory, entry - directory.tables.first) {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
    }
    Some(path)
}

/// The first inode that has an xattr set; 0 where none has.
fn set_user(context: &Context<'_>, tree: &mut Tree, set: u32) -> Result<Option<u32>, Error> {
    if tree.set_users.is_none() {
        let mut users: Vec<u32> =
            vec_of(context.image.sb.layout.xattr_sets.records(), "a record for each xattr set")?;
        for number in 1..=context.image.sb.layout.inodes.records() {
            context.cancel.check()?;
            let ino = ino_of(number);
            if let Ok(Inode { xattrs: Some(set), .. }) = context.image.inode(ino) {
                let user = &mut users[set.0 as usize];
                *user = if *user == 0 { ino.get() } else { *user };
            }
        }
        tree.set_users = Some(users);
    }
    Ok(tree.set_users.as_ref().and_then(|users| users.get(set as usize).copied()))
}
