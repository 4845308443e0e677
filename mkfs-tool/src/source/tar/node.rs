// SPDX-License-Identifier: GPL-2.0-or-later

//! An inode of an archive, in little memory: what many have in common is kept once.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use tesserafs_format::Timestamp;

use super::reader::EntryKind;
use super::sparse::Segment;
use crate::tree::Attributes;

/// An inode, perhaps of several names.
#[derive(Debug)]
pub(super) struct Node {
    sec: i64,
    nsec: u32,
    /// The number of its other attributes.
    pub(super) attributes: u32,
    pub(super) what: What,
}

impl Node {
    pub(super) const fn new(mtime: Timestamp, attributes: u32, what: What) -> Self {
        Self { sec: mtime.sec, nsec: mtime.nsec, attributes, what }
    }

    pub(super) const fn mtime(&self) -> Timestamp {
        Timestamp { sec: self.sec, nsec: self.nsec }
    }

    pub(super) const fn set_mtime(&mut self, mtime: Timestamp) {
        (self.sec, self.nsec) = (mtime.sec, mtime.nsec);
    }
}

/// The node that a name in the archive stands for.
#[derive(Clone, Debug)]
pub(super) enum What {
    Directory {
        opaque: bool,
        /// No entry of the archive is for it.
        implied: bool,
    },
    /// A file all of whose bytes lie in the archive, one after the other.
    Regular {
        size: u64,
        offset: u64,
    },
    /// A file with others.
    Sparse(Arc<Sparse>),
    Symlink(Box<[u8]>),
    Fifo,
    /// A character device 0:0, or an OCI whiteout.
    Whiteout {
        oci: bool,
    },
    Device,
}

/// A file of which the archive has parts.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) size: u64,
    pub(super) segments: Box<[Segment]>,
}

// An archive has as many nodes as files. A field of the type `Timestamp` would end in 4 bytes of padding.
const _: () = assert!(size_of::<Node>() <= 40);

impl What {
    /// A directory without a mark.
    pub(super) const fn directory(implied: bool) -> Self {
        What::Directory { opaque: false, implied }
    }

    /// A regular file, from the parts of it that are in the archive.
    pub(super) fn regular(size: u64, segments: Box<[Segment]>) -> Self {
        match *segments {
            [] if size == 0 => What::Regular { size, offset: 0 },
            [Segment { start: 0, offset, len }] if len == size => What::Regular { size, offset },
            _ => What::Sparse(Arc::new(Sparse { size, segments })),
        }
    }

    /// That of an entry; of a hard link, which stands for another one's, the target.
    pub(super) fn of(kind: EntryKind) -> Result<Self, Vec<u8>> {
        Ok(match kind {
            EntryKind::Directory => What::directory(false),
            EntryKind::Regular { size, segments } => What::regular(size, segments),
            EntryKind::Symlink(target) => What::Symlink(target.into()),
            EntryKind::Fifo => What::Fifo,
            EntryKind::Device { whiteout: true } => What::Whiteout { oci: false },
            EntryKind::Device { whiteout: false } => What::Device,
            EntryKind::HardLink(target) => return Err(target),
        })
    }

    /// In words.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            What::Directory { .. } => "a directory",
            What::Regular { .. } | What::Sparse(_) => "a file",
            What::Symlink(_) => "a symlink",
            What::Fifo => "a FIFO",
            What::Whiteout { .. } => "a whiteout",
            What::Device => "a device",
        }
    }

    /// Whether it is a regular file.
    pub(super) const fn is_file(&self) -> bool {
        matches!(self, What::Regular { .. } | What::Sparse(_))
    }

    /// Whether it is a directory.
    pub(super) const fn is_directory(&self) -> bool {
        matches!(self, What::Directory { .. })
    }
}

/// Distinct attributes, but for times, by number.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    attributes: Vec<Attributes>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Distinct {
    /// The number of attributes, whatever their time.
    pub(super) fn number(&mut self, mut attributes: Attributes) -> u32 {
        attributes.mtime = Timestamp::default();
        let Self { attributes: known, table, hasher } = self;
        let hash_of = |a: &Attributes| hasher.hash_one((a.mode, a.uid, a.gid, &a.xattrs));
        let hash = hash_of(&attributes);
        if let Some(number) = table.find(hash, |number| known[*number as usize] == attributes) {
            return *number;
        }
        // There are no more than nodes, which are counted.
        let number = known.len() as u32;
        known.push(attributes);
        table.insert_unique(hash, number, |number| hash_of(&known[*number as usize]));
        number
    }

    /// The attributes of that number, without a time.
    pub(super) fn get(&self, number: u32) -> &Attributes {
        &self.attributes[number as usize]
    }

    /// The same attributes, to which none come any more.
    pub(super) fn finish(self) -> Vec<Attributes> {
        self.attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_differ_in_their_time_only_are_kept_once() {
        let mut distinct = Distinct::default();
        let mut numbers = Vec::new();
        for (sec, mode) in [(1, 0o644), (2, 0o644), (3, 0o755)] {
            let mtime = Timestamp { sec, nsec: 0 };
            numbers.push(distinct.number(Attributes { mode, mtime, ..Attributes::default() }));
        }
        assert_eq!(numbers, [0, 0, 1]);
        let xattrs = vec![(b"user.x".to_vec(), b"y".to_vec())];
        assert_eq!(distinct.number(Attributes { mode: 0o644, xattrs, ..Attributes::default() }), 2);
        assert_eq!(distinct.get(2).xattrs.len(), 1);
        assert_eq!(distinct.finish().len(), 3);
    }

    #[test]
    fn a_file_with_a_hole_is_sparse() {
        let segment = |start, len| Segment { start, offset: 512, len };
        assert!(matches!(What::regular(0, Box::new([])), What::Regular { size: 0, .. }));
        assert!(matches!(
            What::regular(9, Box::new([segment(0, 9)])),
            What::Regular { size: 9, offset: 512 }
        ));
        for segments in [vec![], vec![segment(0, 8)], vec![segment(1, 8)], vec![segment(0, 4), segment(4, 5)]]
        {
            assert!(matches!(What::regular(9, segments.into()), What::Sparse(_)));
        }
    }
}
