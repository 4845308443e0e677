// SPDX-License-Identifier: GPL-2.0-or-later

//! The contents and chunks of a composed image: each content once, each chunk once, and packs by reference.

use std::collections::HashMap;

use tesserafs_format::extent::HOLE;
use tesserafs_format::limits::{INDEX_MAX, PACKS_MAX, PLAIN_DIGEST_MAX};
use tesserafs_format::{Chunk, ContentIndex, Digest, Pack, PackIndex};

use super::layers::Layer;
use crate::encode::Map;
use crate::error::{Error, Result, Shown};
use crate::packs::{sort, PackReport};

/// The tables so far.
pub(super) struct Contents<'a> {
    layers: &'a [Layer<'a>],
    map: Map,
    /// Contents by digest.
    contents: HashMap<Digest, Known>,
    /// Their bytes.
    sizes: Vec<u64>,
    /// Chunks by the digest of their raw bytes.
    chunks: HashMap<Digest, Known>,
    /// The packs of all images, the lowest image's first; those of which no chunk is used go in the end.
    packs: Vec<Pack>,
    pack_of: HashMap<Digest, Known>,
    live: Vec<u64>,
}

/// A content, a chunk or a pack of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    index: u32,
    /// The image that had it first.
    layer: u32,
}

/// Bytes of something that two images have, by its digest.
struct Length {
    what: &'static str,
    number: u32,
    unit: &'static str,
    found: u64,
    expected: u64,
}

impl<'a> Contents<'a> {
    pub(super) fn new(layers: &'a [Layer<'a>]) -> Result<Self> {
        let (map, contents, sizes, chunks, live) = Default::default();
        let (packs, pack_of) = (Vec::new(), HashMap::new());
        let mut all = Self { layers, map, contents, sizes, chunks, packs, pack_of, live };
        for (number, layer) in (0..).zip(layers) {
            for pack in layer.tables.packs.iter().skip(1) {
                all.add_pack(number, pack)?;
            }
        }
        all.live = vec![0; all.packs.len()];
        Ok(all)
    }

    fn add_pack(&mut self, layer: u32, pack: &Pack) -> Result<()> {
        // Of many images not more than an index of a record can say, as long as it is not known which are used.
        let next = u16::try_from(self.packs.len()).map_err(|_| Error::TooMany("packs"))?;
        let next = Known { index: next.into(), layer };
        let known = *self.pack_of.entry(pack.digest).or_insert(next);
        if known == next {
            self.packs.push(*pack);
            return Ok(());
        }
        let (found, expected) = (pack.bytes, self.packs[known.index as usize].bytes);
        let (what, number, unit) = ("pack", pack.index.0.into(), "bytes");
        self.expect(layer as usize, known, &Length { what, number, unit, found, expected })
    }

    /// Refuses an image that says another length of something than the image that had it first: an offset that is right for one of them
    /// is none for the other one.
    fn expect(&self, layer: usize, known: Known, length: &Length) -> Result<()> {
        let Length { what, number, unit, found, expected } = length;
        if found == expected {
            return Ok(());
        }
        let first = Shown(self.layers[known.layer as usize].path);
        Err(Error::unsupported(
            self.layers[layer].path,
            format!(
                "{what} {number} has {found} {unit}, expected {expected}, as {first} says of a {what} with the same digest"
            ),
        ))
    }

    /// Adds inode `ino`, which comes behind all others, with a content of an image that has so many blocks that are not zero.
    pub(super) fn add(&mut self, ino: u32, layer: usize, content: ContentIndex, blocks: u64) -> Result<()> {
        let tables = &self.layers[layer].tables;
        let number = content.0 as usize;
        let (digest, size) = (tables.content_digests[number], tables.sizes[number]);
        // Holes make files of any size, and a few of the largest are more than 64 bits together.
        self.map.figures.raw_bytes = self.map.figures.raw_bytes.saturating_add(size);
        let next = Known { index: self.map.content_digests.len() as u32, layer: layer as u32 };
        let known = *self.contents.entry(digest).or_insert(next);
        self.map.files.push((ino, known.index));
        if known.index < next.index {
            let expected = self.sizes[known.index as usize];
            let length = Length { what: "content", number: content.0, unit: "bytes", found: size, expected };
            return self.expect(layer, known, &length);
        }
        self.sizes.push(size);
        self.map.content_digests.push(digest);
        self.map.figures.content_bytes = self.map.figures.content_bytes.saturating_add(size);
        self.map.content_blocks.push(u32::try_from(blocks).unwrap_or(u32::MAX));
        self.map.content_map.push(self.map.extents.len() as u32);
        let first = tables.content_map[number] as usize;
        let end = tables.content_map.get(number + 1).map_or(tables.extents.len(), |end| *end as usize);
        for at in first..end {
            let mut extent = tables.extents[at];
            if extent.chunk.get() == HOLE {
                let next = tables.extents.get(at + 1).filter(|_| at + 1 < end);
                let hole = next.map_or(size, |next| next.file_offset.get()) - extent.file_offset.get();
                self.map.figures.hole_bytes = self.map.figures.hole_bytes.saturating_add(hole);
                self.map.plain_hole_bytes += if size <= PLAIN_DIGEST_MAX { hole } else { 0 };
            } else {
                extent.chunk = self.chunk(layer, extent.chunk.get() as usize)?.into();
            }
            self.map.extents.push(extent);
        }
        if self.map.extents.len() as u64 > INDEX_MAX || self.map.chunks.len() as u64 > INDEX_MAX {
            return Err(Error::TooMany("extents or chunks"));
        }
        Ok(())
    }

    /// The index of a chunk of an image.
    fn chunk(&mut self, layer: usize, number: usize) -> Result<u32> {
        let tables = &self.layers[layer].tables;
        let chunk = tables.chunks[number];
        let next = Known { index: self.map.chunks.len() as u32, layer: layer as u32 };
        let known = *self.chunks.entry(tables.raw_digests[number]).or_insert(next);
        if known.index < next.index {
            let expected = self.map.chunks[known.index as usize].raw_len.get().into();
            let (what, number, unit) = ("chunk", chunk.index.0, "raw bytes");
            let length = Length { what, number, unit, found: chunk.raw_len.into(), expected };
            self.expect(layer, known, &length)?;
            return Ok(known.index);
        }
        // Pack 0 of an image in the shared form has no bytes, so it has no chunk.
        let pack =
            tables.packs.get(usize::from(chunk.pack.0)).and_then(|pack| self.pack_of.get(&pack.digest));
        // Not more than 16 bits, see `add_pack`.
        let pack = pack.ok_or(Error::TooMany("packs"))?.index as u16;
        self.live[usize::from(pack)] += u64::from(chunk.stored_len);
        let raw = Chunk { pack: PackIndex(pack), ..chunk }.to_raw();
        self.map.chunks.push(raw.ok_or(Error::TooMany("bytes in a pack"))?);
        self.map.chunk_digests.push(chunk.digest);
        self.map.raw_digests.push(tables.raw_digests[number]);
        self.map.figures.stored_bytes += u64::from(chunk.stored_len);
        Ok(known.index)
    }

    /// The tables, in the order of the shared form, and the packs that are used.
    pub(super) fn finish(mut self) -> Result<(Map, Vec<PackReport>)> {
        let mut reports = Vec::new();
        let mut index_of = vec![PackIndex(0); self.packs.len()];
        for ((pack, live), index) in self.packs.iter().zip(&self.live).zip(&mut index_of) {
            if *live == 0 {
                continue;
            }
            // With pack 0.
            let next = self.map.packs.len() as u64 + 1;
            if next >= PACKS_MAX {
                return Err(Error::TooMany("packs"));
            }
            *index = PackIndex(next as u16);
            self.map.packs.push(Pack { index: *index, ..*pack });
            let digest = pack.digest.to_string();
            reports.push(PackReport { digest, bytes: pack.bytes, live_bytes: *live, new: false });
        }
        for chunk in &mut self.map.chunks {
            let place = Chunk::place(index_of[usize::from(chunk.pack())], chunk.offset());
            chunk.place = place.ok_or(Error::TooMany("bytes in a pack"))?.into();
        }
        sort(&mut self.map);
        Ok((self.map, reports))
    }
}
