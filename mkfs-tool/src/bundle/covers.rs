// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of lacking chunks that the old image has all the same: a group of small files is another chunk when one of them has changed.

use std::collections::HashMap;

use super::matches::Matches;
use super::side::RawReader;
use crate::convert::Tables;
use crate::error::Result;

/// Bytes of a chunk that are those of a content of the old image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cover {
    /// The first of them in the chunk.
    at: u32,
    len: u32,
    /// The content in the old image, and the offset there.
    content: u32,
    offset: u64,
}

/// Such bytes of all lacking chunks.
#[derive(Debug, Default)]
pub(super) struct Covers {
    of: HashMap<u32, Vec<Cover>>,
}

impl Covers {
    /// Finds them by the extents of the contents that both images have.
    pub(super) fn find(new: &Tables, matches: &Matches, lacking: &[u32]) -> Self {
        let mut of: HashMap<u32, Vec<Cover>> = lacking.iter().map(|chunk| (*chunk, Vec::new())).collect();
        for number in 0..new.content_map.len() as u32 {
            let Some(content) = matches.content(number) else { continue };
            for extent in new.extents_of(number) {
                let Some(covers) = of.get_mut(&new.extents[extent].chunk.get()) else { continue };
                let (at, offset) =
                    (new.extents[extent].chunk_offset.get(), new.extents[extent].file_offset.get());
                // A chunk has 1 MiB at most, and an extent lies in its chunk.
                let len = new.end_of(number, extent).saturating_sub(offset) as u32;
                covers.push(Cover { at, len, content, offset });
            }
        }
        of.values_mut().for_each(disjoint);
        Self { of }
    }

    fn of(&self, chunk: u32) -> &[Cover] {
        self.of.get(&chunk).map_or(&[], Vec::as_slice)
    }

    /// Bytes of a chunk that the old image has.
    pub(super) fn bytes(&self, chunk: u32) -> u64 {
        self.of(chunk).iter().map(|cover| u64::from(cover.len)).sum()
    }

    /// Appends to `rest` those bytes of a chunk that the old image has not; false if the others are not the same there, as in a broken
    /// image.
    pub(super) fn split(
        &self,
        chunk: u32,
        raw: &[u8],
        old: &mut RawReader<'_, '_>,
        rest: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut known = Vec::new();
        let mut behind = 0;
        for cover in self.of(chunk) {
            let (at, end) = (cover.at as usize, (cover.at + cover.len) as usize);
            known.clear();
            old.content(cover.content, cover.offset, cover.len.into(), &mut known)?;
            if raw.get(at..end) != Some(&*known) {
                return Ok(false);
            }
            rest.extend_from_slice(&raw[behind..at]);
            behind = end;
        }
        rest.extend_from_slice(&raw[behind..]);
        Ok(true)
    }

    /// The opposite: the `len` bytes of a chunk, and how many of `rest` are among them; none if there are not as many.
    pub(super) fn join(
        &self,
        chunk: u32,
        len: usize,
        old: &mut RawReader<'_, '_>,
        rest: &[u8],
    ) -> Result<Option<(Vec<u8>, usize)>> {
        let mut raw = Vec::with_capacity(len);
        let mut used = 0;
        for cover in self.of(chunk) {
            let gap = cover.at as usize - raw.len();
            let Some(bytes) = rest.get(used..used + gap) else { return Ok(None) };
            raw.extend_from_slice(bytes);
            used += gap;
            let end = raw.len() + cover.len as usize;
            old.content(cover.content, cover.offset, cover.len.into(), &mut raw)?;
            if raw.len() != end {
                return Ok(None);
            }
        }
        let Some(bytes) = len.checked_sub(raw.len()).and_then(|gap| rest.get(used..used + gap)) else {
            return Ok(None);
        };
        raw.extend_from_slice(bytes);
        used += bytes.len();
        Ok(Some((raw, used)))
    }
}

/// In the order of their places, and none in another one: contents can have bytes of a chunk in common.
fn disjoint(covers: &mut Vec<Cover>) {
    covers.sort_by_key(|cover| (cover.at, cover.len, cover.content, cover.offset));
    let mut behind = 0;
    covers.retain_mut(|cover| {
        let skipped = behind.max(cover.at) - cover.at;
        if skipped >= cover.len {
            return false;
        }
        cover.at += skipped;
        cover.len -= skipped;
        cover.offset += u64::from(skipped);
        behind = cover.at + cover.len;
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_common_count_once() {
        let cover = |at, len, content, offset| Cover { at, len, content, offset };
        let mut covers = vec![cover(10, 5, 1, 0), cover(0, 12, 2, 7), cover(3, 4, 3, 0), cover(20, 1, 4, 0)];
        disjoint(&mut covers);
        assert_eq!(covers, [cover(0, 12, 2, 7), cover(12, 3, 1, 2), cover(20, 1, 4, 0)]);
    }
}
