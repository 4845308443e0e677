// SPDX-License-Identifier: GPL-2.0-or-later

//! A content that is read at positions, in contrast to one that is read from its beginning to its end.

use std::ops::Range;
use std::sync::Arc;

use tesserafs_format::extent::Extents;
use tesserafs_format::{ChunkIndex, ContentIndex, Target};

use super::Contents;
use crate::context::read;
use crate::error::Error;
use crate::packs::{DataError, Decoder};

/// A content that is read at positions.
#[derive(Debug)]
pub struct OpenContent<'a> {
    contents: &'a Contents<'a>,
    extents: Extents,
    /// The chunk that was decoded last: the next range often begins in it.
    last: Option<(ChunkIndex, Arc<Vec<u8>>)>,
}

impl<'a> OpenContent<'a> {
    pub(super) fn new(contents: &'a Contents<'a>, content: ContentIndex, size: u64) -> Result<Self, Error> {
        let extents = read(contents.context.image.extents(content, size))?;
        Ok(Self { contents, extents, last: None })
    }

    /// The next bytes at or behind `pos` that are stored: where they begin, and an end, behind which there may be more; `None`
    /// where only a hole is left. Extents are looked at until there are `enough` bytes.
    pub fn data(&self, pos: u64, enough: u64) -> Result<Option<Range<u64>>, Error> {
        let image = &self.contents.context.image;
        if pos >= self.extents.size {
            return Ok(None);
        }
        let mut found: Option<Range<u64>> = None;
        for index in read(image.extent_at(&self.extents, pos))?.index..self.extents.end {
            self.contents.context.cancel.check()?;
            let extent = read(image.extent(&self.extents, index))?;
            match (&mut found, extent.target) {
                (None, Target::Hole) => continue,
                (Some(_), Target::Hole) => break,
                (None, _) => found = Some(extent.start.max(pos)..extent.end),
                (Some(range), _) => range.end = extent.end,
            }
            if found.as_ref().is_some_and(|range| range.end - range.start >= enough) {
                break;
            }
        }
        Ok(found)
    }

    /// Appends the bytes of `range`, which lies in the content, to `buf`; those of a hole are zeros. Each chunk is verified first.
    pub fn read(
        &mut self,
        range: Range<u64>,
        decoder: &mut Decoder,
        buf: &mut Vec<u8>,
    ) -> Result<(), DataError> {
        let context = self.contents.context;
        let mut pos = range.start;
        while pos < range.end {
            context.cancel.check()?;
            let extent = read(context.image.extent_at(&self.extents, pos))?;
            let end = range.end.min(extent.end);
            let len = usize::try_from(end - pos).unwrap_or(usize::MAX);
            match extent.target {
                Target::Hole => buf.resize(buf.len().saturating_add(len), 0),
                Target::Chunk { index, offset } => {
                    let chunk = self.chunk(index, extent.len(), decoder)?;
                    let start = offset as usize + (pos - extent.start) as usize;
                    let changed = || {
                        let content = self.extents.content.0;
                        Error::Refused(format!("the image changed while content {content} was read"))
                    };
                    let bytes = chunk.get(start..start.saturating_add(len)).ok_or_else(changed)?;
                    buf.extend_from_slice(bytes);
                }
            }
            pos = end;
        }
        Ok(())
    }

    /// The decoded bytes of a chunk of which an extent has `len`.
    fn chunk(
        &mut self,
        index: ChunkIndex,
        len: u64,
        decoder: &mut Decoder,
    ) -> Result<Arc<Vec<u8>>, DataError> {
        if let Some((_, raw)) = self.last.as_ref().filter(|(last, _)| *last == index) {
            return Ok(raw.clone());
        }
        let chunk = read(self.contents.context.image.chunk(index))?;
        let raw = if u64::from(chunk.raw_len) == len {
            let mut raw = Vec::new();
            self.contents.packs.read(&chunk, decoder, &mut raw)?;
            Arc::new(raw)
        } else {
            // Other contents are in it, and are likely to be read at about the same time.
            self.contents.shared(index, decoder)?
        };
        self.last = Some((index, raw.clone()));
        Ok(raw)
    }
}
