// SPDX-License-Identifier: GPL-2.0-or-later

//! Which contents and chunks of the new image the old one has: the bundle says it by their numbers, and their digests follow.

use std::collections::HashMap;
use std::io::Read;

use tesserafs_format::Digest;

use super::frame::{compress, decompress};
use super::numbers::{put, put_signed, Fields};
use super::stream::{Kind, Reader};
use crate::convert::Tables;
use crate::error::Result;

/// Contents and chunks that a section is about.
const RECORDS: usize = 1 << 18;

/// Bytes of a list, at most: each record costs less than 16.
const LIST_MAX: usize = RECORDS * 16;

/// The level of zstd.
const LEVEL: i32 = 19;

/// Stands for no number.
const NONE: u32 = u32::MAX;

/// For each record of the new image its number in the old one.
#[derive(Debug, Default)]
pub(super) struct Matches {
    contents: Vec<u32>,
    chunks: Vec<u32>,
}

impl Matches {
    /// Finds them by the digests of both.
    pub(super) fn find(old: &Tables, new: &Tables) -> Self {
        let known: HashMap<Digest, u32> = numbered(&old.content_digests);
        let contents = new.content_digests.iter().zip(&new.sizes).map(|(digest, size)| {
            let known = known.get(digest).filter(|number| old.sizes[**number as usize] == *size);
            known.copied().unwrap_or(NONE)
        });
        let contents = contents.collect();
        let known: HashMap<Digest, u32> =
            (0..).zip(&old.chunks).map(|(number, chunk)| (chunk.digest, number)).collect();
        let chunks = new.chunks.iter().zip(&new.raw_digests).map(|(chunk, raw)| {
            let is_same = |number: &&u32| {
                let number = **number as usize;
                old.chunks[number].stored_len == chunk.stored_len && old.raw_digests[number] == *raw
            };
            known.get(&chunk.digest).filter(is_same).copied().unwrap_or(NONE)
        });
        Self { contents, chunks: chunks.collect() }
    }

    /// The number of a content in the old image.
    pub(super) fn content(&self, content: u32) -> Option<u32> {
        Some(self.contents[content as usize]).filter(|number| *number != NONE)
    }

    /// The number of a chunk in the old image.
    pub(super) fn chunk(&self, chunk: u32) -> Option<u32> {
        Some(self.chunks[chunk as usize]).filter(|number| *number != NONE)
    }

    /// The contents that the old image lacks.
    pub(super) fn lacking_contents(&self) -> Vec<u32> {
        (0..).zip(&self.contents).filter(|(_, known)| **known == NONE).map(|(number, _)| number).collect()
    }

    /// Their sections.
    pub(super) fn encode(&self) -> Result<Vec<Vec<u8>>> {
        let all: Vec<_> = self.contents.iter().chain(&self.chunks).copied().collect();
        all.chunks(RECORDS)
            .map(|part| {
                let list = list(part);
                let mut section = Vec::new();
                put(&mut section, list.len() as u64);
                section.extend(compress(&list, &[], LEVEL)?);
                Ok(section)
            })
            .collect()
    }

    /// Reads them: they are numbers of records that the old image has, for as many as the new one has.
    pub(super) fn read<R: Read>(reader: &mut Reader<R>, old: &Tables, new: &Tables) -> Result<Self> {
        let (contents, chunks) = (new.sizes.len(), new.chunks.len());
        let mut numbers = Vec::new();
        while numbers.len() < contents + chunks {
            let at = reader.at();
            let (_, section) = reader.next(&[Kind::Match])?;
            let len = RECORDS.min(contents + chunks - numbers.len());
            let part = decode(&section, len).ok_or_else(|| {
                reader.broken(at, format!("found no numbers of {len} contents and chunks of the old image"))
            })?;
            numbers.extend(part);
        }
        let chunks = numbers.split_off(contents);
        let contents = numbers;
        let matches = Self { contents, chunks };
        matches.check(old, new).map_err(|reason| reader.broken(reader.at(), reason))?;
        Ok(matches)
    }

    /// Whether records that are the same are as long.
    fn check(&self, old: &Tables, new: &Tables) -> Result<(), String> {
        let is_there = |numbers: &[u32], records: usize| {
            numbers.iter().all(|number| *number == NONE || (*number as usize) < records)
        };
        if !is_there(&self.contents, old.sizes.len()) || !is_there(&self.chunks, old.chunks.len()) {
            return Err("found numbers of contents or chunks that the old image has not".to_owned());
        }
        for (number, known) in (0..).zip(&self.contents).filter(|(_, known)| **known != NONE) {
            let (number, known): (usize, usize) = (number, *known as usize);
            let (found, expected) = (old.sizes[known], new.sizes[number]);
            if found != expected {
                return Err(format!(
                    "content {number} has {found} bytes in the old image, expected {expected}"
                ));
            }
        }
        for (number, known) in (0..).zip(&self.chunks).filter(|(_, known)| **known != NONE) {
            let (number, known): (usize, usize) = (number, *known as usize);
            let (found, expected) = (old.chunks[known].stored_len, new.chunks[number].stored_len);
            if found != expected {
                return Err(format!(
                    "chunk {number} has {found} bytes in the old image, expected {expected}"
                ));
            }
        }
        Ok(())
    }

    /// Gives the tables of the new image the digests that follow.
    pub(super) fn apply(&self, old: &Tables, new: &mut Tables) {
        for (digest, known) in new.content_digests.iter_mut().zip(&self.contents) {
            *digest = old.content_digests.get(*known as usize).copied().unwrap_or(*digest);
        }
        for ((chunk, raw), known) in new.chunks.iter_mut().zip(&mut new.raw_digests).zip(&self.chunks) {
            let Some(same) = old.chunks.get(*known as usize) else { continue };
            chunk.digest = same.digest;
            *raw = old.raw_digests[*known as usize];
        }
    }
}

fn numbered(digests: &[Digest]) -> HashMap<Digest, u32> {
    (0..).zip(digests).map(|(number, digest)| (*digest, number)).collect()
}

/// Runs, one after the other: how many records the old image lacks, how many it has, one behind the other there, and the number of the
/// first of them less that behind the run before.
fn list(numbers: &[u32]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut behind = 0;
    let mut rest = numbers;
    while !rest.is_empty() {
        let lacking = rest.iter().take_while(|number| **number == NONE).count();
        rest = &rest[lacking..];
        put(&mut list, lacking as u64);
        let Some(first) = rest.first().copied().map(i64::from) else { break };
        let run = (first..).zip(rest).take_while(|(next, number)| *next == i64::from(**number)).count();
        put(&mut list, run as u64);
        put_signed(&mut list, first - behind);
        behind = first + run as i64;
        rest = &rest[run..];
    }
    list
}

/// The numbers of a section, which has `len` of them.
fn decode(section: &[u8], len: usize) -> Option<Vec<u32>> {
    let mut fields = Fields(section);
    let bytes = usize::try_from(fields.number()?).ok().filter(|bytes| *bytes <= LIST_MAX)?;
    let list = decompress(fields.0, &[], bytes)?;
    let mut fields = Fields(&list);
    let mut numbers = Vec::with_capacity(len);
    let mut behind = 0_i64;
    while !fields.0.is_empty() {
        let lacking = usize::try_from(fields.number()?).ok().filter(|more| *more <= len - numbers.len())?;
        numbers.resize(numbers.len() + lacking, NONE);
        if fields.0.is_empty() {
            break;
        }
        let run = usize::try_from(fields.number()?).ok().filter(|more| *more <= len - numbers.len())?;
        let first = u32::try_from(behind.checked_add(fields.signed()?)?).ok()?;
        let end = first.checked_add(u32::try_from(run).ok()?)?;
        numbers.extend(first..end);
        behind = end.into();
    }
    (numbers.len() == len).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(list: &[u8]) -> Vec<u8> {
        let mut section = Vec::new();
        put(&mut section, list.len() as u64);
        section.extend(compress(list, &[], LEVEL).unwrap());
        section
    }

    #[test]
    fn numbers_come_back() {
        for numbers in [&[0, 1, 2][..], &[NONE], &[NONE, 7, 8, NONE, NONE, 3, 5, 6], &[9, 8, 7, NONE]] {
            assert_eq!(decode(&section(&list(numbers)), numbers.len()).unwrap(), numbers);
        }
        let many: Vec<u32> = (0..100_000).filter(|number| number % 1000 != 0).collect();
        assert!(section(&list(&many)).len() < 100);
    }

    #[test]
    fn other_numbers_are_found() {
        assert_eq!(decode(&section(&list(&[7])), 2), None);
        assert_eq!(decode(&section(&list(&[1, 2, 3])), 2), None);
        let mut before = vec![0, 1];
        put_signed(&mut before, -1);
        assert_eq!(decode(&section(&before), 1), None);
        assert_eq!(decode(b"", 0), None);
        let matches = Matches { contents: vec![NONE, 0], chunks: vec![] };
        let tables = Tables { sizes: vec![5], content_digests: vec![Digest([1; 32])], ..Tables::default() };
        let two = Tables { sizes: vec![4, 5], ..Tables::default() };
        assert_eq!(matches.check(&tables, &two), Ok(()));
        assert!(matches.check(&two, &two).unwrap_err().contains("content 1 has 4 bytes"));
        assert!(matches.check(&Tables::default(), &two).unwrap_err().contains("has not"));
    }
}
