// SPDX-License-Identifier: GPL-2.0
//! An image taken apart into its tables, and put together again with every digest right.
//!
//! Nothing is proven on the way: a rule breaks any record in between, and a reader then refuses that record,
//! and not a digest.

use std::mem::size_of;

use anyhow::{ensure, Context, Result};
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{BLOCK_SIZE, DIGESTS_PER_BLOCK};
use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawPack,
    RawSuperBlock, RawXattrSet,
};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{SuperBlock, Table};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::corrupt;

/// Units in which the record of a directory says where its names begin.
const NAME_ALIGN: usize = 16;

/// Bits of an entry that say where its name begins.
const NAME_BITS: u32 = 29;

/// The tables of an image, and its pack.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Fields that do not follow from the rest: profile and feature bits.
    pub(crate) head: RawSuperBlock,
    pub(crate) pack: Vec<u8>,
    pub(crate) attributes: Vec<RawAttributes>,
    pub(crate) inodes: Vec<RawInode>,
    pub(crate) dirents: Vec<RawDirent>,
    pub(crate) names: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    pub(crate) xattr_sets: Vec<RawXattrSet>,
    pub(crate) xattr_entries: Vec<u8>,
    pub(crate) contents: Vec<[u8; 32]>,
    pub(crate) packs: Vec<RawPack>,
    pub(crate) chunks: Vec<RawChunk>,
    pub(crate) chunk_digests: Vec<[u8; 32]>,
    pub(crate) content_map: Vec<RawContentMap>,
    pub(crate) extents: Vec<RawExtent>,
    pub(crate) raw_digests: Vec<[u8; 32]>,
    pub(crate) annotations: Vec<RawAnnotation>,
    pub(crate) annotation_data: Vec<u8>,
}

/// The bytes of a table.
fn table<'a>(image: &'a [u8], table: &Table) -> Result<&'a [u8]> {
    let place = |at| usize::try_from(at).context("a table beyond any memory");
    image.get(place(table.offset())?..place(table.end())?).context("a table beyond the image")
}

/// The records of a table.
fn records<T>(image: &[u8], of: &Table) -> Result<Vec<T>>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned + Clone,
{
    let bytes = table(image, of)?;
    let records = <[T]>::ref_from_bytes(bytes).map_err(|_| anyhow::anyhow!("a table of half a record"))?;
    Ok(records.to_vec())
}

/// SHA-256 by the `sha2` crate.
pub(crate) struct Sha2;

impl tesserafs_format::Sha256 for Sha2 {
    fn sha256(bytes: &[u8]) -> tesserafs_format::Digest {
        tesserafs_format::Digest(sha256(bytes))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Of the stored bytes of a chunk.
pub(crate) fn chunk_digest(stored: &[u8]) -> [u8; 32] {
    tesserafs_format::chunk_digest::<Sha2>(stored).0
}

impl Parts {
    /// Takes an image apart.
    pub(crate) fn read(image: &[u8]) -> Result<Self> {
        let block: &[u8; BLOCK_SIZE] = image.first_chunk().context("no superblock")?;
        let sb = SuperBlock::parse(block)?;
        let layout = &sb.layout;
        let packs: Vec<RawPack> = records(image, &layout.packs)?;
        let pack_end = BLOCK_SIZE.saturating_add(usize::try_from(packs[0].bytes.get())?);
        Ok(Self {
            head: RawSuperBlock::read_from_bytes(block).map_err(|_| anyhow::anyhow!("no superblock"))?,
            pack: image.get(BLOCK_SIZE..pack_end).context("a pack beyond the image")?.to_vec(),
            attributes: records(image, &layout.attributes)?,
            inodes: records(image, &layout.inodes)?,
            dirents: records(image, &layout.dirents)?,
            names: table(image, &layout.names)?.to_vec(),
            targets: table(image, &layout.targets)?.to_vec(),
            xattr_sets: records(image, &layout.xattr_sets)?,
            xattr_entries: table(image, &layout.xattr_entries)?.to_vec(),
            contents: records(image, &layout.content_digests)?,
            chunks: records(image, &layout.chunks)?,
            chunk_digests: records(image, &layout.chunk_digests)?,
            content_map: records(image, &layout.content_map)?,
            extents: records(image, &layout.extents)?,
            raw_digests: records(image, &layout.raw_digests)?,
            annotations: records(image, &layout.annotations)?,
            annotation_data: table(image, &layout.annotation_data)?.to_vec(),
            packs,
        })
    }

    /// The sizes that the regular files of an image say, broken ones too.
    #[cfg(test)]
    pub(crate) fn sizes(image: &[u8]) -> Result<Vec<u64>> {
        let sb = SuperBlock::parse(image.first_chunk().context("no superblock")?)?;
        let attributes: Vec<RawAttributes> = records(image, &sb.layout.attributes)?;
        let inodes: Vec<RawInode> = records(image, &sb.layout.inodes)?;
        let is_file = |inode: &&RawInode| {
            attributes
                .get(inode.attributes.get() as usize)
                .is_some_and(|attributes| attributes.file_type == 1)
        };
        Ok(inodes.iter().filter(is_file).map(|inode| inode.size.get()).collect())
    }

    /// Superblock, pack and tables, each where it belongs; zeros for the hash region, and for what is digested.
    pub(crate) fn lay_out(&self) -> Result<(Vec<u8>, Layout)> {
        let count = |len: usize| (len as u64).into();
        let mut sb = self.head;
        sb.tree.inodes = count(self.inodes.len());
        sb.tree.attributes = count(self.attributes.len());
        sb.tree.dirents = count(self.dirents.len());
        sb.tree.name_bytes = count(self.names.len());
        sb.tree.target_bytes = count(self.targets.len());
        sb.tree.xattr_sets = count(self.xattr_sets.len());
        sb.tree.xattr_bytes = count(self.xattr_entries.len());
        sb.tree.contents = count(self.contents.len());
        sb.map.packs = count(self.packs.len());
        sb.map.chunks = count(self.chunks.len());
        sb.map.extents = count(self.extents.len());
        sb.map.annotations = count(self.annotations.len());
        sb.map.annotation_bytes = count(self.annotation_data.len());
        let tree_offset = (BLOCK_SIZE + self.pack.len()).next_multiple_of(BLOCK_SIZE);
        let layout = Layout::new(tree_offset as u64, &sb.tree, &sb.map)?;
        sb.tree_offset = layout.tree_offset.into();
        sb.image_bytes = layout.image_bytes.into();
        (sb.signature_bytes, sb.signature_digest) = (0.into(), [0; 32]);

        let mut image = vec![0; usize::try_from(layout.image_bytes)?];
        let mut put = |at: u64, bytes: &[u8]| -> Result<()> {
            let at = usize::try_from(at)?;
            let room = image.get_mut(at..at + bytes.len()).context("a table beyond the image")?;
            room.copy_from_slice(bytes);
            Ok(())
        };
        put(0, sb.as_bytes())?;
        put(BLOCK_SIZE as u64, &self.pack)?;
        put(layout.attributes.offset(), self.attributes.as_bytes())?;
        put(layout.inodes.offset(), self.inodes.as_bytes())?;
        put(layout.dirents.offset(), self.dirents.as_bytes())?;
        put(layout.names.offset(), &self.names)?;
        put(layout.targets.offset(), &self.targets)?;
        put(layout.xattr_sets.offset(), self.xattr_sets.as_bytes())?;
        put(layout.xattr_entries.offset(), &self.xattr_entries)?;
        put(layout.content_digests.offset(), self.contents.as_bytes())?;
        put(layout.packs.offset(), self.packs.as_bytes())?;
        put(layout.chunks.offset(), self.chunks.as_bytes())?;
        put(layout.chunk_digests.offset(), self.chunk_digests.as_bytes())?;
        put(layout.content_map.offset(), self.content_map.as_bytes())?;
        put(layout.extents.offset(), self.extents.as_bytes())?;
        put(layout.raw_digests.offset(), self.raw_digests.as_bytes())?;
        put(layout.annotations.offset(), self.annotations.as_bytes())?;
        put(layout.annotation_data.offset(), &self.annotation_data)?;
        Ok((image, layout))
    }

    /// The entry of a path, by index: the first, if a name is there twice.
    pub(crate) fn entry(&self, path: &str) -> Result<usize> {
        let mut ino = 0;
        let mut found = None;
        for part in path.split('/') {
            let (first, names) = self.directory(ino)?;
            let entries = self.inodes[ino].size.get() as u32 as usize;
            let entry = (first..first + entries)
                .find(|entry| self.name(*entry, names) == Some(part.as_bytes()))
                .with_context(|| format!("there is no {path}"))?;
            ino = self.dirents[entry].ino.get() as usize - 1;
            found = Some(entry);
        }
        found.context("the root has no entry")
    }

    /// Index of the first entry of a directory, and where its names begin.
    fn directory(&self, ino: usize) -> Result<(usize, usize)> {
        let inode = self.inodes.get(ino).context("no such inode")?;
        Ok((inode.start.get() as usize, (inode.size.get() >> 32) as usize * NAME_ALIGN))
    }

    /// The name of an entry of the directory whose names begin at `names`.
    fn name(&self, entry: usize, names: usize) -> Option<&[u8]> {
        let begin = |entry: usize| {
            let name = self.dirents.get(entry)?.name.get();
            Some(names + (name & ((1 << NAME_BITS) - 1)) as usize)
        };
        self.names.get(begin(entry)?..begin(entry + 1)?)
    }

    /// Index of the inode of a path; the root has the empty one.
    pub(crate) fn index(&self, path: &str) -> Result<usize> {
        if path.is_empty() {
            return Ok(0);
        }
        Ok(self.dirents[self.entry(path)?].ino.get() as usize - 1)
    }

    /// The number of the inode of a path.
    pub(crate) fn ino(&self, path: &str) -> Result<u32> {
        Ok(u32::try_from(self.index(path)? + 1)?)
    }

    /// The inode of a path.
    pub(crate) fn inode(&mut self, path: &str) -> Result<&mut RawInode> {
        let index = self.index(path)?;
        Ok(&mut self.inodes[index])
    }

    /// The attributes of a path, which other inodes may have, too.
    pub(crate) fn attributes(&mut self, path: &str) -> Result<&mut RawAttributes> {
        let index = self.inode(path)?.attributes.get() as usize;
        Ok(&mut self.attributes[index])
    }

    /// The entry of a path.
    pub(crate) fn dirent(&mut self, path: &str) -> Result<&mut RawDirent> {
        let index = self.entry(path)?;
        Ok(&mut self.dirents[index])
    }

    /// The fence of a directory.
    pub(crate) fn fence(&mut self, path: &str) -> Result<&mut RawDirent> {
        let inode = *self.inode(path)?;
        let index = inode.start.get() as usize + inode.size.get() as u32 as usize;
        Ok(&mut self.dirents[index])
    }

    /// The bytes of the name of a path.
    pub(crate) fn name_bytes(&mut self, path: &str) -> Result<&mut [u8]> {
        let entry = self.entry(path)?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let (_, names) = self.directory(self.index(parent)?)?;
        let name = self.name(entry, names).context("a name beyond the table")?;
        let (len, start) = (name.len(), name.as_ptr() as usize - self.names.as_ptr() as usize);
        Ok(&mut self.names[start..start + len])
    }

    /// The xattr set of a path, by index.
    pub(crate) fn set(&mut self, path: &str) -> Result<usize> {
        let set = self.attributes(path)?.xattrs.get();
        Ok(set.checked_sub(1).with_context(|| format!("{path} has no xattrs"))? as usize)
    }

    /// A byte of the xattrs of a path.
    pub(crate) fn xattr_byte(&mut self, path: &str, at: usize) -> Result<&mut u8> {
        let set = self.set(path)?;
        let start = usize::try_from(self.xattr_sets[set].offset.get())?;
        self.xattr_entries.get_mut(start + at).context("a byte beyond the xattrs")
    }

    /// The content of a path, by index.
    pub(crate) fn content(&mut self, path: &str) -> Result<usize> {
        Ok(self.inode(path)?.start.get() as usize)
    }

    /// Where the extents of a path are.
    pub(crate) fn extents(&mut self, path: &str) -> Result<std::ops::Range<usize>> {
        let content = self.content(path)?;
        let first = |content: usize| self.content_map.get(content).map(|map| map.first_extent.get() as usize);
        let start = first(content).with_context(|| format!("{path} has no content"))?;
        Ok(start..first(content + 1).unwrap_or(self.extents.len()))
    }

    /// Extent `n` of a path.
    pub(crate) fn extent(&mut self, path: &str, n: usize) -> Result<&mut RawExtent> {
        let index = self.extents(path)?.start + n;
        self.extents.get_mut(index).with_context(|| format!("{path} has no extent {n}"))
    }

    /// The chunk of the first extent of a path, by index.
    pub(crate) fn chunk_of(&mut self, path: &str) -> Result<usize> {
        Ok(self.extent(path, 0)?.chunk.get() as usize)
    }

    /// The chunk of the first extent of a path.
    pub(crate) fn chunk(&mut self, path: &str) -> Result<&mut RawChunk> {
        let index = self.chunk_of(path)?;
        self.chunks.get_mut(index).with_context(|| format!("{path} begins with a hole"))
    }

    /// The stored bytes of a chunk.
    pub(crate) fn stored(&self, chunk: usize) -> Result<&[u8]> {
        let raw = self.chunks.get(chunk).context("no such chunk")?;
        let start = usize::try_from(raw.place.get() & ((1 << 48) - 1))?;
        let len = (raw.stored.get() & 0xff_ffff) as usize;
        self.pack.get(start..start + len).context("a chunk beyond the pack")
    }

    /// Stores other bytes for a chunk. The chunks behind it move, the pack stays full, and all digests of stored bytes
    /// are right.
    pub(crate) fn store(&mut self, chunk: usize, codec: u8, bytes: &[u8]) -> Result<()> {
        let old = self.stored(chunk)?.len();
        let start = usize::try_from(self.chunks[chunk].place.get())?;
        self.pack.splice(start..start + old, bytes.iter().copied());
        for other in &mut self.chunks {
            let place = other.place.get();
            if place > start as u64 {
                other.place = (place - old as u64 + bytes.len() as u64).into();
            }
        }
        self.chunks[chunk].stored = (u32::from(codec) << 24 | u32::try_from(bytes.len())?).into();
        self.seal(chunk)
    }

    /// Makes the digest of a chunk, and of the pack, that of the bytes that are stored.
    pub(crate) fn seal(&mut self, chunk: usize) -> Result<()> {
        self.chunk_digests[chunk] = chunk_digest(self.stored(chunk)?);
        self.seal_pack();
        Ok(())
    }

    /// Makes the record of pack 0 right.
    pub(crate) fn seal_pack(&mut self) {
        self.packs[0].bytes = (self.pack.len() as u64).into();
        self.packs[0].digest = sha256(&self.pack);
    }
}

/// Writes hash region, Merkle root and tree ID, after the text of the specification.
pub(crate) fn digest(image: &mut [u8], layout: &Layout) -> Result<()> {
    let [tree, map, hash] = [layout.tree_offset, layout.map_offset, layout.hash_offset].map(usize::try_from);
    let (tree, map, hash) = (tree?, map?, hash?);
    let (mut region, mut level) = (Vec::new(), image[tree..hash].to_vec());
    loop {
        let mut above: Vec<u8> = level.chunks(BLOCK_SIZE).flat_map(sha256).collect();
        above.resize(above.len().next_multiple_of(BLOCK_SIZE), 0);
        region = [&above[..], &region].concat();
        if level.len() <= BLOCK_SIZE * DIGESTS_PER_BLOCK as usize {
            break;
        }
        level = above;
    }
    ensure!(image.len() == hash + region.len(), "the hash region has another length than the layout says");
    image[hash..].copy_from_slice(&region);
    let root = sha256(&region[..BLOCK_SIZE]);
    let tree_id = {
        let descriptor = &image[0x40..0x80];
        sha256(&[descriptor, &image[tree..map]].concat())
    };
    change_head(image, |sb| (sb.merkle_root, sb.tree_id) = (root, tree_id))
}

/// Changes the superblock, and makes the digest of its prefix right again.
pub(crate) fn change_head(image: &mut [u8], change: impl FnOnce(&mut RawSuperBlock)) -> Result<()> {
    let block = image.get_mut(..size_of::<RawSuperBlock>()).context("no superblock")?;
    let mut sb = RawSuperBlock::read_from_bytes(block).map_err(|_| anyhow::anyhow!("no superblock"))?;
    change(&mut sb);
    block.copy_from_slice(sb.as_bytes());
    corrupt::seal(image)
}

/// Puts a signature behind an image, and says so in its superblock.
pub(crate) fn attach(image: &mut Vec<u8>, signature: &[u8]) -> Result<()> {
    let len = u32::try_from(signature.len())?;
    change_head(image, |sb| {
        (sb.signature_bytes, sb.signature_digest) = (len.into(), sha256(signature));
    })?;
    image.extend_from_slice(signature);
    image.resize(image.len().next_multiple_of(BLOCK_SIZE), 0);
    Ok(())
}
