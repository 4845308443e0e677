// SPDX-License-Identifier: GPL-2.0-or-later

//! The attributes of an inode that `stat` shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{FileKind, Inode, Timestamp};

/// The unit of I/O that `stat` shows.
const BLKSIZE: u32 = 4096;

/// Blocks of 512 bytes, in which `stat` counts, in one of the image.
const SECTORS: u64 = BLOCK_BYTES / 512;

/// The attributes of an inode.
pub(super) fn of(inode: &Inode) -> FileAttr {
    let mtime = time(inode.mtime);
    FileAttr {
        ino: INodeNo(inode.ino.get().into()),
        size: size(inode),
        blocks: inode.blocks.saturating_mul(SECTORS),
        // An image has no other times.
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: UNIX_EPOCH,
        kind: kind(inode.kind.file_type()),
        perm: inode.mode,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        // That of a whiteout is 0:0.
        rdev: 0,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// The attributes of a name that is not there: the kernel takes inode 0 for that, and remembers it.
pub(super) fn none() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// The type of a file, as `stat` and `getdents` show it.
pub(super) fn kind(file_type: tesserafs_format::FileType) -> FileType {
    match file_type {
        tesserafs_format::FileType::Regular => FileType::RegularFile,
        tesserafs_format::FileType::Directory => FileType::Directory,
        tesserafs_format::FileType::Symlink => FileType::Symlink,
        tesserafs_format::FileType::Fifo => FileType::NamedPipe,
        tesserafs_format::FileType::Socket => FileType::Socket,
        tesserafs_format::FileType::Whiteout => FileType::CharDevice,
    }
}

/// The size that `stat` shows: of a directory the number of its entries.
fn size(inode: &Inode) -> u64 {
    match inode.kind {
        FileKind::Regular { size, .. } => size,
        FileKind::Directory(tables) => tables.entries.into(),
        FileKind::Symlink { len, .. } => len,
        FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => 0,
    }
}

fn time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let second = if time.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    // Times of an image reach from 1901 to 2446: none is out of range.
    let nsec = Duration::from_nanos(time.nsec.into());
    second.and_then(|second| second.checked_add(nsec)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_nanoseconds_forward() {
        let shown = time(Timestamp { sec: -2, nsec: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(shown).ok(), Some(Duration::from_millis(1200)));
        assert_eq!(time(Timestamp { sec: 3, nsec: 4 }), UNIX_EPOCH + Duration::new(3, 4));
    }
}
