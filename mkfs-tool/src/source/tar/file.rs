// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of files in an archive.

use std::borrow::Cow;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use tesserafs_format::limits::BLOCK_BYTES;
use zerocopy::little_endian::U64;

use super::sparse::Segment;
use super::TarSource;
use crate::error::{Error, Result};
use crate::source::{FileTask, OpenFile};

/// Bytes between two files that are read with them: padding, and the headers of the second one.
const BETWEEN_MAX: u64 = 2048;

/// Bytes that are read at once where files lie side by side.
const RUN_MAX: u64 = 256 << 10;

/// The handle of a file. All files may wait for a thread at a time, so it is small.
#[derive(Clone, Copy, Debug)]
pub struct TarFile {
    /// The index of the name.
    name: u32,
    /// Where its bytes begin in the archive; 0 for a file with holes, whose bytes the source finds by its node. A `u64` would take 4
    /// bytes more, to lie at a multiple of 8.
    offset: U64,
}

const _: () = assert!(size_of::<FileTask<TarFile>>() <= 24);

impl TarFile {
    /// The handle of the file with this name, whose bytes begin there.
    pub(super) fn new(name: u32, offset: u64) -> Self {
        Self { name, offset: offset.into() }
    }

    /// The index of its name.
    pub(super) const fn name(&self) -> u32 {
        self.name
    }
}

/// A file in an archive.
#[derive(Debug)]
pub struct OpenTarFile<'a> {
    source: &'a TarSource,
    segments: Cow<'a, [Segment]>,
    size: u64,
}

impl TarSource {
    /// Opens a file that the walk found.
    pub(super) fn open_file(&self, task: &FileTask<TarFile>) -> OpenTarFile<'_> {
        let TarFile { name, offset } = task.file;
        let segments = match self.sparse.get(&self.names.get(name).node) {
            Some(sparse) => Cow::Borrowed(&*sparse.segments),
            None => Cow::Owned(vec![Segment { start: 0, offset: offset.get(), len: task.size }]),
        };
        OpenTarFile { source: self, segments, size: task.size }
    }

    /// The bytes of files, which are small: those that lie side by side are read at once.
    pub(super) fn read_runs(&self, mut files: &[OpenTarFile<'_>]) -> Result<Vec<Vec<u8>>> {
        let mut contents = Vec::with_capacity(files.len());
        let mut run = Vec::new();
        while let Some(first) = files.first() {
            let (count, bytes) = run_of(files);
            let (now, later) = files.split_at(count);
            files = later;
            if count == 1 {
                let mut content = Vec::new();
                first.read(0..first.size, &mut content)?;
                contents.push(content);
                continue;
            }
            run.resize((bytes.end - bytes.start) as usize, 0);
            self.read_at(bytes.start, &mut run)?;
            for place in now.iter().filter_map(OpenTarFile::place) {
                let in_run = (place.start - bytes.start) as usize..(place.end - bytes.start) as usize;
                contents.push(run[in_run].to_vec());
            }
        }
        Ok(contents)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(Error::io("read", &self.path))
    }
}

/// How many of the files, from the first one on, lie side by side, and where they do; the first one is alone where it has
/// holes.
fn run_of(files: &[OpenTarFile<'_>]) -> (usize, Range<u64>) {
    let Some(mut run) = files.first().and_then(OpenTarFile::place) else { return (1, 0..0) };
    let mut count = 1;
    for next in files[1..].iter().map_while(OpenTarFile::place) {
        let is_beside = next.start >= run.end && next.start - run.end <= BETWEEN_MAX;
        if !is_beside || next.end - run.start > RUN_MAX {
            break;
        }
        run.end = next.end;
        count += 1;
    }
    (count, run)
}

impl OpenTarFile<'_> {
    /// Where all of its bytes are in the archive, one after the other; `None` where it has holes.
    fn place(&self) -> Option<Range<u64>> {
        match &*self.segments {
            [Segment { start: 0, offset, len }] if *len == self.size => {
                Some(*offset..offset.checked_add(*len)?)
            }
            _ => None,
        }
    }

    /// Appends exactly the bytes of `range` to `buf`.
    fn read(&self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let before = buf.len();
        buf.resize(before + (range.end - range.start) as usize, 0);
        let bytes = &mut buf[before..];
        for segment in self.from(range.start) {
            if segment.start >= range.end {
                break;
            }
            let start = segment.start.max(range.start);
            let end = segment.end().min(range.end);
            let part = &mut bytes[(start - range.start) as usize..(end - range.start) as usize];
            self.source.read_at(segment.offset + (start - segment.start), part)?;
        }
        Ok(())
    }

    /// The segments from the one that ends behind `pos`.
    fn from(&self, pos: u64) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.end() <= pos);
        &self.segments[first..]
    }
}

impl OpenFile for OpenTarFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        let Some(segment) = self.from(pos).first() else { return Ok(self.size..self.size) };
        let start = segment.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = segment.end().checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).min(self.size);
        Ok(start.max(pos)..end)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        OpenTarFile::read(self, range, buf)
    }
}
