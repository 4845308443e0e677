// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A small image as annotated hex, built by hand from `FORMAT.md` and without this crate: every field is read back and compared.

use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::superblock::{check_prefix, image_id};
use tesserafs_format::{
    chunk_digest, Codec, ContentIndex, Digest, Directory, FileKind, FileType, Image, Ino, PackIndex,
    PackKind, SuperBlock, Target, Verified, XattrSetIndex,
};
use zerocopy::IntoBytes;

mod common;

use common::{first_block, sha256, Memory, Sha2};

/// Offset, bytes, meaning; whatever is not listed is zero.
const GOLDEN: &str = "\
# superblock
0000  54 45 53 53 52 41 46 53 01 00 00 00 00 00 00 00  magic, version 1
0010  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  compat 0, incompat 0
0020  00 50 00 00 00 00 00 00 00 20 00 00 00 00 00 00  image_bytes 20480, tree_offset 8192
0040  03 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00  tree: 3 inodes, 3 attribute records
0050  03 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00  3 entries with the fence, 16 bytes of names
0060  02 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  2 bytes of targets, 1 xattr set
0070  18 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  24 bytes of xattr entries, 1 content
0080  01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  map: 1 pack, 1 chunk
0090  01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  1 extent, 1 annotation
00a0  07 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  7 bytes of annotation data
00c0  00 20 00 00 00 80 00 00 00 00 02 00 00 00 01 00  chunks of 8, 32, 128 KiB, groups of 64 KiB
00d0  00 40 00 00 00 10 00 00 03 00 00 00 0b 29 00 00  small 16 KiB, holes 4 KiB, level 3, libzstd 1.5.7
00e0  b4 4b 37 7b f3 59 8a 85 72 0d 2b 8b 6a 85 4e d6  merkle_root
00f0  49 43 60 d7 ee ed 60 99 0a e6 56 87 fd 6f e8 01
0100  a2 b0 9a 40 a2 c5 a7 3b dc 37 77 df f2 2d d2 3f  tree_id
0110  db 55 29 ea 2e 9b df 86 c7 d1 59 53 f0 28 c5 e3
# SHA-256 of the signed prefix
0200  30 9e 70 db b4 da c4 e5 a7 d4 fb 0b a6 50 a9 f0  the image ID
0210  f5 e9 70 3f e3 d7 95 6f e9 82 5b 3f 02 e2 cb 3b
# pack 0: the plain chunk
1000  68 65 6c 6c 6f 0a                                hello
# attributes
2000  02 00 ed 01 00 00 00 00 00 00 00 00 00 00 00 00  type 2, mode 0755, uid 0, gid 0, xattrs 0
2010  01 00 ed 09 e8 03 00 00 64 00 00 00 01 00 00 00  type 1, mode 04755, uid 1000, gid 100, xattrs 1
2020  03 00 ff 01 00 00 00 00 00 00 00 00 00 00 00 00  type 3, mode 0777, uid 0, gid 0, xattrs 0
# inode 1: the root directory
2040  00 00 00 00 02 00 00 00 00 00 00 00 40 fc 54 39  attributes 0, nlink 2, mtime 1700000000
2050  02 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00  2 entries, names at 0, first entry 0, parent 1
# inode 2: /hi, a regular file, 1.5 s before 1970
2060  01 00 00 00 01 00 00 00 00 65 cd 9d ff ff ff 1f  attributes 1, nlink 1, mtime -2 + 500000000 ns
2070  06 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00  size 6, content 0, 1 block
# inode 3: /ln, a symlink
2080  02 00 00 00 01 00 00 00 00 00 00 40 00 00 00 20  attributes 2, nlink 1, mtime 1
2090  02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  size 2, target at 0
# entries
20c0  02 00 00 00 00 00 00 20 03 00 00 00 02 00 00 60  inode 2, name at 0, regular; inode 3, name at 2, symlink
20d0  00 00 00 00 04 00 00 00                          the fence: names end at 4
# names
2100  68 69 6c 6e 00 00 00 00 00 00 00 00 00 00 00 00  hi, ln, zeros to 16 bytes
# symlink targets
2140  68 69                                            hi
# xattr sets
2180  00 00 00 00 00 00 00 00 18 00 00 00 01 00 00 00  offset 0, 24 bytes, 1 entry
# xattr entries
21c0  05 00 00 00 06 00 00 00 75 73 65 72 2e 6b 76 61  user.k = value
21d0  6c 75 65 00 00 00 00 00
# content digests
2200  58 91 b5 b5 22 d5 df 08 6d 0f f0 b1 10 fb d9 d2  SHA-256 of the content
2210  1b b4 fc 71 63 af 34 d0 82 86 a2 e8 46 f6 be 03
# packs
3000  58 91 b5 b5 22 d5 df 08 6d 0f f0 b1 10 fb d9 d2  SHA-256 of the pack
3010  1b b4 fc 71 63 af 34 d0 82 86 a2 e8 46 f6 be 03
3020  06 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  6 bytes, embedded
3030  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
# chunks
3040  00 00 00 00 00 00 00 00 06 00 00 00 06 00 00 00  pack 0, offset 0, plain, 6 bytes stored, 6 raw
# chunk digests
3080  a8 12 0d 0b 35 d3 c5 19 70 a6 95 15 55 f7 43 a4  digest of the stored bytes: of their halves, and of 6
3090  b1 82 54 ba 65 4a a1 4a 9a 34 e2 8a 46 b7 de 56
# content map
30c0  00 00 00 00                                      first extent 0
# extents
3100  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  file byte 0, chunk 0, chunk byte 0
# raw digests
3140  58 91 b5 b5 22 d5 df 08 6d 0f f0 b1 10 fb d9 d2  SHA-256 of the raw bytes
3150  1b b4 fc 71 63 af 34 d0 82 86 a2 e8 46 f6 be 03
# annotations
3180  00 00 00 00 00 00 00 00 03 00 00 00 04 00 00 00  offset 0, key of 3 bytes, value of 4
# annotation data
31c0  6b 65 79 64 61 74 61                             key, data
# hash region: one level
4000  6a e4 f4 3a 9e 8a 97 93 94 16 b4 0c 5f 69 3e d9  SHA-256 of the tree region's block
4010  d7 af 9e 41 d4 64 95 5e 4d 30 d6 13 b9 5f dc 8f
4020  78 b5 11 be ce 1a af 90 44 ca c7 d2 22 7f 8e 2a  SHA-256 of the map region's block
4030  be d4 be 3d 19 87 74 b6 07 6f 88 9f 0f ef 73 5d
";

const IMAGE_BYTES: usize = 0x5000;
const IMAGE_ID: &str = "309e70dbb4dac4e5a7d4fb0ba650a9f0f5e9703fe3d7956fe9825b3f02e2cb3b";
const TREE_ID: &str = "a2b09a40a2c5a73bdc3777dff22dd23fdb5529ea2e9bdf86c7d15953f028c5e3";
const MERKLE_ROOT: &str = "b44b377bf3598a85720d2b8b6a854ed6494360d7eeed60990ae65687fd6fe801";
/// SHA-256 of "hello\n", as `echo hello | sha256sum` prints it.
const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
/// The digest of a chunk with these stored bytes, by another program: over that of `"hel"`, that of `"lo\n"`, and 6.
const HELLO_STORED: &str = "a8120d0b35d3c51970a6951555f743a4b18254ba654aa14a9a34e28a46b7de56";

fn golden() -> Vec<u8> {
    let mut image = vec![0; IMAGE_BYTES];
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let at = usize::from_str_radix(&line[..4], 16).expect("an offset");
        let hex = line[6..line.len().min(6 + 47)].split_whitespace();
        for (n, byte) in hex.enumerate() {
            image[at + n] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    image
}

fn digest(hex: &str) -> Digest {
    Digest::from_hex(hex.as_bytes()).expect("64 digits")
}

#[test]
fn the_superblock_is_read() {
    let image = golden();
    let sb = SuperBlock::parse(first_block(&image)).expect("a superblock");
    assert_eq!(sb.compat, 0);
    assert_eq!(sb.layout.image_bytes, IMAGE_BYTES as u64);
    assert_eq!(sb.file_bytes(), IMAGE_BYTES as u64);
    assert_eq!(
        (sb.layout.tree_offset, sb.layout.map_offset, sb.layout.hash_offset),
        (0x2000, 0x3000, 0x4000)
    );
    let tree: Vec<(u64, u64)> = sb.layout.tree_tables().iter().map(|t| (t.offset(), t.records())).collect();
    let expected = [
        (0x2000, 3),
        (0x2040, 3),
        (0x20c0, 3),
        (0x2100, 16),
        (0x2140, 2),
        (0x2180, 1),
        (0x21c0, 24),
        (0x2200, 1),
    ];
    assert_eq!(tree, expected);
    let map: Vec<(u64, u64)> = sb.layout.map_tables().iter().map(|t| (t.offset(), t.records())).collect();
    let expected = [
        (0x3000, 1),
        (0x3040, 1),
        (0x3080, 1),
        (0x30c0, 1),
        (0x3100, 1),
        (0x3140, 1),
        (0x3180, 1),
        (0x31c0, 7),
    ];
    assert_eq!(map, expected);
    let profile = sb.profile;
    assert_eq!((profile.chunk_min, profile.chunk_avg, profile.chunk_max), (8192, 32768, 131_072));
    assert_eq!((profile.group_size, profile.small_max, profile.hole_min), (65536, 16384, 4096));
    assert_eq!((profile.level, profile.zstd_version), (3, 10507));
    assert_eq!((sb.merkle_root, sb.tree_id), (digest(MERKLE_ROOT), digest(TREE_ID)));
    assert_eq!((sb.signature_bytes, sb.signature_digest), (0, Digest::default()));
    assert_eq!(sb.to_raw::<Sha2>().as_bytes(), first_block(&image));
}

#[test]
fn the_identities_are_those_of_the_specification() {
    let image = golden();
    assert_eq!(image_id::<Sha2>(first_block(&image)), digest(IMAGE_ID));
    assert_eq!(check_prefix::<Sha2>(first_block(&image)), Ok(digest(IMAGE_ID)));
    let sb = SuperBlock::parse(first_block(&image)).expect("a superblock");
    let tree = [sb.raw_tree().as_bytes(), &image[0x2000..0x3000]].concat();
    assert_eq!(Digest(sha256(&tree)), digest(TREE_ID));
    assert_eq!(Digest(sha256(&image[0x4000..0x5000])), digest(MERKLE_ROOT));
    common::check_merkle(&image);
    assert_eq!(common::merkle(&image[0x2000..0x4000], 0), (image[0x4000..].to_vec(), digest(MERKLE_ROOT).0));
}

#[test]
fn the_tree_is_read() {
    let bytes = golden();
    let sb = SuperBlock::parse(first_block(&bytes)).expect("a superblock");
    let memory = Memory(&bytes);
    let image = Image::new(&sb, &memory);
    let inode = |number| image.inode(Ino::from_number(number).expect("not 0")).expect("an inode");

    let root = inode(1);
    let directory = Directory { first: 0, entries: 2, names: 0, parent: Ino::ROOT };
    assert_eq!(root.kind, FileKind::Directory(directory));
    assert_eq!((root.mode, root.uid, root.gid, root.nlink), (0o755, 0, 0, 2));
    assert_eq!((root.mtime.sec, root.mtime.nsec, root.xattrs), (1_700_000_000, 0, None));
    let hi = inode(2);
    assert_eq!(hi.kind, FileKind::Regular { size: 6, content: Some(ContentIndex(0)) });
    assert_eq!((hi.mode, hi.uid, hi.gid, hi.nlink, hi.blocks), (0o4755, 1000, 100, 1, 1));
    assert_eq!((hi.mtime.sec, hi.mtime.nsec, hi.xattrs), (-2, 500_000_000, Some(XattrSetIndex(0))));
    let link = inode(3);
    assert_eq!(link.kind, FileKind::Symlink { offset: 0, len: 2 });
    assert_eq!((link.mode, link.nlink, link.mtime.sec), (0o777, 1, 1));

    let mut buf = [0; NAME_MAX];
    for (index, name, ino, kind) in [(0, b"hi", 2, FileType::Regular), (1, b"ln", 3, FileType::Symlink)] {
        let dirent = image.dirent(&directory, index).expect("an entry").expect("not the fence");
        assert_eq!((dirent.ino.get(), dirent.file_type), (ino, kind));
        assert_eq!((dirent.name_offset, dirent.name_len), (u64::from(index) * 2, 2));
        assert_eq!(image.name(&dirent, &mut buf).expect("a name"), name);
        assert_eq!(image.lookup(&directory, name).expect("a lookup"), Some(dirent));
    }
    assert_eq!(image.dirent(&directory, 2).expect("the end"), None);
    assert_eq!(image.fence(&directory).expect("the fence"), 4);
    let mut target = [0; 2];
    image.target(link.ino, 0, &mut target).expect("a target");
    assert_eq!(&target, b"hi");

    let set = image.xattr_set(XattrSetIndex(0)).expect("a set");
    assert_eq!((set.offset, set.bytes, set.count), (0, 24, 1));
    let mut xattrs = image.xattrs(set);
    let mut buf = [0; XATTR_NAME_MAX];
    let (entry, name) = xattrs.next(&mut buf).expect("an xattr").expect("one");
    assert_eq!(name, b"user.k");
    assert_eq!((entry.name_offset, entry.value_offset, entry.value_len, entry.end), (8, 14, 5, 24));
    let mut value = [0; 5];
    image.xattr_value(set.index, &entry, &mut value).expect("a value");
    assert_eq!(&value, b"value");
    assert_eq!(xattrs.next(&mut buf).expect("the end"), None);
    assert_eq!(image.content_digest(ContentIndex(0)).expect("a digest"), digest(HELLO));
}

#[test]
fn a_chunk_digest_is_that_of_its_halves_and_its_length() {
    // The byte in the middle of "hello" is in both halves; those of "a" and of "aa" are the same.
    let known = [
        (&b"hello\n"[..], HELLO_STORED),
        (b"hello", "12f3051b27231d1fecc1f7b9499925704d3dac67e8964ff59de0497ee31ed16a"),
        (b"a", "3ae06adfbe34035159b57d4ca8deeb8e2e09f59dfa59ef2bd17459bd2c5f034e"),
        (b"aa", "9055a6d75e1164fb31edcabc672e91d474c219ce2492e7fb62745db888c74658"),
    ];
    for (stored, expected) in known {
        assert_eq!(chunk_digest::<Sha2>(stored), digest(expected));
        assert_eq!(common::chunk_digest(stored), digest(expected).0);
        assert!(Verified::check_chunk::<Sha2>(stored, &digest(expected)).is_ok());
    }
    let other = Verified::check_chunk::<Sha2>(b"hellO", &digest(known[1].1));
    assert_eq!(other.err(), Some(chunk_digest::<Sha2>(b"hellO")));
}

#[test]
fn the_map_is_read() {
    let bytes = golden();
    let sb = SuperBlock::parse(first_block(&bytes)).expect("a superblock");
    let memory = Memory(&bytes);
    let image = Image::new(&sb, &memory);
    let extents = image.extents(ContentIndex(0), 6).expect("extents");
    assert_eq!((extents.first, extents.end), (0, 1));
    let extent = image.extent(&extents, 0).expect("an extent");
    assert_eq!((extent.start, extent.end), (0, 6));
    assert_eq!(image.extent_at(&extents, 5).expect("an extent"), extent);
    let Target::Chunk { index, offset: 0 } = extent.target else { panic!("{extent:?}") };
    let chunk = image.chunk(index).expect("a chunk");
    assert_eq!((chunk.pack, chunk.offset, chunk.codec), (PackIndex(0), 0, Codec::Plain));
    assert_eq!((chunk.stored_len, chunk.raw_len, chunk.digest), (6, 6, digest(HELLO_STORED)));
    assert_eq!(image.raw_digest(index).expect("a digest"), digest(HELLO));
    extent.check_range(&chunk).expect("in the chunk");
    let pack = image.pack(chunk.pack).expect("a pack");
    assert_eq!((pack.kind, pack.bytes, pack.digest), (PackKind::Embedded, 6, digest(HELLO)));
    chunk.check_range(&pack).expect("in the pack");
    assert_eq!(&bytes[0x1000..0x1006], b"hello\n");

    let annotation = image.annotation(0).expect("an annotation");
    assert_eq!((annotation.key_offset, annotation.key_len, annotation.value_len), (0, 3, 4));
    let (mut key, mut value) = ([0; 3], [0; 4]);
    image.annotation_bytes(0, 0, &mut key).expect("a key");
    image.annotation_bytes(0, annotation.value_offset(), &mut value).expect("a value");
    assert_eq!((&key, &value), (b"key", b"data"));
}
