// SPDX-License-Identifier: GPL-2.0-or-later

//! Sparse files in an archive: the four ways in which GNU tar writes their maps.

use tesserafs_format::limits::FILE_SIZE_MAX;

use super::header::{field, unsigned, Header, Parsed, RECORD};
use super::pax::{decimal, Sparse};
use super::reader::{EntryKind, Problem, Reader};

/// A part of a file that is in the archive; the bytes between segments are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First byte in the file.
    pub(super) start: u64,
    /// First byte in the archive.
    pub(super) offset: u64,
    /// Bytes, 1 at least.
    pub(super) len: u64,
}

impl Segment {
    /// First byte of the file behind it.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

impl Reader {
    /// A regular file, perhaps sparse in one of PAX' ways.
    pub(super) fn regular(&mut self, sparse: &Sparse, stored: u64) -> Result<EntryKind, Problem> {
        let start = self.at;
        self.skip(stored)?;
        let end = start + stored;
        let Some(size) = sparse.real_size else {
            let whole = Segment { start: 0, offset: start, len: stored };
            let segments = if stored == 0 { Box::default() } else { Box::from([whole]) };
            return Ok(EntryKind::Regular { size: stored, segments });
        };
        if sparse.major == 0 {
            return Ok(sparse_file(&sparse.map, start, end, size)?);
        }
        // Version 1: decimal numbers, each on a line, before the data and padded like it.
        let mut at = start;
        let mut number = || -> Result<u64, Problem> {
            let mut digits = [0; 21];
            let len = digits.len().min((end - at) as usize);
            self.read(at, &mut digits[..len])?;
            let line = digits[..len].split(|byte| *byte == b'\n').next().unwrap_or_default();
            at += line.len() as u64 + 1;
            Ok(decimal(line).filter(|_| at <= end).ok_or("a damaged map of a sparse file")?)
        };
        let pairs = number()?;
        if pairs > stored / 4 {
            return Err("a damaged map of a sparse file".into());
        }
        let map = (0..pairs * 2).map(|_| number()).collect::<Result<Vec<u64>, Problem>>()?;
        let data = start + (at - start).next_multiple_of(RECORD);
        Ok(sparse_file(&map, data, end, size)?)
    }

    /// A regular file, sparse in the old way of GNU tar: the map in the header and in records behind it.
    pub(super) fn old_sparse(&mut self, header: &Header, stored: u64) -> Result<EntryKind, Problem> {
        let size = unsigned(field(&header.0[483..495])?)?;
        let mut map = Vec::new();
        let mut read = |bytes: &[u8]| -> Parsed<()> {
            for pair in bytes.chunks_exact(24) {
                if pair[0] != 0 || pair[12] != 0 {
                    map.push(unsigned(field(&pair[..12])?)?);
                    map.push(unsigned(field(&pair[12..])?)?);
                }
            }
            Ok(())
        };
        read(&header.0[386..482])?;
        let mut more = header.0[482] != 0;
        while more {
            let mut record = [0; RECORD as usize];
            self.skip(RECORD)?;
            self.read(self.at - RECORD, &mut record)?;
            read(&record[..504])?;
            more = record[504] != 0;
        }
        let start = self.at;
        self.skip(stored)?;
        Ok(sparse_file(&map, start, start + stored, size)?)
    }
}

/// A sparse file from its map; its data lie from `data` to `end` of the archive.
fn sparse_file(map: &[u64], data: u64, end: u64, size: u64) -> Parsed<EntryKind> {
    if size > FILE_SIZE_MAX {
        return Err(format!(
            "a sparse file of {size} bytes, more than the {FILE_SIZE_MAX} that a file can have"
        ));
    }
    let damaged = || "a damaged map of a sparse file".to_owned();
    let mut segments = Vec::with_capacity(map.len() / 2);
    let (mut offset, mut last) = (data, 0);
    for pair in map.chunks(2) {
        let [start, len] = *pair else { return Err(damaged()) };
        let stop = start.checked_add(len).filter(|stop| *stop <= size).ok_or_else(damaged)?;
        let next = offset.checked_add(len).filter(|next| *next <= end).ok_or_else(damaged)?;
        if start < last {
            return Err(damaged());
        }
        if len > 0 {
            segments.push(Segment { start, offset, len });
        }
        (offset, last) = (next, stop);
    }
    Ok(EntryKind::Regular { size, segments: segments.into() })
}
