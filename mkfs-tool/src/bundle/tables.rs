// SPDX-License-Identifier: GPL-2.0-or-later

//! The tables of an image, as differences to those of another one.
//!
//! Records of numbers become columns of differences to the record before: what is inserted or removed somewhere then changes nothing
//! behind it, and the same files give the same bytes in both images. So zstd finds the tables of the old image in those of the new one.
//! Names, targets and digests are as they are.

use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawPack,
    RawXattrSet,
};
use tesserafs_format::superblock::Layout;
use tesserafs_format::Table;

use super::frame::{compress, decompress};
use crate::error::Result;

/// Bytes of a table in a section.
const PART: u64 = 4 << 20;

/// Bytes of the old table on each side of the place that a part had in it.
const AROUND: u64 = 4 << 20;

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
    /// Bytes of a record of numbers; none where there are no numbers.
    record: Option<usize>,
}

/// The parts of all tables, in the order of the image.
pub(super) fn parts(old: &Layout, new: &Layout) -> impl Iterator<Item = Part> {
    let pairs = tables(new).into_iter().zip(tables(old));
    pairs.flat_map(|((new, record), (old, _))| {
        let bytes = new.end() - new.offset();
        let old_bytes = old.end() - old.offset();
        let unit = record.unwrap_or(DIGEST) as u64;
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
                record,
            }
        })
    })
}

/// Bytes of a digest.
const DIGEST: usize = 32;

/// The tables of an image, in its order, and bytes of a record of numbers.
fn tables(layout: &Layout) -> [(Table, Option<usize>); 16] {
    [
        (layout.attributes, Some(size_of::<RawAttributes>())),
        (layout.inodes, Some(size_of::<RawInode>())),
        (layout.dirents, Some(size_of::<RawDirent>())),
        (layout.names, None),
        (layout.targets, None),
        (layout.xattr_sets, Some(size_of::<RawXattrSet>())),
        (layout.xattr_entries, None),
        (layout.content_digests, None),
        (layout.packs, Some(size_of::<RawPack>())),
        (layout.chunks, Some(size_of::<RawChunk>())),
        (layout.chunk_digests, None),
        (layout.content_map, Some(size_of::<RawContentMap>())),
        (layout.extents, Some(size_of::<RawExtent>())),
        (layout.raw_digests, None),
        (layout.annotations, Some(size_of::<RawAnnotation>())),
        (layout.annotation_data, None),
    ]
}

impl Part {
    /// The section of a part, by the bytes of both images.
    pub(super) fn encode(&self, new: &[u8], old: &[u8]) -> Result<Vec<u8>> {
        compress(&self.columns(new), &self.columns(old), LEVEL)
    }

    /// The bytes of a part, by its section and the bytes of the old image; none if it is not that of a part as long.
    pub(super) fn decode(&self, section: &[u8], old: &[u8]) -> Option<Vec<u8>> {
        let columns = decompress(section, &self.columns(old), self.new.len as usize)?;
        Some(self.records(&columns))
    }

    /// Records, one after the other, as columns of differences.
    fn columns(&self, records: &[u8]) -> Vec<u8> {
        let Some(record) = self.record else { return records.to_vec() };
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
        let Some(record) = self.record else { return columns.to_vec() };
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

    fn part(len: usize, record: Option<usize>) -> Part {
        let range = Span { offset: 0, len: len as u64 };
        Part { new: range, old: range, record }
    }

    /// Records of four numbers that grow, as tables have them.
    fn records(count: u32, gap: u32) -> Vec<u8> {
        let all = (0..count).flat_map(|n| [n + gap, 7, 3 * n, u32::MAX - n]);
        all.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn a_part_comes_back_and_an_inserted_record_costs_little() {
        let (old, mut new) = (records(10_000, 0), records(5000, 0));
        new.extend(records(10_000, 0)[5000 * 16..].iter());
        new.splice(16_000..16_000, records(1, 99));
        let part = part(new.len(), Some(16));
        let section = part.encode(&new, &old).unwrap();
        assert!(section.len() < 150, "{}", section.len());
        assert_eq!(part.decode(&section, &old).unwrap(), new);
        assert_eq!(part.decode(&section, &new), None, "another prefix");
    }

    #[test]
    fn bytes_come_back() {
        let names = b"bin etc lib usr".repeat(100);
        let part = part(names.len(), None);
        let section = part.encode(&names, b"").unwrap();
        assert_eq!(part.decode(&section, b"").unwrap(), names);
        assert_eq!(part.decode(b"no frame", b""), None);
    }
}
