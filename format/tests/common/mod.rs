// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A tiny writer of images, for tests: records in, bytes with right digests out.
//!
//! It proves nothing, so a test can break any record and still get an image whose Merkle tree, tree ID and pack digest are
//! right: a reader then refuses it for the broken rule, and not for a digest. The tests of `format` and of
//! `fsck-tool` share it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part")]

use sha2::Digest as _;
use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_SIZE, DIGEST_SIZE, SIGNED_PREFIX};
use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawMap, RawPack,
    RawProfile, RawSuperBlock, RawTree, RawXattrEntry, RawXattrSet, MAGIC, VERSION,
};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{Digest, FormatError, Geometry, Sha256};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const HOLE: u32 = u32::MAX;

/// `cap_net_bind_service+ep`.
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub struct Sha2;

impl Sha256 for Sha2 {
    fn sha256(bytes: &[u8]) -> Digest {
        Digest(sha256(bytes))
    }
}

/// Of the stored bytes of a chunk, written out as `FORMAT.md` says it.
pub fn chunk_digest(stored: &[u8]) -> [u8; 32] {
    let half = stored.len().div_ceil(2);
    let (first, last) = (&stored[..half], &stored[stored.len() - half..]);
    sha256(&[&sha256(first)[..], &sha256(last), &(stored.len() as u64).to_le_bytes()].concat())
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// An inode with all that it is; [`Draft::tables`] tells what is shared from what is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct DraftInode {
    pub file_type: u8,
    pub mode: U16,
    pub uid: U32,
    pub gid: U32,
    pub nlink: U32,
    /// Of a directory the number of entries.
    pub size: U64,
    pub mtime: I64,
    pub mtime_nsec: U32,
    pub start: U32,
    pub xattrs: U32,
    /// Of a directory.
    pub parent: U32,
    /// Of a regular file.
    pub blocks: U32,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct DraftDirent {
    pub ino: U32,
    pub file_type: u8,
    pub name: Vec<u8>,
}

/// The tables of inodes and names.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub inodes: Vec<RawInode>,
    pub attributes: Vec<RawAttributes>,
    pub dirents: Vec<RawDirent>,
    pub names: Vec<u8>,
}

/// All records of an image.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub inodes: Vec<DraftInode>,
    /// Directories by the index of their inode, with their number of entries.
    pub directories: Vec<(usize, usize)>,
    pub dirents: Vec<DraftDirent>,
    /// The last change to the tables of inodes and names.
    pub change: Option<fn(&mut Tables)>,
    pub targets: Vec<u8>,
    pub xattr_sets: Vec<RawXattrSet>,
    pub xattr_entries: Vec<u8>,
    pub contents: Vec<[u8; 32]>,
    /// Blocks of the contents that are not all zero; 0 for those that were added without their bytes.
    pub content_blocks: Vec<u32>,
    pub packs: Vec<RawPack>,
    pub chunks: Vec<RawChunk>,
    pub chunk_digests: Vec<[u8; 32]>,
    pub content_map: Vec<RawContentMap>,
    pub extents: Vec<RawExtent>,
    pub raw_digests: Vec<[u8; 32]>,
    pub annotations: Vec<RawAnnotation>,
    pub annotation_data: Vec<u8>,
    pub profile: RawProfile,
    /// Bytes of pack 0.
    pub pack: Vec<u8>,
    /// Bytes between pack 0 and the tree region, instead of zeros to a block.
    pub pack_padding: Option<Vec<u8>>,
    /// The value of every byte between tables.
    pub table_padding: u8,
    /// The value of every byte behind the last digest of a hash level.
    pub hash_padding: u8,
}

/// A part of a content.
pub enum Piece<'a> {
    /// A chunk of its own, stored plain.
    Data(&'a [u8]),
    /// Part of the chunk of that index.
    Part { chunk: u32, offset: u32, len: u64 },
    /// Zeros.
    Hole(u64),
}

impl Draft {
    /// The records of a directory without entries, with a profile.
    pub fn empty() -> Self {
        let profile = RawProfile {
            chunk_min: 4096.into(),
            chunk_avg: 16384.into(),
            chunk_max: 65536.into(),
            group_size: 65536.into(),
            small_max: 16384.into(),
            hole_min: 4096.into(),
            level: 3.into(),
            zstd_version: 10507.into(),
        };
        let packs = vec![RawPack::default()];
        Self { profile, packs, ..Self::default() }
    }

    /// An image that has something of everything; see the comments for its tree.
    pub fn sample() -> Self {
        let mut d = Self::empty();
        let one = d.xattr_set(&[(b"security.capability", &CAPABILITY), (b"user.a", b"value")]);
        let two = d.xattr_set(&[(b"user.b", b"")]);
        let (big_a, big_b) = (pattern(5000, 1), pattern(4096, 2));
        let (hole_a, hole_b) = (pattern(4096, 3), pattern(100, 4));
        let (small_1, small_2) = (b"first small file\n".as_slice(), b"second\n".as_slice());
        // Chunks in the order of storage: the group is closed last.
        let big = d.content(&[Piece::Data(&big_a), Piece::Data(&big_b)], &[&big_a[..], &big_b].concat());
        let with_hole = [&hole_a[..], &[0; 8192], &hole_b].concat();
        let hole = d.content(&[Piece::Data(&hole_a), Piece::Hole(8192), Piece::Data(&hole_b)], &with_hole);
        let group = d.plain_chunk(&[small_1, small_2].concat());
        let (len_1, len_2) = (small_1.len() as u64, small_2.len() as u64);
        let small_1 = d.content(&[Piece::Part { chunk: group, offset: 0, len: len_1 }], small_1);
        let small_2 = d.content(&[Piece::Part { chunk: group, offset: len_1 as u32, len: len_2 }], small_2);

        // Inodes 1 to 14, breadth first.
        d.directory(1, 9, 3, 0); //                                        1  /
        d.directory(1, 4, 3, one); //                                      2  /a
        d.regular(big, 9096, 1, two); //                                   3  /big
        d.inode(DraftInode { file_type: 1, ..inode(1) }); //               4  /empty
        d.inode(DraftInode { file_type: 4, ..inode(1) }); //               5  /fifo
        d.regular(hole, 12388, 1, 0); //                                   6  /hole
        d.symlink(b"a/b/target"); //                                       7  /link
        d.regular(small_1, len_1, 2, 0); //                                8  /small1, /a/hard
        d.inode(DraftInode { file_type: 5, ..inode(1) }); //               9  /sock
        let mode = 0.into();
        d.inode(DraftInode { file_type: 6, mode, ..inode(1) }); //         10 /wh
        d.directory(2, 1, 2, 0); //                                        11 /a/b
        d.regular(big, 9096, 1, one); //                                   12 /a/copy
        d.regular(small_2, len_2, 1, 0); //                                13 /a/small2
        d.symlink(b"/"); //                                                14 /a/b/link2
        for (name, ino, kind) in [
            (b"a".as_slice(), 2, 2),
            (b"big", 3, 1),
            (b"empty", 4, 1),
            (b"fifo", 5, 4),
            (b"hole", 6, 1),
            (b"link", 7, 3),
            (b"small1", 8, 1),
            (b"sock", 9, 5),
            (b"wh", 10, 6),
            (b"b", 11, 2),
            (b"copy", 12, 1),
            (b"hard", 8, 1),
            (b"small2", 13, 1),
            (b"link2", 14, 3),
        ] {
            d.dirent(name, ino, kind);
        }
        d.annotation(b"oci.config", b"{}");
        d.annotation(b"spdx", b"tag-value");
        d.seal();
        d
    }

    pub fn inode(&mut self, inode: DraftInode) -> &mut DraftInode {
        self.inodes.push(inode);
        self.inodes.last_mut().expect("just pushed")
    }

    /// A directory whose entries follow those of the directories before it.
    pub fn directory(&mut self, parent: u32, entries: u64, nlink: u32, xattrs: u32) {
        let start: usize = self.directories.iter().map(|(_, entries)| entries + 1).sum();
        self.directories.push((self.inodes.len(), entries as usize));
        self.inode(DraftInode {
            file_type: 2,
            size: entries.into(),
            start: (start as u32).into(),
            parent: parent.into(),
            xattrs: xattrs.into(),
            mode: 0o755.into(),
            ..inode(nlink)
        });
    }

    pub fn regular(&mut self, content: u32, size: u64, nlink: u32, xattrs: u32) {
        self.inode(DraftInode {
            file_type: 1,
            size: size.into(),
            start: content.into(),
            xattrs: xattrs.into(),
            blocks: self.content_blocks.get(content as usize).copied().unwrap_or(0).into(),
            ..inode(nlink)
        });
    }

    pub fn symlink(&mut self, target: &[u8]) {
        let start = self.targets.len() as u32;
        self.targets.extend_from_slice(target);
        self.inode(DraftInode {
            file_type: 3,
            size: (target.len() as u64).into(),
            start: start.into(),
            mode: 0o777.into(),
            ..inode(1)
        });
    }

    pub fn dirent(&mut self, name: &[u8], ino: u32, file_type: u8) {
        self.dirents.push(DraftDirent { ino: ino.into(), file_type, name: name.to_vec() });
    }

    /// The tables of inodes and names, after the text of the specification.
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for inode in &self.inodes {
            let attributes = RawAttributes {
                file_type: inode.file_type,
                reserved: 0,
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
                xattrs: inode.xattrs,
            };
            let known = tables.attributes.iter().position(|known| *known == attributes);
            let index = known.unwrap_or(tables.attributes.len());
            if known.is_none() {
                tables.attributes.push(attributes);
            }
            let seconds = (inode.mtime.get() + (1 << 31)) as u64;
            tables.inodes.push(RawInode {
                attributes: (index as u32).into(),
                nlink: inode.nlink,
                mtime: (seconds << 30 | u64::from(inode.mtime_nsec.get())).into(),
                size: inode.size,
                start: inode.start,
                extra: if inode.file_type == 2 { inode.parent } else { inode.blocks },
            });
        }
        let mut rest = self.dirents.as_slice();
        for (inode, entries) in &self.directories {
            let base = tables.names.len();
            tables.inodes[*inode].size = (self.inodes[*inode].size.get() | (base as u64 / 16) << 32).into();
            let (own, others) = rest.split_at((*entries).min(rest.len()));
            own.iter().for_each(|dirent| tables.dirent(dirent, base));
            let fence = (tables.names.len() - base) as u32;
            tables.dirents.push(RawDirent { ino: 0.into(), name: fence.into() });
            pad(&mut tables.names, 16, 0);
            rest = others;
        }
        let base = tables.names.len();
        rest.iter().for_each(|dirent| tables.dirent(dirent, base));
        if let Some(change) = self.change {
            change(&mut tables);
        }
        tables
    }

    /// Adds a set; returns the number by which an inode refers to it.
    pub fn xattr_set(&mut self, xattrs: &[(&[u8], &[u8])]) -> u32 {
        let offset = self.xattr_entries.len();
        for (name, value) in xattrs {
            let raw = RawXattrEntry {
                value_len: (value.len() as u32).into(),
                name_len: name.len() as u8,
                reserved: [0; 3],
            };
            self.xattr_entries.extend_from_slice(raw.as_bytes());
            self.xattr_entries.extend_from_slice(name);
            self.xattr_entries.extend_from_slice(value);
            pad(&mut self.xattr_entries, 8, 0);
        }
        self.xattr_sets.push(RawXattrSet {
            offset: (offset as u64).into(),
            bytes: ((self.xattr_entries.len() - offset) as u32).into(),
            count: (xattrs.len() as u32).into(),
        });
        self.xattr_sets.len() as u32
    }

    /// Adds a content; its index. `bytes` is what it digests, all of it.
    pub fn content(&mut self, pieces: &[Piece<'_>], bytes: &[u8]) -> u32 {
        let content = self.content_of_digest(pieces, sha256(bytes));
        let data = bytes.chunks(BLOCK_SIZE).filter(|block| block.iter().any(|byte| *byte != 0));
        self.content_blocks[content as usize] = data.count() as u32;
        content
    }

    pub fn content_of_digest(&mut self, pieces: &[Piece<'_>], digest: [u8; 32]) -> u32 {
        self.content_map.push(RawContentMap { first_extent: (self.extents.len() as u32).into() });
        let mut at = 0;
        for piece in pieces {
            let (chunk, offset, len) = match piece {
                Piece::Data(bytes) => (self.plain_chunk(bytes), 0, bytes.len() as u64),
                Piece::Part { chunk, offset, len } => (*chunk, *offset, *len),
                Piece::Hole(len) => (HOLE, 0, *len),
            };
            let extent =
                RawExtent { file_offset: at.into(), chunk: chunk.into(), chunk_offset: offset.into() };
            self.extents.push(extent);
            at += len;
        }
        self.contents.push(digest);
        self.content_blocks.push(0);
        self.contents.len() as u32 - 1
    }

    pub fn plain_chunk(&mut self, bytes: &[u8]) -> u32 {
        self.chunk(bytes, 0, bytes.len() as u32, sha256(bytes))
    }

    pub fn chunk(&mut self, stored: &[u8], codec: u8, raw_len: u32, raw_digest: [u8; 32]) -> u32 {
        self.chunks.push(RawChunk {
            place: (self.pack.len() as u64).into(),
            stored: (u32::from(codec) << 24 | stored.len() as u32).into(),
            raw_len: raw_len.into(),
        });
        self.chunk_digests.push(chunk_digest(stored));
        self.raw_digests.push(raw_digest);
        self.pack.extend_from_slice(stored);
        self.chunks.len() as u32 - 1
    }

    pub fn annotation(&mut self, key: &[u8], value: &[u8]) {
        self.annotations.push(RawAnnotation {
            offset: (self.annotation_data.len() as u64).into(),
            key_len: (key.len() as u32).into(),
            value_len: (value.len() as u32).into(),
        });
        self.annotation_data.extend_from_slice(key);
        self.annotation_data.extend_from_slice(value);
    }

    /// Writes length and digest of pack 0 into its record.
    pub fn seal(&mut self) {
        self.packs[0].bytes = (self.pack.len() as u64).into();
        self.packs[0].digest = sha256(&self.pack);
    }

    fn raw_tree(&self, tables: &Tables) -> RawTree {
        let count = |len: usize| (len as u64).into();
        RawTree {
            inodes: count(tables.inodes.len()),
            attributes: count(tables.attributes.len()),
            dirents: count(tables.dirents.len()),
            name_bytes: count(tables.names.len()),
            target_bytes: count(self.targets.len()),
            xattr_sets: count(self.xattr_sets.len()),
            xattr_bytes: count(self.xattr_entries.len()),
            contents: count(self.contents.len()),
        }
    }

    pub fn raw_map(&self) -> RawMap {
        let count = |len: usize| (len as u64).into();
        RawMap {
            packs: count(self.packs.len()),
            chunks: count(self.chunks.len()),
            extents: count(self.extents.len()),
            annotations: count(self.annotations.len()),
            annotation_bytes: count(self.annotation_data.len()),
            reserved: Default::default(),
        }
    }

    /// Superblock and image, without a signature.
    pub fn image(&self) -> Vec<u8> {
        self.image_with(|_| ())
    }

    /// The same, with `change` done to the metadata before anything is digested.
    pub fn image_with(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut image = vec![0; BLOCK_SIZE];
        image.extend_from_slice(&self.pack);
        match &self.pack_padding {
            Some(padding) => image.extend_from_slice(padding),
            None => pad(&mut image, BLOCK_SIZE, 0),
        }
        let tree_offset = image.len();
        let mut tree = Vec::new();
        let tables = self.tables();
        self.table(&mut tree, &tables.attributes);
        self.table(&mut tree, &tables.inodes);
        self.table(&mut tree, &tables.dirents);
        self.table(&mut tree, &tables.names);
        self.table(&mut tree, &self.targets);
        self.table(&mut tree, &self.xattr_sets);
        self.table(&mut tree, &self.xattr_entries);
        self.table(&mut tree, &self.contents);
        pad(&mut tree, BLOCK_SIZE, self.table_padding);
        let tree_bytes = tree.len();
        let mut metadata = tree;
        self.table(&mut metadata, &self.packs);
        self.table(&mut metadata, &self.chunks);
        self.table(&mut metadata, &self.chunk_digests);
        self.table(&mut metadata, &self.content_map);
        self.table(&mut metadata, &self.extents);
        self.table(&mut metadata, &self.raw_digests);
        self.table(&mut metadata, &self.annotations);
        self.table(&mut metadata, &self.annotation_data);
        pad(&mut metadata, BLOCK_SIZE, self.table_padding);
        change(&mut metadata);

        let (hashes, root) = merkle(&metadata, self.hash_padding);
        let raw_tree = self.raw_tree(&tables);
        let tree_id = sha256(&[raw_tree.as_bytes(), &metadata[..tree_bytes]].concat());
        image.extend_from_slice(&metadata);
        image.extend_from_slice(&hashes);
        let sb = RawSuperBlock {
            magic: MAGIC,
            version: VERSION.into(),
            image_bytes: (image.len() as u64).into(),
            tree_offset: (tree_offset as u64).into(),
            tree: raw_tree,
            map: self.raw_map(),
            profile: self.profile,
            merkle_root: root,
            tree_id,
            ..RawSuperBlock::default()
        };
        image[..BLOCK_SIZE].copy_from_slice(sb.as_bytes());
        superblock(&mut image, |_| ());
        image
    }

    fn table<T: IntoBytes + Immutable>(&self, out: &mut Vec<u8>, records: &[T]) {
        pad(out, 64, self.table_padding);
        out.extend_from_slice(records.as_bytes());
    }
}

impl Tables {
    /// Adds an entry of a directory whose names begin at `base`.
    fn dirent(&mut self, dirent: &DraftDirent, base: usize) {
        let begin = (self.names.len() - base) as u32;
        let name = (begin | u32::from(dirent.file_type) << 29).into();
        self.dirents.push(RawDirent { ino: dirent.ino, name });
        self.names.extend_from_slice(&dirent.name);
    }
}

/// The common part of an inode.
pub fn inode(nlink: u32) -> DraftInode {
    DraftInode {
        mode: 0o644.into(),
        nlink: nlink.into(),
        mtime: (-5).into(),
        mtime_nsec: 999_999_999.into(),
        ..DraftInode::default()
    }
}

/// Bytes that do not compress, nor repeat.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(next).collect()
}

fn pad(bytes: &mut Vec<u8>, align: usize, with: u8) {
    bytes.resize(bytes.len().next_multiple_of(align), with);
}

/// The hash region over `metadata`, and its root: written from the text of the specification, not with `Geometry`.
pub fn merkle(metadata: &[u8], padding: u8) -> (Vec<u8>, [u8; 32]) {
    let mut region = Vec::new();
    let mut level = metadata.to_vec();
    loop {
        let mut above: Vec<u8> = level.chunks(BLOCK_SIZE).flat_map(sha256).collect();
        pad(&mut above, BLOCK_SIZE, padding);
        region = [above.clone(), region].concat();
        if above.len() == BLOCK_SIZE {
            return (region, sha256(&above));
        }
        level = above;
    }
}

/// Changes the superblock of an image, and makes the digest of its prefix right again.
pub fn superblock(image: &mut [u8], change: impl FnOnce(&mut RawSuperBlock)) {
    let block = &mut image[..BLOCK_SIZE];
    let mut sb = RawSuperBlock::read_from_bytes(block).expect("a block");
    change(&mut sb);
    sb.prefix_digest = sha256(&sb.as_bytes()[..SIGNED_PREFIX]);
    block.copy_from_slice(sb.as_bytes());
}

/// Puts a signature behind an image.
pub fn attach(image: &mut Vec<u8>, signature: &[u8]) {
    superblock(image, |sb| {
        sb.signature_bytes = (signature.len() as u32).into();
        sb.signature_digest = sha256(signature);
    });
    image.extend_from_slice(signature);
    pad(image, BLOCK_SIZE, 0);
}

/// Metadata in memory, as it is: the bytes that [`Metadata`] promises to be verified are right in a test.
pub struct Memory<'a>(pub &'a [u8]);

impl Metadata for Memory<'_> {
    type Error = FormatError;

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let offset = usize::try_from(offset).expect("an offset in memory");
        buf.copy_from_slice(&self.0[offset..offset + buf.len()]);
        Ok(())
    }
}

/// The first block of an image.
pub fn first_block(image: &[u8]) -> &[u8; BLOCK_SIZE] {
    image.first_chunk().expect("a block")
}

/// The layout of an image, which its superblock must be right for.
pub fn layout(image: &[u8]) -> Layout {
    tesserafs_format::SuperBlock::parse(first_block(image)).expect("a superblock").layout
}

/// The digest of each hash or metadata block is where [`Geometry`] says.
pub fn check_merkle(image: &[u8]) {
    let sb = tesserafs_format::SuperBlock::parse(first_block(image)).expect("a superblock");
    let geometry: &Geometry = &sb.layout.geometry;
    let block = |n: u64| {
        let start = (sb.layout.tree_offset + n * BLOCK_SIZE as u64) as usize;
        &image[start..start + BLOCK_SIZE]
    };
    for n in 0..geometry.total_blocks() {
        let expected = match geometry.parent(n).expect("a parent") {
            tesserafs_format::Parent::Root => sb.merkle_root.0,
            tesserafs_format::Parent::Slot { block: parent, offset } => {
                let offset = offset as usize;
                block(parent)[offset..offset + DIGEST_SIZE].try_into().expect("32 bytes")
            }
        };
        assert_eq!(sha256(block(n)), expected, "block {n}");
    }
}
