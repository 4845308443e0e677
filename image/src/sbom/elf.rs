// SPDX-License-Identifier: GPL-2.0-or-later

//! A section of a program, of which no other bytes are read than those that lead to it.

use std::ops::Range;

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{FileKind, ReadCache, ReadCacheOps, ReadRef};
use object::Endianness;

use super::METADATA_MAX;

/// Bytes of the table of sections and their names that are believed.
const TABLES_MAX: u64 = 16 << 20;

/// Bytes of the name of a section that are looked at.
const NAME_MAX: u64 = 4096;

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
        if self.read(buf)? == buf.len() {
            Ok(())
        } else {
            Err(())
        }
    }
}

/// The same with a limit on what is asked for at once: `object` takes memory for all of it before it reads, and a file of a few bytes
/// can say to be long.
struct Limited<'a, R: ReadCacheOps>(&'a ReadCache<R>);

impl<R: ReadCacheOps> Clone for Limited<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: ReadCacheOps> Copy for Limited<'_, R> {}

impl<'a, R: ReadCacheOps> ReadRef<'a> for Limited<'a, R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > TABLES_MAX {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let end = range.end.min(range.start.saturating_add(NAME_MAX));
        self.0.read_bytes_at_until(range.start..end, delimiter)
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
    let cache = Limited(&cache);
    match FileKind::parse(cache).ok()? {
        FileKind::Elf32 => in_tables::<FileHeader32<Endianness>, _>(name, cache),
        FileKind::Elf64 => in_tables::<FileHeader64<Endianness>, _>(name, cache),
        _ => None,
    }
}

fn in_tables<H, R>(name: &[u8], cache: Limited<'_, R>) -> Option<Vec<u8>>
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a section of a program in memory.
    fn of(program: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let read = |range: Range<u64>, buf: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
            buf.extend_from_slice(&program[range.start as usize..range.end as usize]);
            Ok(())
        };
        section(name, program.len() as u64, read).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_section_of_a_program_is_found_however_it_is_cut() {
        // This one.
        let program = std::env::current_exe().and_then(std::fs::read).expect("read");
        assert!(of(&program, b".text").is_none_or(|text| !text.is_empty()));
        let comment = of(&program, b".comment").expect("the name of the compiler");
        assert!(comment.windows(5).any(|part| part == b"rustc"));
        assert_eq!(of(&program, b".dep-v0"), None);
        assert_eq!((of(b"", b".text"), of(b"#!/bin/sh\n", b".text")), (None, None));
        for end in (0..300).chain([program.len() / 2, program.len() - 1]) {
            assert_eq!(of(&program[..end], b".comment"), None, "{end}");
        }
        // A table of 2^48 bytes in a file that says to be as long takes no memory.
        let mut long = program[..64].to_vec();
        long[0x28..0x30].copy_from_slice(&64_u64.to_le_bytes());
        long[0x3c..0x3e].copy_from_slice(&0_u16.to_le_bytes());
        long.resize(64 + 0x20, 0);
        long.extend((1_u64 << 42).to_le_bytes());
        long.resize(256, 0);
        let read = |range: Range<u64>, buf: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
            let all = (range.start..range.end).map(|at| long.get(at as usize).copied().unwrap_or(0));
            buf.extend(all);
            Ok(())
        };
        assert_eq!(section(b".comment", 1 << 49, read), Ok(None));
        // The head says something else, byte by byte: an error, or another section.
        let head = program[..64].to_vec();
        let mut program = program;
        for at in 0..64 {
            for value in [0, 0x7f, 0xff] {
                program[at] = value;
                let _ = of(&program, b".comment");
            }
            program[at] = head[at];
        }
    }

    #[test]
    fn an_error_of_the_file_is_passed_on() {
        assert_eq!(section(b"x", 100, |_, _| Err("gone")), Err("gone"));
    }
}
