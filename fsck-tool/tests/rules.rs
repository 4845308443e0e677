// SPDX-License-Identifier: GPL-2.0-or-later

//! One broken image for each rule that only a reader of the whole image can see, and for each that a record can break:
//! the rule is found, with its place and the file, and, where the break allows it, nothing else.

use std::collections::BTreeSet;
use std::io::Write;

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Source};
use tesserafs_format::raw::{RawPack, RawXattrEntry};
use tesserafs_format::superblock::Layout;
use tesserafs_format::Rule;

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{attach, inode, pattern, sha256, superblock, Draft, Piece, Tables};

/// How an image is broken.
enum Break {
    /// In its records; everything is digested anew.
    Records(fn(&mut Draft)),
    /// In its tables of inodes and names; everything is digested anew.
    Raw(fn(&mut Tables)),
    /// In its finished bytes.
    Bytes(fn(&mut Vec<u8>)),
}
use Break::{Bytes, Raw, Records};

fn build(how: &Break) -> Vec<u8> {
    let mut draft = Draft::sample();
    match how {
        Records(change) => {
            change(&mut draft);
            draft.image()
        }
        Raw(change) => {
            draft.change = Some(*change);
            draft.image()
        }
        Bytes(change) => {
            let mut image = draft.image();
            change(&mut image);
            // Only the rule that is meant: the digest of the prefix is right, unless it was broken itself.
            if image[0x200..0x220] == draft.image()[0x200..0x220] {
                superblock(&mut image, |_| ());
            }
            image
        }
    }
}

fn check_bytes(image: &[u8], options: &Options) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(image).expect("written");
    let source = Source::open(file.path()).expect("opened");
    check(&source, options, &Silent, &Cancel::default())
}

fn one_thread() -> Options {
    Options { threads: 1, ..Options::default() }
}

/// (rule, place, path, other rules that the same break cannot avoid, break)
type Case = (Rule, &'static str, Option<&'static str>, &'static [Rule], Break);

/// Changes the inode of that number.
macro_rules! ino {
    ($n:expr, $field:ident = $value:expr) => {
        Records(|d| d.inodes[$n - 1].$field = $value.into())
    };
}

/// Renames the entry of that index.
macro_rules! name {
    ($n:expr, $name:expr) => {
        Records(|d| d.dirents[$n].name = $name.to_vec())
    };
}

fn cases() -> Vec<Case> {
    vec![
        // Superblock and file.
        (Rule::Magic, "superblock byte 0", None, &[], Bytes(|i| i[0] = b'X')),
        (Rule::Version, "superblock byte 8", None, &[], Bytes(|i| i[8] = 2)),
        (Rule::Incompat, "superblock byte 24", None, &[], Bytes(|i| i[0x18] = 1)),
        (Rule::SuperBlockPadding, "superblock byte 592", None, &[], Bytes(|i| i[4095] = 1)),
        (Rule::Count, "superblock byte 64", None, &[], Bytes(|i| i[0x47] = 1)),
        (Rule::RegionOffset, "superblock byte 40", None, &[], Bytes(|i| i[0x28] = 1)),
        (Rule::ImageBytes, "superblock byte 32", None, &[], Bytes(|i| i[0x21] ^= 0x10)),
        (
            Rule::ProfileRange,
            "superblock byte 192",
            None,
            &[],
            Records(|d| d.profile.chunk_min = 4097.into()),
        ),
        (Rule::SignatureBytes, "superblock byte 544", None, &[], Bytes(|i| i[0x223] = 1)),
        (Rule::FileLength, "byte 32768", None, &[], Bytes(|i| i.push(0))),
        (Rule::HashBlock, "metadata block 0", None, &[], Bytes(|i| flip(i, |l| l.inodes.offset()))),
        (Rule::PrefixDigest, "superblock byte 512", None, &[], Bytes(|i| i[0x200] ^= 1)),
        (Rule::TreeId, "superblock byte 256", None, &[], Bytes(|i| superblock(i, |sb| sb.tree_id[0] ^= 1))),
        (
            Rule::SignatureDigest,
            "byte 32768",
            None,
            &[],
            Bytes(|i| {
                attach(i, b"signature");
                superblock(i, |sb| sb.signature_digest[0] ^= 1);
            }),
        ),
        (
            Rule::SignaturePadding,
            "byte 32777",
            None,
            &[],
            Bytes(|i| {
                attach(i, b"signature");
                let at = i.len() - 4096 + 9;
                i[at] = 1;
            }),
        ),
        // Inodes.
        (Rule::InodeAttributes, "ino 5", Some("/fifo"), &[], Raw(|t| t.inodes[4].attributes = 9.into())),
        (Rule::AttributesType, "attributes 4", None, &[], Raw(|t| t.attributes[4].file_type = 7)),
        (Rule::AttributesPadding, "attributes 4", None, &[], Raw(|t| t.attributes[4].reserved = 7)),
        (Rule::AttributesMode, "attributes 4", None, &[], ino!(5, mode = 0o10000)),
        (Rule::AttributesOwner, "attributes 4", None, &[], ino!(5, uid = u32::MAX)),
        (Rule::AttributesXattrs, "attributes 8", None, &[], ino!(12, xattrs = 3)),
        (Rule::InodeBlocks, "content 1", Some("/hole"), &[], ino!(6, blocks = 3)),
        (Rule::InodeBlocks, "ino 12", Some("/a/copy"), &[], ino!(12, blocks = 2)),
        (Rule::InodePadding, "ino 5", Some("/fifo"), &[], Raw(|t| t.inodes[4].extra = 1.into())),
        (Rule::InodeNlink, "ino 5", Some("/fifo"), &[], ino!(5, nlink = 0)),
        (Rule::InodeTime, "ino 5", Some("/fifo"), &[], ino!(5, mtime_nsec = 1_000_000_000)),
        (Rule::InodeSize, "ino 5", Some("/fifo"), &[], ino!(5, size = 1)),
        (Rule::InodeContent, "ino 13", Some("/a/small2"), &[], ino!(13, start = 4)),
        (Rule::InodeEntries, "ino 11", Some("/a/b"), &[], ino!(11, size = 9)),
        (Rule::InodeTarget, "ino 14", Some("/a/b/link2"), &[], ino!(14, size = 2)),
        (Rule::InodeNames, "ino 11", Some("/a/b"), &[], Raw(|t| t.inodes[10].size = (1 | 6 << 32).into())),
        (Rule::InodeParent, "ino 11", Some("/a/b"), &[], ino!(11, parent = 15)),
        (Rule::RootType, "ino 1", Some("/"), &[], ino!(1, parent = 2)),
        // Entries.
        (Rule::DirentNameLength, "dirent 8", None, &[], Raw(|t| t.dirents[8].name = (33 | 6 << 29).into())),
        (
            Rule::DirentNameRange,
            "dirent 15",
            None,
            &[Rule::TreeNames],
            Raw(|t| t.dirents[16].name = 17.into()),
        ),
        (Rule::DirentNameBytes, "dirent 8", None, &[], name!(8, b"w/")),
        (Rule::DirentOrder, "dirent 8", Some("/aa"), &[], name!(8, b"aa")),
        (Rule::DirentInode, "dirent 8", None, &[], Records(|d| d.dirents[8].ino = 99.into())),
        (Rule::DirentType, "dirent 8", Some("/wh"), &[], Records(|d| d.dirents[8].file_type = 1)),
        (Rule::DirentFence, "dirent 9", Some("/"), &[], Raw(|t| t.dirents[9].ino = 1.into())),
        (Rule::TargetBytes, "ino 7", Some("/link"), &[], Records(|d| d.targets[3] = 0)),
        // Xattrs.
        (
            Rule::XattrSetRange,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| d.xattr_sets[1].bytes = 32.into()),
        ),
        (
            Rule::XattrSetCount,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| d.xattr_sets[1].count = 0.into()),
        ),
        (
            Rule::XattrEntryRange,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| {
                let at = d.xattr_sets[1].offset.get() as usize;
                d.xattr_entries[at] = 100;
            }),
        ),
        (
            Rule::XattrName,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| {
                let at = d.xattr_sets[1].offset.get() as usize + size_of::<RawXattrEntry>();
                d.xattr_entries[at] = b'U';
            }),
        ),
        (
            Rule::XattrValueLength,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| {
                let at = d.xattr_sets[1].offset.get() as usize;
                d.xattr_entries[at + 2] = 2;
            }),
        ),
        (
            Rule::XattrOrder,
            "xattr set 0",
            Some("/a"),
            &[],
            Records(|d| {
                xattrs(d, &[(b"user.a", b"1"), (b"security.b", b"2")]);
            }),
        ),
        (
            Rule::XattrPadding,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| *d.xattr_entries.last_mut().expect("bytes") = 1),
        ),
        (
            Rule::XattrListLength,
            "xattr set 0",
            Some("/a"),
            &[],
            Records(|d| {
                let names: Vec<String> = (0..400).map(|n| format!("user.{n:0200}")).collect();
                let set: Vec<(&[u8], &[u8])> =
                    names.iter().map(|name| (name.as_bytes(), b"".as_slice())).collect();
                xattrs(d, &set);
            }),
        ),
        // Packs and chunks.
        (Rule::PackIndex, "chunk 4", Some("/small1"), &[], Records(|d| d.chunks[4].place = (1 << 48).into())),
        (Rule::PackKind, "pack 0", None, &[], Records(|d| d.packs[0].kind = 1.into())),
        (Rule::PackBytes, "pack 0", None, &[], Records(|d| d.packs[0].bytes = (1 << 20).into())),
        (Rule::PackPadding, "pack 0", None, &[], Records(|d| d.packs[0].reserved[0] = 1.into())),
        (
            Rule::PackPadding,
            "byte 17500",
            None,
            &[],
            Records(|d| {
                let len = (4096 - d.pack.len() % 4096) % 4096;
                let mut padding = vec![0; len];
                padding[(17500 - 4096) - d.pack.len()] = 1;
                d.pack_padding = Some(padding);
            }),
        ),
        (
            Rule::PackPadding,
            "pack 0",
            None,
            &[],
            Records(|d| {
                let len = (4096 - d.pack.len() % 4096) % 4096;
                d.pack_padding = Some(vec![0; len + 4096]);
            }),
        ),
        (Rule::PackDigest, "pack 0", None, &[], Records(|d| d.packs[0].digest[0] ^= 1)),
        (Rule::ChunkIndex, "extent 6", Some("/a/small2"), &[], Records(|d| d.extents[6].chunk = 5.into())),
        (
            Rule::ChunkCodec,
            "chunk 4",
            Some("/small1"),
            &[],
            Records(|d| d.chunks[4].stored = (3 << 24 | 24).into()),
        ),
        (Rule::ChunkRawLength, "chunk 4", Some("/small1"), &[], Records(|d| d.chunks[4].raw_len = 0.into())),
        (
            Rule::ChunkStoredLength,
            "chunk 4",
            Some("/small1"),
            &[],
            Records(|d| d.chunks[4].stored = 23.into()),
        ),
        (
            Rule::ChunkRange,
            "chunk 4",
            Some("/small1"),
            &[Rule::MapChunks],
            Records(|d| {
                let at = d.chunks[4].place.get();
                d.chunks[4].place = (at + 1).into();
            }),
        ),
        (Rule::ChunkDigest, "chunk 0", Some("/big"), &[], Records(|d| d.chunk_digests[0][0] ^= 1)),
        (
            Rule::ChunkDecode,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_file(d, |frame| frame[9] ^= 0xff)),
        ),
        (
            Rule::ChunkDecode,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_file(d, |frame| frame.extend([0; 4]))),
        ),
        (
            Rule::ChunkBlocks,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_content(d, &vec![b'z'; 200_000], |_| ())),
        ),
        (
            Rule::ChunkBlocks,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_content(d, &[b'z'; 40_000], |frame| *frame = sevens(40_000, &[32_768, 7232]))),
        ),
        // Bytes of any kind behind the frame.
        (
            Rule::ChunkBlocks,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| {
                zstd_content(d, &vec![b'z'; 200_000], |frame| {
                    frame.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
                })
            }),
        ),
        (
            Rule::ChunkDecode,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_content(d, &[b'z'; 65_536], |frame| *frame = sevens(40_000, &[32_768, 32_768]))),
        ),
        // The first block is as long as it should be, the second does not decode; nor do blocks that say too much.
        (
            Rule::ChunkDecode,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| {
                zstd_content(d, &[b'z'; 65_536], |frame| {
                    *frame = sevens(65_536, &[32_768]);
                    frame.splice(13..13, [4, 0, 0]);
                })
            }),
        ),
        (
            Rule::ChunkDecode,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_content(d, &[b'z'; 40_000], |frame| *frame = sevens(40_000, &[32_767, 7234]))),
        ),
        // These decode, in one call, to the right bytes.
        (
            Rule::ChunkFrame,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| {
                zstd_content(d, &[7; 40_000], |frame| {
                    *frame = [sevens(32_768, &[32_768]), sevens(7232, &[7232])].concat();
                })
            }),
        ),
        // The form is no reason not to look at the bytes.
        (
            Rule::ChunkFrame,
            "chunk 5",
            Some("/a/z"),
            &[Rule::RawDigest, Rule::ContentDigest],
            Records(|d| {
                zstd_content(d, &[b'z'; 40_000], |frame| {
                    *frame = [sevens(32_768, &[32_768]), sevens(7232, &[7232])].concat();
                })
            }),
        ),
        (
            Rule::ChunkFrame,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| zstd_file(d, |frame| frame.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]))),
        ),
        (
            Rule::ChunkFrame,
            "chunk 5",
            Some("/a/z"),
            &[],
            Records(|d| {
                zstd_content(d, &[7; 40_000], |frame| {
                    // A window of 1 MiB in the place of the size.
                    *frame = sevens(0, &[32_768, 7232]);
                    frame.splice(4..9, [0, 10 << 3]);
                })
            }),
        ),
        (Rule::RawDigest, "chunk 0", Some("/big"), &[], Records(|d| d.raw_digests[0][0] ^= 1)),
        // Contents and extents.
        (
            Rule::ContentExtents,
            "content 2",
            Some("/small1"),
            &[Rule::ExtentOrder, Rule::ExtentRange],
            Records(|d| d.content_map[2].first_extent = 6.into()),
        ),
        (
            Rule::ExtentOrder,
            "extent 0",
            Some("/big"),
            &[Rule::ExtentRange],
            Records(|d| d.extents[1].file_offset = 0.into()),
        ),
        (
            Rule::ExtentLength,
            "extent 0",
            Some("/big"),
            &[Rule::ExtentRange],
            Records(|d| d.extents[1].file_offset = 4095.into()),
        ),
        (Rule::ExtentHole, "extent 3", Some("/hole"), &[], Records(|d| d.extents[3].chunk_offset = 1.into())),
        (Rule::ExtentRange, "extent 1", Some("/big"), &[], Records(|d| d.extents[1].chunk_offset = 1.into())),
        (Rule::ContentDigest, "content 0", Some("/big"), &[], Records(|d| d.contents[0][0] ^= 1)),
        (Rule::ContentDigest, "content 3", Some("/a/small2"), &[], Records(|d| d.contents[3][0] ^= 1)),
        (Rule::ContentSize, "ino 12", Some("/a/copy"), &[], ino!(12, size = 9000)),
        // Annotations.
        (Rule::AnnotationRange, "annotation 1", None, &[], Records(|d| d.annotations[1].offset = 99.into())),
        (Rule::AnnotationKey, "annotation 1", None, &[], Records(|d| d.annotations[1].key_len = 0.into())),
        (
            Rule::AnnotationOrder,
            "annotation 1",
            None,
            &[],
            Records(|d| {
                d.annotations.clear();
                d.annotation_data.clear();
                d.annotation(b"b", b"");
                d.annotation(b"a", b"");
            }),
        ),
        // The whole image.
        (Rule::TablePadding, "byte 20624", None, &[], Records(|d| d.table_padding = 1)),
        (Rule::HashPadding, "byte 28736", None, &[], Records(|d| d.hash_padding = 1)),
        (Rule::TreeOrder, "dirent 3", Some("/fifo"), &[], Records(|d| swap_inodes(d, 5, 6))),
        (
            Rule::TreeOrder,
            "dirent 15",
            Some("/a/b/link2"),
            &[Rule::TreeUnreachable, Rule::TreeNlink, Rule::DirentType],
            Records(|d| {
                // A cycle: /a/b/link2 is /a.
                d.dirents[13].ino = 2.into();
            }),
        ),
        (
            Rule::TreeUnreachable,
            "ino 15",
            None,
            &[],
            Records(|d| {
                d.inode(inode(1)).file_type = 4;
            }),
        ),
        (
            Rule::TreeUnreachable,
            "ino 11",
            Some("/a/b"),
            &[Rule::TreeNlink, Rule::DirentType],
            Records(|d| {
                // A directory of two names.
                d.dirents[11].ino = 11.into();
            }),
        ),
        (Rule::TreeParent, "ino 11", Some("/a/b"), &[], ino!(11, parent = 1)),
        (Rule::TreeNlink, "ino 8", Some("/small1"), &[], ino!(8, nlink = 1)),
        (Rule::TreeNlink, "ino 2", Some("/a"), &[], ino!(2, nlink = 2)),
        (Rule::TreeEntries, "dirent 17", None, &[], Records(|d| d.dirent(b"z", 14, 3))),
        // The name of the only entry is "ink2".
        (
            Rule::TreeNames,
            "dirent 15",
            Some("/a/b/ink2"),
            &[],
            Raw(|t| t.dirents[15].name = (1 | 3 << 29).into()),
        ),
        // A byte behind the names of the root.
        (Rule::TreeNames, "ino 1", Some("/"), &[], Raw(|t| t.names[33] = 1)),
        (Rule::TreeNames, "superblock byte 88", None, &[], Raw(|t| t.names.extend([0; 16]))),
        // The entries of /a/b are elsewhere, and so are its names.
        (
            Rule::TreeNames,
            "ino 11",
            Some("/a/b"),
            &[],
            Raw(|t| {
                t.names.extend(b"link2");
                t.names.resize(96, 0);
                t.inodes[10].size = (1 | 5 << 32).into();
            }),
        ),
        (
            Rule::TreeAttributes,
            "ino 2",
            Some("/a"),
            &[],
            Raw(|t| {
                t.attributes.swap(1, 2);
                t.inodes[1].attributes = 2.into();
                t.inodes[2].attributes = 1.into();
            }),
        ),
        (
            Rule::TreeAttributes,
            "attributes 9",
            None,
            &[],
            Raw(|t| {
                t.attributes.push(t.attributes[3]);
                t.inodes[12].attributes = 9.into();
            }),
        ),
        (
            Rule::TreeAttributes,
            "superblock byte 72",
            None,
            &[],
            Raw(|t| {
                let unused = tesserafs_format::raw::RawAttributes { uid: 77.into(), ..t.attributes[3] };
                t.attributes.push(unused);
            }),
        ),
        (Rule::TreeTargets, "superblock byte 96", None, &[], Records(|d| d.targets.push(b'x'))),
        (
            Rule::TreeXattrs,
            "ino 2",
            Some("/a"),
            &[],
            Records(|d| {
                d.inodes[1].xattrs = 2.into();
                d.inodes[2].xattrs = 1.into();
            }),
        ),
        (
            Rule::TreeXattrs,
            "xattr set 1",
            Some("/big"),
            &[],
            Records(|d| {
                d.xattr_entries.clear();
                d.xattr_sets.clear();
                d.xattr_set(&[(b"user.a", b"same")]);
                d.xattr_set(&[(b"user.a", b"same")]);
            }),
        ),
        (
            Rule::TreeContents,
            "ino 3",
            Some("/big"),
            &[],
            Records(|d| {
                // /big and /a/copy have the second content, /hole the first.
                for (ino, content) in [(3, 1), (12, 1), (6, 0)] {
                    d.inodes[ino - 1].start = content.into();
                }
                d.contents.swap(0, 1);
                let big: Vec<_> = d.extents.drain(..2).collect();
                d.extents.splice(3..3, big);
                d.content_map[1].first_extent = 3.into();
            }),
        ),
        (
            Rule::TreeContents,
            "superblock byte 120",
            None,
            &[],
            Records(|d| {
                d.content(&[Piece::Part { chunk: 0, offset: 0, len: 5000 }], b"unused");
            }),
        ),
        (
            Rule::MapExtents,
            "extent 2",
            Some("/big"),
            &[],
            Records(|d| {
                // The second chunk of /big is two extents.
                let second = tesserafs_format::raw::RawExtent {
                    file_offset: 8192.into(),
                    chunk: 1.into(),
                    chunk_offset: 3192.into(),
                };
                d.extents.insert(2, second);
                d.content_map
                    .iter_mut()
                    .skip(1)
                    .for_each(|map| map.first_extent = (map.first_extent.get() + 1).into());
            }),
        ),
        (
            Rule::MapExtents,
            "extent 4",
            Some("/hole"),
            &[],
            Records(|d| {
                // The hole is two extents.
                let second = tesserafs_format::raw::RawExtent {
                    file_offset: 8192.into(),
                    chunk: common::HOLE.into(),
                    chunk_offset: 0.into(),
                };
                d.extents.insert(4, second);
                d.content_map
                    .iter_mut()
                    .skip(2)
                    .for_each(|map| map.first_extent = (map.first_extent.get() + 1).into());
            }),
        ),
        (
            Rule::MapExtents,
            "content 0",
            Some("/big"),
            &[Rule::ExtentOrder],
            Records(|d| d.content_map[0].first_extent = 1.into()),
        ),
        (
            Rule::MapChunks,
            "chunk 5",
            None,
            &[],
            Records(|d| {
                d.plain_chunk(&pattern(10, 9));
                d.seal();
            }),
        ),
        (
            Rule::MapChunks,
            "pack 0",
            None,
            &[],
            Records(|d| {
                d.pack.push(1);
                d.seal();
            }),
        ),
    ]
}

/// Flips a bit of the metadata.
fn flip(image: &mut [u8], at: fn(&Layout) -> u64) {
    let at = at(&common::layout(image)) as usize;
    image[at] ^= 1;
}

/// Puts a set for the first of the sample.
fn xattrs(draft: &mut Draft, first: &[(&[u8], &[u8])]) {
    draft.xattr_entries.clear();
    draft.xattr_sets.clear();
    draft.xattr_set(first);
    draft.xattr_set(&[(b"user.b", b"")]);
}

/// Swaps two inodes of the root, which its entries follow.
fn swap_inodes(draft: &mut Draft, a: u32, b: u32) {
    draft.inodes.swap(a as usize - 1, b as usize - 1);
    for dirent in &mut draft.dirents {
        let ino = dirent.ino.get();
        dirent.ino = (if ino == a {
            b
        } else if ino == b {
            a
        } else {
            ino
        })
        .into();
    }
}

/// Adds /a/z, stored as the zstd frame that `change` leaves.
fn zstd_file(draft: &mut Draft, change: fn(&mut Vec<u8>)) {
    zstd_content(draft, &[b'z'; 5000], change);
}

/// A frame that says `size`, of blocks that repeat a byte, and an empty one at its end.
fn sevens(size: u32, blocks: &[u32]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(size.to_le_bytes());
    for len in blocks {
        frame.extend(&(len << 3 | 1 << 1).to_le_bytes()[..3]);
        frame.push(7);
    }
    frame.extend([1, 0, 0]);
    frame
}

fn zstd_content(draft: &mut Draft, bytes: &[u8], change: fn(&mut Vec<u8>)) {
    let size = bytes.len() as u32;
    let mut frame = vec![0; zstd_safe::compress_bound(bytes.len())];
    // Blocks of 128 KiB at most, as libzstd makes them by itself.
    let len = zstd_safe::compress(frame.as_mut_slice(), bytes, 3).expect("compressed");
    frame.truncate(len);
    change(&mut frame);
    let chunk = draft.chunk(&frame, 1, size, sha256(bytes));
    let content = draft.content(&[Piece::Part { chunk, offset: 0, len: size.into() }], bytes);
    draft.regular(content, size.into(), 1, 0);
    // The last entry, /a/b/link2, moves behind the new one.
    let link = draft.inodes.remove(13);
    draft.inodes.push(link);
    draft.dirents.truncate(13);
    draft.dirent(b"z", 14, 1);
    draft.dirent(b"link2", 15, 3);
    draft.inodes[1].size = 5.into();
    draft.directories[1].1 = 5;
    draft.inodes[10].start = 16.into();
    draft.seal();
}

#[test]
fn samples_are_clean() {
    let report = check_bytes(&Draft::sample().image(), &Options::default());
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert_eq!(report.exit_code().value(), 0);
    let report = check_bytes(&build(&Records(|d| zstd_file(d, |_| ()))), &Options::default());
    assert!(report.is_clean(), "{:#?}", report.findings);
}

#[test]
fn each_rule_is_found_by_name() {
    let mut failures = Vec::new();
    for (rule, place, path, others, how) in cases() {
        let report = check_bytes(&build(&how), &one_thread());
        let found = report.findings.iter().find(|f| f.rule == rule && f.place.to_string() == place);
        let is_named =
            found.is_some_and(|found| path.is_none() || found.path.as_deref() == path.map(str::as_bytes));
        let rules: BTreeSet<Rule> = report.findings.iter().map(|finding| finding.rule).collect();
        let expected: BTreeSet<Rule> = others.iter().copied().chain([rule]).collect();
        if !is_named || rules != expected || report.exit_code().value() != 4 {
            let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
            failures.push(format!("{} @ {place} ({path:?}): {all:#?} {:?}", rule.name(), report.error));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_pinned_image_id_is_compared() {
    let image = Draft::sample().image();
    let right = tesserafs_format::Digest(sha256(&image[..512]));
    let pin = |digest| Options { pinned: Some(digest), ..one_thread() };
    assert!(check_bytes(&image, &pin(right)).is_clean());
    let report = check_bytes(&image, &pin(tesserafs_format::Digest::default()));
    assert_eq!(report.findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::ImageId]);
}

/// Rules that no whole image can show here, and where they are tested.
const ELSEWHERE: &[Rule] = &[
    // tests/signature.rs
    Rule::Signature,
    // the_pinned_image_id_is_compared
    Rule::ImageId,
    // tests/hostile.rs
    Rule::ContentHoles,
    // tests/settable.rs
    Rule::XattrSettable,
    // Two packs beside pack 0: below.
    Rule::MapPacks,
    // tests/canonical.rs
    Rule::Canonical,
    // Only a caller that asks for a record behind a table breaks these: format/tests/refuse.rs.
    Rule::InodeNumber,
    Rule::ContentIndex,
];

#[test]
fn every_rule_has_a_case() {
    let covered: BTreeSet<Rule> =
        cases().iter().map(|case| case.0).chain(ELSEWHERE.iter().copied()).collect();
    let missing: Vec<&str> =
        Rule::ALL.iter().filter(|rule| !covered.contains(rule)).map(|rule| rule.name()).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn a_pack_beside_the_image_is_read_and_compared() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = pattern(6000, 7);
    let mut draft = Draft::empty();
    draft.directory(1, 1, 2, 0);
    draft.dirent(b"f", 2, 1);
    let content = draft.content(&[Piece::Data(&bytes)], &bytes);
    draft.regular(content, 6000, 1, 0);
    let pack = std::mem::take(&mut draft.pack);
    draft.seal();
    draft.packs.push(RawPack {
        digest: sha256(&pack),
        bytes: (pack.len() as u64).into(),
        kind: 1.into(),
        ..RawPack::default()
    });
    draft.chunks[0].place = (1 << 48).into();
    let image = dir.path().join("image");
    std::fs::write(&image, draft.image()).expect("written");
    let run = || check(&Source::open(&image).expect("opened"), &one_thread(), &Silent, &Cancel::default());

    assert_eq!(run().exit_code().value(), 8, "a pack that is not there is an operational error");
    let name = dir.path().join(tesserafs_format::Digest(sha256(&pack)).to_string());
    std::fs::write(&name, &pack).expect("written");
    let report = run();
    assert!(report.is_clean(), "{report:?}");
    let mut broken = pack.clone();
    broken[17] ^= 1;
    std::fs::write(&name, &broken).expect("written");
    let rules: Vec<Rule> = run().findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::PackDigest, Rule::ChunkDigest]);
    // Bytes that cannot be read are no reason to stop: the code says both.
    std::fs::write(&name, &pack[..100]).expect("written");
    let report = run();
    let rules: Vec<Rule> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::PackDigest]);
    assert_eq!(report.exit_code().value(), 4 | 8);
}

#[test]
fn packs_are_distinct_and_used_and_their_chunks_ascend() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (pattern(6000, 7), pattern(5000, 8));
    let broken = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::empty();
        draft.directory(1, 1, 2, 0);
        draft.dirent(b"f", 2, 1);
        let bytes = [&first[..4096], &second[..]].concat();
        let content = draft.content(&[Piece::Data(&first[..4096]), Piece::Data(&second)], &bytes);
        draft.regular(content, bytes.len() as u64, 1, 0);
        // Dead bytes lie before, between and behind the chunks.
        let pack = [&[1; 100], &first[..4096], &[2; 50], &second, &[3; 9]].concat();
        draft.pack.clear();
        draft.seal();
        draft.packs.push(RawPack {
            digest: sha256(&pack),
            bytes: (pack.len() as u64).into(),
            kind: 1.into(),
            ..RawPack::default()
        });
        draft.chunks[0].place = (1 << 48 | 100).into();
        draft.chunks[1].place = (1 << 48 | 4246).into();
        change(&mut draft);
        std::fs::write(dir.path().join("image"), draft.image()).expect("written");
        for bytes in [&pack[..], b"abc"] {
            let name = tesserafs_format::Digest(sha256(bytes)).to_string();
            std::fs::write(dir.path().join(name), bytes).expect("written");
        }
        let source = Source::open(&dir.path().join("image")).expect("opened");
        let report = check(&source, &one_thread(), &Silent, &Cancel::default());
        report.findings.iter().map(|finding| finding.rule).collect::<Vec<Rule>>()
    };
    assert_eq!(broken(&|_| ()), []);
    let unused = RawPack { digest: sha256(b"abc"), bytes: 3.into(), kind: 1.into(), ..RawPack::default() };
    assert_eq!(broken(&|draft| draft.packs.push(unused)), [Rule::MapPacks,]);
    // Twice the same, and the second one has no chunk.
    assert_eq!(broken(&|draft| draft.packs.push(draft.packs[1])), [Rule::MapPacks, Rule::MapPacks]);
    assert_eq!(
        broken(&|draft| {
            draft.chunks.swap(0, 1);
            draft.chunk_digests.swap(0, 1);
            draft.raw_digests.swap(0, 1);
            draft.extents[0].chunk = 1.into();
            draft.extents[1].chunk = 0.into();
        }),
        [Rule::MapChunks]
    );
}
