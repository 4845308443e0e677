// SPDX-License-Identifier: GPL-2.0-or-later

//! The records of all tables, each by itself, against a layout of any counts.
//!
//! Invariant: an error that can be printed, or a record that is written again to the same bytes, and whose ranges lie
//! in the tables that it points into. No panic, no overflow.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawDirent, RawExtent, RawInode, RawPack, RawProfile,
    RawXattrEntry, RawXattrSet,
};
use tesserafs_format::xattr::{entry_bytes, is_valid_name};
use tesserafs_format::{
    Annotation, Attributes, AttributesIndex, Chunk, ChunkIndex, Digest, Directory, Dirent, Extent, FileKind,
    FormatError, Ino, Inode, Pack, PackIndex, Profile, SuperBlock, Target, XattrEntry, XattrSet,
    XattrSetIndex,
};
use tesserafs_fuzz::input::Input;
use tesserafs_fuzz::tables::Tables;
use zerocopy::{FromBytes, Immutable, IntoBytes};

fuzz_target!(|data: &[u8]| {
    // Counts as an input of tables has them; the rest are the bytes of records.
    let Some(tables) = Tables::parse(data) else { return };
    let records = &data[data.len().min(26)..];
    tree_records(&tables.sb, records);
    map_records(&tables.sb, records);
    if let Some(digest) = Digest::from_hex(records) {
        assert_eq!(digest.to_string().as_bytes(), records.to_ascii_lowercase());
    }
    if is_valid_name(records) {
        assert!(records.len() <= 255 && records.contains(&b'.') && !records.contains(&0));
    }
});

/// Parses a record from the first bytes, and writes it again.
fn round_trip<R, T>(
    bytes: &[u8],
    parse: impl Fn(&R) -> Result<T, FormatError>,
    write: impl Fn(&T) -> Option<R>,
) -> Option<T>
where
    R: FromBytes + IntoBytes + Immutable,
{
    let (raw, _) = R::read_from_prefix(bytes).ok()?;
    match parse(&raw) {
        Ok(value) => {
            let written = write(&value).expect("what was parsed can be written");
            assert!(written.as_bytes() == raw.as_bytes(), "{:?} is written otherwise", raw.as_bytes());
            Some(value)
        }
        Err(error) => {
            assert!(error.to_string().contains(error.rule.text()));
            None
        }
    }
}

fn tree_records(sb: &SuperBlock, bytes: &[u8]) {
    let layout = &sb.layout;
    let index = AttributesIndex(0);
    let attributes =
        round_trip(bytes, |raw: &RawAttributes| Attributes::parse(raw, index, layout), |a| Some(a.to_raw()));
    let Some(attributes) = attributes else { return };
    let bytes = &bytes[size_of::<RawAttributes>()..];
    let number = 1 + Input(bytes).u32() % 3;
    let ino = Ino::from_number(number).expect("not 0");
    let parse = |raw: &RawInode| Inode::parse(raw, ino, &attributes, layout);
    let Some(inode) = round_trip(bytes, parse, Inode::to_raw) else { return };
    assert_eq!(inode.kind.file_type(), attributes.file_type);
    let bytes = &bytes[size_of::<RawInode>()..];
    match inode.kind {
        FileKind::Directory(directory) => {
            assert!(u64::from(directory.first) + u64::from(directory.entries) < layout.dirents.records());
            dirents(&directory, sb, bytes);
        }
        FileKind::Symlink { offset, len } => {
            assert!(u64::from(offset) + len <= layout.targets.records());
        }
        FileKind::Regular { size, .. } => assert!(inode.blocks <= size.div_ceil(4096)),
        _ => (),
    }
}

fn dirents(directory: &Directory, sb: &SuperBlock, bytes: &[u8]) {
    let Ok(([raw, next], _)) = <[RawDirent; 2]>::read_from_prefix(bytes) else { return };
    let parse = |raw: &RawDirent| Dirent::parse(raw, &next, 0, directory, &sb.layout);
    let write =
        |dirent: &Dirent| Dirent::to_raw(dirent.ino, dirent.file_type, dirent.name_offset - directory.names);
    if let Some(dirent) = round_trip(raw.as_bytes(), parse, write) {
        assert!(dirent.name_len > 0 && dirent.ino.index() < sb.layout.inodes.records());
        assert!(dirent.name_offset + u64::from(dirent.name_len) <= sb.layout.names.records());
    }
    let write = |end: &u32| Dirent::fence(u64::from(*end));
    round_trip(next.as_bytes(), |raw: &RawDirent| Dirent::parse_fence(raw, 0), write);
}

fn map_records(sb: &SuperBlock, bytes: &[u8]) {
    let layout = &sb.layout;
    round_trip(bytes, |raw: &RawProfile| Profile::parse(raw), |profile| Some(profile.to_raw()));
    let parse = |raw: &RawXattrSet| XattrSet::parse(raw, XattrSetIndex(0), layout);
    if let Some(set) = round_trip(bytes, parse, |set| Some(set.to_raw())) {
        xattr_entry(&set, &bytes[size_of::<RawXattrSet>()..]);
    }
    for index in [PackIndex(0), PackIndex(1)] {
        let parse = |raw: &RawPack| Pack::parse(raw, index, layout);
        round_trip(bytes, parse, |pack| Some(pack.to_raw()));
    }
    let parse = |raw: &RawChunk| Chunk::parse(raw, Digest::default(), ChunkIndex(0), layout);
    round_trip(bytes, parse, Chunk::to_raw);
    let mut input = Input(bytes.get(size_of::<RawExtent>()..).unwrap_or_default());
    let (end, size) = (input.u64(), input.u64());
    let parse = |raw: &RawExtent| Extent::parse(raw, 0, end, size);
    if let Some(extent) = round_trip(bytes, parse, |extent| Some(extent.to_raw())) {
        assert!(extent.start < extent.end && extent.end == end);
        // The next one of a chunk ends in another block, or with the content.
        let ends_within = end % BLOCK_BYTES != 0 && end != size;
        assert!(
            extent.target == Target::Hole || !ends_within || extent.start / BLOCK_BYTES < end / BLOCK_BYTES
        );
    }
    let parse = |raw: &RawAnnotation| Annotation::parse(raw, 0, layout);
    if let Some(annotation) = round_trip(bytes, parse, |annotation| Some(annotation.to_raw())) {
        let end = annotation.value_offset() + u64::from(annotation.value_len);
        assert!(annotation.key_len > 0 && end <= layout.annotation_data.records());
    }
}

fn xattr_entry(set: &XattrSet, bytes: &[u8]) {
    let parse = |raw: &RawXattrEntry| XattrEntry::parse(raw, set.offset, set);
    let lengths = |entry: &XattrEntry| (vec![b'n'; entry.name_len.into()], vec![0; entry.value_len as usize]);
    let write = |entry: &XattrEntry| {
        let (name, value) = lengths(entry);
        XattrEntry::to_raw(&name, &value)
    };
    if let Some(entry) = round_trip(bytes, parse, write) {
        let (name, value) = lengths(&entry);
        assert_eq!(entry_bytes(&name, &value), Some(entry.end - set.offset));
        assert!(entry.end <= set.offset + u64::from(set.bytes));
    }
}
