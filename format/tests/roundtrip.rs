// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A written value is parsed to the same value, and a parsed record is written to the same bytes: for each
//! record, over generated values and over damaged bytes. And the Merkle geometry against a model that is slow
//! and plain.

use std::fmt::Debug;

use proptest::prelude::*;
use tesserafs_format::extent::Extents;
use tesserafs_format::limits::{DATA_BLOCKS_MAX, MTIME_MAX, MTIME_MIN};
use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawDirent, RawExtent, RawInode, RawMap, RawPack, RawProfile,
    RawTree, RawXattrEntry, RawXattrSet,
};
use tesserafs_format::superblock::{check_prefix, Layout};
use tesserafs_format::{
    Annotation, Attributes, AttributesIndex, Chunk, ChunkIndex, Codec, ContentIndex, Digest, Directory,
    Dirent, Extent, FileKind, FileType, FormatError, Geometry, Ino, Inode, Pack, PackIndex, PackKind, Parent,
    Profile, SuperBlock, Target, Timestamp, XattrEntry, XattrSet, XattrSetIndex,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

mod common;

/// A layout with something in every table.
fn layout() -> Layout {
    let tree = RawTree {
        inodes: 1000.into(),
        attributes: 40.into(),
        dirents: 5000.into(),
        name_bytes: 100_000.into(),
        target_bytes: 10_000.into(),
        xattr_sets: 50.into(),
        xattr_bytes: 1_000_000.into(),
        contents: 700.into(),
    };
    let map = RawMap {
        packs: 3.into(),
        chunks: 800.into(),
        extents: 900.into(),
        annotations: 10.into(),
        annotation_bytes: 5000.into(),
        reserved: Default::default(),
    };
    Layout::new(1 << 30, &tree, &map).expect("a layout")
}

fn attributes_of(inode: &Inode) -> Attributes {
    let Inode { mode, uid, gid, xattrs, .. } = *inode;
    Attributes { file_type: inode.kind.file_type(), mode, uid, gid, xattrs }
}

/// Parses what was written, and writes it again; then damages a byte: where it still parses, it is written as it is.
fn round_trip<T, R>(
    value: T,
    raw: R,
    damage: (usize, u8),
    parse: impl Fn(&R) -> Result<T, FormatError>,
    write: impl Fn(&T) -> R,
) where
    T: PartialEq + Debug,
    R: FromBytes + IntoBytes + Immutable + PartialEq + Debug,
{
    assert_eq!(parse(&raw).as_ref(), Ok(&value));
    assert_eq!(write(&value), raw);
    let mut bytes = raw.as_bytes().to_vec();
    let at = damage.0 % bytes.len();
    bytes[at] ^= damage.1;
    let raw = R::read_from_bytes(&bytes).expect("as many bytes");
    if let Ok(value) = parse(&raw) {
        assert_eq!(write(&value), raw);
    }
}

fn damage() -> impl Strategy<Value = (usize, u8)> {
    (any::<usize>(), any::<u8>())
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

/// `len` from `start`, within `records`.
fn range(records: u64, least: u64, most: u64) -> impl Strategy<Value = (u64, u64)> {
    (least..=most).prop_flat_map(move |len| (0..=records - len, Just(len)))
}

fn ino() -> impl Strategy<Value = Ino> {
    (1..=1000_u32).prop_map(|number| Ino::from_number(number).expect("not 0"))
}

/// A directory whose names have room for 255 bytes.
fn directory() -> impl Strategy<Value = Directory> {
    (range(4999, 0, 4999), 0..6000_u64, ino()).prop_map(|((first, entries), names, parent)| Directory {
        first: first as u32,
        entries: entries as u32,
        names: names * 16,
        parent,
    })
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        Just(FileKind::Regular { size: 0, content: None }),
        (1..=i64::MAX as u64, 0..700_u32)
            .prop_map(|(size, index)| FileKind::Regular { size, content: Some(ContentIndex(index)) }),
        directory().prop_map(FileKind::Directory),
        range(10_000, 1, 4095).prop_map(|(offset, len)| FileKind::Symlink { offset: offset as u32, len }),
        Just(FileKind::Fifo),
        Just(FileKind::Socket),
        Just(FileKind::Whiteout),
    ]
}

fn file_type() -> impl Strategy<Value = FileType> {
    (1..=6_u8).prop_map(|value| FileType::try_from(value).expect("a type"))
}

prop_compose! {
    fn an_inode()(
        ino in 2..=1000_u32,
        kind in kind(),
        mode in 0..=0o7777_u16,
        ids in (0..u32::MAX, 0..u32::MAX),
        nlink in 1..=u32::MAX,
        sec in MTIME_MIN..=MTIME_MAX,
        nsec in 0..1_000_000_000_u32,
        index in 0..40_u32,
        xattrs in proptest::option::of(0..50_u32),
    ) -> Inode {
        let ino = Ino::from_number(ino).expect("not 0");
        let mtime = Timestamp { sec, nsec };
        let (mode, blocks) = match kind {
            FileKind::Regular { size, .. } => (mode, (size.div_ceil(4096) / 3).min(DATA_BLOCKS_MAX)),
            FileKind::Symlink { .. } => (0o777, 0),
            _ => (mode, 0),
        };
        let xattrs = xattrs.map(XattrSetIndex);
        let attributes = AttributesIndex(index);
        Inode { ino, kind, attributes, mode, uid: ids.0, gid: ids.1, nlink, mtime, blocks, xattrs }
    }
}

prop_compose! {
    fn a_chunk()(
        index in 0..800_u32,
        pack in 0..3_u16,
        offset in 0..1_u64 << 48,
        lens in (2..=1_u32 << 20).prop_flat_map(|raw| (Just(raw), 1..raw)),
        codec in prop_oneof![Just(Codec::Plain), Just(Codec::Zstd), Just(Codec::ZstdX86)],
        digest in digest(),
    ) -> Chunk {
        let stored_len = if codec == Codec::Plain { lens.0 } else { lens.1 };
        Chunk { index: ChunkIndex(index), pack: PackIndex(pack), offset, codec, stored_len, raw_len: lens.0, digest }
    }
}

prop_compose! {
    fn a_profile()(
        chunk_min in 2048..=8192_u32,
        more in (0..10_000_u32, 0..10_000_u32),
        group_size in 0..=512 * 1024_u32,
        small in any::<u32>(),
        hole in 1..=256_u32,
        level in 1..=22_u32,
        zstd_version in any::<u32>(),
    ) -> Profile {
        let (chunk_min, chunk_avg) = (chunk_min * 2, (chunk_min + more.0) * 2);
        let chunk_max = chunk_avg + more.1 * 2;
        let small_max = small % (group_size + 1);
        Profile { chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min: hole * 4096, level, zstd_version }
    }
}

prop_compose! {
    fn a_superblock()(
        profile in a_profile(),
        compat in any::<u64>(),
        digests in (digest(), digest(), digest()),
        signature_bytes in 0..=65536_u32,
        tree_offset in 1..1_u64 << 40,
        inodes in 1..10_000_u64,
        counts in any::<[u16; 11]>(),
    ) -> SuperBlock {
        let count = |n: usize| u64::from(counts[n]).into();
        let tree = RawTree {
            inodes: inodes.into(),
            dirents: count(0),
            name_bytes: count(1),
            target_bytes: count(2),
            xattr_sets: count(3),
            xattr_bytes: count(4),
            contents: count(5),
            attributes: count(10),
        };
        let map = RawMap {
            packs: (inodes % 1024 + 1).into(),
            chunks: count(6),
            extents: count(7),
            annotations: count(8),
            annotation_bytes: count(9),
            reserved: Default::default(),
        };
        let layout = Layout::new(tree_offset * 4096, &tree, &map).expect("a layout");
        let signature_digest = if signature_bytes == 0 { Digest::default() } else { digests.2 };
        SuperBlock {
            compat,
            layout,
            profile,
            merkle_root: digests.0,
            tree_id: digests.1,
            signature_bytes,
            signature_digest,
        }
    }
}

proptest! {
    #[test]
    fn superblocks(sb in a_superblock(), damage in damage()) {
        let parse = |raw: &tesserafs_format::raw::RawSuperBlock| {
            let block = raw.as_bytes().first_chunk().expect("a block");
            check_prefix::<common::Sha2>(block).and_then(|_| SuperBlock::parse(block))
        };
        // Within what can be told: behind it all is zero.
        let damage = (damage.0 % 0x250, damage.1);
        round_trip(sb, sb.to_raw::<common::Sha2>(), damage, parse, SuperBlock::to_raw::<common::Sha2>);
    }

    #[test]
    fn profiles(profile in a_profile(), damage in damage()) {
        round_trip(profile, profile.to_raw(), damage, |raw: &RawProfile| Profile::parse(raw), Profile::to_raw);
    }

    #[test]
    fn inodes(inode in an_inode(), damage in damage()) {
        let layout = layout();
        let parse = |raw: &RawInode| Inode::parse(raw, inode.ino, &attributes_of(&inode), &layout);
        let write = |inode: &Inode| inode.to_raw().expect("in range");
        round_trip(inode, write(&inode), damage, parse, write);
    }

    #[test]
    fn attributes(inode in an_inode(), damage in damage()) {
        let layout = layout();
        let attributes = attributes_of(&inode);
        let parse = |raw: &RawAttributes| Attributes::parse(raw, inode.attributes, &layout);
        round_trip(attributes, attributes.to_raw(), damage, parse, Attributes::to_raw);
    }

    #[test]
    fn times(sec in any::<i64>(), nsec in any::<u32>()) {
        let in_range = (MTIME_MIN..=MTIME_MAX).contains(&sec) && nsec < 1_000_000_000;
        prop_assert_eq!(Timestamp { sec, nsec }.to_raw().is_some(), in_range);
    }

    #[test]
    fn dirents(
        index in 0..5000_u32,
        ino in ino(),
        file_type in file_type(),
        directory in directory(),
        begin in 0..3000_u64,
        name_len in 1..=255_u8,
        damage in damage(),
    ) {
        let layout = layout();
        let dirent = Dirent { index, ino, file_type, name_offset: directory.names + begin, name_len };
        let next = Dirent::fence(begin + u64::from(name_len)).expect("in range");
        let parse = |raw: &RawDirent| Dirent::parse(raw, &next, index, &directory, &layout);
        let write = |dirent: &Dirent| {
            let begin = dirent.name_offset - directory.names;
            Dirent::to_raw(dirent.ino, dirent.file_type, begin).expect("in range")
        };
        round_trip(dirent, write(&dirent), damage, parse, write);
    }

    #[test]
    fn fences(names in 0..1_u64 << 30) {
        let raw = Dirent::fence(names);
        prop_assert_eq!(raw.is_some(), names < 1 << 29);
        if let Some(raw) = raw {
            prop_assert_eq!(Dirent::parse_fence(&raw, 0), Ok(names as u32));
        }
    }

    #[test]
    fn xattr_sets(units in range(125_000, 2, 1000), count in any::<u32>(), damage in damage()) {
        let layout = layout();
        let bytes = u32::try_from(units.1 * 8).expect("small");
        let count = count % (bytes / 16) + 1;
        let set = XattrSet { index: XattrSetIndex(7), offset: units.0 * 8, bytes, count };
        let parse = |raw: &RawXattrSet| XattrSet::parse(raw, set.index, &layout);
        round_trip(set, set.to_raw(), damage, parse, XattrSet::to_raw);
    }

    #[test]
    fn xattr_entries(name in "user\\.[a-z]{1,250}", value in proptest::collection::vec(any::<u8>(), 0..70_000)) {
        let raw: Option<RawXattrEntry> = XattrEntry::to_raw(name.as_bytes(), &value);
        prop_assert_eq!(raw.is_some(), value.len() <= 65536);
        let Some(raw) = raw else { return Ok(()) };
        let set = XattrSet { index: XattrSetIndex(0), offset: 64, bytes: 100_000, count: 1 };
        let entry = XattrEntry::parse(&raw, 64, &set).expect("an entry");
        prop_assert_eq!(usize::from(entry.name_len), name.len());
        prop_assert_eq!(entry.value_len as usize, value.len());
        prop_assert_eq!(entry.name_offset, 72);
        prop_assert_eq!(entry.value_offset, 72 + name.len() as u64);
        let bytes = tesserafs_format::xattr::entry_bytes(name.as_bytes(), &value).expect("small");
        prop_assert_eq!(entry.end, 64 + bytes);
        prop_assert_eq!(bytes % 8, 0);
    }

    #[test]
    fn packs(index in 0..3_u16, digest in digest(), bytes in 0..1_u64 << 29, damage in damage()) {
        let layout = layout();
        let kind = if index == 0 { PackKind::Embedded } else { PackKind::File };
        // There are other packs: nothing is in this one.
        let bytes = if index == 0 { 0 } else { bytes };
        let pack = Pack { index: PackIndex(index), kind, digest, bytes };
        round_trip(pack, pack.to_raw(), damage, |raw: &RawPack| Pack::parse(raw, pack.index, &layout), Pack::to_raw);
    }

    #[test]
    fn chunks(chunk in a_chunk(), damage in damage()) {
        let layout = layout();
        let parse = |raw: &RawChunk| Chunk::parse(raw, chunk.digest, chunk.index, &layout);
        let write = |chunk: &Chunk| chunk.to_raw().expect("in range");
        round_trip(chunk, write(&chunk), damage, parse, write);
        let far = Chunk { offset: 1 << 48, ..chunk };
        prop_assert!(far.to_raw().is_none());
    }

    #[test]
    fn extents(
        start in 0..1_u64 << 62,
        len in 1..1_u64 << 62,
        target in proptest::option::of((0..u32::MAX, any::<u32>())),
        damage in damage(),
    ) {
        let target = match target {
            None => Target::Hole,
            Some((index, offset)) => Target::Chunk { index: ChunkIndex(index), offset },
        };
        let extent = Extent { index: 5, start, end: start + len, target };
        prop_assert_eq!(extent.len(), len);
        let parse = |raw: &RawExtent| Extent::parse(raw, 5, start + len, start + len);
        round_trip(extent, extent.to_raw(), damage, parse, Extent::to_raw);
    }

    #[test]
    fn annotations(range in range(5000, 1, 3000), key in 1..=255_u32, damage in damage()) {
        let layout = layout();
        let key_len = key.min(range.1 as u32);
        let value_len = range.1 as u32 - key_len;
        let annotation = Annotation { index: 3, key_offset: range.0, key_len, value_len };
        let parse = |raw: &RawAnnotation| Annotation::parse(raw, 3, &layout);
        round_trip(annotation, annotation.to_raw(), damage, parse, Annotation::to_raw);
    }

    #[test]
    fn digests(digest in digest()) {
        let text = digest.to_string();
        prop_assert_eq!(Digest::from_hex(text.as_bytes()), Some(digest));
        prop_assert_eq!(Digest::from_hex(text.to_uppercase().as_bytes()), Some(digest));
        prop_assert_eq!(Digest::from_hex(&text.as_bytes()[1..]), None);
    }

    #[test]
    fn extents_are_found_by_position(cuts in proptest::collection::btree_set(1..100_000_u64, 0..40), pos in 0..100_000_u64) {
        let mut draft = common::Draft::empty();
        draft.directory(1, 0, 2, 0);
        let ends: Vec<u64> = cuts.into_iter().chain([100_000]).collect();
        let starts = [0].into_iter().chain(ends.iter().copied()).zip(&ends);
        let pieces: Vec<_> = starts.map(|(start, end)| common::Piece::Hole(end - start)).collect();
        draft.content_of_digest(&pieces, [0; 32]);
        let bytes = draft.image();
        let sb = SuperBlock::parse(common::first_block(&bytes)).expect("a superblock");
        let memory = common::Memory(&bytes);
        let image = tesserafs_format::Image::new(&sb, &memory);
        let extents: Extents = image.extents(ContentIndex(0), 100_000).expect("extents");
        let extent = image.extent_at(&extents, pos).expect("an extent");
        prop_assert!((extent.start..extent.end).contains(&pos));
        prop_assert_eq!(extent.end, *ends.iter().find(|end| **end > pos).expect("an end"));
    }

    #[test]
    fn a_byte_is_found_in_one_extent_however_they_begin(
        cuts in proptest::collection::btree_set(1..40_u64, 0..12),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..40_u64), 0..3),
    ) {
        let mut starts: Vec<u64> = [0].into_iter().chain(cuts).collect();
        for (index, start) in changes {
            let index = index.index(starts.len());
            starts[index] = start;
        }
        let mut draft = common::Draft::empty();
        draft.directory(1, 0, 2, 0);
        let pieces: Vec<_> = starts.iter().map(|_| common::Piece::Hole(1)).collect();
        draft.content_of_digest(&pieces, [0; 32]);
        for (extent, start) in draft.extents.iter_mut().zip(&starts) {
            extent.file_offset = (*start).into();
        }
        let bytes = draft.image();
        let sb = SuperBlock::parse(common::first_block(&bytes)).expect("a superblock");
        let memory = common::Memory(&bytes);
        let image = tesserafs_format::Image::new(&sb, &memory);
        let extents: Extents = image.extents(ContentIndex(0), 40).expect("extents");
        let at: Vec<_> = (0..40).map(|pos| image.extent_at(&extents, pos)).collect();
        for found in at.iter().flatten() {
            prop_assert!(at[found.start as usize..found.end as usize].iter().all(|other| *other == Ok(*found)));
        }
        for found in at.iter().flatten() {
            // A reader that goes on to the next extents gets the same ones, as far as the last is found.
            let mut run = vec![*found];
            let next = |index| (index < extents.end).then(|| image.extent(&extents, index).ok()).flatten();
            while let Some(extent) = next(found.index + run.len() as u32) {
                run.push(extent);
                if image.check_run(&extents, &extent).is_err() {
                    continue;
                }
                for extent in &run {
                    let is_it = |other: &Result<Extent, _>| other.is_err() || *other == Ok(*extent);
                    prop_assert!(at[extent.start as usize..extent.end as usize].iter().all(is_it));
                }
            }
        }
    }

    #[test]
    fn geometry_is_that_of_the_model(blocks in prop_oneof![1..=600_u64, 16_000..=17_000_u64, 2_097_000..=2_098_000_u64]) {
        compare_geometry(blocks);
    }
}

/// Writes the levels down block by block, as the specification says them, and compares each parent.
fn compare_geometry(blocks: u64) {
    let geometry = Geometry::new(blocks).expect("not too many");
    // Level 0 is over metadata, each further one over the one before, until there is one block.
    let mut counts = vec![blocks.div_ceil(128)];
    while counts[counts.len() - 1] > 1 {
        counts.push(counts[counts.len() - 1].div_ceil(128));
    }
    // The last level comes first.
    let mut starts = vec![0; counts.len()];
    let mut at = blocks;
    for level in (0..counts.len()).rev() {
        starts[level] = at;
        at += counts[level];
    }
    assert_eq!(geometry.total_blocks(), at);
    assert_eq!(geometry.metadata_blocks(), blocks);
    let levels: Vec<(u64, u64)> = geometry.levels().collect();
    assert_eq!(levels, starts.iter().copied().zip(counts.iter().copied()).collect::<Vec<_>>());
    let slot = |start: u64, n: u64| Some(Parent::Slot { block: start + n / 128, offset: n % 128 * 32 });
    let step = (blocks / 997).max(1);
    for n in (0..blocks).step_by(step as usize).chain([blocks - 1]) {
        assert_eq!(geometry.parent(n), slot(starts[0], n), "metadata block {n} of {blocks}");
    }
    for level in 0..counts.len() - 1 {
        for n in 0..counts[level] {
            assert_eq!(
                geometry.parent(starts[level] + n),
                slot(starts[level + 1], n),
                "level {level}, block {n}"
            );
        }
    }
    assert_eq!(geometry.parent(starts[counts.len() - 1]), Some(Parent::Root));
    assert_eq!(geometry.parent(at), None);
}

#[test]
fn geometry_at_its_limits() {
    assert_eq!(Geometry::new(0), None);
    for blocks in [1, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_152, 2_097_153] {
        compare_geometry(blocks);
    }
    let most = 128_u64.pow(5);
    assert!(Geometry::new(most).is_some());
    assert_eq!(Geometry::new(most + 1), None);
}
