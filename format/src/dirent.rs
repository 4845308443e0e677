// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Directory entries.

use crate::error::{ensure, FormatError, Place, Rule};
use crate::inode::{Directory, FileType, Ino};
use crate::limits::DIRECTORY_NAMES_MAX;
use crate::raw::RawDirent;
use crate::superblock::Layout;

/// Bits of an entry's name field that say where the name begins; the type stands above them.
const NAME_BITS: u32 = 29;

/// A directory entry, proven against the tables it points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent {
    /// Its index in the entry table.
    pub index: u32,
    /// The inode.
    pub ino: Ino,
    /// The inode's type.
    pub file_type: FileType,
    /// Where the name begins in the name table.
    pub name_offset: u64,
    /// Bytes of the name, 1 at least.
    pub name_len: u8,
}

/// Where the name of an entry begins, counted from its directory's names, and the type.
fn split(name: u32) -> (u32, u32) {
    (name & ((1 << NAME_BITS) - 1), name >> NAME_BITS)
}

impl Dirent {
    /// Parses and proves record `index` of the entry table, which belongs to `directory` and has `next` behind it.
    pub fn parse(
        raw: &RawDirent,
        next: &RawDirent,
        index: u32,
        directory: &Directory,
        layout: &Layout,
    ) -> Result<Self, FormatError> {
        let place = Place::Dirent(index);
        let refuse = |rule, found, expected| FormatError::new(rule, place, found, expected);
        let inodes = layout.inodes.records();
        let ino =
            Ino::new(raw.ino.get(), layout).ok_or(refuse(Rule::DirentInode, raw.ino.get().into(), inodes))?;
        let (begin, file_type) = split(raw.name.get());
        let known = u8::try_from(file_type).ok().and_then(|value| FileType::try_from(value).ok());
        let last = FileType::Whiteout.value();
        let file_type = known.ok_or(refuse(Rule::DirentType, file_type.into(), last.into()))?;
        let (end, _) = split(next.name.get());
        let len = end.checked_sub(begin).and_then(|len| u8::try_from(len).ok()).filter(|len| *len > 0);
        let name_len = len.ok_or(refuse(Rule::DirentNameLength, end.into(), begin.into()))?;
        let name_offset = directory.names.saturating_add(begin.into());
        if layout.names.range(name_offset, name_len.into()).is_none() {
            let end = name_offset.saturating_add(name_len.into());
            return Err(refuse(Rule::DirentNameRange, end, layout.names.records()));
        }
        Ok(Self { index, ino, file_type, name_offset, name_len })
    }

    /// Proves record `index`, the fence of a directory, and gives the bytes of the directory's names.
    pub fn parse_fence(raw: &RawDirent, index: u32) -> Result<u32, FormatError> {
        let (names, file_type) = split(raw.name.get());
        let place = Place::Dirent(index);
        let unused = raw.ino.get() | file_type;
        ensure(unused == 0, Rule::DirentFence, place, unused.into(), 0)?;
        Ok(names)
    }

    /// The record of an entry whose name begins `begin` bytes behind its directory's first.
    ///
    /// `None` where that is more than [`DIRECTORY_NAMES_MAX`].
    pub fn to_raw(ino: Ino, file_type: FileType, begin: u64) -> Option<RawDirent> {
        let fence = Self::fence(begin)?;
        let file_type = u32::from(file_type.value()) << NAME_BITS;
        Some(RawDirent { ino: ino.get().into(), name: (fence.name.get() | file_type).into() })
    }

    /// The record of the fence of a directory whose names have `end` bytes; `None` as above.
    pub fn fence(end: u64) -> Option<RawDirent> {
        let end = u32::try_from(end).ok().filter(|end| u64::from(*end) <= DIRECTORY_NAMES_MAX)?;
        Some(RawDirent { ino: 0.into(), name: end.into() })
    }

    /// Proves the bytes of its name.
    pub fn check_name(&self, name: &[u8]) -> Result<(), FormatError> {
        let bad = match name {
            b"." | b".." => Some(b'.'),
            _ => name.iter().copied().find(|byte| matches!(byte, 0 | b'/')),
        };
        match bad {
            None => Ok(()),
            Some(found) => {
                Err(FormatError::new(Rule::DirentNameBytes, Place::Dirent(self.index), found.into(), 1))
            }
        }
    }
}
