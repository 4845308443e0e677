// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks that the old image lacks: as a frame that refers to what resembles them there, or as they are stored.

use tesserafs_format::limits::CHUNK_RAW_MAX;
use tesserafs_format::{chunk_digest, Digest};
use tesserafs_image::packs::Decoder;

use super::bases::{Base, Bases};
use super::covers::Covers;
use super::create::check_raw;
use super::frame::{compress, decompress};
use super::numbers::{put, put_signed, Fields};
use super::side::{RawReader, Side};
use crate::convert::Tables;
use crate::encode::{sha256, Compressor, Sha2};
use crate::error::Result;

/// Raw bytes of the chunks of a piece that the old image has not: it is full with these.
const RAW: u64 = 4 << 20;

/// Raw bytes of them in all: it is full with these, too, so that a section has room for them as they are stored.
const RAW_ALL: u64 = 6 << 20;

/// Raw bytes of the chunks of a piece, at most: a full one may have one chunk more.
const RAW_MAX: u64 = RAW_ALL + CHUNK_RAW_MAX as u64;

/// Bytes of the old image that a piece refers to: no more.
const PREFIX_MAX: u64 = 12 << 20;

/// Bytes of the list of these ranges, and the level of zstd for it. A range has a byte at least.
const RANGES_MAX: usize = 4 << 20;
const RANGES_LEVEL: i32 = 19;

/// Chunks of the old image that are decoded for the ranges of a piece, at most.
const DECODED_MAX: usize = 1 << 12;

/// How chunks are shipped.
const STORED: u64 = 0;
const DELTA: u64 = 1;

/// How a piece is made.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// Chunks are shipped as they are stored.
    pub(super) portable: bool,
    /// The level of zstd.
    pub(super) level: i32,
}

/// The two images, and what of the lacking chunks is in the old one.
pub(super) struct Both<'b, 'a> {
    pub(super) old: &'b Side<'a>,
    pub(super) new: &'b Side<'a>,
    pub(super) covers: &'b Covers,
    pub(super) bases: &'b Bases,
}

/// Cuts the lacking chunks into pieces, in their order.
pub(super) fn cut<'l>(new: &Tables, covers: &Covers, lacking: &'l [u32]) -> Vec<&'l [u32]> {
    let mut pieces = Vec::new();
    let (mut start, mut raw, mut all) = (0, 0, 0);
    for (number, chunk) in lacking.iter().enumerate() {
        let len = u64::from(new.chunks[*chunk as usize].raw_len);
        all += len;
        raw += len - covers.bytes(*chunk);
        if raw >= RAW || all >= RAW_ALL {
            pieces.push(&lacking[start..=number]);
            (start, raw, all) = (number + 1, 0, 0);
        }
    }
    if start < lacking.len() {
        pieces.push(&lacking[start..]);
    }
    pieces
}

impl Both<'_, '_> {
    /// The section of a piece: a frame where that is shorter, and where the chunks are what this program makes of their raw bytes.
    pub(super) fn encode(&self, chunks: &[u32], how: How) -> Result<Vec<u8>> {
        let new = self.new;
        let mut stored = Vec::new();
        let mut buffer = Vec::new();
        for number in chunks {
            let chunk = &new.tables.chunks[*number as usize];
            new.packs.read_stored(chunk, &mut buffer).map_err(crate::convert::broken(new.path))?;
            stored.extend_from_slice(&buffer);
        }
        // A host computes these digests.
        check_raw(new, chunks)?;
        if !how.portable {
            if let Some(section) = self.encode_delta(chunks, how.level)? {
                if section.len() < stored.len() {
                    return Ok(section);
                }
            }
        }
        let mut section = Vec::with_capacity(stored.len() + 8);
        put(&mut section, STORED);
        put(&mut section, chunks.len() as u64);
        section.extend_from_slice(&stored);
        Ok(section)
    }

    /// A piece as a frame; none where a chunk would not come back as it is stored.
    fn encode_delta(&self, chunks: &[u32], level: i32) -> Result<Option<Vec<u8>>> {
        let (old, new) = (self.old, self.new);
        let mut reader = RawReader::new(new)?;
        let mut old_reader = RawReader::new(old)?;
        let mut compressor = Compressor::new(new.superblock().profile.level)?;
        let mut raw = Vec::new();
        for chunk in chunks {
            let bytes = reader.chunk(*chunk)?;
            let record = &new.tables.chunks[*chunk as usize];
            if chunk_digest::<Sha2>(compressor.compress(bytes)?.1) != record.digest
                || !self.covers.split(*chunk, bytes, &mut old_reader, &mut raw)?
            {
                return Ok(None);
            }
        }
        let ranges = ranges(self.bases, chunks);
        let mut list = Vec::new();
        let mut before = 0;
        for range in &ranges {
            put_signed(&mut list, i64::from(range.content) - before);
            put(&mut list, range.start);
            let rest = old.tables.sizes[range.content as usize] - range.start;
            put(&mut list, if range.len == rest { 0 } else { range.len });
            before = range.content.into();
        }
        let Some(prefix) = prefix(&mut old_reader, &ranges)?.filter(|_| list.len() <= RANGES_MAX) else {
            return Ok(None);
        };
        // The members of a group are many, and one like the other.
        let frame = compress(&list, &[], RANGES_LEVEL)?;
        let mut section = Vec::new();
        for number in [DELTA, chunks.len() as u64, list.len() as u64, frame.len() as u64] {
            put(&mut section, number);
        }
        section.extend(frame);
        section.extend(compress(&raw, &prefix, level)?);
        Ok(Some(section))
    }
}

/// The ranges that a piece refers to: each once, and no more than memory is for.
fn ranges(bases: &Bases, chunks: &[u32]) -> Vec<Base> {
    let mut ranges: Vec<Base> = Vec::new();
    let mut left = PREFIX_MAX;
    for base in chunks.iter().flat_map(|chunk| bases.of(*chunk)) {
        let end = base.start + base.len;
        // A range that goes on where the last one is, or in it.
        if let Some(last) = ranges.last_mut().filter(|last| last.content == base.content) {
            let last_end = last.start + last.len;
            if base.start >= last.start && base.start <= last_end {
                let more = end.saturating_sub(last_end).min(left);
                last.len += more;
                left -= more;
                continue;
            }
        }
        let len = base.len.min(left);
        if len > 0 {
            ranges.push(Base { len, ..*base });
            left -= len;
        }
    }
    ranges
}

/// The bytes of these ranges, one after the other; none if that takes too long.
fn prefix(reader: &mut RawReader<'_, '_>, ranges: &[Base]) -> Result<Option<Vec<u8>>> {
    let mut prefix = Vec::with_capacity(ranges.iter().map(|range| range.len as usize).sum());
    for range in ranges {
        reader.content(range.content, range.start, range.len, &mut prefix)?;
        if reader.decoded > DECODED_MAX {
            return Ok(None);
        }
    }
    Ok(Some(prefix))
}

/// A chunk that came, stored as the new image has it.
pub(super) struct Came<'c> {
    pub(super) chunk: u32,
    pub(super) stored: &'c [u8],
    /// The digests of the stored bytes, and of the raw ones.
    pub(super) digests: (Digest, Digest),
}

/// What chunks are made of.
pub(super) struct Making<'m, 'a> {
    pub(super) old: &'m Side<'a>,
    pub(super) new: &'m Tables,
    pub(super) covers: &'m Covers,
    /// The level of zstd of the new image.
    pub(super) level: u32,
}

impl Making<'_, '_> {
    /// The chunks of a piece: handed to `take` one by one.
    ///
    /// The inner error says what is wrong with the section.
    pub(super) fn decode(
        &self,
        chunks: &[u32],
        section: &[u8],
        mut take: impl FnMut(Came<'_>) -> Result<()>,
    ) -> Result<Result<(), String>> {
        let mut fields = Fields(section);
        match (fields.number(), fields.number()) {
            (Some(STORED), Some(_)) => self.stored(chunks, fields.0, &mut take),
            (Some(DELTA), Some(_)) => self.delta(chunks, fields, &mut take),
            _ => Ok(Err("found no piece".to_owned())),
        }
    }

    fn stored(
        &self,
        chunks: &[u32],
        mut rest: &[u8],
        take: &mut impl FnMut(Came<'_>) -> Result<()>,
    ) -> Result<Result<(), String>> {
        let mut decoder = Decoder::new()?;
        let mut raw = Vec::new();
        for chunk in chunks {
            let record = &self.new.chunks[*chunk as usize];
            let Some((stored, behind)) = rest.split_at_checked(record.stored_len as usize) else {
                return Ok(Err("found fewer bytes than the chunks have".to_owned()));
            };
            rest = behind;
            if !decoder.decode_unproven(record, stored, &mut raw) {
                return Ok(Err(format!("chunk {chunk} does not decode to {} bytes", record.raw_len)));
            }
            let digests = (chunk_digest::<Sha2>(stored), sha256(&raw));
            take(Came { chunk: *chunk, stored, digests })?;
        }
        match rest {
            [] => Ok(Ok(())),
            _ => Ok(Err("found more bytes than the chunks have".to_owned())),
        }
    }

    fn delta(
        &self,
        chunks: &[u32],
        mut fields: Fields<'_>,
        take: &mut impl FnMut(Came<'_>) -> Result<()>,
    ) -> Result<Result<(), String>> {
        let Some(ranges) = read_ranges(&mut fields, self.old) else {
            return Ok(Err("found ranges that the old image has not".to_owned()));
        };
        let raw_len = |chunk: &u32| u64::from(self.new.chunks[*chunk as usize].raw_len);
        let all: u64 = chunks.iter().map(raw_len).sum();
        if all > RAW_MAX {
            return Ok(Err(format!("found chunks of {all} bytes, expected {RAW_MAX} at most")));
        }
        let mut reader = RawReader::new(self.old)?;
        let too_many = || Ok(Err(format!("found ranges in more than {DECODED_MAX} chunks of the old image")));
        let Some(prefix) = prefix(&mut reader, &ranges)? else { return too_many() };
        let len = all - chunks.iter().map(|chunk| self.covers.bytes(*chunk)).sum::<u64>();
        let Some(frame) = decompress(fields.0, &prefix, len as usize) else {
            return Ok(Err("found a frame that does not decode with the old image".to_owned()));
        };
        let mut compressor = Compressor::new(self.level)?;
        let mut rest = frame.as_slice();
        for chunk in chunks {
            let joined = self.covers.join(*chunk, raw_len(chunk) as usize, &mut reader, rest)?;
            let Some((raw, used)) = joined else {
                return Ok(Err(format!("chunk {chunk} has other bytes of the old image than that has")));
            };
            if reader.decoded > DECODED_MAX {
                return too_many();
            }
            rest = &rest[used..];
            let (_, stored) = compressor.compress(&raw)?;
            let expected = self.new.chunks[*chunk as usize].stored_len as usize;
            if stored.len() != expected {
                let found = stored.len();
                return Ok(Err(format!("chunk {chunk} is compressed to {found} bytes, expected {expected}")));
            }
            take(Came { chunk: *chunk, stored, digests: (chunk_digest::<Sha2>(stored), sha256(&raw)) })?;
        }
        Ok(Ok(()))
    }
}

/// How many chunks a piece says that it has; none if it is none.
pub(super) fn count(section: &[u8]) -> Option<usize> {
    let mut fields = Fields(section);
    fields.number()?;
    usize::try_from(fields.number()?).ok().filter(|count| *count > 0)
}

/// How many chunks a piece has as they are stored, and their bytes; none if it has them in another way.
pub(super) fn stored_chunks(section: &[u8]) -> Option<(usize, &[u8])> {
    let mut fields = Fields(section);
    let kind = fields.number()?;
    let count = usize::try_from(fields.number()?).ok()?;
    (kind == STORED).then_some((count, fields.0))
}

/// Ranges that the old image has, of no more bytes than a piece refers to.
fn read_ranges(fields: &mut Fields<'_>, old: &Side<'_>) -> Option<Vec<Base>> {
    let len = usize::try_from(fields.number()?).ok().filter(|len| *len <= RANGES_MAX)?;
    let frame_len = usize::try_from(fields.number()?).ok()?;
    let (frame, rest) = fields.0.split_at_checked(frame_len)?;
    fields.0 = rest;
    let list = decompress(frame, &[], len)?;
    let mut list = Fields(&list);
    let mut ranges = Vec::new();
    let (mut before, mut left) = (0_i64, PREFIX_MAX);
    while !list.0.is_empty() {
        let content = u32::try_from(before.checked_add(list.signed()?)?).ok()?;
        let (start, len) = (list.number()?, list.number()?);
        let rest = old.tables.sizes.get(content as usize)?.checked_sub(start)?;
        let len = if len == 0 { rest } else { len };
        if len == 0 || len > rest {
            return None;
        }
        left = left.checked_sub(len)?;
        before = content.into();
        ranges.push(Base { content, start, len });
    }
    Some(ranges)
}
