// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Every maximum of the format, each with its reason.

/// Bytes in a block: the unit of metadata verification, and the page size of every kernel that can mount an image.
pub const BLOCK_SIZE: usize = 4096;

/// [`BLOCK_SIZE`] as the type of an image offset.
pub const BLOCK_BYTES: u64 = 4096;

/// Bytes at the start of the superblock that the image ID is the digest of, and a signature covers.
pub const SIGNED_PREFIX: usize = 512;

/// Tables begin at multiples of this many bytes, so that no record of 8, 16, 32 or 64 bytes crosses a block.
pub const TABLE_ALIGN: u64 = 64;

/// Bytes in a digest (SHA-256).
pub const DIGEST_SIZE: usize = 32;

/// Digests in one hash block.
pub const DIGESTS_PER_BLOCK: u64 = 128;

/// Levels of the Merkle tree: 128^5 blocks of 4 KiB are more than [`MAX_METADATA_BYTES`].
pub const MAX_HASH_LEVELS: usize = 5;

/// Raw bytes in each block of a chunk's zstd frame but the last one.
pub const FRAME_BLOCK: u32 = 32 << 10;

/// Bytes in a file name, as in `NAME_MAX`.
pub const NAME_MAX: usize = 255;

/// Bytes in a symlink target: `PATH_MAX` less the NUL that the kernel appends.
pub const SYMLINK_MAX: u64 = 4095;

/// Bytes in a file: the largest `loff_t`.
pub const FILE_SIZE_MAX: u64 = 0x7fff_ffff_ffff_ffff;

/// Inodes in an image: numbers are 32-bit, 0 is no inode, and the last value is kept as "none".
pub const INODES_MAX: u64 = 0xffff_fffe;

/// Bytes of names that a directory's names begin at multiples of, so that 32 bits say where.
pub const NAME_ALIGN: u64 = 16;

/// Bytes in the names of a directory: an entry has 29 bits for where its name begins.
pub const DIRECTORY_NAMES_MAX: u64 = (1 << 29) - 1;

/// Bytes in the name table: 32 bits of [`NAME_ALIGN`].
pub const NAME_BYTES_MAX: u64 = 1 << 36;

/// Bytes in the symlink target table: a symlink has 32 bits for where its target begins.
pub const TARGET_BYTES_MAX: u64 = 0xffff_ffff;

/// Blocks of a file that are not all zero: 32 bits, 16 TiB of data, however long the holes are.
pub const DATA_BLOCKS_MAX: u64 = 0xffff_ffff;

/// Earliest modification time, in seconds: 1901-12-13 20:45:52 UTC, as in ext4.
pub const MTIME_MIN: i64 = -(1 << 31);

/// Latest modification time, in seconds: 2446-05-10 22:38:55 UTC, as in ext4; 34 bits after the earliest.
pub const MTIME_MAX: i64 = (1 << 34) - (1 << 31) - 1;

/// Attributes, directory entries (fences too), distinct file contents, chunks or extents in an image: indices are 32-bit
/// and the last value is kept as "none".
pub const INDEX_MAX: u64 = 0xffff_fffe;

/// Packs in an image.
pub const PACKS_MAX: u64 = 1024;

/// Annotations in an image.
pub const ANNOTATIONS_MAX: u64 = 65_535;

/// Bytes in the tree and map regions together; five hash levels cover it.
pub const MAX_METADATA_BYTES: u64 = 1 << 46;

/// Bytes in a chunk once decoded: what a reader must be able to allocate to serve a page.
pub const CHUNK_RAW_MAX: u32 = 1 << 20;

/// The largest `hole_min` of a profile, in bytes: a builder keeps so many zeros until it knows whether they are a hole.
pub const HOLE_MIN_MAX: u32 = 1 << 20;

/// Bytes in an xattr name including its prefix, as in `XATTR_NAME_MAX`.
pub const XATTR_NAME_MAX: usize = 255;

/// Bytes in an xattr value, as in `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_MAX: u32 = 65_536;

/// Bytes in the list of an inode's xattr names with a NUL after each, as in `XATTR_LIST_MAX`.
pub const XATTR_LIST_MAX: u32 = 65_536;

/// Bytes in an annotation's key.
pub const ANNOTATION_KEY_MAX: u32 = 255;

/// Bytes in the detached PKCS#7 signature: generous for a chain of certificates, small enough to read at once.
pub const SIGNATURE_MAX: u32 = 65_536;

/// Bytes up to which a file's content digest is the SHA-256 of its bytes; above it the zeros of a sparse file
/// would take longer to hash than anybody waits (6 s for so many, at 1.4 GB/s), and the digest is over the data
/// runs instead.
pub const PLAIN_DIGEST_MAX: u64 = 1 << 33;

/// Bytes of holes, in contents with a digest over all bytes, that an image may have. `bytes` are those of the image and of its chunks
/// in other packs: a hole costs next to nothing, and they are to bound the time that a reader of all digests spends on
/// holes.
pub const fn plain_holes_max(bytes: u64) -> u64 {
    (1_u64 << 36).saturating_add(bytes.saturating_mul(64))
}
