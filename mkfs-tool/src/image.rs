// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of an image, through the format crate.
//!
//! The pack is written while the tree is read; the metadata follows, block by block, each hashed once for the Merkle tree
//! and once for the tree ID; the superblock, which knows all of it, comes last.

mod sink;

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tesserafs_format::annotation::Annotation;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, SIGNED_PREFIX};
use tesserafs_format::raw::{RawContentMap, RawInode, RawSuperBlock, RawTree};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{Digest, Pack, PackIndex, PackKind, Profile, SuperBlock, Table};
use zerocopy::IntoBytes;

pub use self::sink::{ImageFile, Sink};
use crate::encode::{sha256, Map, PackWriter, Sha2};
use crate::error::Result;
use crate::layout::{layout, raw_tree};
use crate::tree::Tree;

/// Keys and values that are hashed with the rest, by key.
pub type Annotations = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 18;

/// Makes the bytes of an image, for a sink.
#[derive(Debug)]
pub struct ImageWriter<S> {
    sink: S,
    /// Where the buffer belongs.
    at: u64,
    buffer: Vec<u8>,
    pack: Sha256,
}

impl<S: Sink> PackWriter for ImageWriter<S> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.pack.update(bytes);
        self.write(bytes)
    }
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its superblock.
    pub superblock: SuperBlock,
    /// Its first 512 bytes.
    pub signed_prefix: [u8; SIGNED_PREFIX],
}

impl Written {
    /// The image ID.
    pub fn image_id(&self) -> Digest {
        sha256(&self.signed_prefix)
    }
}

impl<S: Sink> ImageWriter<S> {
    /// Begins an image. The superblock comes last.
    pub fn new(sink: S) -> Self {
        Self { sink, at: BLOCK_BYTES, buffer: Vec::with_capacity(BUFFER), pack: Sha256::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            return self.write_out(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_out(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.put(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes everything behind the pack, and the superblock.
    pub fn finish(
        self,
        tree: &Tree,
        map: &Map,
        profile: &Profile,
        annotations: &Annotations,
    ) -> Result<Written> {
        let raw = raw_tree(tree, map);
        self.finish_with(&raw, map, profile, annotations, |out, layout| tree_region(out, tree, map, layout))
    }

    /// As [`finish`](Self::finish), with a tree region that `write_tree` writes.
    pub(crate) fn finish_with(
        mut self,
        tree: &RawTree,
        map: &Map,
        profile: &Profile,
        annotations: &Annotations,
        write_tree: impl FnOnce(&mut MetadataWriter<'_, S>, &Layout) -> Result<()>,
    ) -> Result<Written> {
        let layout = layout(tree, map, annotations)?;
        let padding = layout.tree_offset - BLOCK_BYTES - map.pack_bytes;
        self.write(&vec![0; padding as usize])?;
        let pack = Pack {
            index: PackIndex(0),
            kind: PackKind::Embedded,
            digest: Digest(std::mem::take(&mut self.pack).finalize().into()),
            bytes: map.pack_bytes,
        };

        let mut metadata = MetadataWriter::new(&mut self, layout.tree_offset);
        metadata.tree_id = Some(Sha256::new_with_prefix(tree.as_bytes()));
        write_tree(&mut metadata, &layout)?;
        metadata.pad_to(layout.map_offset)?;
        let tree_id = Digest(metadata.tree_id.take().unwrap_or_default().finalize().into());
        map_region(&mut metadata, map, pack, annotations, &layout)?;
        metadata.pad_to(layout.hash_offset)?;
        let digests = metadata.digests;
        let merkle_root = self.hash_region(digests)?;
        self.flush()?;

        let superblock = SuperBlock {
            compat: 0,
            layout,
            profile: *profile,
            merkle_root,
            tree_id,
            signature_bytes: 0,
            signature_digest: Digest::default(),
        };
        let raw = superblock.to_raw::<Sha2>();
        self.sink.put(0, raw.as_bytes())?;
        Ok(Written { superblock, signed_prefix: prefix(&raw) })
    }

    /// Writes the hash levels, the highest first; the digest of the root block.
    fn hash_region(&mut self, metadata: Vec<u8>) -> Result<Digest> {
        let mut levels = vec![metadata];
        while let Some(level) = levels.last_mut() {
            level.resize(level.len().next_multiple_of(BLOCK_SIZE), 0);
            if level.len() == BLOCK_SIZE {
                break;
            }
            let above = level.chunks(BLOCK_SIZE).flat_map(|block| sha256(block).0).collect();
            levels.push(above);
        }
        for level in levels.iter().rev() {
            self.write(level)?;
        }
        Ok(levels.last().map(|root| sha256(root)).unwrap_or_default())
    }
}

/// The signed prefix of a superblock.
pub fn prefix(raw: &RawSuperBlock) -> [u8; SIGNED_PREFIX] {
    let mut prefix = [0; SIGNED_PREFIX];
    prefix.copy_from_slice(&raw.as_bytes()[..SIGNED_PREFIX]);
    prefix
}

/// Writes metadata, and hashes each block of it.
pub(crate) struct MetadataWriter<'a, S> {
    writer: &'a mut ImageWriter<S>,
    /// Bytes of the image so far.
    at: u64,
    block: Vec<u8>,
    /// Digests of the blocks so far: level 0 of the Merkle tree.
    digests: Vec<u8>,
    /// The tree ID so far, while the tree region lasts.
    tree_id: Option<Sha256>,
}

impl<'a, S: Sink> MetadataWriter<'a, S> {
    fn new(writer: &'a mut ImageWriter<S>, at: u64) -> Self {
        Self { writer, at, block: Vec::with_capacity(BLOCK_SIZE), digests: Vec::new(), tree_id: None }
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_SIZE {
                self.digests.extend_from_slice(&sha256(&self.block).0);
                if let Some(tree_id) = &mut self.tree_id {
                    tree_id.update(&self.block);
                }
                self.writer.write(&self.block)?;
                self.block.clear();
            }
        }
        Ok(())
    }

    /// Fills with zeros up to `offset`, which is less than a block away.
    fn pad_to(&mut self, offset: u64) -> Result<()> {
        let zeros = [0; BLOCK_SIZE];
        self.write(&zeros[..(offset - self.at) as usize])
    }

    /// Goes to where a table begins.
    fn table(&mut self, table: &Table) -> Result<()> {
        self.pad_to(table.offset())
    }
}

fn tree_region<S: Sink>(
    out: &mut MetadataWriter<'_, S>,
    tree: &Tree,
    map: &Map,
    layout: &Layout,
) -> Result<()> {
    out.table(&layout.attributes)?;
    out.write(tree.attributes.as_bytes())?;
    out.table(&layout.inodes)?;
    let mut contents = map.files.iter().peekable();
    let mut copies = tree.copies.iter().peekable();
    for (ino, node) in (1_u32..).zip(&tree.nodes) {
        let copied = copies.next_if(|(copy, _)| *copy == ino).map(|(_, original)| original);
        let content = match copied {
            Some(original) => map.content_of(*original),
            None => contents.next_if(|(file, _)| *file == ino).map(|(_, content)| *content),
        };
        let (start, extra) = match content {
            Some(content) => (content, map.content_blocks[content as usize]),
            None => (node.start, node.parent),
        };
        let raw = RawInode {
            attributes: node.attributes.into(),
            nlink: node.nlink.into(),
            mtime: node.mtime.into(),
            size: node.size.into(),
            start: start.into(),
            extra: extra.into(),
        };
        out.write(raw.as_bytes())?;
    }
    out.table(&layout.dirents)?;
    out.write(tree.entries.as_bytes())?;
    out.table(&layout.names)?;
    out.write(&tree.names)?;
    out.table(&layout.targets)?;
    out.write(&tree.targets)?;
    out.table(&layout.xattr_sets)?;
    out.write(tree.xattr_sets.as_bytes())?;
    out.table(&layout.xattr_entries)?;
    out.write(&tree.xattr_entries)?;
    out.table(&layout.content_digests)?;
    write_digests(out, &map.content_digests)
}

fn map_region<S: Sink>(
    out: &mut MetadataWriter<'_, S>,
    map: &Map,
    embedded: Pack,
    annotations: &Annotations,
    layout: &Layout,
) -> Result<()> {
    out.table(&layout.packs)?;
    for pack in [embedded].iter().chain(&map.packs) {
        out.write(pack.to_raw().as_bytes())?;
    }
    out.table(&layout.chunks)?;
    out.write(map.chunks.as_bytes())?;
    out.table(&layout.chunk_digests)?;
    write_digests(out, &map.chunk_digests)?;
    out.table(&layout.content_map)?;
    for first in &map.content_map {
        out.write(RawContentMap { first_extent: (*first).into() }.as_bytes())?;
    }
    out.table(&layout.extents)?;
    out.write(map.extents.as_bytes())?;
    out.table(&layout.raw_digests)?;
    write_digests(out, &map.raw_digests)?;
    out.table(&layout.annotations)?;
    let mut key_offset = 0;
    for (index, (key, value)) in (0_u32..).zip(annotations) {
        let (key_len, value_len) = (key.len() as u32, value.len() as u32);
        out.write(Annotation { index, key_offset, key_len, value_len }.to_raw().as_bytes())?;
        key_offset += u64::from(key_len) + u64::from(value_len);
    }
    out.table(&layout.annotation_data)?;
    for (key, value) in annotations {
        out.write(key)?;
        out.write(value)?;
    }
    Ok(())
}

fn write_digests<S: Sink>(out: &mut MetadataWriter<'_, S>, digests: &[Digest]) -> Result<()> {
    digests.iter().try_for_each(|digest| out.write(&digest.0))
}
