// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Inodes.

use core::fmt;

use crate::error::{ensure, FormatError, Place, Rule};
use crate::extent::ContentIndex;
use crate::limits::{BLOCK_BYTES, FILE_SIZE_MAX, SYMLINK_MAX};
use crate::num::low_u32;
use crate::raw::RawInode;
use crate::superblock::Layout;
use crate::xattr::XattrSetIndex;

/// An inode number, on disk and in the VFS.
///
/// # Invariants
///
/// Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(core::num::NonZeroU32);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(core::num::NonZeroU32::MIN);

    /// The inode of that number, if the image has it.
    pub fn new(number: u32, layout: &Layout) -> Option<Self> {
        Self::from_number(number).filter(|ino| ino.index() < layout.inodes.records())
    }

    /// An inode number that was not compared with any image.
    pub fn from_number(number: u32) -> Option<Self> {
        core::num::NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The index of its record in the inode table.
    pub fn index(self) -> u64 {
        u64::from(self.get()).saturating_sub(1)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The type of a file, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FileType {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A whiteout: hides a name of the layers below; the VFS shows it as character device 0:0.
    Whiteout = 6,
}

impl FileType {
    /// The stored value.
    pub const fn value(self) -> u8 {
        match self {
            FileType::Regular => 1,
            FileType::Directory => 2,
            FileType::Symlink => 3,
            FileType::Fifo => 4,
            FileType::Socket => 5,
            FileType::Whiteout => 6,
        }
    }
}

impl TryFrom<u8> for FileType {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => FileType::Regular,
            2 => FileType::Directory,
            3 => FileType::Symlink,
            4 => FileType::Fifo,
            5 => FileType::Socket,
            6 => FileType::Whiteout,
            other => return Err(other),
        })
    }
}

/// A time with nanoseconds.
///
/// # Invariants
///
/// `nsec` is below 1,000,000,000 in a parsed inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub sec: i64,
    /// Nanoseconds after `sec`.
    pub nsec: u32,
}

/// What an inode is, with what only that type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// Bytes.
        size: u64,
        /// Its content; `None` exactly when `size` is 0.
        content: Option<ContentIndex>,
    },
    /// A directory.
    Directory {
        /// Index of its first entry.
        first: u64,
        /// Number of entries.
        entries: u64,
        /// The directory that holds it; the root holds itself.
        parent: Ino,
    },
    /// A symbolic link.
    Symlink {
        /// Where its target begins in the target table.
        offset: u64,
        /// Bytes of the target.
        len: u64,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A whiteout.
    Whiteout,
}

impl FileKind {
    /// The type as stored.
    pub const fn file_type(&self) -> FileType {
        match self {
            FileKind::Regular { .. } => FileType::Regular,
            FileKind::Directory { .. } => FileType::Directory,
            FileKind::Symlink { .. } => FileType::Symlink,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::Whiteout => FileType::Whiteout,
        }
    }
}

/// An inode, proven against the tables it points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
    /// Permission bits, `07777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links, 1 at least.
    pub nlink: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Blocks of 4096 bytes that are not all zero; 0 unless it is a regular file.
    pub blocks: u64,
    /// Its xattrs.
    pub xattrs: Option<XattrSetIndex>,
}

impl Inode {
    /// Parses and proves record `ino` of the inode table.
    pub fn parse(raw: &RawInode, ino: Ino, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::Ino(ino.get());
        let refuse = |rule, found, expected| FormatError::new(rule, place, found, expected);
        let file_type = FileType::try_from(raw.file_type)
            .map_err(|found| refuse(Rule::InodeType, found.into(), FileType::Whiteout.value().into()))?;
        ensure(raw.reserved0 == 0, Rule::InodePadding, place, raw.reserved0.into(), 0)?;
        let reserved = raw.reserved1.get();
        ensure(reserved == 0, Rule::InodePadding, place, reserved.into(), 0)?;
        let mode = raw.mode.get();
        ensure(mode & !0o7777 == 0, Rule::InodeMode, place, mode.into(), 0o7777)?;
        if file_type == FileType::Symlink {
            ensure(mode == 0o777, Rule::InodeMode, place, mode.into(), 0o777)?;
        }
        for owner in [raw.uid.get(), raw.gid.get()] {
            ensure(
                owner != u32::MAX,
                Rule::InodeOwner,
                place,
                owner.into(),
                u64::from(u32::MAX).saturating_sub(1),
            )?;
        }
        let nlink = raw.nlink.get();
        ensure(nlink > 0, Rule::InodeNlink, place, 0, 1)?;
        let nsec = raw.mtime_nsec.get();
        ensure(nsec < 1_000_000_000, Rule::InodeTime, place, nsec.into(), 999_999_999)?;
        let xattrs = match raw.xattrs.get().checked_sub(1) {
            None => None,
            Some(set) => {
                let sets = layout.xattr_sets.records();
                ensure(u64::from(set) < sets, Rule::InodeXattrs, place, set.into(), sets)?;
                Some(XattrSetIndex(set))
            }
        };
        if file_type != FileType::Directory {
            ensure(raw.parent.get() == 0, Rule::InodePadding, place, raw.parent.get().into(), 0)?;
        }
        let (size, start, blocks) = (raw.size.get(), raw.start.get(), raw.blocks.get());
        let most = if file_type == FileType::Regular { size.div_ceil(BLOCK_BYTES) } else { 0 };
        ensure(blocks <= most, Rule::InodeBlocks, place, blocks, most)?;
        let kind = match file_type {
            FileType::Regular if size == 0 => {
                ensure(start == 0, Rule::InodePadding, place, start, 0)?;
                FileKind::Regular { size, content: None }
            }
            FileType::Regular => {
                ensure(size <= FILE_SIZE_MAX, Rule::InodeSize, place, size, FILE_SIZE_MAX)?;
                let contents = layout.content_digests.records();
                ensure(start < contents, Rule::InodeContent, place, start, contents)?;
                FileKind::Regular { size, content: Some(ContentIndex(low_u32(start))) }
            }
            FileType::Directory => {
                let table = &layout.dirents;
                if table.range(start, size).is_none() {
                    return Err(refuse(Rule::InodeEntries, start.saturating_add(size), table.records()));
                }
                let parent = raw.parent.get();
                let parent = Ino::new(parent, layout).ok_or(refuse(
                    Rule::InodeParent,
                    parent.into(),
                    layout.inodes.records(),
                ))?;
                FileKind::Directory { first: start, entries: size, parent }
            }
            FileType::Symlink => {
                ensure((1..=SYMLINK_MAX).contains(&size), Rule::InodeSize, place, size, SYMLINK_MAX)?;
                let table = &layout.targets;
                if table.range(start, size).is_none() {
                    return Err(refuse(Rule::InodeTarget, start.saturating_add(size), table.records()));
                }
                FileKind::Symlink { offset: start, len: size }
            }
            FileType::Fifo | FileType::Socket | FileType::Whiteout => {
                ensure(size == 0, Rule::InodeSize, place, size, 0)?;
                ensure(start == 0, Rule::InodePadding, place, start, 0)?;
                match file_type {
                    FileType::Fifo => FileKind::Fifo,
                    FileType::Socket => FileKind::Socket,
                    _ => FileKind::Whiteout,
                }
            }
        };
        if ino == Ino::ROOT {
            let is_root = matches!(kind, FileKind::Directory { parent, .. } if parent == Ino::ROOT);
            ensure(is_root, Rule::RootType, place, raw.file_type.into(), FileType::Directory.value().into())?;
        }
        let mtime = Timestamp { sec: raw.mtime.get(), nsec };
        Ok(Self { ino, kind, mode, uid: raw.uid.get(), gid: raw.gid.get(), nlink, mtime, blocks, xattrs })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawInode {
        let (size, start, parent) = match self.kind {
            FileKind::Regular { size, content } => (size, content.map_or(0, |content| content.0.into()), 0),
            FileKind::Directory { first, entries, parent } => (entries, first, parent.get()),
            FileKind::Symlink { offset, len } => (len, offset, 0),
            FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => (0, 0, 0),
        };
        RawInode {
            file_type: self.kind.file_type().value(),
            mode: self.mode.into(),
            uid: self.uid.into(),
            gid: self.gid.into(),
            nlink: self.nlink.into(),
            size: size.into(),
            mtime: self.mtime.sec.into(),
            start: start.into(),
            mtime_nsec: self.mtime.nsec.into(),
            xattrs: self.xattrs.map_or(0, |set| set.0.saturating_add(1)).into(),
            parent: parent.into(),
            blocks: self.blocks.into(),
            ..RawInode::default()
        }
    }
}
