// SPDX-License-Identifier: GPL-2.0-or-later

//! A walk through all tables of an image by what the format crate offers, as the kernel uses it.
//!
//! It goes in table order, and through records that overlap only once: so it ends for any tables.

use tesserafs_format::extent::Extents;
use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::num::low_u32;
use tesserafs_format::xattr::is_valid_name;
use tesserafs_format::{
    AttributesIndex, ChunkIndex, ContentIndex, Directory, Dirent, FileKind, FormatError, Image, Ino,
    PackIndex, Target, XattrSetIndex,
};

use crate::tables::Tables;

/// The defects that a walk found; none in an image that is right.
#[derive(Debug, Default)]
pub struct Walk {
    /// The broken rules that the format crate named.
    pub errors: Vec<FormatError>,
}

impl Walk {
    /// Notes a broken rule, which must be able to say what it is.
    fn note<T>(&mut self, result: Result<T, FormatError>) -> Option<T> {
        result
            .map_err(|error| {
                assert!(error.to_string().contains(error.rule.name()));
                self.errors.push(error);
            })
            .ok()
    }
}

/// Reads everything, and proves what every reader relies on.
pub fn walk(tables: &Tables) -> Walk {
    let image = Image::new(&tables.sb, tables);
    let layout = &tables.sb.layout;
    let mut walk = Walk::default();
    for index in indices(layout.attributes.records()) {
        if let Some(attributes) = walk.note(image.attributes(AttributesIndex(index))) {
            assert!(attributes.mode <= 0o7777);
        }
    }
    let mut sizes = vec![None; layout.content_digests.records() as usize];
    let mut covered = 0;
    for index in indices(layout.inodes.records()) {
        let ino = Ino::from_number(index + 1).expect("not 0");
        let Some(inode) = walk.note(image.inode(ino)) else { continue };
        match inode.kind {
            FileKind::Directory(found) if found.first >= covered => {
                covered = found.first + found.entries + 1;
                directory(&mut walk, &image, &found);
            }
            FileKind::Regular { size, content } => {
                assert_eq!(content.is_some(), size > 0);
                if let Some(content) = content {
                    sizes[content.0 as usize].get_or_insert(size);
                }
            }
            FileKind::Symlink { offset, len } => {
                let mut target = vec![0; len as usize];
                if walk.note(image.target(ino, offset, &mut target)).is_some() {
                    assert!(!target.is_empty() && !target.contains(&0));
                }
            }
            _ => (),
        }
    }
    xattr_sets(&mut walk, &image);
    for index in indices(layout.packs.records()) {
        walk.note(image.pack(PackIndex(index as u16)));
    }
    for index in indices(layout.chunks.records()) {
        chunk(&mut walk, &image, ChunkIndex(index));
    }
    contents(&mut walk, &image, &sizes);
    for index in indices(layout.annotations.records()) {
        annotation(&mut walk, &image, index);
    }
    walk
}

fn indices(records: u64) -> std::ops::Range<u32> {
    0..low_u32(records)
}

/// Lists a directory; where its names ascend, a lookup finds each entry, and nothing that is not listed.
fn directory(walk: &mut Walk, image: &Image<'_, Tables>, directory: &Directory) {
    let mut entries: Vec<(Vec<u8>, Dirent)> = Vec::new();
    let mut is_whole = walk.note(image.fence(directory)).is_some();
    for n in 0..directory.entries {
        let Some(dirent) = walk.note(image.dirent(directory, n)) else {
            is_whole = false;
            continue;
        };
        let dirent = dirent.expect("an entry before the last");
        let mut buf = [0; NAME_MAX];
        match walk.note(image.name(&dirent, &mut buf)) {
            Some(name) => {
                assert!(!name.is_empty() && !matches!(name, b"." | b".."));
                assert!(name.iter().all(|byte| !matches!(byte, 0 | b'/')));
                entries.push((name.to_vec(), dirent));
            }
            None => is_whole = false,
        }
    }
    assert_eq!(image.dirent(directory, directory.entries), Ok(None));
    let ascends = entries.is_sorted_by(|(a, _), (b, _)| a < b);
    for (name, dirent) in &entries {
        let found = image.lookup(directory, name);
        if is_whole && ascends {
            assert_eq!(found, Ok(Some(*dirent)));
        }
        let longer = [name.as_slice(), b"\x01"].concat();
        for other in [&longer[..], &name[..name.len() - 1]] {
            let is_listed = entries.iter().any(|(name, _)| name == other);
            let found = image.lookup(directory, other);
            // In any order, no entry is found under another name.
            assert!(is_listed || !matches!(found, Ok(Some(_))), "{other:?}: {found:?}");
        }
    }
}

fn xattr_sets(walk: &mut Walk, image: &Image<'_, Tables>) {
    let mut covered = 0;
    for index in indices(image.sb.layout.xattr_sets.records()) {
        let index = XattrSetIndex(index);
        let Some(set) = walk.note(image.xattr_set(index)) else { continue };
        if set.offset < covered {
            continue;
        }
        covered = set.offset + u64::from(set.bytes);
        let mut cursor = image.xattrs(set);
        let mut count = 0;
        loop {
            let mut buf = [0; XATTR_NAME_MAX];
            let Some(next) = walk.note(cursor.next(&mut buf)) else { break };
            let Some((entry, name)) = next else {
                assert_eq!(count, set.count);
                break;
            };
            count += 1;
            assert!(is_valid_name(name));
            assert!(set.offset <= entry.name_offset && entry.end <= covered);
            let mut value = vec![0; entry.value_len as usize];
            assert_eq!(image.xattr_value(index, &entry, &mut value), Ok(()));
        }
    }
}

fn chunk(walk: &mut Walk, image: &Image<'_, Tables>, index: ChunkIndex) {
    assert!(image.raw_digest(index).is_ok());
    let Some(chunk) = walk.note(image.chunk(index)) else { return };
    assert!(chunk.stored_len >= 1 && chunk.stored_len <= chunk.raw_len);
    let Ok(pack) = image.pack(chunk.pack) else { return };
    if walk.note(chunk.check_range(&pack)).is_some() && pack.index == PackIndex(0) {
        // The bytes of the image that are read for it lie between superblock and tree.
        assert!(4096 + chunk.offset + u64::from(chunk.stored_len) <= image.sb.layout.tree_offset);
    }
}

/// Follows the extents of each content of known size.
fn contents(walk: &mut Walk, image: &Image<'_, Tables>, sizes: &[Option<u64>]) {
    let mut covered = 0;
    for (index, size) in (0..).zip(sizes) {
        let content = ContentIndex(index);
        assert!(image.content_digest(content).is_ok());
        let Some(size) = *size else { continue };
        let Some(extents) = walk.note(image.extents(content, size)) else { continue };
        if extents.first >= covered {
            covered = extents.end;
            follow(walk, image, &extents);
        }
    }
}

/// The extents cover the content without a gap, and each of its bytes is found in the extent that has it.
fn follow(walk: &mut Walk, image: &Image<'_, Tables>, extents: &Extents) {
    let mut found = Vec::new();
    for index in extents.first..extents.end {
        let Some(extent) = walk.note(image.extent(extents, index)) else { continue };
        assert!(extent.start < extent.end && extent.end <= extents.size);
        if let Target::Chunk { index, offset } = extent.target {
            if let Some(chunk) = walk.note(image.chunk(index)) {
                if walk.note(extent.check_range(&chunk)).is_some() {
                    assert!(u64::from(offset) + extent.len() <= u64::from(chunk.raw_len));
                }
            }
        }
        found.push(extent);
    }
    if found.len() != (extents.end - extents.first) as usize {
        // A search in broken extents may fail, but it must not give an extent that does not hold the
        // position.
        for pos in [0, extents.size / 2, extents.size - 1] {
            if let Ok(extent) = image.extent_at(extents, pos) {
                assert!((extent.start..extent.end).contains(&pos));
            }
        }
        return;
    }
    let mut at = 0;
    for extent in &found {
        assert_eq!(extent.start, at);
        at = extent.end;
        for pos in [extent.start, extent.start.midpoint(extent.end), extent.end - 1] {
            assert_eq!(image.extent_at(extents, pos), Ok(*extent));
        }
    }
    assert_eq!(at, extents.size);
}

fn annotation(walk: &mut Walk, image: &Image<'_, Tables>, index: u32) {
    let Some(annotation) = walk.note(image.annotation(index)) else { return };
    let mut key = vec![0; annotation.key_len as usize];
    assert_eq!(image.annotation_bytes(index, annotation.key_offset, &mut key), Ok(()));
    let mut value = vec![0; annotation.value_len as usize];
    assert_eq!(image.annotation_bytes(index, annotation.value_offset(), &mut value), Ok(()));
}

/// Reads that a walk over so many records and bytes may take: each a few, and those of a bisection.
pub fn most_reads(records: u64) -> u64 {
    16 + records * 8 * u64::from(64 - records.leading_zeros())
}
