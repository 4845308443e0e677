// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A small image as annotated hex, built by hand from `FORMAT.md` and without this crate: every field is read back and compared.

use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::superblock::{check_prefix, image_id};
use tesserafs_format::{
    Codec, ContentIndex, Digest, FileKind, FileType, Image, Ino, PackIndex, PackKind, SuperBlock, Target,
    XattrSetIndex,
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
0040  03 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00  tree: 3 inodes, 2 entries
0050  04 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00  4 bytes of names, 2 of targets
0060  01 00 00 00 00 00 00 00 18 00 00 00 00 00 00 00  1 xattr set, 24 bytes of entries
0070  01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  1 content
0080  01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  map: 1 pack, 1 chunk
0090  01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  1 extent, 1 annotation
00a0  07 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  7 bytes of annotation data
00c0  00 20 00 00 00 80 00 00 00 00 02 00 00 00 01 00  chunks of 8, 32, 128 KiB, groups of 64 KiB
00d0  00 40 00 00 00 10 00 00 03 00 00 00 0b 29 00 00  small 16 KiB, holes 4 KiB, level 3, libzstd 1.5.7
00e0  a2 f8 0a c2 3b 15 b3 ea 56 8d dc 24 ee 34 ae e2  merkle_root
00f0  f7 79 1a ea 5d e2 cd 0e 1a 80 ed e4 5c 1d 5f 35
0100  10 a7 00 a8 26 d8 e0 e3 a8 43 fa 87 20 0a 6a 82  tree_id
0110  b4 94 4c b1 52 aa ec c7 95 1a c1 75 2d 69 1b 5c
# SHA-256 of the signed prefix
0200  11 04 65 be b2 10 44 96 d5 cf 54 be 01 7e 8f e7  the image ID
0210  45 cb ad 82 87 36 bc 5b fa ac 55 b4 2f 5e 7d 4b
# pack 0: the plain chunk
1000  68 65 6c 6c 6f 0a                                hello
# inode 1: the root directory
2000  02 00 ed 01 00 00 00 00 00 00 00 00 02 00 00 00  type 2, mode 0755, uid 0, gid 0, nlink 2
2010  02 00 00 00 00 00 00 00 00 f1 53 65 00 00 00 00  size 2, mtime 1700000000
2020  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  start 0, 0 ns, xattrs 0
2030  01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  parent 1
# inode 2: /hi, a regular file, 1.5 s before 1970
2040  01 00 ed 09 e8 03 00 00 64 00 00 00 01 00 00 00  type 1, mode 04755, uid 1000, gid 100, nlink 1
2050  06 00 00 00 00 00 00 00 fe ff ff ff ff ff ff ff  size 6, mtime -2
2060  00 00 00 00 00 00 00 00 00 65 cd 1d 01 00 00 00  start 0, 500000000 ns, xattrs 1
2070  00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  parent 0, 1 block
# inode 3: /ln, a symlink
2080  03 00 ff 01 00 00 00 00 00 00 00 00 01 00 00 00  type 3, mode 0777, uid 0, gid 0, nlink 1
2090  02 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  size 2, mtime 1
20a0  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  start 0, 0 ns, xattrs 0
20b0  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  parent 0
# entries
20c0  00 00 00 00 00 00 00 00 02 00 00 00 02 01 00 00  name 0..2, inode 2, regular
20d0  02 00 00 00 00 00 00 00 03 00 00 00 02 03 00 00  name 2..4, inode 3, symlink
# names
2100  68 69 6c 6e                                      hi, ln
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
3080  58 91 b5 b5 22 d5 df 08 6d 0f f0 b1 10 fb d9 d2  SHA-256 of the stored bytes
3090  1b b4 fc 71 63 af 34 d0 82 86 a2 e8 46 f6 be 03
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
4000  46 3d 29 ed 8b fe a4 a3 ec b2 39 dc 5e 20 78 d3  SHA-256 of the tree region's block
4010  03 b1 b1 4a 36 77 6d 57 a0 1b b8 10 40 09 78 be
4020  45 d1 42 0b 00 53 3d cf 38 3e e1 83 ba 84 62 ca  SHA-256 of the map region's block
4030  ff 9f 71 f1 48 07 ff d2 48 2e 15 7a 85 3c c4 74
";

const IMAGE_BYTES: usize = 0x5000;
const IMAGE_ID: &str = "110465beb2104496d5cf54be017e8fe745cbad828736bc5bfaac55b42f5e7d4b";
const TREE_ID: &str = "10a700a826d8e0e3a843fa87200a6a82b4944cb152aaecc7951ac1752d691b5c";
const MERKLE_ROOT: &str = "a2f80ac23b15b3ea568ddc24ee34aee2f7791aea5de2cd0e1a80ede45c1d5f35";
/// SHA-256 of "hello\n", as `echo hello | sha256sum` prints it.
const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

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
    let expected =
        [(0x2000, 3), (0x20c0, 2), (0x2100, 4), (0x2140, 2), (0x2180, 1), (0x21c0, 24), (0x2200, 1)];
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
    assert_eq!(root.kind, FileKind::Directory { first: 0, entries: 2, parent: Ino::ROOT });
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
        let dirent = image.dirent(index).expect("an entry");
        assert_eq!((dirent.ino.get(), dirent.file_type), (ino, kind));
        assert_eq!((dirent.name_offset, dirent.name_len), (index * 2, 2));
        assert_eq!(image.name(&dirent, &mut buf).expect("a name"), name);
        assert_eq!(image.lookup(0, 2, name).expect("a lookup"), Some(dirent));
    }
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
    assert_eq!((chunk.stored_len, chunk.raw_len, chunk.digest), (6, 6, digest(HELLO)));
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
