// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One broken image for each rule that this crate can refuse by itself: the right rule, at the right place.
//! Rules that only a reader of the whole image can check are tested with fsck.

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{
    ChunkIndex, ContentIndex, Directory, FileKind, FormatError, Image, Ino, PackIndex, Place, Rule,
    SuperBlock, Target, XattrSetIndex,
};

mod common;

use common::{first_block, superblock, Draft, DraftInode, Memory, Tables};

type Image0<'a> = Image<'a, Memory<'a>>;

/// How the broken part is read.
enum Read {
    /// The superblock is parsed.
    SuperBlock(fn(&mut Vec<u8>)),
    /// Records are changed, and then read.
    Records(fn(&mut Draft), fn(Image0<'_>) -> Result<(), FormatError>),
    /// The tables of inodes and names are changed, and then read.
    Raw(fn(&mut Tables), fn(Image0<'_>) -> Result<(), FormatError>),
}
use Read::{Raw, Records, SuperBlock as Head};

fn inode(image: Image0<'_>, number: u32) -> Result<(), FormatError> {
    image.inode(Ino::from_number(number).expect("not 0")).map(drop)
}

fn directory(image: Image0<'_>, ino: Ino) -> Result<Directory, FormatError> {
    let FileKind::Directory(directory) = image.inode(ino)?.kind else { panic!("a directory") };
    Ok(directory)
}

/// Reads a name of the root.
fn name(image: Image0<'_>, n: u32) -> Result<(), FormatError> {
    let dirent = image.dirent(&directory(image, Ino::ROOT)?, n)?.expect("an entry");
    image.name(&dirent, &mut [0; NAME_MAX]).map(drop)
}

fn xattrs(image: Image0<'_>, set: u32) -> Result<(), FormatError> {
    let mut cursor = image.xattrs(image.xattr_set(XattrSetIndex(set))?);
    while cursor.next(&mut [0; XATTR_NAME_MAX])?.is_some() {}
    Ok(())
}

/// Finds the extent of a byte of a content of the sample.
fn extent_at(image: Image0<'_>, index: u32, size: u64, pos: u64) -> Result<(), FormatError> {
    let extents = image.extents(ContentIndex(index), size)?;
    image.extent_at(&extents, pos).map(drop)
}

/// Follows the extents of a content of the sample to their chunks and packs.
fn content(image: Image0<'_>, index: u32, size: u64) -> Result<(), FormatError> {
    let extents = image.extents(ContentIndex(index), size)?;
    for number in extents.first..extents.end {
        let extent = image.extent(&extents, number)?;
        if let Target::Chunk { index, .. } = extent.target {
            let chunk = image.chunk(index)?;
            extent.check_range(&chunk)?;
            chunk.check_range(&image.pack(chunk.pack)?)?;
        }
    }
    Ok(())
}

fn chunk(image: Image0<'_>, index: u32) -> Result<(), FormatError> {
    image.chunk(ChunkIndex(index)).map(drop)
}

fn cases() -> Vec<(Rule, Place, Read)> {
    use Place::{
        Annotation, Attributes, Chunk, Content, Dirent, Extent, Ino as Number, Pack, SuperBlock as Byte,
        XattrSet,
    };
    let good = |_: &mut Draft| ();
    vec![
        (Rule::Magic, Byte(0), Head(|i| i[0] = 0)),
        (Rule::Version, Byte(8), Head(|i| i[8] = 0)),
        (Rule::Incompat, Byte(0x18), Head(|i| i[0x1f] = 0x80)),
        (Rule::SuperBlockPadding, Byte(0xc), Head(|i| i[0xc] = 1)),
        (Rule::SuperBlockPadding, Byte(0x30), Head(|i| i[0x3f] = 1)),
        (Rule::SuperBlockPadding, Byte(0xa8), Head(|i| i[0xbf] = 1)),
        (Rule::SuperBlockPadding, Byte(0x120), Head(|i| i[0x1ff] = 1)),
        (Rule::SuperBlockPadding, Byte(0x224), Head(|i| i[0x22f] = 1)),
        (Rule::SuperBlockPadding, Byte(0x230), Head(|i| i[0x24f] = 1)),
        (Rule::SuperBlockPadding, Byte(0x250), Head(|i| i[0xfff] = 1)),
        (Rule::Count, Byte(0x40), Head(|i| superblock(i, |sb| sb.tree.inodes = 0.into()))),
        (Rule::Count, Byte(0x40), Head(|i| superblock(i, |sb| sb.tree.inodes = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x48), Head(|i| superblock(i, |sb| sb.tree.attributes = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x50), Head(|i| superblock(i, |sb| sb.tree.dirents = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x58), Head(|i| superblock(i, |sb| sb.tree.name_bytes = (1 << 37).into()))),
        (Rule::Count, Byte(0x60), Head(|i| superblock(i, |sb| sb.tree.target_bytes = (1 << 32).into()))),
        (Rule::Count, Byte(0x68), Head(|i| superblock(i, |sb| sb.tree.xattr_sets = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x70), Head(|i| superblock(i, |sb| sb.tree.xattr_bytes = u64::MAX.into()))),
        (Rule::Count, Byte(0x78), Head(|i| superblock(i, |sb| sb.tree.contents = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x80), Head(|i| superblock(i, |sb| sb.map.packs = 0.into()))),
        (Rule::Count, Byte(0x80), Head(|i| superblock(i, |sb| sb.map.packs = 1025.into()))),
        (Rule::Count, Byte(0x88), Head(|i| superblock(i, |sb| sb.map.chunks = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x90), Head(|i| superblock(i, |sb| sb.map.extents = 0xffff_ffff.into()))),
        (Rule::Count, Byte(0x98), Head(|i| superblock(i, |sb| sb.map.annotations = 65536.into()))),
        (Rule::Count, Byte(0xa0), Head(|i| superblock(i, |sb| sb.map.annotation_bytes = u64::MAX.into()))),
        // All of them together are too much.
        (Rule::Count, Byte(0x40), Head(|i| superblock(i, |sb| sb.tree.xattr_bytes = (1 << 46).into()))),
        (Rule::RegionOffset, Byte(0x28), Head(|i| superblock(i, |sb| sb.tree_offset = 0.into()))),
        (Rule::RegionOffset, Byte(0x28), Head(|i| superblock(i, |sb| sb.tree_offset = 4097.into()))),
        (Rule::RegionOffset, Byte(0x28), Head(|i| superblock(i, |sb| sb.tree_offset = (1 << 63).into()))),
        (Rule::ImageBytes, Byte(0x20), Head(|i| superblock(i, |sb| sb.image_bytes = 4096.into()))),
        (Rule::ProfileRange, Byte(0xc0), Head(|i| superblock(i, |sb| sb.profile.chunk_min = 4094.into()))),
        (Rule::ProfileRange, Byte(0xc0), Head(|i| superblock(i, |sb| sb.profile.chunk_min = 4097.into()))),
        (Rule::ProfileRange, Byte(0xc4), Head(|i| superblock(i, |sb| sb.profile.chunk_avg = 4094.into()))),
        (Rule::ProfileRange, Byte(0xc4), Head(|i| superblock(i, |sb| sb.profile.chunk_avg = 16385.into()))),
        (Rule::ProfileRange, Byte(0xc8), Head(|i| superblock(i, |sb| sb.profile.chunk_max = 4096.into()))),
        (
            Rule::ProfileRange,
            Byte(0xc8),
            Head(|i| superblock(i, |sb| sb.profile.chunk_max = 0x10_0002.into())),
        ),
        (Rule::ProfileRange, Byte(0xc8), Head(|i| superblock(i, |sb| sb.profile.chunk_max = 65537.into()))),
        (
            Rule::ProfileRange,
            Byte(0xcc),
            Head(|i| superblock(i, |sb| sb.profile.group_size = 0x8_0001.into())),
        ),
        (Rule::ProfileRange, Byte(0xd0), Head(|i| superblock(i, |sb| sb.profile.small_max = 65537.into()))),
        (Rule::ProfileRange, Byte(0xd4), Head(|i| superblock(i, |sb| sb.profile.hole_min = 0.into()))),
        (Rule::ProfileRange, Byte(0xd4), Head(|i| superblock(i, |sb| sb.profile.hole_min = 4097.into()))),
        (
            Rule::ProfileRange,
            Byte(0xd4),
            Head(|i| superblock(i, |sb| sb.profile.hole_min = (257 * 4096).into())),
        ),
        (Rule::ProfileRange, Byte(0xd8), Head(|i| superblock(i, |sb| sb.profile.level = 0.into()))),
        (Rule::ProfileRange, Byte(0xd8), Head(|i| superblock(i, |sb| sb.profile.level = 23.into()))),
        (Rule::PrefixDigest, Byte(0x200), Head(|i| i[0x210] ^= 1)),
        (Rule::SignatureBytes, Byte(0x220), Head(|i| superblock(i, |sb| sb.signature_bytes = 65537.into()))),
        // Inodes.
        (Rule::InodeNumber, Number(15), Records(good, |i| inode(i, 15))),
        (Rule::InodeAttributes, Number(5), Raw(|t| t.inodes[4].attributes = 9.into(), |i| inode(i, 5))),
        (Rule::AttributesType, Attributes(4), Records(|d| d.inodes[4].file_type = 0, |i| inode(i, 5))),
        (Rule::AttributesPadding, Attributes(4), Raw(|t| t.attributes[4].reserved = 1, |i| inode(i, 5))),
        (Rule::AttributesMode, Attributes(4), Records(|d| d.inodes[4].mode = 0x8000.into(), |i| inode(i, 5))),
        (Rule::AttributesMode, Attributes(5), Records(|d| d.inodes[6].mode = 0o755.into(), |i| inode(i, 7))),
        (
            Rule::AttributesOwner,
            Attributes(4),
            Records(|d| d.inodes[4].uid = u32::MAX.into(), |i| inode(i, 5)),
        ),
        (
            Rule::AttributesOwner,
            Attributes(4),
            Records(|d| d.inodes[4].gid = u32::MAX.into(), |i| inode(i, 5)),
        ),
        (Rule::AttributesXattrs, Attributes(1), Records(|d| d.inodes[1].xattrs = 3.into(), |i| inode(i, 2))),
        (Rule::InodeBlocks, Number(3), Records(|d| d.inodes[2].blocks = 4.into(), |i| inode(i, 3))),
        (Rule::InodePadding, Number(5), Raw(|t| t.inodes[4].extra = 1.into(), |i| inode(i, 5))),
        (Rule::InodePadding, Number(5), Raw(|t| t.inodes[4].start = 1.into(), |i| inode(i, 5))),
        (Rule::InodePadding, Number(7), Raw(|t| t.inodes[6].extra = 1.into(), |i| inode(i, 7))),
        (Rule::InodePadding, Number(4), Records(|d| d.inodes[3].start = 1.into(), |i| inode(i, 4))),
        (Rule::InodeNlink, Number(5), Records(|d| d.inodes[4].nlink = 0.into(), |i| inode(i, 5))),
        (
            Rule::InodeTime,
            Number(5),
            Records(|d| d.inodes[4].mtime_nsec = 1_000_000_000.into(), |i| inode(i, 5)),
        ),
        (Rule::InodeSize, Number(3), Records(|d| d.inodes[2].size = (1 << 63).into(), |i| inode(i, 3))),
        (Rule::InodeSize, Number(7), Records(|d| d.inodes[6].size = 0.into(), |i| inode(i, 7))),
        (Rule::InodeSize, Number(7), Records(|d| d.inodes[6].size = 4096.into(), |i| inode(i, 7))),
        (Rule::InodeSize, Number(9), Records(|d| d.inodes[8].size = 1.into(), |i| inode(i, 9))),
        (Rule::InodeContent, Number(3), Records(|d| d.inodes[2].start = 4.into(), |i| inode(i, 3))),
        (Rule::InodeEntries, Number(2), Records(|d| d.inodes[1].start = u32::MAX.into(), |i| inode(i, 2))),
        // The fence is not in the table.
        (Rule::InodeEntries, Number(11), Records(|d| d.inodes[10].size = 2.into(), |i| inode(i, 11))),
        (Rule::InodeNames, Number(2), Raw(|t| t.inodes[1].size = (4 | 6 << 32).into(), |i| inode(i, 2))),
        (Rule::InodeTarget, Number(7), Records(|d| d.inodes[6].start = 2.into(), |i| inode(i, 7))),
        (Rule::InodeParent, Number(2), Records(|d| d.inodes[1].parent = 0.into(), |i| inode(i, 2))),
        (Rule::InodeParent, Number(2), Records(|d| d.inodes[1].parent = 15.into(), |i| inode(i, 2))),
        (
            Rule::RootType,
            Number(1),
            Records(|d| d.inodes[0] = DraftInode { file_type: 4, ..common::inode(1) }, |i| inode(i, 1)),
        ),
        (Rule::RootType, Number(1), Records(|d| d.inodes[0].parent = 2.into(), |i| inode(i, 1))),
        // Entries.
        (
            Rule::InodeEntries,
            Dirent(17),
            Records(good, |i| {
                let root = directory(i, Ino::ROOT)?;
                i.dirent(&Directory { first: 17, ..root }, 0).map(drop)
            }),
        ),
        // The next entry begins where this one does, or before, or too far behind.
        (Rule::DirentNameLength, Dirent(0), Raw(|t| *begin(t, 1) = 0.into(), |i| name(i, 0))),
        (Rule::DirentNameLength, Dirent(1), Raw(|t| *begin(t, 2) = 0.into(), |i| name(i, 1))),
        (Rule::DirentNameLength, Dirent(0), Raw(|t| *begin(t, 1) = 256.into(), |i| name(i, 0))),
        (
            Rule::DirentNameRange,
            Dirent(15),
            Raw(
                |t| *begin(t, 16) = 17.into(),
                |i| {
                    let ino = Ino::from_number(11).expect("not 0");
                    i.dirent(&directory(i, ino)?, 0).map(drop)
                },
            ),
        ),
        (Rule::DirentNameBytes, Dirent(0), Raw(|t| t.names[0] = b'.', |i| name(i, 0))),
        (Rule::DirentNameBytes, Dirent(1), Raw(|t| t.names[2] = b'/', |i| name(i, 1))),
        (Rule::DirentNameBytes, Dirent(1), Raw(|t| t.names[3] = 0, |i| name(i, 1))),
        (Rule::DirentNameBytes, Dirent(8), Records(|d| d.dirents[8].name = b"..".to_vec(), |i| name(i, 8))),
        (Rule::DirentInode, Dirent(0), Records(|d| d.dirents[0].ino = 0.into(), |i| name(i, 0))),
        (Rule::DirentInode, Dirent(0), Records(|d| d.dirents[0].ino = 15.into(), |i| name(i, 0))),
        (Rule::DirentType, Dirent(0), Records(|d| d.dirents[0].file_type = 7, |i| name(i, 0))),
        (Rule::DirentFence, Dirent(9), Raw(|t| t.dirents[9].ino = 1.into(), fence)),
        (Rule::DirentFence, Dirent(9), Raw(|t| *begin(t, 9) = (33 | 1 << 29).into(), fence)),
        (
            Rule::TargetBytes,
            Number(7),
            Records(
                |d| d.targets[9] = 0,
                |i| {
                    let ino = Ino::from_number(7).expect("not 0");
                    let FileKind::Symlink { offset, len } = i.inode(ino)?.kind else { panic!("a symlink") };
                    i.target(ino, offset, &mut vec![0; len as usize])
                },
            ),
        ),
        // Xattrs.
        (Rule::XattrSetRange, XattrSet(2), Records(good, |i| xattrs(i, 2))),
        (Rule::XattrSetRange, XattrSet(1), Records(|d| d.xattr_sets[1].offset = 4.into(), |i| xattrs(i, 1))),
        (
            Rule::XattrSetRange,
            XattrSet(1),
            Records(|d| d.xattr_sets[1].offset = (1 << 40).into(), |i| xattrs(i, 1)),
        ),
        (Rule::XattrSetCount, XattrSet(1), Records(|d| d.xattr_sets[1].count = 0.into(), |i| xattrs(i, 1))),
        (
            Rule::XattrSetCount,
            XattrSet(1),
            Records(|d| d.xattr_sets[1].count = u32::MAX.into(), |i| xattrs(i, 1)),
        ),
        // One entry fewer than there are.
        (Rule::XattrSetCount, XattrSet(0), Records(|d| d.xattr_sets[0].count = 1.into(), |i| xattrs(i, 0))),
        (Rule::XattrEntryRange, XattrSet(1), Records(|d| *entry(d, 0) = 9, |i| xattrs(i, 1))),
        (Rule::XattrName, XattrSet(1), Records(|d| *entry(d, 4) = 0, |i| xattrs(i, 1))),
        (Rule::XattrName, XattrSet(1), Records(|d| *entry(d, 4) = 5, |i| xattrs(i, 1))),
        (Rule::XattrName, XattrSet(1), Records(|d| *entry(d, 8) = b's', |i| xattrs(i, 1))),
        (Rule::XattrName, XattrSet(1), Records(|d| *entry(d, 13) = 0, |i| xattrs(i, 1))),
        (Rule::XattrValueLength, XattrSet(1), Records(|d| *entry(d, 3) = 1, |i| xattrs(i, 1))),
        (Rule::XattrPadding, XattrSet(1), Records(|d| *entry(d, 7) = 1, |i| xattrs(i, 1))),
        // Packs and chunks.
        (Rule::PackIndex, Pack(1), Records(good, |i| i.pack(PackIndex(1)).map(drop))),
        (Rule::PackIndex, Chunk(0), Records(|d| d.chunks[0].place = (1 << 48).into(), |i| chunk(i, 0))),
        (
            Rule::PackKind,
            Pack(0),
            Records(|d| d.packs[0].kind = 1.into(), |i| i.pack(PackIndex(0)).map(drop)),
        ),
        (Rule::PackKind, Pack(1), Records(|d| d.packs.push(d.packs[0]), |i| i.pack(PackIndex(1)).map(drop))),
        (
            Rule::PackBytes,
            Pack(0),
            Records(|d| d.packs[0].bytes = 16385.into(), |i| i.pack(PackIndex(0)).map(drop)),
        ),
        // Chunks lie in the image or beside it.
        (Rule::PackBytes, Pack(0), Records(|d| d.packs.push(d.packs[0]), |i| i.pack(PackIndex(0)).map(drop))),
        (
            Rule::PackPadding,
            Pack(0),
            Records(|d| d.packs[0].reserved[4] = 1.into(), |i| i.pack(PackIndex(0)).map(drop)),
        ),
        (Rule::ChunkIndex, Chunk(5), Records(good, |i| chunk(i, 5))),
        (Rule::ChunkIndex, Chunk(5), Records(|d| d.extents[0].chunk = 5.into(), |i| content(i, 0, 9096))),
        (
            Rule::ChunkCodec,
            Chunk(0),
            Records(|d| d.chunks[0].stored = (3 << 24 | 5000).into(), |i| chunk(i, 0)),
        ),
        (Rule::ChunkRawLength, Chunk(0), Records(|d| d.chunks[0].raw_len = 0.into(), |i| chunk(i, 0))),
        (
            Rule::ChunkRawLength,
            Chunk(0),
            Records(|d| d.chunks[0].raw_len = 0x10_0001.into(), |i| chunk(i, 0)),
        ),
        (Rule::ChunkStoredLength, Chunk(0), Records(|d| d.chunks[0].stored = 4999.into(), |i| chunk(i, 0))),
        (
            Rule::ChunkStoredLength,
            Chunk(0),
            Records(|d| d.chunks[0].stored = (1 << 24 | 5000).into(), |i| chunk(i, 0)),
        ),
        (
            Rule::ChunkStoredLength,
            Chunk(0),
            Records(|d| d.chunks[0].stored = (1 << 24).into(), |i| chunk(i, 0)),
        ),
        (Rule::ChunkRange, Chunk(0), Records(|d| d.chunks[0].place = 13316.into(), |i| content(i, 0, 9096))),
        // Contents and extents.
        (Rule::ContentIndex, Content(4), Records(good, |i| content(i, 4, 1))),
        (Rule::ContentIndex, Content(4), Records(good, |i| i.content_digest(ContentIndex(4)).map(drop))),
        (
            Rule::ContentExtents,
            Content(1),
            Records(|d| d.content_map[1].first_extent = 5.into(), |i| content(i, 1, 12388)),
        ),
        (
            Rule::ContentExtents,
            Content(3),
            Records(|d| d.content_map[3].first_extent = 7.into(), |i| content(i, 3, 7)),
        ),
        (
            Rule::ExtentOrder,
            Extent(0),
            Records(|d| d.extents[0].file_offset = 1.into(), |i| content(i, 0, 9096)),
        ),
        (
            Rule::ExtentOrder,
            Extent(0),
            Records(|d| d.extents[1].file_offset = 0.into(), |i| content(i, 0, 9096)),
        ),
        (
            Rule::ExtentOrder,
            Extent(0),
            Records(|d| d.extents[1].file_offset = 9097.into(), |i| content(i, 0, 9096)),
        ),
        (
            Rule::ExtentOrder,
            Extent(1),
            Records(
                |d| d.extents[1].file_offset = 9096.into(),
                |i| {
                    let extents = i.extents(ContentIndex(0), 9096)?;
                    i.extent(&extents, 1).map(drop)
                },
            ),
        ),
        // A search finds neither the second of two that begin at one place, nor one that begins at the end.
        (
            Rule::ExtentOrder,
            Extent(1),
            Records(|d| d.extents[1].file_offset = 0.into(), |i| extent_at(i, 0, 9096, 0)),
        ),
        (
            Rule::ExtentOrder,
            Extent(1),
            Records(|d| d.extents[1].file_offset = 9096.into(), |i| extent_at(i, 0, 9096, 0)),
        ),
        (
            Rule::ExtentLength,
            Extent(0),
            Records(|d| d.extents[1].file_offset = 4095.into(), |i| content(i, 0, 9096)),
        ),
        (
            Rule::ExtentHole,
            Extent(3),
            Records(|d| d.extents[3].chunk_offset = 1.into(), |i| content(i, 1, 12388)),
        ),
        (
            Rule::ExtentRange,
            Extent(0),
            Records(|d| d.extents[0].chunk_offset = 1.into(), |i| content(i, 0, 9096)),
        ),
        // Annotations.
        (Rule::AnnotationRange, Annotation(2), Records(good, |i| i.annotation(2).map(drop))),
        (
            Rule::AnnotationRange,
            Annotation(1),
            Records(|d| d.annotations[1].value_len = 10.into(), |i| i.annotation(1).map(drop)),
        ),
        (
            Rule::AnnotationKey,
            Annotation(1),
            Records(|d| d.annotations[1].key_len = 0.into(), |i| i.annotation(1).map(drop)),
        ),
        (
            Rule::AnnotationKey,
            Annotation(1),
            Records(|d| d.annotations[1].key_len = 256.into(), |i| i.annotation(1).map(drop)),
        ),
    ]
}

/// A byte of the only entry of set 1.
fn entry(draft: &mut Draft, at: usize) -> &mut u8 {
    let start = draft.xattr_sets[1].offset.get() as usize;
    &mut draft.xattr_entries[start + at]
}

/// Where the name of an entry begins, and its type.
fn begin(tables: &mut Tables, index: usize) -> &mut zerocopy::little_endian::U32 {
    &mut tables.dirents[index].name
}

fn fence(image: Image0<'_>) -> Result<(), FormatError> {
    image.fence(&directory(image, Ino::ROOT)?).map(drop)
}

fn read_draft(draft: &Draft, read: fn(Image0<'_>) -> Result<(), FormatError>) -> Result<(), FormatError> {
    let image = draft.image();
    let sb = SuperBlock::parse(first_block(&image))?;
    read(Image::new(&sb, &Memory(&image)))
}

fn outcome(read: &Read) -> Result<(), FormatError> {
    let mut draft = Draft::sample();
    match read {
        Head(change) => {
            let mut image = draft.image();
            change(&mut image);
            let block = first_block(&image);
            SuperBlock::parse(block).and_then(|_| check_prefix::<common::Sha2>(block)).map(drop)
        }
        Records(change, read) => {
            change(&mut draft);
            read_draft(&draft, *read)
        }
        Raw(change, read) => {
            draft.change = Some(*change);
            read_draft(&draft, *read)
        }
    }
}

#[test]
fn each_broken_record_is_refused_by_its_rule() {
    let mut failures = Vec::new();
    for (number, (rule, place, read)) in cases().iter().enumerate() {
        match outcome(read) {
            Err(error) if error.rule == *rule && error.place == *place => (),
            other => failures.push(format!("case {number}: {} @ {place}: {other:?}", rule.name())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_sample_is_read_without_a_complaint() {
    let image = Draft::sample().image();
    let sb = SuperBlock::parse(first_block(&image)).expect("a superblock");
    assert_eq!(sb.file_bytes(), image.len() as u64);
    common::check_merkle(&image);
    let memory = Memory(&image);
    let read = Image::new(&sb, &memory);
    (1..=14).for_each(|number| inode(read, number).expect("an inode"));
    (0..9).for_each(|n| name(read, n).expect("a name"));
    let root = directory(read, Ino::ROOT).expect("the root");
    assert_eq!(read.dirent(&root, 9), Ok(None));
    assert_eq!(read.fence(&root), Ok(33));
    (0..2).for_each(|set| xattrs(read, set).expect("a set"));
    for (index, size) in [(0, 9096), (1, 12388), (2, 17), (3, 7)] {
        content(read, index, size).expect("a content");
    }
    assert_eq!(read.lookup(&root, b"hole").expect("a lookup").expect("found").ino.get(), 6);
    assert_eq!(read.lookup(&root, b"holf").expect("a lookup"), None);
    let mut magic = [0; 8];
    memory.read(0, &mut magic).expect("bytes");
    assert_eq!(&magic, b"TESSRAFS");
}

/// Rules that only a reader of the whole image can see, or that need more than this crate: tested in `fsck-tool/tests`.
const WHOLE_IMAGE: &[Rule] = &[
    Rule::FileLength,
    Rule::HashBlock,
    Rule::ImageId,
    Rule::SignatureDigest,
    Rule::Signature,
    Rule::TreeId,
    Rule::DirentOrder,
    Rule::XattrOrder,
    Rule::PackDigest,
    Rule::ChunkDigest,
    Rule::ChunkDecode,
    Rule::ChunkFrame,
    Rule::ChunkBlocks,
    Rule::AnnotationOrder,
    Rule::TablePadding,
    Rule::HashPadding,
    Rule::TreeOrder,
    Rule::TreeUnreachable,
    Rule::TreeParent,
    Rule::TreeNlink,
    Rule::TreeEntries,
    Rule::TreeNames,
    Rule::TreeTargets,
    Rule::TreeAttributes,
    Rule::TreeXattrs,
    Rule::XattrListLength,
    Rule::XattrSettable,
    Rule::TreeContents,
    Rule::ContentSize,
    Rule::ContentDigest,
    Rule::ContentHoles,
    Rule::MapExtents,
    Rule::MapChunks,
    Rule::MapPacks,
    Rule::RawDigest,
    Rule::SignaturePadding,
    Rule::Canonical,
];

#[test]
fn every_rule_is_tested() {
    let here: Vec<Rule> = cases().iter().map(|case| case.0).collect();
    let fsck = [
        include_str!("../../fsck-tool/tests/rules.rs"),
        include_str!("../../fsck-tool/tests/signature.rs"),
        include_str!("../../fsck-tool/tests/settable.rs"),
    ]
    .concat();
    for rule in Rule::ALL {
        let is_here = here.contains(rule);
        let is_there = WHOLE_IMAGE.contains(rule);
        assert!(is_here != is_there, "{}: here {is_here}, in WHOLE_IMAGE {is_there}", rule.name());
        let used = fsck.contains(&format!("Rule::{rule:?},"));
        assert!(is_here || used, "{} is not tested in fsck-tool/tests", rule.name());
    }
}
