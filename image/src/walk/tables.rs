// SPDX-License-Identifier: GPL-2.0-or-later

//! The tables that inodes share: xattr sets and content digests.

use std::collections::HashSet;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX};
use tesserafs_format::{Digest, FormatError, Place, Rule, XattrSet, XattrSetIndex};

use super::order::Next;
use super::step;
use crate::context::Context;
use crate::error::{Broken, Error};
use crate::finding::Finding;
use crate::hash::Hasher;

/// The xattr sets: their entries, that they fill their table, and that they are distinct.
pub(super) fn check_xattr_sets(context: &Context<'_>) -> Result<(), Error> {
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
///
/// 8 bytes for each are enough to find those that may be equal, which no builder makes: only they are read once more and
/// compared as a whole.
pub(super) fn check_content_digests(context: &Context<'_>) -> Result<(), Error> {
    let contents = context.image.sb.layout.content_digests.records();
    let memory = |source| Error::Memory { what: "a digest for each content", source };
    let mut prefixes: Vec<u64> = Vec::new();
    prefixes.try_reserve_exact(usize::try_from(contents).unwrap_or(usize::MAX)).map_err(memory)?;
    for number in 0..contents {
        step(context, number)?;
        prefixes.extend(digest(context, number)?.map(|digest| digest.prefix()));
    }
    prefixes.sort_unstable();
    let mut next = 0;
    let mut before = None;
    for at in 0..prefixes.len() {
        let prefix = prefixes[at];
        if before.replace(prefix) == Some(prefix) {
            prefixes[next] = prefix;
            next += 1;
        }
    }
    prefixes.truncate(next);
    if prefixes.is_empty() {
        return Ok(());
    }
    let mut seen: HashSet<Digest> = HashSet::new();
    for number in 0..contents {
        step(context, number)?;
        let Some(digest) = digest(context, number)? else { continue };
        if prefixes.binary_search(&digest.prefix()).is_err() {
            continue;
        }
        seen.try_reserve(1).map_err(memory)?;
        if !seen.insert(digest) {
            let place = Place::Content(u32::try_from(number).unwrap_or(u32::MAX));
            let finding = Finding::new(Rule::TreeContents, place, digest, "a digest no other content has");
            context.findings.add(finding);
        }
    }
    Ok(())
}

/// The digest of that content, unless it cannot be read.
fn digest(context: &Context<'_>, number: u64) -> Result<Option<Digest>, Error> {
    let index = tesserafs_format::ContentIndex(u32::try_from(number).unwrap_or(u32::MAX));
    context.note(context.image.content_digest(index))
}
