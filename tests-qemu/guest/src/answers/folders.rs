// SPDX-License-Identifier: GPL-2.0
//! Questions about an open folder.

use std::fs::File;
use std::mem::MaybeUninit;

use rustix::fs::RawDir;

use super::files::{extents, ioctl, open};
use super::raw::{self, Answer};
use super::{At, Question};

fn folder(at: &At) -> Result<File, rustix::io::Errno> {
    at.open("folder")
}

fn numbers(at: &At, call: libc::c_long, numbers: [i64; 4]) -> Answer {
    raw::numbers(call, &folder(at)?, numbers)
}

fn fcntl(at: &At, command: i32, number: i32) -> Answer {
    raw::fcntl(&folder(at)?, command, number)
}

/// How many names there are from the position on.
fn names(folder: &File, buffer: usize) -> Answer {
    let mut buffer = vec![MaybeUninit::uninit(); buffer];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next() {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// How many names there are after a move.
fn names_after(at: &At, offset: i64, whence: i32) -> Answer {
    let folder = folder(at)?;
    raw::seek(&folder, offset, whence)?;
    names(&folder, 4096)
}

pub(super) const QUESTIONS: &[Question] = &[
    ("folder: open O_WRONLY", |at| open(at, "folder", libc::O_WRONLY)),
    ("folder: open O_RDWR", |at| open(at, "folder", libc::O_RDWR)),
    ("folder: open O_CREAT", |at| open(at, "folder", libc::O_CREAT)),
    ("folder: open O_TRUNC", |at| open(at, "folder", libc::O_TRUNC)),
    ("folder: open O_DIRECTORY", |at| open(at, "folder", libc::O_DIRECTORY)),
    ("folder: open O_DIRECT", |at| open(at, "folder", libc::O_DIRECT)),
    ("folder: open O_NOATIME", |at| open(at, "folder", libc::O_NOATIME)),
    ("folder: open O_NONBLOCK", |at| open(at, "folder", libc::O_NONBLOCK)),
    ("folder: open O_ASYNC", |at| open(at, "folder", libc::O_ASYNC)),
    ("folder: open O_PATH", |at| open(at, "folder", libc::O_PATH)),
    ("folder: open O_TMPFILE", |at| open(at, "folder", libc::O_TMPFILE | libc::O_RDWR)),
    ("folder: open O_CREAT of a new name", |at| open(at, "folder/new", libc::O_CREAT | libc::O_RDWR)),
    ("folder: read", |at| raw::read(&folder(at)?, 100, 0, 0)),
    ("folder: preadv2 NOWAIT", |at| raw::read_without_waiting(&folder(at)?, 0)),
    ("folder: write", |at| numbers(at, libc::SYS_pwrite64, [0; 4])),
    ("folder: readahead", |at| numbers(at, libc::SYS_readahead, [0, 4096, 0, 0])),
    ("folder: fadvise WILLNEED", |at| numbers(at, libc::SYS_fadvise64, [0, 0, 3, 0])),
    ("folder: fadvise DONTNEED", |at| numbers(at, libc::SYS_fadvise64, [0, 0, 4, 0])),
    ("folder: getdents", |at| names(&folder(at)?, 4096)),
    ("folder: getdents, large buffer", |at| names(&folder(at)?, 1 << 20)),
    ("folder: getdents, no room", |at| names(&folder(at)?, 20)),
    ("folder: getdents of a file", |at| names(&at.open("large")?, 4096)),
    ("folder: getdents of O_PATH", |at| names(&raw::open(&at.path("folder"), libc::O_PATH)?, 4096)),
    ("folder: SEEK_SET", |at| names_after(at, 0, libc::SEEK_SET)),
    ("folder: SEEK_SET to -1", |at| names_after(at, -1, libc::SEEK_SET)),
    ("folder: SEEK_CUR", |at| names_after(at, 0, libc::SEEK_CUR)),
    ("folder: SEEK_END", |at| names_after(at, 0, libc::SEEK_END)),
    ("folder: SEEK_DATA", |at| raw::seek(&folder(at)?, 0, libc::SEEK_DATA)),
    ("folder: SEEK_HOLE", |at| raw::seek(&folder(at)?, 0, libc::SEEK_HOLE).map(|_| 0)),
    ("folder: lseek with a whence of none", |at| raw::seek(&folder(at)?, 0, 9)),
    ("folder: fsync", |at| numbers(at, libc::SYS_fsync, [0; 4])),
    ("folder: fdatasync", |at| numbers(at, libc::SYS_fdatasync, [0; 4])),
    ("folder: syncfs", |at| numbers(at, libc::SYS_syncfs, [0; 4])),
    ("folder: sync_file_range", |at| numbers(at, libc::SYS_sync_file_range, [0; 4])),
    ("folder: ftruncate", |at| numbers(at, libc::SYS_ftruncate, [0; 4])),
    ("folder: fallocate", |at| numbers(at, libc::SYS_fallocate, [0, 0, 4096, 0])),
    ("folder: fchdir", |at| {
        let answer = numbers(at, libc::SYS_fchdir, [0; 4]);
        std::env::set_current_dir("/").map_err(|_| rustix::io::Errno::IO)?;
        answer
    }),
    ("folder: sendfile", |at| raw::send(&folder(at)?, &at.open("small")?, 100)),
    ("folder: poll", |at| raw::poll(&folder(at)?)),
    ("folder: epoll_ctl", |at| raw::epoll(&folder(at)?)),
    ("folder: flock LOCK_EX", |at| numbers(at, libc::SYS_flock, [libc::LOCK_EX.into(), 0, 0, 0])),
    ("folder: F_GETLK", |at| raw::lock(&folder(at)?, libc::F_GETLK, libc::F_RDLCK)),
    ("folder: F_SETLK F_RDLCK", |at| raw::lock(&folder(at)?, libc::F_SETLK, libc::F_RDLCK)),
    ("folder: F_SETLEASE F_RDLCK", |at| fcntl(at, libc::F_SETLEASE, libc::F_RDLCK)),
    ("folder: F_SETLEASE F_WRLCK", |at| fcntl(at, libc::F_SETLEASE, libc::F_WRLCK)),
    ("folder: F_GETLEASE", |at| fcntl(at, libc::F_GETLEASE, 0)),
    ("folder: F_NOTIFY", |at| fcntl(at, libc::F_NOTIFY, 1)),
    ("folder: F_SETFL O_DIRECT", |at| fcntl(at, libc::F_SETFL, libc::O_DIRECT)),
    ("folder: F_GET_SEALS", |at| fcntl(at, libc::F_GET_SEALS, 0)),
    ("folder: F_SETPIPE_SZ", |at| fcntl(at, libc::F_SETPIPE_SZ, 4096)),
    ("folder: FIONREAD", |at| ioctl(at, "folder", 0x541b)),
    ("folder: FIGETBSZ", |at| ioctl(at, "folder", 2)),
    ("folder: FIBMAP", |at| ioctl(at, "folder", 1)),
    ("folder: FIOQSIZE", |at| ioctl(at, "folder", 0x5460)),
    ("folder: FS_IOC_FIEMAP", |at| extents(at, "folder")),
    ("folder: FS_IOC_GETFLAGS", |at| ioctl(at, "folder", 0x8008_6601)),
    ("folder: FS_IOC_SETFLAGS", |at| ioctl(at, "folder", 0x4008_6602)),
    ("folder: FS_IOC_FSGETXATTR", |at| ioctl(at, "folder", 0x801c_581f)),
    ("folder: FS_IOC_GETVERSION", |at| ioctl(at, "folder", 0x8008_7601)),
    ("folder: FS_IOC_GETFSLABEL", |at| ioctl(at, "folder", 0x8100_9431)),
    ("folder: FS_IOC_GETFSUUID", |at| ioctl(at, "folder", 0x8011_1500)),
    ("folder: FS_IOC_GETFSSYSFSPATH", |at| ioctl(at, "folder", 0x8081_1501)),
    ("folder: FITRIM", |at| ioctl(at, "folder", 0xc018_5879)),
    ("folder: FS_IOC_MEASURE_VERITY", |at| ioctl(at, "folder", 0xc004_6686)),
    ("folder: FS_IOC_GET_ENCRYPTION_POLICY", |at| ioctl(at, "folder", 0x400c_6615)),
    ("folder: ioctl with a number of none", |at| ioctl(at, "folder", 0xdead)),
];
