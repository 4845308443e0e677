// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunks that the old image lacks: as a frame that refers to what resembles them there, or as they are stored.

use tesserafs_format::chunk_digest;
use tesserafs_format::limits::CHUNK_RAW_MAX;

use super::bases::{Base, Bases};
use super::frame::{compress, decompress};
use super::side::{RawReader, Side};
use crate::convert::Tables;
use crate::encode::{Compressor, Sha2};
use crate::error::Result;

/// Raw bytes of the chunks of a piece: it is full with these.
const RAW: u64 = 4 << 20;

/// Raw bytes of the chunks of a piece, at most: a full one may have one chunk more.
const RAW_MAX: u64 = RAW + CHUNK_RAW_MAX as u64;

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

/// Cuts the lacking chunks into pieces, in their order.
pub(super) fn cut<'l>(new: &Side<'_>, lacking: &'l [u32]) -> Vec<&'l [u32]> {
    let mut pieces = Vec::new();
    let (mut start, mut raw) = (0, 0);
    for (number, chunk) in lacking.iter().enumerate() {
        raw += u64::from(new.tables.chunks[*chunk as usize].raw_len);
        if raw >= RAW {
            pieces.push(&lacking[start..=number]);
            (start, raw) = (number + 1, 0);
        }
    }
    if start < lacking.len() {
        pieces.push(&lacking[start..]);
    }
    pieces
}

/// The section of a piece: a frame where that is shorter, and where the chunks are what this program makes of their raw bytes.
pub(super) fn encode(
    old: &Side<'_>,
    new: &Side<'_>,
    bases: &Bases,
    chunks: &[u32],
    how: How,
) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    let mut buffer = Vec::new();
    for chunk in chunks {
        let chunk = &new.tables.chunks[*chunk as usize];
        new.packs.read_stored(chunk, &mut buffer).map_err(crate::convert::broken(new.path))?;
        stored.extend_from_slice(&buffer);
    }
    if !how.portable {
        if let Some(section) = encode_delta(old, new, bases, chunks, how.level)? {
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
fn encode_delta(
    old: &Side<'_>,
    new: &Side<'_>,
    bases: &Bases,
    chunks: &[u32],
    level: i32,
) -> Result<Option<Vec<u8>>> {
    let mut reader = RawReader::new(new)?;
    let mut compressor = Compressor::new(new.superblock().profile.level)?;
    let mut raw = Vec::new();
    for chunk in chunks {
        let bytes = reader.chunk(*chunk)?;
        let record = &new.tables.chunks[*chunk as usize];
        if chunk_digest::<Sha2>(compressor.compress(bytes)?.1) != record.digest {
            return Ok(None);
        }
        raw.extend_from_slice(bytes);
    }
    let ranges = ranges(bases, chunks);
    let mut list = Vec::new();
    let mut before = 0;
    for range in &ranges {
        put_signed(&mut list, i64::from(range.content) - before);
        put(&mut list, range.start);
        put(&mut list, range.len);
        before = range.content.into();
    }
    let Some(prefix) = prefix(old, &ranges)?.filter(|_| list.len() <= RANGES_MAX) else { return Ok(None) };
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
fn prefix(old: &Side<'_>, ranges: &[Base]) -> Result<Option<Vec<u8>>> {
    let mut reader = RawReader::new(old)?;
    let mut prefix = Vec::with_capacity(ranges.iter().map(|range| range.len as usize).sum());
    for range in ranges {
        reader.content(range.content, range.start, range.len, &mut prefix)?;
        if reader.decoded > DECODED_MAX {
            return Ok(None);
        }
    }
    Ok(Some(prefix))
}

/// The chunks of a piece, stored as the new image has them: handed to `take` with their numbers.
///
/// The inner error says what is wrong with the section.
pub(super) fn decode(
    old: &Side<'_>,
    new: &Tables,
    level: u32,
    chunks: &[u32],
    section: &[u8],
    mut take: impl FnMut(u32, &[u8]) -> Result<()>,
) -> Result<Result<(), String>> {
    let mut fields = Fields(section);
    let (Some(kind), Some(_)) = (fields.number(), fields.number()) else {
        return Ok(Err("found no piece".to_owned()));
    };
    let record = |chunk: &u32| &new.chunks[*chunk as usize];
    if kind == STORED {
        let mut rest = fields.0;
        for chunk in chunks {
            let Some((stored, behind)) = rest.split_at_checked(record(chunk).stored_len as usize) else {
                return Ok(Err("found fewer bytes than the chunks have".to_owned()));
            };
            rest = behind;
            if chunk_digest::<Sha2>(stored) != record(chunk).digest {
                return Ok(Err(format!("chunk {chunk} has not its digest")));
            }
            take(*chunk, stored)?;
        }
        return Ok(if rest.is_empty() {
            Ok(())
        } else {
            Err("found more bytes than the chunks have".to_owned())
        });
    }
    let ranges = match fields.ranges(old) {
        Some(ranges) if kind == DELTA => ranges,
        _ => return Ok(Err("found another kind of piece, or ranges that the old image has not".to_owned())),
    };
    let len: u64 = chunks.iter().map(|chunk| u64::from(record(chunk).raw_len)).sum();
    if len > RAW_MAX {
        return Ok(Err(format!("found chunks of {len} bytes, expected {RAW_MAX} at most")));
    }
    let Some(prefix) = prefix(old, &ranges)? else {
        return Ok(Err(format!("found ranges in more than {DECODED_MAX} chunks of the old image")));
    };
    let Some(raw) = decompress(fields.0, &prefix, len as usize) else {
        return Ok(Err("found a frame that does not decode with the old image".to_owned()));
    };
    let mut compressor = Compressor::new(level)?;
    let mut rest = raw.as_slice();
    for chunk in chunks {
        let (bytes, behind) = rest.split_at(record(chunk).raw_len as usize);
        rest = behind;
        let (_, stored) = compressor.compress(bytes)?;
        if chunk_digest::<Sha2>(stored) != record(chunk).digest {
            return Ok(Err(format!("chunk {chunk} is compressed to other bytes than the new image has")));
        }
        take(*chunk, stored)?;
    }
    Ok(Ok(()))
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

/// Numbers of seven bits a byte, the lowest first.
fn put(section: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        section.push(number as u8 | 0x80);
        number >>= 7;
    }
    section.push(number as u8);
}

/// Small ones of either sign are short.
fn put_signed(section: &mut Vec<u8>, number: i64) {
    put(section, ((number << 1) ^ (number >> 63)) as u64);
}

/// The bytes of a section that are not read yet.
struct Fields<'s>(&'s [u8]);

impl Fields<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Ranges that the old image has, of no more bytes than a piece refers to.
    fn ranges(&mut self, old: &Side<'_>) -> Option<Vec<Base>> {
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= RANGES_MAX)?;
        let frame_len = usize::try_from(self.number()?).ok()?;
        let (frame, rest) = self.0.split_at_checked(frame_len)?;
        self.0 = rest;
        let list = decompress(frame, &[], len)?;
        let mut list = Fields(&list);
        let mut ranges = Vec::new();
        let (mut before, mut left) = (0_i64, PREFIX_MAX);
        while !list.0.is_empty() {
            let content = u32::try_from(before.checked_add(list.signed()?)?).ok()?;
            let (start, len) = (list.number()?, list.number()?);
            let size = *old.tables.sizes.get(content as usize)?;
            if len == 0 || start.checked_add(len)? > size {
                return None;
            }
            left = left.checked_sub(len)?;
            before = content.into();
            ranges.push(Base { content, start, len });
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let all = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut section = Vec::new();
        all.iter().for_each(|number| put(&mut section, *number));
        let signed = [0, -1, 1, i64::MIN, i64::MAX];
        signed.iter().for_each(|number| put_signed(&mut section, *number));
        let mut fields = Fields(&section);
        assert!(all.iter().all(|number| fields.number() == Some(*number)));
        assert!(signed.iter().all(|number| fields.signed() == Some(*number)));
        assert_eq!(fields.number(), None);
        assert_eq!(Fields(&[0x80; 11]).number(), None);
    }
}
