// SPDX-License-Identifier: GPL-2.0-or-later

//! Finds the ranges of the old image that resemble a chunk of the new one. In this order: the bytes between the same two chunks that both
//! images have, the file of the same path, the file of a path that differs in numbers only. What is the same in both needs none.

use std::collections::HashMap;
use std::ops::Range;

use tesserafs_format::extent::HOLE;
use tesserafs_format::{Digest, FileKind, Inode};
use tesserafs_image::diff::{diff, Aspect};
use tesserafs_image::unchecked::Unchecked;

use super::matches::Matches;
use super::side::Side;
use crate::error::Result;

/// Bytes of a content that is taken as a whole.
const WHOLE: u64 = 4 << 20;

/// Bytes that are taken on each side of a place that is known.
const NEAR: u64 = 64 << 10;

/// Bytes that are taken on each side of a place that is guessed.
const FAR: u64 = 1 << 20;

/// A range of a content of the old image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) content: u32,
    pub(super) start: u64,
    pub(super) len: u64,
}

/// The ranges that resemble each chunk.
#[derive(Default)]
pub(super) struct Bases {
    of: HashMap<u32, Vec<Base>>,
}

impl Bases {
    /// Finds them for the chunks of the new image that are lacking.
    pub(super) fn find(old: &Side<'_>, new: &Side<'_>, matches: &Matches, lacking: &[u32]) -> Result<Self> {
        let mut of: HashMap<u32, Vec<Base>> = lacking.iter().map(|chunk| (*chunk, Vec::new())).collect();
        let resembling = resembling(old, new)?;
        let places = places(old);
        let by_raw: HashMap<Digest, u32> =
            (0..).zip(&old.tables.raw_digests).map(|(chunk, raw)| (*raw, chunk)).collect();
        let whole = |content: u32| Base { content, start: 0, len: old.tables.sizes[content as usize] };

        for content in 0..new.tables.content_map.len() as u32 {
            let extents = new.tables.extents_of(content);
            let is_lacking = |number: &usize| of.contains_key(&new.tables.extents[*number].chunk.get());
            if matches.content(content).is_some() || !extents.clone().any(|number| is_lacking(&number)) {
                continue;
            }
            let known = resembling.get(&content).copied();
            // A member of a group, or a content of one chunk.
            if extents.len() == 1 {
                let bases = of.entry(new.tables.extents[extents.start].chunk.get()).or_default();
                if let Some(base) = known.map(whole).filter(|base| base.len <= WHOLE) {
                    if !bases.contains(&base) {
                        bases.push(base);
                    }
                    continue;
                }
            }
            // Where each chunk that both images have is in the old one.
            let place = |number: usize| -> Option<(u32, u64)> {
                let chunk = new.tables.extents[number].chunk.get();
                let raw = new.tables.raw_digests.get(chunk as usize).filter(|_| chunk != HOLE)?;
                places[*by_raw.get(raw)? as usize]
            };
            for (number, around) in around(extents, place) {
                let chunk = new.tables.extents[number].chunk.get();
                let Some(bases) = of.get_mut(&chunk).filter(|bases| bases.is_empty()) else { continue };
                let (start, end) =
                    (new.tables.extents[number].file_offset.get(), new.tables.end_of(content, number));
                let begin_of = |number: usize| new.tables.extents[number].file_offset.get();
                let base = match around {
                    (Some((at, (before, left))), Some((_, (behind, right))))
                        if before == behind
                            && left <= right
                            && right - left <= WHOLE.saturating_add(end - start) =>
                    {
                        let left = left.saturating_add(new.tables.end_of(content, at) - begin_of(at));
                        near(before, left, right.max(left))
                    }
                    (Some((at, (before, left))), _) => {
                        let left = left.saturating_add(start - begin_of(at));
                        near(before, left, left.saturating_add(end - start))
                    }
                    (None, Some((at, (behind, right)))) => {
                        let right = right.saturating_sub(begin_of(at) - end);
                        near(behind, right.saturating_sub(end - start), right)
                    }
                    (None, None) => match known {
                        None => continue,
                        Some(known) if whole(known).len <= WHOLE => whole(known),
                        Some(known) => {
                            // As far from the beginning as it is here.
                            let (size, other) = (new.tables.sizes[content as usize], whole(known).len);
                            let at = (u128::from(start) * u128::from(other) / u128::from(size.max(1))) as u64;
                            let from = at.saturating_sub(FAR);
                            let len = (at - from).saturating_add(end - start).saturating_add(FAR);
                            Base { content: known, start: from, len }
                        }
                    },
                };
                bases.push(clipped(base, old));
            }
        }
        Ok(Self { of })
    }

    /// The ranges that resemble a chunk.
    pub(super) fn of(&self, chunk: u32) -> &[Base] {
        self.of.get(&chunk).map_or(&[], Vec::as_slice)
    }
}

/// The nearest extent that both images have: its number in the new one, and its place in the old one.
type Known = Option<(usize, (u32, u64))>;

/// Each extent that is not known, with those around it that are.
fn around(
    extents: Range<usize>,
    place: impl Fn(usize) -> Option<(u32, u64)>,
) -> impl Iterator<Item = (usize, (Known, Known))> {
    let mut all = Vec::with_capacity(extents.len());
    let mut before: Known = None;
    for number in extents.clone() {
        let here = place(number);
        all.push((number, here, before));
        before = here.map(|here| (number, here)).or(before);
    }
    let mut behind: Known = None;
    let mut found = Vec::new();
    for (number, here, before) in all.into_iter().rev() {
        match here {
            Some(here) => behind = Some((number, here)),
            None => found.push((number, (before, behind))),
        }
    }
    found.into_iter().rev()
}

/// A range, and some bytes around it.
fn near(content: u32, start: u64, end: u64) -> Base {
    let from = start.saturating_sub(NEAR);
    Base { content, start: from, len: end.saturating_add(NEAR) - from }
}

/// As far as the content has it.
fn clipped(base: Base, old: &Side<'_>) -> Base {
    let size = old.tables.sizes[base.content as usize];
    let start = base.start.min(size);
    Base { start, len: base.len.min(size - start), ..base }
}

/// Where each chunk of an image is: a content, and the offset there.
fn places(side: &Side<'_>) -> Vec<Option<(u32, u64)>> {
    let mut places = vec![None; side.tables.chunks.len()];
    for content in 0..side.tables.content_map.len() as u32 {
        for extent in &side.tables.extents[side.tables.extents_of(content)] {
            if let Some(place) = places.get_mut(extent.chunk.get() as usize) {
                let start = extent.file_offset.get();
                place.get_or_insert((content, start.saturating_sub(extent.chunk_offset.get().into())));
            }
        }
    }
    places
}

/// Contents of the new image, and those of the old one that had their paths; or paths that differ in numbers only.
fn resembling(old: &Side<'_>, new: &Side<'_>) -> Result<HashMap<u32, u32>> {
    let (a, b) = (Unchecked::new(&old.metadata), Unchecked::new(&new.metadata));
    let ignored = [Aspect::Mode, Aspect::Owner, Aspect::Time, Aspect::Xattrs, Aspect::Target];
    let differences = diff(&a, &b, &ignored)?;
    let mut found = HashMap::new();
    let (mut gone, mut named) = (HashMap::new(), HashMap::new());
    for difference in &differences.all {
        let before = difference.before.as_ref().and_then(content);
        let after = difference.after.as_ref().and_then(content);
        match (before, after) {
            (Some(before), Some(after)) => {
                found.entry(after).or_insert(before);
            }
            (Some(before), None) => {
                let path = pattern(&differences.path(difference.path));
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
                named.entry(name).or_insert(before);
                gone.entry(path).or_insert(before);
            }
            _ => (),
        }
    }
    for difference in &differences.all {
        let (None, Some(after)) = (difference.before, difference.after.as_ref().and_then(content)) else {
            continue;
        };
        let path = pattern(&differences.path(difference.path));
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if let Some(before) = gone.get(&path).or_else(|| named.get(name)) {
            found.entry(after).or_insert(*before);
        }
    }
    Ok(found)
}

fn content(inode: &Inode) -> Option<u32> {
    match inode.kind {
        FileKind::Regular { content, .. } => content.map(|content| content.0),
        _ => None,
    }
}

/// A path with each number, such as that of a version, as one mark.
fn pattern(path: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'0'..=b'9' if pattern.last() == Some(&b'#') => (),
            b'0'..=b'9' => pattern.push(b'#'),
            _ => pattern.push(*byte),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_paths_are_alike() {
        assert_eq!(pattern(b"usr/lib/libfoo.so.1.22.3"), b"usr/lib/libfoo.so.#.#.#");
        assert_eq!(pattern(b"libfoo-10/x"), pattern(b"libfoo-9/x"));
        assert_ne!(pattern(b"libfoo/x"), pattern(b"libfoo-9/x"));
    }

    #[test]
    fn what_is_known_around_an_extent_is_found() {
        let places = [Some((0, 0)), None, None, Some((0, 9)), None];
        let found: Vec<_> = around(0..5, |number| places[number]).collect();
        let (first, last) = (Some((0, (0, 0))), Some((3, (0, 9))));
        assert_eq!(found, [(1, (first, last)), (2, (first, last)), (4, (last, None))]);
    }
}
