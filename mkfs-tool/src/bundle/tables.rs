// SPDX-License-Identifier: GPL-2.0-or-later

//! The tables of an image, as differences to those of another one.
//!
//! Records of numbers become columns of differences to the record before: what is inserted or removed somewhere then changes nothing
//! behind it, and the same files give the same bytes in both images. So zstd finds the tables of the old image in those of the new one.
//! Names and targets are as they are. Digests are not in the bundle.

use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawPack,
    RawXattrSet,
};
use tesserafs_format::superblock::Layout;
use tesserafs_format::Table;

use super::frame::{compress, decompress};
use crate::error::Result;

/// Bytes of tables in a section.
const PART: u64 = 4 << 20;

/// Bytes of the old table on each side of the place that a part had in it.
const AROUND: u64 = 4 << 20;

/// Bytes of the old tables that a section refers to, at most.
const PREFIX_MAX: u64 = 2 * AROUND + PART;

/// The level of zstd: tables are short.
const LEVEL: i32 = 19;

/// Bytes of an image: the first one, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A part of a table, and the part of the old image's table that resembles it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) new: Span,
    pub(super) old: Span,
    kind: Records,
}

/// The records of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Records {
    /// Numbers, of so many bytes a record.
    Numbers(usize),
    /// Bytes that are as they are.
    Bytes,
    /// Digests: those of what the old image has follow, and the others are computed.
    Digests,
}

/// The parts of all tables, in the order of the image.
fn parts(old: &Layout, new: &Layout) -> impl Iterator<Item = Part> {
    let pairs = tables(new).into_iter().zip(tables(old));
    pairs.filter(|((_, kind), _)| *kind != Records::Digests).flat_map(|((new, kind), (old, _))| {
        let bytes = new.end() - new.offset();
        let old_bytes = old.end() - old.offset();
        let unit = match kind {
            Records::Numbers(record) => record as u64,
            _ => 1,
        };
        let step = PART / unit * unit;
        (0..bytes).step_by(step as usize).map(move |at| {
            let len = step.min(bytes - at);
            // Where a record as far as this one from the beginning is in the old table.
            let place = |at: u64| (u128::from(at) * u128::from(old_bytes) / u128::from(bytes)) as u64;
            let from = place(at).saturating_sub(AROUND) / unit * unit;
            let until = place(at + len).saturating_add(AROUND).min(from + 2 * AROUND + PART) / unit * unit;
            let until = until.min(old_bytes);
            Part {
                new: Span { offset: new.offset() + at, len },
                old: Span { offset: old.offset() + from, len: until - from },
                kind,
            }
        })
    })
}

/// The bytes of an image before, between and behind its tables, from the first table on: they are zero.
pub(super) fn padding(layout: &Layout) -> Vec<Span> {
    let mut padding = Vec::new();
    let mut at = layout.tree_offset;
    let ends = tables(layout).map(|(table, _)| (table.offset(), table.end()));
    for (offset, end) in
        ends.into_iter().filter(|(offset, end)| offset < end).chain([(layout.hash_offset, 0)])
    {
        if at < offset {
            padding.push(Span { offset: at, len: offset - at });
        }
        at = end;
    }
    padding
}

/// The tables of an image, in its order.
fn tables(layout: &Layout) -> [(Table, Records); 16] {
    use Records::{Bytes, Digests, Numbers};
    [
        (layout.attributes, Numbers(size_of::<RawAttributes>())),
        (layout.inodes, Numbers(size_of::<RawInode>())),
        (layout.dirents, Numbers(size_of::<RawDirent>())),
        (layout.names, Bytes),
        (layout.targets, Bytes),
        (layout.xattr_sets, Numbers(size_of::<RawXattrSet>())),
        (layout.xattr_entries, Bytes),
        (layout.content_digests, Digests),
        (layout.packs, Numbers(size_of::<RawPack>())),
        (layout.chunks, Numbers(size_of::<RawChunk>())),
        (layout.chunk_digests, Digests),
        (layout.content_map, Numbers(size_of::<RawContentMap>())),
        (layout.extents, Numbers(size_of::<RawExtent>())),
        (layout.raw_digests, Digests),
        (layout.annotations, Numbers(size_of::<RawAnnotation>())),
        (layout.annotation_data, Bytes),
    ]
}

/// Parts one behind the other, in one section.
pub(super) type Group = Vec<Part>;

/// The parts of all tables, in sections: small tables cost little then.
pub(super) fn groups(old: &Layout, new: &Layout) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut left = (0, 0);
    for part in parts(old, new) {
        let fits = part.new.len <= left.0 && part.old.len <= left.1;
        match groups.last_mut().filter(|_| fits) {
            Some(last) => last.push(part),
            None => {
                left = (PART.max(part.new.len), PREFIX_MAX.max(part.old.len));
                groups.push(vec![part]);
            }
        }
        left = (left.0 - part.new.len, left.1 - part.old.len);
    }
    groups
}

/// The section of a group; `new` and `old` read bytes of the images.
pub(super) fn encode(
    group: &[Part],
    new: impl Fn(Span) -> Result<Vec<u8>>,
    old: impl Fn(Span) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let mut columns = Vec::new();
    for part in group {
        columns.extend(part.columns(&new(part.new)?));
    }
    compress(&columns, &prefix(group, old)?, LEVEL)
}

/// The bytes of the parts of a group, by its section; none if it is not that of parts as long.
pub(super) fn decode(
    group: &[Part],
    section: &[u8],
    old: impl Fn(Span) -> Result<Vec<u8>>,
) -> Result<Option<Vec<Vec<u8>>>> {
    let len = group.iter().map(|part| part.new.len as usize).sum();
    let Some(columns) = decompress(section, &prefix(group, old)?, len) else { return Ok(None) };
    let mut rest = columns.as_slice();
    let parts = group.iter().map(|part| {
        let (own, behind) = rest.split_at(part.new.len as usize);
        rest = behind;
        part.records(own)
    });
    Ok(Some(parts.collect()))
}

fn prefix(group: &[Part], old: impl Fn(Span) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let mut prefix = Vec::new();
    for part in group {
        prefix.extend(part.columns(&old(part.old)?));
    }
    Ok(prefix)
}

impl Part {
    /// Records, one after the other, as columns of differences.
    fn columns(&self, records: &[u8]) -> Vec<u8> {
        let Records::Numbers(record) = self.kind else { return records.to_vec() };
        let mut columns = Vec::with_capacity(records.len());
        for word in (0..record).step_by(WORD) {
            let mut before = 0_u32;
            for record in records.chunks_exact(record) {
                let number = number(&record[word..]);
                columns.extend_from_slice(&number.wrapping_sub(before).to_le_bytes());
                before = number;
            }
        }
        columns
    }

    /// The opposite.
    fn records(&self, columns: &[u8]) -> Vec<u8> {
        let Records::Numbers(record) = self.kind else { return columns.to_vec() };
        let mut records = vec![0; columns.len()];
        let count = columns.len() / record;
        for (column, word) in columns.chunks_exact((count * WORD).max(1)).zip((0..record).step_by(WORD)) {
            let mut before = 0_u32;
            for (difference, record) in column.chunks_exact(WORD).zip(records.chunks_exact_mut(record)) {
                before = before.wrapping_add(number(difference));
                record[word..word + WORD].copy_from_slice(&before.to_le_bytes());
            }
        }
        records
    }
}

/// Bytes of the numbers whose differences are taken: longer ones are two.
const WORD: usize = 4;

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(len: usize, kind: Records) -> Part {
        let range = Span { offset: 0, len: len as u64 };
        Part { new: range, old: range, kind }
    }

    /// Records of four numbers that grow, as tables have them.
    fn records(count: u32, gap: u32) -> Vec<u8> {
        let all = (0..count).flat_map(|n| [n + gap, 7, 3 * n, u32::MAX - n]);
        all.flat_map(u32::to_le_bytes).collect()
    }

    fn both(part: Part, new: &[u8], old: &[u8]) -> Vec<u8> {
        encode(&[part], |_| Ok(new.to_vec()), |_| Ok(old.to_vec())).unwrap()
    }

    fn back(part: Part, section: &[u8], old: &[u8]) -> Option<Vec<u8>> {
        decode(&[part], section, |_| Ok(old.to_vec())).unwrap().map(|mut parts| parts.remove(0))
    }

    #[test]
    fn a_part_comes_back_and_an_inserted_record_costs_little() {
        let (old, mut new) = (records(10_000, 0), records(5000, 0));
        new.extend(records(10_000, 0)[5000 * 16..].iter());
        new.splice(16_000..16_000, records(1, 99));
        let part = part(new.len(), Records::Numbers(16));
        let section = both(part, &new, &old);
        assert!(section.len() < 150, "{}", section.len());
        assert_eq!(back(part, &section, &old).unwrap(), new);
        assert_eq!(back(part, &section, &new), None, "another prefix");
    }

    #[test]
    fn bytes_come_back() {
        let names = b"bin etc lib usr".repeat(100);
        let part = part(names.len(), Records::Bytes);
        let section = both(part, &names, b"");
        assert_eq!(back(part, &section, b"").unwrap(), names);
        assert_eq!(back(part, b"no frame", b""), None);
    }

    #[test]
    fn several_parts_come_back() {
        let (numbers, names) = (records(100, 5), b"bin etc lib usr".to_vec());
        let second = Span { offset: numbers.len() as u64, len: names.len() as u64 };
        let group = [
            part(numbers.len(), Records::Numbers(16)),
            Part { new: second, old: second, kind: Records::Bytes },
        ];
        let all = [numbers.clone(), names.clone()].concat();
        let read = |span: Span| Ok(all[span.offset as usize..][..span.len as usize].to_vec());
        let section = encode(&group, read, |_| Ok(Vec::new())).unwrap();
        assert_eq!(decode(&group, &section, |_| Ok(Vec::new())).unwrap().unwrap(), [numbers, names]);
    }
}
