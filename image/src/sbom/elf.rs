// SPDX-License-Identifier: GPL-2.0-or-later

//! A section of a program, of which no other bytes are read than those that lead to it.

use std::ops::Range;

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{FileKind, ReadCache, ReadCacheOps};
use object::Endianness;

use super::METADATA_MAX;

/// Bytes of the table of sections and their names that are believed.
const TABLES_MAX: u64 = 16 << 20;

/// A file that `object` reads from, and the error that ended it.
struct Reader<R, E> {
    read: R,
    size: u64,
    at: u64,
    /// Bytes that may still be read.
    left: u64,
    error: Option<E>,
}

impl<R, E> ReadCacheOps for &mut Reader<R, E>
where
    R: FnMut(Range<u64>, &mut Vec<u8>) -> Result<(), E>,
{
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.size)
    }

    fn seek(&mut self, pos: u64) -> Result<u64, ()> {
        self.at = pos;
        Ok(pos)
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ()> {
        let len = (buf.len() as u64).min(self.size.saturating_sub(self.at));
        self.left = self.left.checked_sub(len).ok_or(())?;
        let mut bytes = Vec::new();
        if len > 0 {
            (self.read)(self.at..self.at + len, &mut bytes).map_err(|error| self.error = Some(error))?;
        }
        let room = buf.get_mut(..bytes.len()).ok_or(())?;
        room.copy_from_slice(&bytes);
        self.at += len;
        Ok(bytes.len())
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ()> {
        // `object` makes the buffer before it asks; it has asked for a range in the file, or for one that is longer than all of it.
        if self.read(buf)? == buf.len() {
            Ok(())
        } else {
            Err(())
        }
    }
}

/// The section of that name of a program of `size` bytes; `None` where it is no program, or a damaged one, or has none.
pub(super) fn section<E>(
    name: &[u8],
    size: u64,
    read: impl FnMut(Range<u64>, &mut Vec<u8>) -> Result<(), E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut reader = Reader { read, size, at: 0, left: TABLES_MAX + METADATA_MAX, error: None };
    let found = find(name, &mut reader);
    match reader.error {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

fn find<R, E>(name: &[u8], reader: &mut Reader<R, E>) -> Option<Vec<u8>>
where
    R: FnMut(Range<u64>, &mut Vec<u8>) -> Result<(), E>,
{
    let mut magic = Vec::new();
    if let Err(error) = (reader.read)(0..16.min(reader.size), &mut magic) {
        reader.error = Some(error);
        return None;
    }
    if !magic.starts_with(b"\x7fELF") {
        return None;
    }
    let cache = ReadCache::new(reader);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf32 => in_tables::<FileHeader32<Endianness>, _>(name, &cache),
        FileKind::Elf64 => in_tables::<FileHeader64<Endianness>, _>(name, &cache),
        _ => None,
    }
}

fn in_tables<H, R>(name: &[u8], cache: &ReadCache<R>) -> Option<Vec<u8>>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadCacheOps,
{
    let header = H::parse(cache).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, cache).ok()?;
    let (_, section) = sections.section_by_name(endian, name)?;
    let (_, len) = section.file_range(endian)?;
    if len > METADATA_MAX {
        return None;
    }
    section.data(endian, cache).ok().map(<[u8]>::to_vec)
}
