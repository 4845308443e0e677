// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The records as they lie on disk: little endian, fixed size, readable in place.
//!
//! Nothing here is checked. Each record has a parsed twin in a module of its own, whose `parse` proves the rules of
//! `FORMAT.md`, and whose `to_raw` is its inverse. Blank lines stand every 16 bytes, to match a hexdump.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::{BLOCK_SIZE, SIGNED_PREFIX};

/// `"TESSRAFS"`: the first eight bytes of an image.
pub const MAGIC: [u8; 8] = *b"TESSRAFS";

/// The version of the format that this crate reads and writes.
pub const VERSION: u32 = 1;

/// Counts that fix the layout of the tree region; the first thing that the tree ID is computed over.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawTree {
    /// Records in the inode table.
    pub inodes: U64,
    /// Records in the attribute table.
    pub attributes: U64,

    /// Records in the directory entry table.
    pub dirents: U64,
    /// Bytes in the name table.
    pub name_bytes: U64,

    /// Bytes in the symlink target table.
    pub target_bytes: U64,
    /// Records in the xattr set table.
    pub xattr_sets: U64,

    /// Bytes in the xattr entry table.
    pub xattr_bytes: U64,
    /// Records in the content digest table.
    pub contents: U64,
}

/// Counts that fix the layout of the map region.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawMap {
    /// Records in the pack table.
    pub packs: U64,
    /// Records in each of the three chunk tables.
    pub chunks: U64,

    /// Records in the extent table.
    pub extents: U64,
    /// Records in the annotation table.
    pub annotations: U64,

    /// Bytes in the annotation data table.
    pub annotation_bytes: U64,
    /// Zero.
    pub reserved: [U64; 3],
}

/// How the builder cut and compressed: everything a second builder needs for the same map region.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawProfile {
    /// Least bytes of a content-defined chunk that is not a segment's last.
    pub chunk_min: U32,
    /// Bytes around which the cut points are normalised.
    pub chunk_avg: U32,
    /// Most bytes of a chunk.
    pub chunk_max: U32,
    /// Bytes around which groups of small files end.
    pub group_size: U32,

    /// Most bytes of a file that goes into a group.
    pub small_max: U32,
    /// Least bytes of a run of zero blocks that becomes a hole.
    pub hole_min: U32,
    /// zstd compression level.
    pub level: U32,
    /// Version of libzstd: major * 10000 + minor * 100 + patch.
    pub zstd_version: U32,
}

/// The first block of an image.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RawSuperBlock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// Zero.
    pub reserved0: U32,

    /// Features that a reader may not know.
    pub compat: U64,
    /// Features that a reader must know.
    pub incompat: U64,

    /// Bytes from the start of the image to the end of the hash region; the signature begins there.
    pub image_bytes: U64,
    /// Where the tree region begins; pack 0 lies between the superblock and this.
    pub tree_offset: U64,

    /// Zero.
    pub reserved1: [U64; 2],

    /// Layout of the tree region.
    pub tree: RawTree,

    /// Layout of the map region.
    pub map: RawMap,

    /// Chunking and compression parameters.
    pub profile: RawProfile,

    /// Root of the Merkle tree over the tree and map regions.
    pub merkle_root: [u8; 32],

    /// The tree ID.
    pub tree_id: [u8; 32],

    /// Zero, to the end of the signed prefix.
    pub reserved2: [u8; 224],

    /// SHA-256 of the signed prefix, the image ID: tells a damaged superblock. First field outside the prefix.
    pub prefix_digest: [u8; 32],

    /// Bytes of the signature, 0 for an unsigned image.
    pub signature_bytes: U32,
    /// Zero.
    pub reserved3: [U32; 3],

    /// SHA-256 of the signature's bytes, zero for an unsigned image: tells a damaged signature from an unknown signer.
    pub signature_digest: [u8; 32],

    /// Zero, to the end of the block.
    pub reserved4: [u8; 3504],
}

/// One inode; record `n` is inode `n + 1`.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawInode {
    /// Index of its attributes.
    pub attributes: U32,
    /// Links: names of a file, 2 + subdirectories of a directory.
    pub nlink: U32,
    /// Modification time, see [`Timestamp`](crate::Timestamp).
    pub mtime: U64,

    /// Regular file: bytes. Symlink: bytes of the target. Directory: low 32 bits, number of entries; high 32 bits, where
    /// its names begin in the name table, in units of 16 bytes. Else 0.
    pub size: U64,
    /// Regular file: content index. Symlink: offset in the target table. Directory: index of its first entry. Else 0.
    pub start: U32,
    /// Regular file: blocks of 4096 bytes that are not all zero. Directory: its parent (the root is its own). Else 0.
    pub extra: U32,
}

/// The attributes that many inodes have in common.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq, Hash,
)]
#[repr(C)]
pub struct RawAttributes {
    /// File type, see [`FileType`](crate::FileType).
    pub file_type: u8,
    /// Zero.
    pub reserved: u8,
    /// Permission bits, `07777` at most.
    pub mode: U16,
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Index of the xattr set plus 1; 0 is none.
    pub xattrs: U32,
}

/// One name in a directory; or the fence behind its last one, with `ino` 0 and type 0.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawDirent {
    /// The inode.
    pub ino: U32,
    /// Low 29 bits: where the name begins, counted from the directory's first; it ends where the next one begins.
    /// High 3 bits: type of the inode, the same as its attributes say.
    pub name: U32,
}

/// One set of xattrs, shared by all inodes with the same names and values.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawXattrSet {
    /// Where the first entry begins in the xattr entry table; a multiple of 8.
    pub offset: U64,
    /// Bytes of all entries with their padding.
    pub bytes: U32,
    /// Number of entries, 1 at least.
    pub count: U32,
}

/// Header of one xattr; its name and its value follow, then zeros to a multiple of 8.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawXattrEntry {
    /// Bytes of the value.
    pub value_len: U32,
    /// Bytes of the name, prefix included.
    pub name_len: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// One pack: a run of stored chunks.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawPack {
    /// SHA-256 of all bytes of a pack file; zero for the embedded pack.
    pub digest: [u8; 32],

    /// Bytes of the pack.
    pub bytes: U64,
    /// Where it is, see [`PackKind`](crate::PackKind).
    pub kind: U32,
    /// Zero.
    pub reserved: [U32; 5],
}

/// Where the stored bytes of a chunk are, and what they are.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawChunk {
    /// Low 48 bits: byte offset in the pack. High 16 bits: pack index.
    pub place: U64,
    /// Low 24 bits: stored bytes. High 8 bits: codec, see [`Codec`](crate::Codec).
    pub stored: U32,
    /// Bytes once decoded.
    pub raw_len: U32,
}

/// Where the extents of one content begin; its extents end where those of the next content begin.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawContentMap {
    /// Index of the first extent.
    pub first_extent: U32,
}

/// One range of a content; it ends where the next extent of the content begins, the last one at the file's size.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawExtent {
    /// First byte of the file that it covers.
    pub file_offset: U64,
    /// The chunk, or `0xffffffff` for a hole.
    pub chunk: U32,
    /// First byte in the decoded chunk; 0 for a hole.
    pub chunk_offset: U32,
}

/// One annotation; its key, then its value lie at `offset` in the annotation data table.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
#[repr(C)]
pub struct RawAnnotation {
    /// Where the key begins in the annotation data table.
    pub offset: U64,
    /// Bytes of the key.
    pub key_len: U32,
    /// Bytes of the value.
    pub value_len: U32,
}

impl Default for RawSuperBlock {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

const _: () = {
    assert!(size_of::<RawTree>() == 64);
    assert!(size_of::<RawMap>() == 64);
    assert!(size_of::<RawProfile>() == 32);
    assert!(size_of::<RawSuperBlock>() == BLOCK_SIZE);
    assert!(core::mem::offset_of!(RawSuperBlock, prefix_digest) == SIGNED_PREFIX);
    assert!(size_of::<RawInode>() == 32);
    assert!(size_of::<RawAttributes>() == 16);
    assert!(size_of::<RawDirent>() == 8);
    assert!(size_of::<RawXattrSet>() == 16);
    assert!(size_of::<RawXattrEntry>() == 8);
    assert!(size_of::<RawPack>() == 64);
    assert!(size_of::<RawChunk>() == 16);
    assert!(size_of::<RawContentMap>() == 4);
    assert!(size_of::<RawExtent>() == 16);
    assert!(size_of::<RawAnnotation>() == 16);
};
