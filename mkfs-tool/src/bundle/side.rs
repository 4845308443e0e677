// SPDX-License-Identifier: GPL-2.0-or-later

//! One of the two images: its tables, and the raw bytes of its chunks and contents.

use std::path::{Path, PathBuf};

use tesserafs_format::extent::HOLE;
use tesserafs_format::{Digest, Image, Metadata, SuperBlock};
use tesserafs_image::hash::ContentHasher;
use tesserafs_image::packs::{DataError, Decoder, Packs};
use tesserafs_image::{Source, VerifiedMetadata};

use super::tables::Span;
use crate::convert::{broken, Tables};
use crate::error::{Error, Result, Shown};

/// An image that is read.
pub(crate) struct Side<'a> {
    pub(crate) path: &'a Path,
    pub(crate) metadata: VerifiedMetadata<'a>,
    pub(crate) tables: Tables,
    pub(crate) packs: Packs<'a>,
}

impl<'a> Side<'a> {
    /// Reads the tables; packs that are files are in `pack_dir`, or beside the image.
    pub(super) fn open(source: &'a Source, sb: &'a SuperBlock, pack_dir: Option<&Path>) -> Result<Self> {
        let path = source.path();
        let metadata = VerifiedMetadata::new(source, sb);
        let tables = Tables::read(&Image::new(sb, &metadata)).map_err(broken(path))?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let packs: Vec<_> = tables.packs.iter().copied().map(Some).collect();
        let packs = Packs::open(source, &packs, pack_dir.unwrap_or(beside))?;
        Ok(Self { path, metadata, tables, packs })
    }

    /// The same of an image that may be damaged: those of its packs that are in one of `dirs`.
    pub(crate) fn open_some(source: &'a Source, sb: &'a SuperBlock, dirs: &[PathBuf]) -> Result<Self> {
        let path = source.path();
        let metadata = VerifiedMetadata::new(source, sb);
        let tables = Tables::read(&Image::new(sb, &metadata)).map_err(broken(path))?;
        let packs: Vec<_> = tables.packs.iter().copied().map(Some).collect();
        let packs = Packs::open_some(source, &packs, dirs);
        Ok(Self { path, metadata, tables, packs })
    }

    /// Bytes of its metadata.
    pub(super) fn metadata(&self, span: Span) -> Result<Vec<u8>> {
        let mut bytes = vec![0; span.len as usize];
        if !bytes.is_empty() {
            self.metadata.read(span.offset, &mut bytes).map_err(broken(self.path))?;
        }
        Ok(bytes)
    }

    pub(super) fn superblock(&self) -> &'a SuperBlock {
        self.metadata.superblock()
    }
}

/// Reads raw bytes of an image; one for each thread.
pub(crate) struct RawReader<'s, 'a> {
    side: &'s Side<'a>,
    decoder: Decoder,
    /// The chunk that was decoded last: contents of one group come one after the other.
    last: Option<u32>,
    raw: Vec<u8>,
    /// Chunks that it has decoded.
    pub(super) decoded: usize,
}

impl<'s, 'a> RawReader<'s, 'a> {
    pub(crate) fn new(side: &'s Side<'a>) -> Result<Self> {
        Ok(Self { side, decoder: Decoder::new()?, last: None, raw: Vec::new(), decoded: 0 })
    }

    /// The raw bytes of a chunk, proven by the digest of the stored ones.
    pub(super) fn chunk(&mut self, index: u32) -> Result<&[u8]> {
        if self.last != Some(index) {
            self.last = None;
            let chunk = &self.side.tables.chunks[index as usize];
            let path = self.side.path;
            let read = self.side.packs.read(chunk, &mut self.decoder, &mut self.raw);
            read.map_err(|error| match error {
                DataError::Broken(finding) => {
                    tesserafs_image::Error::Refused(format!("{}: {finding}", Shown(path)))
                }
                DataError::Stop(error) => error,
            })?;
            self.last = Some(index);
            self.decoded += 1;
        }
        Ok(&self.raw)
    }

    /// Appends a range of a content, as far as the content has it.
    pub(crate) fn content(&mut self, content: u32, start: u64, len: u64, to: &mut Vec<u8>) -> Result<()> {
        let side = self.side;
        let extents = side.tables.extents_of(content);
        let table = &side.tables.extents;
        let end = start.saturating_add(len).min(side.tables.sizes[content as usize]);
        // The last one that begins there or before.
        let first = table[extents.clone()].partition_point(|extent| extent.file_offset.get() <= start);
        let first = extents.start + first.saturating_sub(1);
        for (number, extent) in (first..).zip(&table[first..extents.end]) {
            let begin = extent.file_offset.get();
            if begin >= end {
                break;
            }
            let (from, until) = (begin.max(start), side.tables.end_of(content, number).min(end));
            if extent.chunk.get() == HOLE {
                to.resize(to.len() + until.saturating_sub(from) as usize, 0);
                continue;
            }
            let skipped = u64::from(extent.chunk_offset.get()) + (from - begin);
            let raw = self.chunk(extent.chunk.get())?;
            let range = skipped as usize..(skipped + until.saturating_sub(from)) as usize;
            to.extend_from_slice(raw.get(range).ok_or_else(|| changed(side.path, content))?);
        }
        Ok(())
    }

    /// The digest of a content.
    pub(super) fn digest(&mut self, content: u32) -> Result<Digest> {
        let side = self.side;
        let tables = &side.tables;
        let mut hasher = ContentHasher::new(tables.sizes[content as usize]);
        for number in tables.extents_of(content) {
            let extent = &tables.extents[number];
            let len = tables.end_of(content, number).saturating_sub(extent.file_offset.get());
            if extent.chunk.get() == HOLE {
                hasher.zeros(len);
                continue;
            }
            // An extent lies in its chunk: the tables were read so.
            let start = extent.chunk_offset.get() as usize;
            let raw = self.chunk(extent.chunk.get())?;
            let bytes = raw.get(start..start + len as usize);
            hasher.update(bytes.ok_or_else(|| changed(side.path, content))?);
        }
        Ok(hasher.finish().digest)
    }
}

fn changed(path: &Path, content: u32) -> Error {
    Error::unsupported(path, format!("changed while content {content} was read"))
}
