// SPDX-License-Identifier: GPL-2.0
//! Broken images by number: each changes one field of one record, or the stored bytes of one chunk.

use std::collections::HashSet;

use anyhow::{Context, Result};
use zerocopy::IntoBytes;

use super::parts::{self, sha256, Parts};
use super::{sign_with, Sign};

/// A table of records: the bytes of each, and its fields (offset, bytes).
struct Fields {
    name: &'static str,
    record: usize,
    fields: &'static [(usize, usize)],
}

const TABLES: [Fields; 16] = [
    Fields { name: "attributes", record: 16, fields: &[(0, 1), (1, 1), (2, 2), (4, 4), (8, 4), (12, 4)] },
    Fields {
        name: "inodes",
        record: 32,
        fields: &[(0, 4), (4, 4), (8, 8), (16, 8), (16, 4), (20, 4), (24, 4), (28, 4)],
    },
    Fields { name: "dirents", record: 8, fields: &[(0, 4), (4, 4), (7, 1)] },
    Fields { name: "names", record: 1, fields: &[(0, 1)] },
    Fields { name: "targets", record: 1, fields: &[(0, 1)] },
    Fields { name: "xattr sets", record: 16, fields: &[(0, 8), (8, 4), (12, 4)] },
    Fields { name: "xattr entries", record: 8, fields: &[(0, 4), (4, 1), (5, 1), (0, 1), (7, 1)] },
    Fields { name: "contents", record: 32, fields: &[(0, 8)] },
    Fields { name: "packs", record: 64, fields: &[(32, 8), (40, 4), (44, 4)] },
    Fields { name: "chunks", record: 16, fields: &[(0, 8), (6, 2), (8, 4), (11, 1), (12, 4)] },
    Fields { name: "chunk digests", record: 32, fields: &[(0, 8)] },
    Fields { name: "content map", record: 4, fields: &[(0, 4)] },
    Fields { name: "extents", record: 16, fields: &[(0, 8), (8, 4), (12, 4)] },
    Fields { name: "raw digests", record: 32, fields: &[(0, 8)] },
    Fields { name: "annotations", record: 16, fields: &[(0, 8), (8, 4), (12, 4)] },
    Fields { name: "annotation data", record: 1, fields: &[(0, 1)] },
];

/// How often each table is picked: more often those that readers look at the most.
const WEIGHTS: [usize; 16] = [8, 20, 16, 4, 2, 6, 8, 1, 2, 14, 1, 6, 14, 1, 2, 1];

impl Parts {
    /// The bytes of the table of that index in [`TABLES`].
    fn table(&mut self, index: usize) -> &mut [u8] {
        match index {
            0 => self.attributes.as_mut_bytes(),
            1 => self.inodes.as_mut_bytes(),
            2 => self.dirents.as_mut_bytes(),
            3 => &mut self.names,
            4 => &mut self.targets,
            5 => self.xattr_sets.as_mut_bytes(),
            6 => &mut self.xattr_entries,
            7 => self.contents.as_mut_bytes(),
            8 => self.packs.as_mut_bytes(),
            9 => self.chunks.as_mut_bytes(),
            10 => self.chunk_digests.as_mut_bytes(),
            11 => self.content_map.as_mut_bytes(),
            12 => self.extents.as_mut_bytes(),
            13 => self.raw_digests.as_mut_bytes(),
            14 => self.annotations.as_mut_bytes(),
            _ => &mut self.annotation_data,
        }
    }
}

/// A source of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A broken image.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    /// The change.
    pub(crate) name: String,
    pub(crate) image: Vec<u8>,
}

/// The image of that number, always the same of the same good one.
pub(crate) fn mutant(good: &Parts, seed: u64, sign: Option<Sign<'_>>) -> Result<Mutant> {
    let mut numbers = Numbers(seed);
    let mut parts = good.clone();
    // Now and then two changes: one may hide the other, or open a way that it closes.
    let changes = if numbers.below(8) == 0 { 2 } else { 1 };
    let mut name = format!("{seed}:");
    for _ in 0..changes {
        let change = if numbers.below(6) == 0 {
            stored(&mut parts, &mut numbers)?
        } else {
            field(&mut parts, &mut numbers)
        };
        name.push(' ');
        name.push_str(&change);
    }
    let (mut image, layout) = parts.lay_out()?;
    parts::digest(&mut image, &layout)?;
    if numbers.below(16) == 0 {
        name.push_str(&head(&mut image, &mut numbers)?);
    }
    sign_with(&mut image, sign)?;
    Ok(Mutant { name, image })
}

/// `count` distinct ones, none of them the good image, from `seed` on.
pub(crate) fn mutants(
    good: &Parts,
    seed: u64,
    count: usize,
    sign: Option<Sign<'_>>,
    mut take: impl FnMut(Mutant) -> Result<()>,
) -> Result<()> {
    let (mut image, layout) = good.lay_out()?;
    parts::digest(&mut image, &layout)?;
    sign_with(&mut image, sign)?;
    let mut seen = HashSet::from([sha256(&image)]);
    let mut seed = seed;
    while seen.len() <= count {
        let mutant = mutant(good, seed, sign)?;
        seed += 1;
        if seen.insert(sha256(&mutant.image)) {
            take(mutant)?;
        }
    }
    Ok(())
}

/// Changes a word of the superblock.
fn head(image: &mut [u8], numbers: &mut Numbers) -> Result<String> {
    // Feature bits, regions, counts, profile; and where the length of the signature stands.
    let words: Vec<usize> = (0x10..0xe0).chain(0x220..0x228).step_by(8).collect();
    let at = words[numbers.below(words.len())];
    let word = image.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).context("no superblock")?;
    let old = u64::from_le_bytes(*word);
    let new = match numbers.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => old.wrapping_sub(1),
        3 => old ^ 1 << numbers.below(64),
        4 => numbers.next() >> numbers.below(64),
        _ => old.wrapping_add(1),
    };
    *word = new.to_le_bytes();
    parts::change_head(image, |_| ())?;
    Ok(format!(" superblock {at:#x}: {old:#x} is {new:#x}"))
}

/// Changes a field of a record.
fn field(parts: &mut Parts, numbers: &mut Numbers) -> String {
    let mut pick = numbers.below(WEIGHTS.iter().sum());
    let mut index = 0;
    while pick >= WEIGHTS[index] {
        pick -= WEIGHTS[index];
        index += 1;
    }
    let Fields { name, record, fields } = TABLES[index];
    let counts = [
        parts.inodes.len(),
        parts.attributes.len(),
        parts.dirents.len(),
        parts.names.len(),
        parts.targets.len(),
        parts.xattr_sets.len(),
        parts.xattr_entries.len(),
        parts.contents.len(),
        parts.chunks.len(),
        parts.extents.len(),
        parts.pack.len(),
        4096,
        1 << 20,
    ];
    let table = parts.table(index);
    let records = table.len() / record;
    let (at, other) = (numbers.below(records), numbers.below(records));
    let (offset, len) = fields[numbers.below(fields.len())];
    let get = |table: &[u8], record_at: usize| {
        let mut word = [0; 8];
        if let Some(bytes) = table.get(record_at * record + offset..record_at * record + offset + len) {
            word[..len].copy_from_slice(bytes);
        }
        u64::from_le_bytes(word)
    };
    let old = get(table, at);
    let max = u64::MAX >> (64 - 8 * len);
    let value = match numbers.below(16) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max - 1,
        4 => max >> 1,
        5 => (max >> 1) + 1,
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        8 => get(table, other),
        9 => get(table, at.saturating_sub(1)),
        10 => get(table, at + 1),
        11 | 12 => counts[numbers.below(counts.len())] as u64,
        13 => (counts[numbers.below(counts.len())] as u64).wrapping_sub(1),
        14 => old ^ 1 << numbers.below(8 * len),
        _ => numbers.next(),
    } & max;
    if let Some(field) = table.get_mut(at * record + offset..at * record + offset + len) {
        field.copy_from_slice(&value.to_le_bytes()[..len]);
    }
    format!("{name} {at}+{offset}: {old:#x} is {value:#x}")
}

/// Changes the stored bytes of a chunk, mostly at their beginning, where the headers are.
fn stored(parts: &mut Parts, numbers: &mut Numbers) -> Result<String> {
    let chunk = numbers.below(parts.chunks.len());
    // A record that was changed before this may be of no chunk.
    let Ok(bytes) = parts.stored(chunk) else { return Ok("nothing".to_owned()) };
    let mut bytes = bytes.to_vec();
    let codec = (parts.chunks[chunk].stored.get() >> 24) as u8;
    let near = if numbers.below(4) == 0 { bytes.len() } else { bytes.len().min(24) };
    let at = numbers.below(near);
    let what = match numbers.below(5) {
        0 => {
            bytes.truncate(at.max(1));
            "ends".to_owned()
        }
        1 if !bytes.is_empty() => {
            bytes.remove(at);
            "is gone".to_owned()
        }
        2 if !bytes.is_empty() => {
            bytes[at] ^= 1 << numbers.below(8);
            format!("is {:#x}", bytes[at])
        }
        3 => {
            bytes.insert(at, numbers.next() as u8);
            "is new".to_owned()
        }
        _ if !bytes.is_empty() => {
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)];
            format!("is {:#x}", bytes[at])
        }
        _ => "is as it was".to_owned(),
    };
    if parts.chunks[chunk].place.get() <= parts.pack.len() as u64 {
        parts.store(chunk, codec, &bytes)?;
    }
    Ok(format!("chunk {chunk} byte {at} {what}"))
}
