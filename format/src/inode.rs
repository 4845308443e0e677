// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Inodes.

use core::fmt;

use crate::attributes::{Attributes, AttributesIndex};
use crate::error::{ensure, FormatError, Place, Rule};
use crate::extent::ContentIndex;
use crate::limits::{BLOCK_BYTES, FILE_SIZE_MAX, MTIME_MAX, MTIME_MIN, NAME_ALIGN, SYMLINK_MAX};
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
    /// All of them.
    pub const ALL: [Self; 6] = [
        FileType::Regular,
        FileType::Directory,
        FileType::Symlink,
        FileType::Fifo,
        FileType::Socket,
        FileType::Whiteout,
    ];

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
/// Of a parsed inode: `sec` is between [`MTIME_MIN`] and [`MTIME_MAX`], `nsec` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub sec: i64,
    /// Nanoseconds after `sec`.
    pub nsec: u32,
}

/// Bits of the nanoseconds in a stored time; the seconds since [`MTIME_MIN`] stand above them.
const NSEC_BITS: u32 = 30;

/// Nanoseconds in a second.
const NSEC_PER_SEC: u32 = 1_000_000_000;

impl Timestamp {
    /// The time that is stored as `raw`; its nanoseconds, where they are a second or more.
    fn parse(raw: u64) -> Result<Self, u32> {
        let nsec = low_u32(raw & ((1 << NSEC_BITS) - 1));
        if nsec >= NSEC_PER_SEC {
            return Err(nsec);
        }
        // 34 bits are left: the sum does not overflow.
        let sec = MTIME_MIN.saturating_add_unsigned(raw >> NSEC_BITS);
        // INVARIANT: `MTIME_MAX` is 34 bits above `MTIME_MIN`, and `nsec` was compared above.
        Ok(Self { sec, nsec })
    }

    /// How it is stored; `None` where it is out of range.
    pub fn to_raw(&self) -> Option<u64> {
        let in_range = (MTIME_MIN..=MTIME_MAX).contains(&self.sec) && self.nsec < NSEC_PER_SEC;
        let since = u64::try_from(self.sec.checked_sub(MTIME_MIN)?).ok()?;
        in_range.then_some((since << NSEC_BITS) | u64::from(self.nsec))
    }
}

/// A directory: where its entries and their names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Index of its first entry.
    pub first: u32,
    /// Number of entries; the fence comes behind them.
    pub entries: u32,
    /// Where its names begin in the name table, in bytes.
    pub names: u64,
    /// The directory that holds it; the root holds itself.
    pub parent: Ino,
}

/// The type of an inode, with the fields that only that type has.
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
    Directory(Directory),
    /// A symbolic link.
    Symlink {
        /// Where its target begins in the target table.
        offset: u32,
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
            FileKind::Directory(_) => FileType::Directory,
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
    /// Index of the attributes that it has in common with others.
    pub attributes: AttributesIndex,
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
    /// Parses and proves record `ino` of the inode table, which has `attributes`.
    pub fn parse(
        raw: &RawInode,
        ino: Ino,
        attributes: &Attributes,
        layout: &Layout,
    ) -> Result<Self, FormatError> {
        let place = Place::Ino(ino.get());
        let refuse = |rule, found, expected| FormatError::new(rule, place, found, expected);
        if ino == Ino::ROOT {
            let (found, expected) = (attributes.file_type.value(), FileType::Directory.value());
            ensure(found == expected, Rule::RootType, place, found.into(), expected.into())?;
        }
        let nlink = raw.nlink.get();
        ensure(nlink > 0, Rule::InodeNlink, place, 0, 1)?;
        let mtime = Timestamp::parse(raw.mtime.get())
            .map_err(|nsec| refuse(Rule::InodeTime, nsec.into(), 999_999_999))?;
        let (size, start, extra) = (raw.size.get(), raw.start.get(), raw.extra.get());
        let mut blocks = 0;
        let kind = match attributes.file_type {
            FileType::Regular => {
                ensure(size <= FILE_SIZE_MAX, Rule::InodeSize, place, size, FILE_SIZE_MAX)?;
                let most = size.div_ceil(BLOCK_BYTES);
                blocks = extra.into();
                ensure(blocks <= most, Rule::InodeBlocks, place, blocks, most)?;
                FileKind::Regular { size, content: content(size, start, place, layout)? }
            }
            FileType::Directory => FileKind::Directory(Directory::parse(size, start, extra, place, layout)?),
            FileType::Symlink => {
                ensure((1..=SYMLINK_MAX).contains(&size), Rule::InodeSize, place, size, SYMLINK_MAX)?;
                let table = &layout.targets;
                if table.range(start.into(), size).is_none() {
                    let end = u64::from(start).saturating_add(size);
                    return Err(refuse(Rule::InodeTarget, end, table.records()));
                }
                ensure(extra == 0, Rule::InodePadding, place, extra.into(), 0)?;
                FileKind::Symlink { offset: start, len: size }
            }
            other => {
                ensure(size == 0, Rule::InodeSize, place, size, 0)?;
                let unused = start | extra;
                ensure(unused == 0, Rule::InodePadding, place, unused.into(), 0)?;
                match other {
                    FileType::Fifo => FileKind::Fifo,
                    FileType::Socket => FileKind::Socket,
                    _ => FileKind::Whiteout,
                }
            }
        };
        if let (Ino::ROOT, FileKind::Directory(Directory { parent, .. })) = (ino, kind) {
            ensure(parent == Ino::ROOT, Rule::RootType, place, parent.get().into(), 1)?;
        }
        let Attributes { mode, uid, gid, xattrs, .. } = *attributes;
        let index = AttributesIndex(raw.attributes.get());
        Ok(Self { ino, kind, attributes: index, mode, uid, gid, nlink, mtime, blocks, xattrs })
    }

    /// The inverse of [`parse`](Self::parse); its attributes are a record of their own.
    ///
    /// `None` where a time or a number of blocks is not representable, which none of a parsed inode is.
    pub fn to_raw(&self) -> Option<RawInode> {
        let (size, start, extra) = match self.kind {
            FileKind::Regular { size, content } => {
                (size, content.map_or(0, |content| content.0), u32::try_from(self.blocks).ok()?)
            }
            FileKind::Directory(directory) => {
                let names = directory.names.checked_div(NAME_ALIGN)?;
                (u64::from(directory.entries) | (names << 32), directory.first, directory.parent.get())
            }
            FileKind::Symlink { offset, len } => (len, offset, 0),
            FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => (0, 0, 0),
        };
        Some(RawInode {
            attributes: self.attributes.0.into(),
            nlink: self.nlink.into(),
            mtime: self.mtime.to_raw()?.into(),
            size: size.into(),
            start: start.into(),
            extra: extra.into(),
        })
    }
}

/// The content of a regular file of `size` bytes whose record says `start`.
fn content(
    size: u64,
    start: u32,
    place: Place,
    layout: &Layout,
) -> Result<Option<ContentIndex>, FormatError> {
    if size == 0 {
        ensure(start == 0, Rule::InodePadding, place, start.into(), 0)?;
        return Ok(None);
    }
    let contents = layout.content_digests.records();
    ensure(u64::from(start) < contents, Rule::InodeContent, place, start.into(), contents)?;
    Ok(Some(ContentIndex(start)))
}

impl Directory {
    /// Proves the three numbers that the record of a directory says.
    fn parse(size: u64, first: u32, parent: u32, place: Place, layout: &Layout) -> Result<Self, FormatError> {
        let refuse = |rule, found, expected| FormatError::new(rule, place, found, expected);
        let (entries, names) = (low_u32(size), (size >> 32).saturating_mul(NAME_ALIGN));
        // The fence is in the table, too.
        let records = u64::from(entries).saturating_add(1);
        if layout.dirents.range(first.into(), records).is_none() {
            let end = records.saturating_add(first.into());
            return Err(refuse(Rule::InodeEntries, end, layout.dirents.records()));
        }
        let name_bytes = layout.names.records();
        ensure(names <= name_bytes, Rule::InodeNames, place, names, name_bytes)?;
        let inodes = layout.inodes.records();
        let parent = Ino::new(parent, layout).ok_or(refuse(Rule::InodeParent, parent.into(), inodes))?;
        Ok(Self { first, entries, names, parent })
    }
}
