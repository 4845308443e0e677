// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The superblock: proven once, after which every table of the image has a known place.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::digest::{Digest, Sha256};
use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::{
    ANNOTATIONS_MAX, BLOCK_BYTES, BLOCK_SIZE, CHUNK_RAW_MAX, HOLE_MIN_MAX, INDEX_MAX, INODES_MAX,
    MAX_METADATA_BYTES, NAME_BYTES_MAX, PACKS_MAX, SIGNATURE_MAX, SIGNED_PREFIX, TABLE_ALIGN,
    TARGET_BYTES_MAX,
};
use crate::merkle::Geometry;
use crate::num::{align_up, u64_from_usize};
use crate::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawMap, RawPack,
    RawProfile, RawSuperBlock, RawTree, RawXattrSet, MAGIC, VERSION,
};

/// A table of the image: so many records of one size, or so many bytes.
///
/// # Invariants
///
/// `offset + records * record_bytes` does not overflow and lies in the metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    offset: u64,
    records: u64,
    record_bytes: u64,
}

impl Table {
    /// Where the table begins, in bytes of the image.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of records; of bytes in a table of bytes.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Where the table ends, in bytes of the image.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.records.saturating_mul(self.record_bytes))
    }

    /// Where record `index` begins; `None` behind the last.
    pub fn record(&self, index: u64) -> Option<u64> {
        if index >= self.records {
            return None;
        }
        self.offset.checked_add(index.checked_mul(self.record_bytes)?)
    }

    /// Where `len` records from `start` begin; `None` unless all of them are in the table.
    pub fn range(&self, start: u64, len: u64) -> Option<u64> {
        if start.checked_add(len)? > self.records {
            return None;
        }
        self.offset.checked_add(start.checked_mul(self.record_bytes)?)
    }
}

/// Where everything is: a function of the counts in the superblock and of the offset of the tree region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// [`RawAttributes`] records; the first table of the tree region.
    pub attributes: Table,
    /// [`RawInode`] records.
    pub inodes: Table,
    /// [`RawDirent`] records.
    pub dirents: Table,
    /// Bytes of names.
    pub names: Table,
    /// Bytes of symlink targets.
    pub targets: Table,
    /// [`RawXattrSet`] records.
    pub xattr_sets: Table,
    /// Bytes of xattr entries.
    pub xattr_entries: Table,
    /// Digests of contents.
    pub content_digests: Table,
    /// [`RawPack`] records; the first table of the map region.
    pub packs: Table,
    /// [`RawChunk`] records.
    pub chunks: Table,
    /// Digests of stored chunks.
    pub chunk_digests: Table,
    /// [`RawContentMap`] records.
    pub content_map: Table,
    /// [`RawExtent`] records.
    pub extents: Table,
    /// Digests of decoded chunks.
    pub raw_digests: Table,
    /// [`RawAnnotation`] records.
    pub annotations: Table,
    /// Bytes of annotations.
    pub annotation_data: Table,
    /// First byte of the tree region.
    pub tree_offset: u64,
    /// First byte of the map region.
    pub map_offset: u64,
    /// First byte of the hash region.
    pub hash_offset: u64,
    /// First byte behind the hash region.
    pub image_bytes: u64,
    /// The Merkle tree over the tree and map regions.
    pub geometry: Geometry,
}

/// Lays tables out one after the other.
struct Cursor(u64);

impl Cursor {
    fn table(&mut self, records: u64, record_bytes: usize) -> Option<Table> {
        let record_bytes = u64_from_usize(record_bytes);
        let offset = align_up(self.0, TABLE_ALIGN)?;
        self.0 = offset.checked_add(records.checked_mul(record_bytes)?)?;
        // INVARIANT: the line above computed the end without overflow; `Layout::new` bounds it.
        Some(Table { offset, records, record_bytes })
    }

    fn block(&mut self) -> Option<u64> {
        self.0 = align_up(self.0, BLOCK_BYTES)?;
        Some(self.0)
    }
}

impl Layout {
    /// The layout that the counts of `tree` and `map` give, with the tree region at `tree_offset`.
    ///
    /// # Errors
    ///
    /// [`Rule::Count`] where a count passes its limit or all of them [`MAX_METADATA_BYTES`],
    /// [`Rule::RegionOffset`] where `tree_offset` is not a block boundary behind the superblock.
    pub fn new(tree_offset: u64, tree: &RawTree, map: &RawMap) -> Result<Self, FormatError> {
        for (count, limit, at) in [
            (tree.inodes, INODES_MAX, 0x40),
            (tree.attributes, INDEX_MAX, 0x48),
            (tree.dirents, INDEX_MAX, 0x50),
            (tree.name_bytes, NAME_BYTES_MAX, 0x58),
            (tree.target_bytes, TARGET_BYTES_MAX, 0x60),
            (tree.xattr_sets, INDEX_MAX, 0x68),
            (tree.xattr_bytes, MAX_METADATA_BYTES, 0x70),
            (tree.contents, INDEX_MAX, 0x78),
            (map.packs, PACKS_MAX, 0x80),
            (map.chunks, INDEX_MAX, 0x88),
            (map.extents, INDEX_MAX, 0x90),
            (map.annotations, ANNOTATIONS_MAX, 0x98),
            (map.annotation_bytes, MAX_METADATA_BYTES, 0xa0),
        ] {
            ensure(count.get() <= limit, Rule::Count, Place::SuperBlock(at), count.get(), limit)?;
        }
        // The root directory, and the embedded pack, are always there.
        ensure(tree.inodes.get() > 0, Rule::Count, Place::SuperBlock(0x40), 0, 1)?;
        ensure(map.packs.get() > 0, Rule::Count, Place::SuperBlock(0x80), 0, 1)?;
        ensure(
            tree_offset >= BLOCK_BYTES
                && tree_offset % BLOCK_BYTES == 0
                && tree_offset <= i64::MAX.unsigned_abs(),
            Rule::RegionOffset,
            Place::SuperBlock(0x28),
            tree_offset,
            BLOCK_BYTES,
        )?;
        let too_big = FormatError::new(Rule::Count, Place::SuperBlock(0x40), u64::MAX, MAX_METADATA_BYTES);
        let layout = Self::unchecked(tree_offset, tree, map).ok_or(too_big)?;
        let metadata_bytes = layout.hash_offset.saturating_sub(tree_offset);
        ensure(
            metadata_bytes <= MAX_METADATA_BYTES,
            Rule::Count,
            Place::SuperBlock(0x40),
            metadata_bytes,
            MAX_METADATA_BYTES,
        )?;
        Ok(layout)
    }

    /// [`new`](Self::new) without the limits; `None` where a sum overflows.
    fn unchecked(tree_offset: u64, tree: &RawTree, map: &RawMap) -> Option<Self> {
        let mut at = Cursor(tree_offset);
        let attributes = at.table(tree.attributes.get(), size_of::<RawAttributes>())?;
        let inodes = at.table(tree.inodes.get(), size_of::<RawInode>())?;
        let dirents = at.table(tree.dirents.get(), size_of::<RawDirent>())?;
        let names = at.table(tree.name_bytes.get(), 1)?;
        let targets = at.table(tree.target_bytes.get(), 1)?;
        let xattr_sets = at.table(tree.xattr_sets.get(), size_of::<RawXattrSet>())?;
        let xattr_entries = at.table(tree.xattr_bytes.get(), 1)?;
        let content_digests = at.table(tree.contents.get(), size_of::<Digest>())?;
        let map_offset = at.block()?;
        let packs = at.table(map.packs.get(), size_of::<RawPack>())?;
        let chunks = at.table(map.chunks.get(), size_of::<RawChunk>())?;
        let chunk_digests = at.table(map.chunks.get(), size_of::<Digest>())?;
        let content_map = at.table(tree.contents.get(), size_of::<RawContentMap>())?;
        let extents = at.table(map.extents.get(), size_of::<RawExtent>())?;
        let raw_digests = at.table(map.chunks.get(), size_of::<Digest>())?;
        let annotations = at.table(map.annotations.get(), size_of::<RawAnnotation>())?;
        let annotation_data = at.table(map.annotation_bytes.get(), 1)?;
        let hash_offset = at.block()?;
        let blocks = hash_offset.checked_sub(tree_offset)?.checked_div(BLOCK_BYTES)?;
        let geometry = Geometry::new(blocks)?;
        let image_bytes = tree_offset.checked_add(geometry.total_blocks().checked_mul(BLOCK_BYTES)?)?;
        Some(Self {
            inodes,
            attributes,
            dirents,
            names,
            targets,
            xattr_sets,
            xattr_entries,
            content_digests,
            packs,
            chunks,
            chunk_digests,
            content_map,
            extents,
            raw_digests,
            annotations,
            annotation_data,
            tree_offset,
            map_offset,
            hash_offset,
            image_bytes,
            geometry,
        })
    }

    /// The tables of the tree region, in order.
    pub const fn tree_tables(&self) -> [Table; 8] {
        [
            self.attributes,
            self.inodes,
            self.dirents,
            self.names,
            self.targets,
            self.xattr_sets,
            self.xattr_entries,
            self.content_digests,
        ]
    }

    /// The tables of the map region, in order.
    pub const fn map_tables(&self) -> [Table; 8] {
        [
            self.packs,
            self.chunks,
            self.chunk_digests,
            self.content_map,
            self.extents,
            self.raw_digests,
            self.annotations,
            self.annotation_data,
        ]
    }
}

/// Chunking and compression parameters, in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Least bytes of a content-defined chunk that is not a segment's last.
    pub chunk_min: u32,
    /// Bytes around which the cut points are normalised.
    pub chunk_avg: u32,
    /// Most bytes of a chunk.
    pub chunk_max: u32,
    /// Bytes around which groups of small files end.
    pub group_size: u32,
    /// Most bytes of a file that goes into a group.
    pub small_max: u32,
    /// Least bytes of a run of zero blocks that becomes a hole.
    pub hole_min: u32,
    /// zstd compression level, 1 to 22.
    pub level: u32,
    /// Version of libzstd: major * 10000 + minor * 100 + patch.
    pub zstd_version: u32,
}

impl Profile {
    /// Parses and proves the profile.
    pub fn parse(raw: &RawProfile) -> Result<Self, FormatError> {
        let profile = Self {
            chunk_min: raw.chunk_min.get(),
            chunk_avg: raw.chunk_avg.get(),
            chunk_max: raw.chunk_max.get(),
            group_size: raw.group_size.get(),
            small_max: raw.small_max.get(),
            hole_min: raw.hole_min.get(),
            level: raw.level.get(),
            zstd_version: raw.zstd_version.get(),
        };
        let block = 4096_u32;
        for (holds, found, limit, at) in [
            (profile.chunk_min >= block, profile.chunk_min, block, 0xc0),
            (profile.chunk_avg >= profile.chunk_min, profile.chunk_avg, profile.chunk_min, 0xc4),
            (profile.chunk_max >= profile.chunk_avg, profile.chunk_max, profile.chunk_avg, 0xc8),
            (profile.chunk_max <= CHUNK_RAW_MAX, profile.chunk_max, CHUNK_RAW_MAX, 0xc8),
            (profile.chunk_min % 2 == 0, profile.chunk_min, profile.chunk_min & !1, 0xc0),
            (profile.chunk_avg % 2 == 0, profile.chunk_avg, profile.chunk_avg & !1, 0xc4),
            (profile.chunk_max % 2 == 0, profile.chunk_max, profile.chunk_max & !1, 0xc8),
            (profile.group_size <= CHUNK_RAW_MAX / 2, profile.group_size, CHUNK_RAW_MAX / 2, 0xcc),
            (profile.small_max <= profile.group_size, profile.small_max, profile.group_size, 0xd0),
            (profile.hole_min >= block && profile.hole_min % block == 0, profile.hole_min, block, 0xd4),
            (profile.hole_min <= HOLE_MIN_MAX, profile.hole_min, HOLE_MIN_MAX, 0xd4),
            ((1..=22).contains(&profile.level), profile.level, 22, 0xd8),
        ] {
            ensure(holds, Rule::ProfileRange, Place::SuperBlock(at), found.into(), limit.into())?;
        }
        Ok(profile)
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawProfile {
        RawProfile {
            chunk_min: self.chunk_min.into(),
            chunk_avg: self.chunk_avg.into(),
            chunk_max: self.chunk_max.into(),
            group_size: self.group_size.into(),
            small_max: self.small_max.into(),
            hole_min: self.hole_min.into(),
            level: self.level.into(),
            zstd_version: self.zstd_version.into(),
        }
    }
}

/// The superblock, proven.
///
/// # Invariants
///
/// `layout` is the one that the counts give, and ends where the superblock says that the image ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperBlock {
    /// Compat features; none is defined yet, and unknown ones are harmless.
    pub compat: u64,
    /// Where every table is.
    pub layout: Layout,
    /// Chunking and compression parameters.
    pub profile: Profile,
    /// Digest of the root hash block.
    pub merkle_root: Digest,
    /// Identity of the file tree.
    pub tree_id: Digest,
    /// Bytes of the signature, 0 for an unsigned image; it begins at `layout.image_bytes`.
    pub signature_bytes: u32,
    /// SHA-256 of the signature's bytes.
    pub signature_digest: Digest,
}

/// Incompat features that this crate knows: none yet.
pub const INCOMPAT_KNOWN: u64 = 0;

impl SuperBlock {
    /// Parses and proves the first block of an image; [`check_prefix`] proves its digest.
    pub fn parse(block: &[u8; BLOCK_SIZE]) -> Result<Self, FormatError> {
        let Ok(raw) = RawSuperBlock::ref_from_bytes(block) else {
            return Err(FormatError::new(Rule::Magic, Place::SuperBlock(0), 0, 0));
        };
        check_version(raw)?;
        let unknown = raw.incompat.get() & !INCOMPAT_KNOWN;
        ensure(unknown == 0, Rule::Incompat, Place::SuperBlock(0x18), unknown, INCOMPAT_KNOWN)?;
        for (bytes, at) in [
            (raw.reserved0.as_bytes(), 0xc),
            (raw.reserved1.as_bytes(), 0x30),
            (raw.map.reserved.as_bytes(), 0xa8),
            (raw.reserved2.as_bytes(), 0x120),
            (raw.reserved3.as_bytes(), 0x224),
            (raw.reserved4.as_bytes(), 0x250),
        ] {
            let found = bytes.iter().copied().find(|byte| *byte != 0).unwrap_or(0);
            ensure(found == 0, Rule::SuperBlockPadding, Place::SuperBlock(at), found.into(), 0)?;
        }
        let layout = Layout::new(raw.tree_offset.get(), &raw.tree, &raw.map)?;
        ensure(
            raw.image_bytes.get() == layout.image_bytes,
            Rule::ImageBytes,
            Place::SuperBlock(0x20),
            raw.image_bytes.get(),
            layout.image_bytes,
        )?;
        let profile = Profile::parse(&raw.profile)?;
        let signature_bytes = raw.signature_bytes.get();
        ensure(
            signature_bytes <= SIGNATURE_MAX,
            Rule::SignatureBytes,
            Place::SuperBlock(0x220),
            signature_bytes.into(),
            SIGNATURE_MAX.into(),
        )?;
        let signature_digest = Digest(raw.signature_digest);
        ensure(
            signature_bytes != 0 || signature_digest == Digest::default(),
            Rule::SuperBlockPadding,
            Place::SuperBlock(0x230),
            signature_digest.prefix(),
            0,
        )?;
        // INVARIANT: `layout` was computed from the counts, and its end was compared above.
        Ok(Self {
            compat: raw.compat.get(),
            layout,
            profile,
            merkle_root: Digest(raw.merkle_root),
            tree_id: Digest(raw.tree_id),
            signature_bytes,
            signature_digest,
        })
    }

    /// The inverse of [`parse`](Self::parse), with the digest of the signed prefix.
    pub fn to_raw<H: Sha256>(&self) -> RawSuperBlock {
        let mut raw = RawSuperBlock {
            magic: MAGIC,
            version: U32::new(VERSION),
            compat: U64::new(self.compat),
            image_bytes: U64::new(self.layout.image_bytes),
            tree_offset: U64::new(self.layout.tree_offset),
            tree: self.raw_tree(),
            map: self.raw_map(),
            profile: self.profile.to_raw(),
            merkle_root: self.merkle_root.0,
            tree_id: self.tree_id.0,
            signature_bytes: U32::new(self.signature_bytes),
            signature_digest: self.signature_digest.0,
            ..RawSuperBlock::default()
        };
        if let Some(prefix) = raw.as_bytes().first_chunk::<SIGNED_PREFIX>() {
            raw.prefix_digest = H::sha256(prefix).0;
        }
        raw
    }

    /// The tree descriptor: what the tree ID is computed over, before the tree region.
    pub fn raw_tree(&self) -> RawTree {
        RawTree {
            inodes: self.layout.inodes.records.into(),
            attributes: self.layout.attributes.records.into(),
            dirents: self.layout.dirents.records.into(),
            name_bytes: self.layout.names.records.into(),
            target_bytes: self.layout.targets.records.into(),
            xattr_sets: self.layout.xattr_sets.records.into(),
            xattr_bytes: self.layout.xattr_entries.records.into(),
            contents: self.layout.content_digests.records.into(),
        }
    }

    fn raw_map(&self) -> RawMap {
        RawMap {
            packs: self.layout.packs.records.into(),
            chunks: self.layout.chunks.records.into(),
            extents: self.layout.extents.records.into(),
            annotations: self.layout.annotations.records.into(),
            annotation_bytes: self.layout.annotation_data.records.into(),
            reserved: Default::default(),
        }
    }

    /// Bytes of a file that holds the image: signature included, padded to a block.
    pub fn file_bytes(&self) -> u64 {
        let end = self.layout.image_bytes.saturating_add(self.signature_bytes.into());
        align_up(end, BLOCK_BYTES).unwrap_or(u64::MAX)
    }
}

/// The bytes at the start of a superblock that the image ID is computed over, and that a signature covers.
pub fn signed_prefix(block: &[u8; BLOCK_SIZE]) -> &[u8; SIGNED_PREFIX] {
    // `first_chunk` of a longer array is always there; a block of zeros stands in where the compiler cannot see it.
    block.first_chunk().unwrap_or(&[0; SIGNED_PREFIX])
}

/// Proves that the bytes are an image of this version.
fn check_version(raw: &RawSuperBlock) -> Result<(), FormatError> {
    let magic = u64::from_le_bytes(raw.magic);
    let expected = u64::from_le_bytes(MAGIC);
    ensure(magic == expected, Rule::Magic, Place::SuperBlock(0), magic, expected)?;
    let version = raw.version.get();
    ensure(version == VERSION, Rule::Version, Place::SuperBlock(0x8), version.into(), VERSION.into())
}

/// Proves the digest of the signed prefix, and gives the image ID.
///
/// A damaged superblock is detected before any of its offsets is followed; detecting a forged one is up to
/// the signature.
pub fn check_prefix<H: Sha256>(block: &[u8; BLOCK_SIZE]) -> Result<Digest, FormatError> {
    let Ok(raw) = RawSuperBlock::ref_from_bytes(block) else {
        return Err(FormatError::new(Rule::Magic, Place::SuperBlock(0), 0, 0));
    };
    check_version(raw)?;
    let (found, expected) = (image_id::<H>(block), Digest(raw.prefix_digest));
    let place = Place::SuperBlock(0x200);
    ensure(found == expected, Rule::PrefixDigest, place, found.prefix(), expected.prefix())?;
    Ok(found)
}

/// The image ID of the image that begins with `block`.
pub fn image_id<H: Sha256>(block: &[u8; BLOCK_SIZE]) -> Digest {
    H::sha256(signed_prefix(block))
}
