// SPDX-License-Identifier: GPL-2.0-or-later

//! The map region of an image in memory, proven as far as a builder relies on it.

use std::ops::Range;

use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::raw::RawExtent;
use tesserafs_format::{
    Chunk, ChunkIndex, ContentIndex, Digest, FileKind, FormatError, Image, Ino, Pack, PackIndex, Place, Rule,
    Target,
};
use tesserafs_image::error::vec_of;
use tesserafs_image::{Broken, VerifiedMetadata};

use crate::image::Annotations;

/// The tables of the map region, and what of the tree region they are understood by.
#[derive(Debug, Default)]
pub struct Tables {
    /// Sizes of the contents in bytes.
    pub sizes: Vec<u64>,
    /// Digests of the contents.
    pub content_digests: Vec<Digest>,
    /// First extents of the contents.
    pub content_map: Vec<u32>,
    /// Extents: those of each content, in their order, and no others.
    pub extents: Vec<RawExtent>,
    /// Chunks; each is in the range of its pack, and an extent has it.
    pub chunks: Vec<Chunk>,
    /// Digests of the raw chunks.
    pub raw_digests: Vec<Digest>,
    /// Packs, pack 0 first.
    pub packs: Vec<Pack>,
    /// Bytes of holes in contents whose digest is over all of their bytes.
    pub plain_hole_bytes: u64,
}

/// An image, by its verified metadata.
type Verified<'a> = Image<'a, VerifiedMetadata<'a>>;

impl Tables {
    /// Reads them. An error names the rule that the image breaks.
    pub fn read(image: &Verified<'_>) -> Result<Self, Broken> {
        let layout = &image.sb.layout;
        let mut tables = Self { sizes: sizes(image)?, ..Self::default() };
        for number in 0..layout.packs.records() {
            tables.packs.push(image.pack(PackIndex(u16::try_from(number).unwrap_or(u16::MAX)))?);
        }
        for number in 0..index(layout.chunks.records()) {
            let chunk = image.chunk(ChunkIndex(number))?;
            if let Some(pack) = tables.packs.get(usize::from(chunk.pack.0)) {
                chunk.check_range(pack)?;
            }
            tables.chunks.push(chunk);
            tables.raw_digests.push(image.raw_digest(chunk.index)?);
        }
        let mut is_used = vec![false; tables.chunks.len()];
        for number in 0..index(layout.content_digests.records()) {
            tables.add_content(image, ContentIndex(number), &mut is_used)?;
        }
        let extents = tables.extents.len() as u64;
        same(Rule::MapExtents, Place::Extent(index(extents)), extents, layout.extents.records())?;
        if let Some(unused) = is_used.iter().position(|is_used| !is_used) {
            return Err(FormatError::new(Rule::MapChunks, Place::Chunk(index(unused as u64)), 0, 1).into());
        }
        Ok(tables)
    }

    /// The extents of a content, by their numbers.
    pub fn extents_of(&self, content: u32) -> Range<usize> {
        let map = &self.content_map;
        let end = map.get(content as usize + 1).map_or(self.extents.len(), |end| *end as usize);
        map[content as usize] as usize..end
    }

    /// Where an extent of a content ends.
    pub fn end_of(&self, content: u32, extent: usize) -> u64 {
        match self.extents[..self.extents_of(content).end].get(extent + 1) {
            Some(next) => next.file_offset.get(),
            None => self.sizes[content as usize],
        }
    }

    fn add_content(
        &mut self,
        image: &Verified<'_>,
        content: ContentIndex,
        is_used: &mut [bool],
    ) -> Result<(), Broken> {
        let size = self.sizes.get(content.0 as usize).copied().unwrap_or_default();
        let place = Place::Content(content.0);
        if size == 0 {
            return Err(FormatError::new(Rule::TreeContents, place, 0, 1).into());
        }
        let extents = image.extents(content, size)?;
        let so_far = self.extents.len() as u64;
        same(Rule::MapExtents, place, extents.first.into(), so_far)?;
        self.content_digests.push(image.content_digest(content)?);
        self.content_map.push(extents.first);
        for number in extents.first..extents.end {
            let extent = image.extent(&extents, number)?;
            match extent.target {
                Target::Hole if size <= PLAIN_DIGEST_MAX => self.plain_hole_bytes += extent.len(),
                Target::Hole => {}
                Target::Chunk { index, .. } => {
                    let records = self.chunks.len() as u64;
                    let at = index.0 as usize;
                    let (Some(chunk), Some(is_used)) = (self.chunks.get(at), is_used.get_mut(at)) else {
                        let place = Place::Extent(number);
                        return Err(FormatError::new(Rule::ChunkIndex, place, index.0.into(), records).into());
                    };
                    extent.check_range(chunk)?;
                    *is_used = true;
                }
            }
            self.extents.push(extent.to_raw());
        }
        Ok(())
    }
}

/// The annotations of an image. They may be gigabytes, and few have a use for them.
pub fn annotations(image: &Verified<'_>) -> Result<Annotations, Broken> {
    let mut annotations = Annotations::new();
    let mut end_of_last = 0;
    for number in 0..index(image.sb.layout.annotations.records()) {
        let annotation = image.annotation(number)?;
        // Else many could have the same bytes, and together be many times as much as there is.
        let place = Place::Annotation(number);
        same(Rule::AnnotationRange, place, annotation.key_offset, end_of_last)?;
        let mut key = vec_of(annotation.key_len.into(), "the key of an annotation")?;
        let mut value = vec_of(annotation.value_len.into(), "an annotation")?;
        image.annotation_bytes(number, annotation.key_offset, &mut key)?;
        let value_offset = annotation.key_offset.saturating_add(annotation.key_len.into());
        image.annotation_bytes(number, value_offset, &mut value)?;
        end_of_last = value_offset.saturating_add(annotation.value_len.into());
        if annotations.last_key_value().is_some_and(|(last, _)| key <= *last) {
            return Err(FormatError::new(Rule::AnnotationOrder, place, 0, 1).into());
        }
        annotations.insert(key, value);
    }
    Ok(annotations)
}

/// The sizes of the contents, which regular files say.
fn sizes(image: &Verified<'_>) -> Result<Vec<u64>, Broken> {
    let layout = &image.sb.layout;
    let mut sizes: Vec<u64> = vec_of(layout.content_digests.records(), "the sizes of contents")?;
    for number in 1..=index(layout.inodes.records()) {
        let Some(ino) = Ino::from_number(number) else { continue };
        let FileKind::Regular { size, content: Some(content) } = image.inode(ino)?.kind else { continue };
        let Some(known) = sizes.get_mut(content.0 as usize) else { continue };
        if *known != 0 {
            same(Rule::ContentSize, Place::Ino(number), size, *known)?;
        }
        *known = size;
    }
    Ok(sizes)
}

fn same(rule: Rule, place: Place, found: u64, expected: u64) -> Result<(), Broken> {
    if found == expected {
        return Ok(());
    }
    Err(FormatError::new(rule, place, found, expected).into())
}

/// Counts of records have 32 bits, as the superblock was proven to say.
fn index(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
