// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Directory entries.

use crate::error::{ensure, FormatError, Place, Rule};
use crate::inode::{FileType, Ino};
use crate::raw::RawDirent;
use crate::superblock::Layout;

/// A directory entry, proven against the tables it points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent {
    /// Its index in the entry table.
    pub index: u64,
    /// The inode.
    pub ino: Ino,
    /// The inode's type.
    pub file_type: FileType,
    /// Where the name begins in the name table.
    pub name_offset: u64,
    /// Bytes of the name, 1 at least.
    pub name_len: u8,
}

impl Dirent {
    /// Parses and proves record `index` of the entry table.
    pub fn parse(raw: &RawDirent, index: u64, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::Dirent(index);
        let refuse = |rule, found, expected| FormatError::new(rule, place, found, expected);
        ensure(raw.reserved.get() == 0, Rule::DirentPadding, place, raw.reserved.get().into(), 0)?;
        let ino = Ino::new(raw.ino.get(), layout).ok_or(refuse(
            Rule::DirentInode,
            raw.ino.get().into(),
            layout.inodes.records(),
        ))?;
        let file_type = FileType::try_from(raw.file_type)
            .map_err(|found| refuse(Rule::DirentType, found.into(), FileType::Whiteout.value().into()))?;
        ensure(raw.name_len > 0, Rule::DirentNameLength, place, 0, 1)?;
        let name_offset = raw.name_offset.get();
        if layout.names.range(name_offset, raw.name_len.into()).is_none() {
            let end = name_offset.saturating_add(raw.name_len.into());
            return Err(refuse(Rule::DirentNameRange, end, layout.names.records()));
        }
        Ok(Self { index, ino, file_type, name_offset, name_len: raw.name_len })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawDirent {
        RawDirent {
            name_offset: self.name_offset.into(),
            ino: self.ino.get().into(),
            name_len: self.name_len,
            file_type: self.file_type.value(),
            reserved: 0.into(),
        }
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
