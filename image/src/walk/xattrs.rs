// SPDX-License-Identifier: GPL-2.0-or-later

//! The xattr sets, and whether the files that have them can.

use std::collections::HashSet;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX};
use tesserafs_format::settable::{has_form, refusal};
use tesserafs_format::{
    Digest, FileType, FormatError, Inode, Place, Rule, XattrEntry, XattrSet, XattrSetIndex,
};

use super::order::Next;
use super::step;
use crate::context::Context;
use crate::error::{vec_of, Broken, Error};
use crate::finding::Finding;
use crate::hash::Hasher;
use crate::text;

/// For each set the types of files that cannot have all of its xattrs, a bit for each type.
///
/// So a set is looked through once, whatever number of inodes say to have it.
pub(super) struct Refused(Vec<u8>);

impl Refused {
    /// Checks that an inode can have the xattrs of its set.
    pub(super) fn check(
        &self,
        context: &Context<'_>,
        inode: &Inode,
        set: XattrSetIndex,
    ) -> Result<(), Error> {
        let file_type = inode.kind.file_type();
        if self.0.get(set.0 as usize).is_none_or(|types| types & bit(file_type) == 0) {
            return Ok(());
        }
        let place = Place::Ino(inode.ino.get());
        let finding = |found: String, why| {
            Finding::new(Rule::XattrSettable, place, found, "no such xattr on such a file").detail(why)
        };
        if context.findings.is_full(Rule::XattrSettable) {
            context.findings.add(finding(String::new(), ""));
            return Ok(());
        }
        if let Some(Some((name, why))) = context.note(first_refused(context, file_type, set))? {
            context.findings.add(finding(text::escape(&name), why));
        }
        Ok(())
    }
}

fn bit(file_type: FileType) -> u8 {
    1 << file_type.value()
}

/// The first xattr of a set that a file of that type cannot have, and why.
fn first_refused(
    context: &Context<'_>,
    file_type: FileType,
    index: XattrSetIndex,
) -> Result<Option<(Vec<u8>, &'static str)>, Broken> {
    let set = context.image.xattr_set(index)?;
    let mut cursor = context.image.xattrs(set);
    let mut buf = [0; XATTR_NAME_MAX];
    while let Some((entry, name)) = cursor.next(&mut buf)? {
        let value = value(context, set, &entry, name)?;
        if let Some(why) = refusal(file_type, name, &value) {
            return Ok(Some((name.to_vec(), why)));
        }
    }
    Ok(None)
}

/// The value of an xattr, if it has a form that somebody looks at.
fn value(context: &Context<'_>, set: XattrSet, entry: &XattrEntry, name: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut value = vec![0; if has_form(name) { entry.value_len as usize } else { 0 }];
    context.image.xattr_value(set.index, entry, &mut value)?;
    Ok(value)
}

/// The xattr sets: their entries, that they fill their table, and that they are distinct.
pub(super) fn check_sets(context: &Context<'_>) -> Result<Refused, Error> {
    let layout = &context.image.sb.layout;
    let mut next = Next(Some(0));
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut covered = 0;
    let mut refused = Refused(vec_of(layout.xattr_sets.records(), "a byte for each xattr set")?);
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
        let Some((digest, types)) = context.note(check_set(context, set))? else { continue };
        refused.0[index.0 as usize] = types;
        seen.try_reserve(1).map_err(|_| Error::Memory { what: "a digest for each xattr set" })?;
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
    Ok(refused)
}

/// Checks the entries of a set; the digest of their bytes, and the types of files that cannot have all of them.
fn check_set(context: &Context<'_>, set: XattrSet) -> Result<(Digest, u8), Broken> {
    let table = &context.image.sb.layout.xattr_entries;
    let place = Place::XattrSet(set.index.0);
    let mut cursor = context.image.xattrs(set);
    let mut buf = [0; XATTR_NAME_MAX];
    let mut before: Vec<u8> = Vec::new();
    let mut list_bytes = 0_u64;
    let mut types = 0;
    while let Some((entry, name)) = cursor.next(&mut buf)? {
        if name <= before.as_slice() {
            let (found, expected) = (name.len() as u64, before.len() as u64);
            return Err(FormatError::new(Rule::XattrOrder, place, found, expected).into());
        }
        let value = value(context, set, &entry, name)?;
        let refused = FileType::ALL.iter().filter(|of| refusal(**of, name, &value).is_some());
        types |= refused.fold(0, |types, of| types | bit(*of));
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
    Ok((hasher.finish(), types))
}
