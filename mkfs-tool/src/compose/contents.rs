// SPDX-License-Identifier: GPL-2.0-or-later

//! The contents and chunks of a composed image: each content once, each chunk once, and packs by reference.

use std::collections::HashMap;

use tesserafs_format::extent::HOLE;
use tesserafs_format::limits::{INDEX_MAX, PACKS_MAX, PLAIN_DIGEST_MAX};
use tesserafs_format::{Chunk, ContentIndex, Digest, Pack, PackIndex};

use super::layers::Layer;
use crate::encode::Map;
use crate::error::{Error, Result};
use crate::packs::{sort, PackReport};

/// The tables so far.
pub(super) struct Contents<'a> {
    layers: &'a [Layer<'a>],
    map: Map,
    /// Contents by digest and size, which a broken image may say otherwise.
    contents: HashMap<(Digest, u64), u32>,
    /// Chunks by the digest of their raw bytes.
    chunks: HashMap<Digest, u32>,
    /// The packs of all images, the lowest image's first; those of which no chunk is used go in the end.
    packs: Vec<Pack>,
    pack_of: HashMap<Digest, u16>,
    live: Vec<u64>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(layers: &'a [Layer<'a>]) -> Result<Self> {
        let (mut packs, mut pack_of): (Vec<Pack>, HashMap<_, u16>) = Default::default();
        for layer in layers {
            for pack in layer.tables.packs.iter().skip(1) {
                let next = u16::try_from(packs.len()).map_err(|_| Error::TooMany("packs"))?;
                let index = *pack_of.entry(pack.digest).or_insert(next);
                match packs.get(usize::from(index)) {
                    None => packs.push(*pack),
                    Some(Pack { bytes, .. }) if *bytes == pack.bytes => (),
                    Some(Pack { bytes, .. }) => {
                        let what = format!("names pack {} with {} bytes", pack.digest, pack.bytes);
                        let reason = format!("{what}, and an image below it with {bytes}");
                        return Err(Error::unsupported(layer.path, reason));
                    }
                }
            }
        }
        let live = vec![0; packs.len()];
        let (map, contents, chunks) = Default::default();
        Ok(Self { layers, map, contents, chunks, packs, pack_of, live })
    }

    /// Adds inode `ino`, which comes behind all others, with a content of an image that has so many blocks that are not zero.
    pub(super) fn add(&mut self, ino: u32, layer: usize, content: ContentIndex, blocks: u64) -> Result<()> {
        let tables = &self.layers[layer].tables;
        let number = content.0 as usize;
        let (digest, size) = (tables.content_digests[number], tables.sizes[number]);
        self.map.figures.raw_bytes += size;
        if let Some(known) = self.contents.get(&(digest, size)) {
            self.map.files.push((ino, *known));
            return Ok(());
        }
        let index = self.map.content_digests.len() as u32;
        self.contents.insert((digest, size), index);
        self.map.files.push((ino, index));
        self.map.content_digests.push(digest);
        self.map.figures.content_bytes += size;
        self.map.content_blocks.push(u32::try_from(blocks).unwrap_or(u32::MAX));
        self.map.content_map.push(self.map.extents.len() as u32);
        let first = tables.content_map[number] as usize;
        let end = tables.content_map.get(number + 1).map_or(tables.extents.len(), |end| *end as usize);
        for at in first..end {
            let mut extent = tables.extents[at];
            if extent.chunk.get() == HOLE {
                let next = tables.extents.get(at + 1).filter(|_| at + 1 < end);
                let hole = next.map_or(size, |next| next.file_offset.get()) - extent.file_offset.get();
                self.map.figures.hole_bytes += hole;
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
        let next = self.map.chunks.len() as u32;
        let index = *self.chunks.entry(tables.raw_digests[number]).or_insert(next);
        if index < next {
            return Ok(index);
        }
        let chunk = tables.chunks[number];
        // Pack 0 of an image in the shared form has no bytes, so it has no chunk.
        let pack =
            tables.packs.get(usize::from(chunk.pack.0)).and_then(|pack| self.pack_of.get(&pack.digest));
        let pack = *pack.ok_or(Error::TooMany("packs"))?;
        self.live[usize::from(pack)] += u64::from(chunk.stored_len);
        let raw = Chunk { pack: PackIndex(pack), ..chunk }.to_raw();
        self.map.chunks.push(raw.ok_or(Error::TooMany("bytes in a pack"))?);
        self.map.chunk_digests.push(chunk.digest);
        self.map.raw_digests.push(tables.raw_digests[number]);
        self.map.figures.stored_bytes += u64::from(chunk.stored_len);
        Ok(index)
    }

    /// The tables, in the order of the shared form, and the packs that are used.
    pub(super) fn finish(mut self) -> Result<(Map, Vec<PackReport>)> {
        let mut reports = Vec::new();
        let mut index_of = vec![PackIndex(0); self.packs.len()];
        for ((pack, live), index) in self.packs.iter().zip(&self.live).zip(&mut index_of) {
            if *live == 0 {
                continue;
            }
            *index = PackIndex(self.map.packs.len() as u16 + 1);
            self.map.packs.push(Pack { index: *index, ..*pack });
            let digest = pack.digest.to_string();
            reports.push(PackReport { digest, bytes: pack.bytes, live_bytes: *live, new: false });
        }
        if self.map.packs.len() as u64 >= PACKS_MAX {
            return Err(Error::TooMany("packs"));
        }
        for chunk in &mut self.map.chunks {
            let place = Chunk::place(index_of[usize::from(chunk.pack())], chunk.offset());
            chunk.place = place.ok_or(Error::TooMany("bytes in a pack"))?.into();
        }
        sort(&mut self.map);
        Ok((self.map, reports))
    }
}
