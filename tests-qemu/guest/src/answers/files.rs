// SPDX-License-Identifier: GPL-2.0
//! Questions about an open regular file.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;
use tesserafs_guest::plan::ANSWERS_LARGE;

use super::raw::{self, Answer, Memory};
use super::{At, Question};

/// The size of `large`, as positions are given.
const END: i64 = ANSWERS_LARGE as i64;

/// Requests that libc has no name for, as `asm-generic/ioctl.h` makes them.
const fn request(direction: u64, kind: u8, number: u64, size: u64) -> u64 {
    direction << 30 | size << 16 | (kind as u64) << 8 | number
}
const fn read(kind: u8, number: u64, size: u64) -> u64 {
    request(2, kind, number, size)
}
const fn write(kind: u8, number: u64, size: u64) -> u64 {
    request(1, kind, number, size)
}
const fn both(kind: u8, number: u64, size: u64) -> u64 {
    request(3, kind, number, size)
}

/// Opens and closes.
pub(super) fn open(at: &At, name: &str, flags: i32) -> Answer {
    raw::open(&at.path(name), flags).map(|_| 0)
}

/// `ioctl` on a file of the tree, with an address.
pub(super) fn ioctl(at: &At, name: &str, request: u64) -> Answer {
    raw::ioctl_with(&at.open(name)?, request, &mut [0; 512])
}

/// `ioctl`, and the first 32 bits of its output.
fn word(at: &At, name: &str, request: u64) -> Answer {
    let mut memory: Memory = [0; 512];
    raw::ioctl_with(&at.open(name)?, request, &mut memory)?;
    Ok((memory[0] & 0xffff_ffff) as i64)
}

/// Whether `FS_IOC_FIEMAP` names an extent.
pub(super) fn extents(at: &At, name: &str) -> Answer {
    let mut memory: Memory = [0; 512];
    // All of the file; room for one.
    memory[1] = u64::MAX;
    memory[3] = 1;
    raw::ioctl_with(&at.open(name)?, both(b'f', 11, 32), &mut memory)?;
    Ok((memory[2] >> 32) as i64)
}

fn fcntl(at: &At, command: i32, number: i32) -> Answer {
    raw::fcntl(&at.open("large")?, command, number)
}

fn fcntl_with(at: &At, command: i32) -> Answer {
    raw::fcntl_with(&at.open("large")?, command, &mut [0; 512])
}

fn seek(at: &At, name: &str, offset: i64, whence: i32) -> Answer {
    raw::seek(&at.open(name)?, offset, whence)
}

fn preadv2(at: &At, flags: i32) -> Answer {
    let file = at.open("large")?;
    // Bytes in memory are no reason to make a reader wait.
    raw::read(&file, 4096, 0, 0)?;
    raw::read(&file, 4096, 0, flags)
}

fn numbers(at: &At, call: libc::c_long, numbers: [i64; 4]) -> Answer {
    raw::numbers(call, &at.open("large")?, numbers)
}

fn advise(at: &At, advice: i32) -> Answer {
    numbers(at, libc::SYS_fadvise64, [0, 0, advice.into(), 0])
}

/// A file of the guest's own that can be written.
fn scratch() -> Result<File, Errno> {
    raw::open(Path::new("/tmp/answers"), libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC)
}

/// The ends of a pipe.
fn pipe() -> Result<(File, File), Errno> {
    let (reader, writer) = rustix::pipe::pipe()?;
    Ok((reader.into(), writer.into()))
}

pub(super) const QUESTIONS: &[Question] = &[
    // open
    ("open O_WRONLY", |at| open(at, "large", libc::O_WRONLY)),
    ("open O_RDWR", |at| open(at, "large", libc::O_RDWR)),
    ("open 3", |at| open(at, "large", 3)),
    ("open O_CREAT", |at| open(at, "large", libc::O_CREAT)),
    ("open O_CREAT|O_EXCL", |at| open(at, "large", libc::O_CREAT | libc::O_EXCL)),
    ("open O_TRUNC", |at| open(at, "large", libc::O_TRUNC)),
    ("open O_APPEND", |at| open(at, "large", libc::O_APPEND)),
    ("open O_NONBLOCK", |at| open(at, "large", libc::O_NONBLOCK)),
    ("open O_SYNC", |at| open(at, "large", libc::O_SYNC)),
    ("open O_DSYNC", |at| open(at, "large", libc::O_DSYNC)),
    ("open O_ASYNC", |at| open(at, "large", libc::O_ASYNC)),
    ("open O_DIRECT", |at| open(at, "large", libc::O_DIRECT)),
    ("open O_NOATIME", |at| open(at, "large", libc::O_NOATIME)),
    ("open O_NOFOLLOW", |at| open(at, "large", libc::O_NOFOLLOW)),
    ("open O_NOCTTY", |at| open(at, "large", libc::O_NOCTTY)),
    ("open O_DIRECTORY", |at| open(at, "large", libc::O_DIRECTORY)),
    ("open O_PATH", |at| open(at, "large", libc::O_PATH)),
    ("open O_TMPFILE", |at| open(at, "large", libc::O_TMPFILE | libc::O_RDWR)),
    ("F_GETFL", |at| fcntl(at, libc::F_GETFL, 0)),
    // read
    ("read", |at| raw::read(&at.open("large")?, 100, 0, 0)),
    ("read at the end", |at| raw::read(&at.open("large")?, 100, END - 10, 0)),
    ("read behind the end", |at| raw::read(&at.open("large")?, 100, END, 0)),
    ("read far behind the end", |at| raw::read(&at.open("large")?, 100, 1 << 50, 0)),
    ("read at -2", |at| raw::read(&at.open("large")?, 100, -2, 0)),
    ("read of no byte", |at| raw::read(&at.open("large")?, 0, 0, 0)),
    ("read of an empty file", |at| raw::read(&at.open("empty")?, 100, 0, 0)),
    ("read of O_PATH", |at| raw::read(&raw::open(&at.path("large"), libc::O_PATH)?, 1, 0, 0)),
    ("read O_DIRECT, aligned", |at| {
        raw::read_aligned(&raw::open(&at.path("large"), libc::O_DIRECT)?, 8192, 4096)
    }),
    ("read O_DIRECT, at the end", |at| {
        raw::read_aligned(&raw::open(&at.path("large"), libc::O_DIRECT)?, 8192, END - 4096)
    }),
    ("read O_DIRECT, behind the end", |at| {
        raw::read_aligned(&raw::open(&at.path("large"), libc::O_DIRECT)?, 8192, END)
    }),
    ("read O_DIRECT, not aligned", |at| raw::read(&raw::open(&at.path("large"), libc::O_DIRECT)?, 100, 3, 0)),
    ("preadv2 HIPRI", |at| preadv2(at, libc::RWF_HIPRI)),
    ("preadv2 DSYNC", |at| preadv2(at, libc::RWF_DSYNC)),
    ("preadv2 SYNC", |at| preadv2(at, libc::RWF_SYNC)),
    ("preadv2 NOWAIT", |at| preadv2(at, libc::RWF_NOWAIT)),
    ("preadv2 APPEND", |at| preadv2(at, libc::RWF_APPEND)),
    ("preadv2 NOAPPEND", |at| preadv2(at, 0x20)),
    ("preadv2 ATOMIC", |at| preadv2(at, 0x40)),
    ("preadv2 DONTCACHE", |at| preadv2(at, 0x80)),
    ("preadv2 with a flag of none", |at| preadv2(at, 0x4000_0000)),
    ("write", |at| numbers(at, libc::SYS_pwrite64, [0, 0, 0, 0])),
    ("readahead", |at| numbers(at, libc::SYS_readahead, [0, 65536, 0, 0])),
    ("fadvise NORMAL", |at| advise(at, libc::POSIX_FADV_NORMAL)),
    ("fadvise RANDOM", |at| advise(at, libc::POSIX_FADV_RANDOM)),
    ("fadvise SEQUENTIAL", |at| advise(at, libc::POSIX_FADV_SEQUENTIAL)),
    ("fadvise WILLNEED", |at| advise(at, libc::POSIX_FADV_WILLNEED)),
    ("fadvise DONTNEED", |at| advise(at, libc::POSIX_FADV_DONTNEED)),
    ("fadvise NOREUSE", |at| advise(at, libc::POSIX_FADV_NOREUSE)),
    ("fadvise with a number of none", |at| advise(at, 77)),
    // lseek
    ("SEEK_SET", |at| seek(at, "large", 77, libc::SEEK_SET)),
    ("SEEK_SET to -1", |at| seek(at, "large", -1, libc::SEEK_SET)),
    ("SEEK_SET behind the end", |at| seek(at, "large", 1 << 40, libc::SEEK_SET)),
    ("SEEK_SET to 2^62", |at| seek(at, "large", 1 << 62, libc::SEEK_SET)),
    ("SEEK_CUR", |at| seek(at, "large", 5, libc::SEEK_CUR)),
    ("SEEK_CUR to -1", |at| seek(at, "large", -1, libc::SEEK_CUR)),
    ("SEEK_END", |at| seek(at, "large", -5, libc::SEEK_END)),
    ("SEEK_DATA", |at| seek(at, "sparse", 0, libc::SEEK_DATA)),
    ("SEEK_DATA in a hole", |at| seek(at, "sparse", 100_000, libc::SEEK_DATA)),
    ("SEEK_DATA in the last hole", |at| seek(at, "sparse", 700_000, libc::SEEK_DATA)),
    ("SEEK_DATA at the end", |at| seek(at, "sparse", 1 << 20, libc::SEEK_DATA)),
    ("SEEK_DATA at -1", |at| seek(at, "sparse", -1, libc::SEEK_DATA)),
    ("SEEK_HOLE", |at| seek(at, "sparse", 0, libc::SEEK_HOLE)),
    ("SEEK_HOLE in a hole", |at| seek(at, "sparse", 100_000, libc::SEEK_HOLE)),
    ("SEEK_HOLE of a file without", |at| seek(at, "large", 0, libc::SEEK_HOLE)),
    ("SEEK_HOLE at the end", |at| seek(at, "large", END, libc::SEEK_HOLE)),
    ("SEEK_HOLE of an empty file", |at| seek(at, "empty", 0, libc::SEEK_HOLE)),
    ("lseek with a whence of none", |at| seek(at, "large", 0, 9)),
    // Calls that sync, change, or move bytes.
    ("fsync", |at| numbers(at, libc::SYS_fsync, [0; 4])),
    ("fdatasync", |at| numbers(at, libc::SYS_fdatasync, [0; 4])),
    ("syncfs", |at| numbers(at, libc::SYS_syncfs, [0; 4])),
    ("sync_file_range", |at| numbers(at, libc::SYS_sync_file_range, [0, 0, 7, 0])),
    ("ftruncate", |at| numbers(at, libc::SYS_ftruncate, [0; 4])),
    ("fallocate", |at| numbers(at, libc::SYS_fallocate, [0, 0, 4096, 0])),
    ("fallocate PUNCH_HOLE", |at| numbers(at, libc::SYS_fallocate, [3, 0, 4096, 0])),
    ("fchmod", |at| numbers(at, libc::SYS_fchmod, [0o600, 0, 0, 0])),
    ("fchown", |at| numbers(at, libc::SYS_fchown, [1, 1, 0, 0])),
    ("copy_file_range from it", |at| {
        raw::transfer(libc::SYS_copy_file_range, &at.open("large")?, &scratch()?, 100)
    }),
    ("copy_file_range to it", |at| {
        raw::transfer(libc::SYS_copy_file_range, &at.open("small")?, &at.open("large")?, 100)
    }),
    ("sendfile from it", |at| raw::send(&at.open("large")?, &scratch()?, 100)),
    ("sendfile to it", |at| raw::send(&at.open("small")?, &at.open("large")?, 100)),
    ("splice from it", |at| raw::transfer(libc::SYS_splice, &at.open("large")?, &pipe()?.1, 100)),
    ("splice from O_DIRECT", |at| {
        raw::transfer(libc::SYS_splice, &raw::open(&at.path("large"), libc::O_DIRECT)?, &pipe()?.1, 4096)
    }),
    ("splice to it", |at| raw::transfer(libc::SYS_splice, &pipe()?.0, &at.open("large")?, 100)),
    ("poll", |at| raw::poll(&at.open("large")?)),
    ("epoll_ctl", |at| raw::epoll(&at.open("large")?)),
    // fcntl and flock
    ("F_SETFL O_APPEND", |at| fcntl(at, libc::F_SETFL, libc::O_APPEND)),
    ("F_SETFL O_ASYNC", |at| fcntl(at, libc::F_SETFL, libc::O_ASYNC)),
    ("F_SETFL O_DIRECT", |at| fcntl(at, libc::F_SETFL, libc::O_DIRECT)),
    ("F_SETFL O_NOATIME", |at| fcntl(at, libc::F_SETFL, libc::O_NOATIME)),
    ("F_GETLK", |at| raw::lock(&at.open("large")?, libc::F_GETLK, libc::F_RDLCK)),
    ("F_SETLK F_RDLCK", |at| raw::lock(&at.open("large")?, libc::F_SETLK, libc::F_RDLCK)),
    ("F_SETLK F_WRLCK", |at| raw::lock(&at.open("large")?, libc::F_SETLK, libc::F_WRLCK)),
    ("F_OFD_SETLK F_RDLCK", |at| raw::lock(&at.open("large")?, libc::F_OFD_SETLK, libc::F_RDLCK)),
    ("F_OFD_SETLK F_WRLCK", |at| raw::lock(&at.open("large")?, libc::F_OFD_SETLK, libc::F_WRLCK)),
    ("F_SETLEASE F_RDLCK", |at| fcntl(at, libc::F_SETLEASE, libc::F_RDLCK)),
    ("F_SETLEASE F_WRLCK", |at| fcntl(at, libc::F_SETLEASE, libc::F_WRLCK)),
    ("F_SETLEASE F_UNLCK", |at| fcntl(at, libc::F_SETLEASE, libc::F_UNLCK)),
    ("F_GETLEASE", |at| fcntl(at, libc::F_GETLEASE, 0)),
    ("F_NOTIFY", |at| fcntl(at, libc::F_NOTIFY, 1)),
    ("F_GETPIPE_SZ", |at| fcntl(at, libc::F_GETPIPE_SZ, 0)),
    ("F_SETPIPE_SZ", |at| fcntl(at, libc::F_SETPIPE_SZ, 4096)),
    ("F_GET_SEALS", |at| fcntl(at, libc::F_GET_SEALS, 0)),
    ("F_ADD_SEALS", |at| fcntl(at, libc::F_ADD_SEALS, 0)),
    ("F_GETOWN", |at| fcntl(at, libc::F_GETOWN, 0)),
    ("F_SETOWN", |at| fcntl(at, libc::F_SETOWN, 1)),
    ("F_SETSIG", |at| fcntl(at, 10, 10)),
    ("F_GET_RW_HINT", |at| fcntl_with(at, 1035)),
    ("F_SET_RW_HINT", |at| fcntl_with(at, 1036)),
    ("fcntl with a number of none", |at| fcntl(at, 9999, 0)),
    ("flock LOCK_SH", |at| numbers(at, libc::SYS_flock, [libc::LOCK_SH.into(), 0, 0, 0])),
    ("flock LOCK_EX", |at| numbers(at, libc::SYS_flock, [libc::LOCK_EX.into(), 0, 0, 0])),
    // ioctl
    ("FIONBIO", |at| ioctl(at, "large", 0x5421)),
    ("FIOASYNC", |at| ioctl(at, "large", 0x5452)),
    ("FIOASYNC on", |at| raw::ioctl_with(&at.open("large")?, 0x5452, &mut [1; 512])),
    ("FIOQSIZE", |at| ioctl(at, "large", 0x5460)),
    ("FIONREAD", |at| word(at, "large", 0x541b)),
    ("FIGETBSZ", |at| word(at, "large", 2)),
    ("FIBMAP", |at| ioctl(at, "large", 1)),
    ("FS_IOC_FIEMAP", |at| extents(at, "large")),
    ("FIFREEZE", |at| ioctl(at, "large", both(b'X', 119, 4))),
    ("FITHAW", |at| ioctl(at, "large", both(b'X', 120, 4))),
    ("FITRIM", |at| raw::ioctl_with(&at.open("large")?, both(b'X', 121, 24), &mut [1 << 40; 512])),
    ("FICLONE", |at| {
        let source = std::os::fd::AsRawFd::as_raw_fd(&at.open("small")?);
        raw::ioctl(&at.open("large")?, write(b'\x94', 9, 4), source)
    }),
    ("FICLONERANGE", |at| ioctl(at, "large", write(b'\x94', 13, 32))),
    ("FIDEDUPERANGE", |at| ioctl(at, "large", both(b'\x94', 54, 24))),
    ("FS_IOC_GETFLAGS", |at| word(at, "large", read(b'f', 1, 8))),
    ("FS_IOC_SETFLAGS", |at| ioctl(at, "large", write(b'f', 2, 8))),
    ("FS_IOC_FSGETXATTR", |at| word(at, "large", read(b'X', 31, 28))),
    ("FS_IOC_FSSETXATTR", |at| ioctl(at, "large", write(b'X', 32, 28))),
    ("FS_IOC_GETVERSION", |at| ioctl(at, "large", read(b'v', 1, 8))),
    ("FS_IOC_SETVERSION", |at| ioctl(at, "large", write(b'v', 2, 8))),
    ("FS_IOC_GETFSLABEL", |at| word(at, "large", read(b'\x94', 49, 256))),
    ("FS_IOC_SETFSLABEL", |at| ioctl(at, "large", write(b'\x94', 50, 256))),
    ("FS_IOC_GETFSUUID", |at| ioctl(at, "large", read(0x15, 0, 17))),
    ("FS_IOC_GETFSSYSFSPATH", |at| ioctl(at, "large", read(0x15, 1, 129))),
    ("FS_IOC_RESVSP", |at| ioctl(at, "large", write(b'X', 40, 48))),
    ("FS_IOC_ENABLE_VERITY", |at| ioctl(at, "large", write(b'f', 133, 128))),
    ("FS_IOC_MEASURE_VERITY", |at| ioctl(at, "large", both(b'f', 134, 4))),
    ("FS_IOC_READ_VERITY_METADATA", |at| ioctl(at, "large", both(b'f', 135, 40))),
    ("FS_IOC_GET_ENCRYPTION_POLICY", |at| ioctl(at, "large", write(b'f', 21, 12))),
    ("TCGETS", |at| ioctl(at, "large", 0x5401)),
    ("ioctl with a number of none", |at| ioctl(at, "large", 0xdead)),
];
