// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks by the files that have their bytes: an image that was cut otherwise has the same files in other chunks.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tesserafs_format::extent::HOLE;
use tesserafs_format::Digest;

use super::donor::{count, Donor};
use super::supply::{is_chunk, Fetched, Tools};
use crate::bundle::side::{RawReader, Side};
use crate::convert::Tables;
use crate::encode::sha256;
use crate::error::Result;

/// A range of a content, and where its bytes are in a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) content: u32,
    /// Its first byte in the content.
    pub(super) start: u64,
    pub(super) len: u64,
    /// Its first byte in the raw chunk.
    pub(super) offset: u32,
}

/// The ranges of contents that lie in these chunks, by the chunk.
pub(super) fn parts(tables: &Tables, chunks: &HashSet<u32>) -> HashMap<u32, Vec<Part>> {
    let mut parts: HashMap<u32, Vec<Part>> = HashMap::new();
    for content in 0..tables.content_map.len() as u32 {
        for number in tables.extents_of(content) {
            let extent = &tables.extents[number];
            let chunk = extent.chunk.get();
            if chunk == HOLE || !chunks.contains(&chunk) {
                continue;
            }
            let start = extent.file_offset.get();
            let len = tables.end_of(content, number) - start;
            let part = Part { content, start, len, offset: extent.chunk_offset.get() };
            parts.entry(chunk).or_default().push(part);
        }
    }
    parts
}

/// The images whose files are looked at.
pub(super) struct Files<'a> {
    donors: &'a [Donor],
    sides: Vec<(usize, Side<'a>, HashMap<Digest, u32>)>,
}

impl<'a> Files<'a> {
    /// Opens the images whose tables are whole.
    pub(super) fn open(donors: &'a [Donor], dirs: &[PathBuf]) -> Self {
        let mut sides = Vec::new();
        for (number, donor) in donors.iter().enumerate() {
            let Some((_, sb)) = donor.image() else { continue };
            match Side::open_some(&donor.source, sb, dirs) {
                Ok(side) => {
                    let digests = (0..).zip(&side.tables.content_digests);
                    let by_digest = digests.map(|(content, digest)| (*digest, content)).collect();
                    sides.push((number, side, by_digest));
                }
                Err(error) => donor.note(format!("its files are not looked at: {error}")),
            }
        }
        Self { donors, sides }
    }

    /// The tables and packs of one of the images, by the number of its file.
    pub(super) fn side(&self, donor: usize) -> Option<&Side<'a>> {
        self.sides.iter().find(|(number, ..)| *number == donor).map(|(_, side, _)| side)
    }

    /// Looks for the bytes of chunk `number`, whose parts these are.
    pub(super) fn fetch(
        &self,
        tables: &Tables,
        number: u32,
        parts: &[Part],
        tools: &mut Tools,
    ) -> Result<Fetched> {
        let chunk = &tables.chunks[number as usize];
        let mut raw = vec![0; chunk.raw_len as usize];
        let mut covered: Vec<(usize, usize)> = Vec::new();
        let mut givers = HashSet::new();
        let mut bytes = Vec::new();
        // The members of a group follow each other in other images, too: a reader keeps the chunk that it has decoded.
        let mut readers: Vec<Option<RawReader<'_, '_>>> = self.sides.iter().map(|_| None).collect();
        for part in parts {
            let start = part.offset as usize;
            let range = start..start.saturating_add(part.len as usize);
            let Some(place) = raw.get_mut(range.clone()) else { continue };
            for ((giver, side, by_digest), reader) in self.sides.iter().zip(&mut readers) {
                let Some(content) = by_digest.get(&tables.content_digests[part.content as usize]) else {
                    continue;
                };
                if side.tables.sizes[*content as usize] != tables.sizes[part.content as usize] {
                    continue;
                }
                bytes.clear();
                let reader = match reader {
                    Some(reader) => reader,
                    None => reader.insert(RawReader::new(side)?),
                };
                let read = reader.content(*content, part.start, part.len, &mut bytes);
                if read.is_ok() && bytes.len() == place.len() {
                    place.copy_from_slice(&bytes);
                    covered.push((range.start, range.end));
                    givers.insert(*giver);
                    break;
                }
            }
        }
        covered.sort_unstable();
        let end = covered.iter().try_fold(0, |at, (start, end)| (*start <= at).then_some(at.max(*end)));
        if end != Some(raw.len()) || sha256(&raw) != tables.raw_digests[number as usize] {
            return Ok(Fetched::Nothing);
        }
        let (_, stored) = tools.compressor.compress(&raw)?;
        if !is_chunk(stored, chunk) {
            return Ok(Fetched::Otherwise);
        }
        // Of several files each has some of it.
        givers.iter().for_each(|giver| count(&self.donors[*giver].taken.encoded, 1));
        Ok(Fetched::Stored(stored.to_vec()))
    }
}
