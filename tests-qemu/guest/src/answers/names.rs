// SPDX-License-Identifier: GPL-2.0
//! Questions about names: `stat`, attributes, handles, permissions, and all that would change something.

use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::files::open;
use super::raw::{self, Answer};
use super::{At, Question};

const ALL: u32 = 0x7fff_ffff;

fn statx(at: &At, name: &str) -> Result<libc::statx, Errno> {
    raw::statx(&at.path(name), libc::AT_SYMLINK_NOFOLLOW, ALL)
}

/// Which of the parts of the answer there are: of `mask` only.
fn known(at: &At, name: &str, mask: u32) -> Answer {
    Ok((statx(at, name)?.stx_mask & mask).into())
}

fn attribute(at: &At, name: &str, bit: i32) -> Answer {
    let stat = statx(at, name)?;
    // 1: it says that it knows; 2: it has it.
    let bit = bit as u64;
    Ok(i64::from(stat.stx_attributes_mask & bit != 0) + 2 * i64::from(stat.stx_attributes & bit != 0))
}

fn get(at: &At, file: &str, name: &str, room: usize) -> Answer {
    Ok(rustix::fs::lgetxattr(at.path(file), name, &mut vec![0; room][..])? as i64)
}

fn list(at: &At, file: &str, room: usize) -> Answer {
    Ok(rustix::fs::llistxattr(at.path(file), &mut vec![0; room][..])? as i64)
}

fn call(at: &At, call: libc::c_long, name: &str, numbers: [i64; 3]) -> Answer {
    raw::path_and_numbers(call, &at.path(name), numbers)
}

/// The same for a call that takes a path from the current directory on.
fn here(at: &At, call: libc::c_long, name: &str, numbers: [i64; 3]) -> Answer {
    raw::path_from_here_and_numbers(call, &at.path(name), numbers)
}

fn two(at: &At, call: libc::c_long, first: &str, second: &str) -> Answer {
    raw::two_paths(call, &at.path(first), &at.path(second))
}

fn statfs(at: &At) -> Result<rustix::fs::StatFs, Errno> {
    rustix::fs::statfs(&at.0)
}

/// The type of the handle of a name, and its length.
fn handle(at: &At, name: &str, flags: i32) -> Answer {
    raw::handle(&at.path(name), flags)
}

fn access(at: &At, name: &str, mode: i32) -> Answer {
    here(at, libc::SYS_faccessat, name, [mode.into(), 0, 0])
}

pub(super) const QUESTIONS: &[Question] = &[
    ("statx basic", |at| known(at, "large", libc::STATX_BASIC_STATS)),
    ("statx basic of a folder", |at| known(at, "folder", libc::STATX_BASIC_STATS)),
    ("statx btime", |at| known(at, "large", libc::STATX_BTIME)),
    ("statx mount", |at| known(at, "large", 0x1000)),
    ("statx DIOALIGN", |at| known(at, "large", 0x2000)),
    ("statx DIOALIGN of a folder", |at| known(at, "folder", 0x2000)),
    ("statx unique mount", |at| known(at, "large", 0x4000)),
    ("statx SUBVOL", |at| known(at, "large", 0x8000)),
    ("statx WRITE_ATOMIC", |at| known(at, "large", 0x10000)),
    ("statx DIO_READ_ALIGN", |at| known(at, "large", 0x20000)),
    ("statx IMMUTABLE", |at| attribute(at, "large", libc::STATX_ATTR_IMMUTABLE)),
    ("statx IMMUTABLE of a folder", |at| attribute(at, "folder", libc::STATX_ATTR_IMMUTABLE)),
    ("statx IMMUTABLE of a link", |at| attribute(at, "link", libc::STATX_ATTR_IMMUTABLE)),
    ("statx APPEND", |at| attribute(at, "large", libc::STATX_ATTR_APPEND)),
    ("statx COMPRESSED", |at| attribute(at, "large", libc::STATX_ATTR_COMPRESSED)),
    ("statx COMPRESSED of an empty file", |at| attribute(at, "empty", libc::STATX_ATTR_COMPRESSED)),
    ("statx COMPRESSED of a folder", |at| attribute(at, "folder", libc::STATX_ATTR_COMPRESSED)),
    ("statx ENCRYPTED", |at| attribute(at, "large", libc::STATX_ATTR_ENCRYPTED)),
    ("statx NODUMP", |at| attribute(at, "large", libc::STATX_ATTR_NODUMP)),
    ("statx VERITY", |at| attribute(at, "large", 0x0010_0000)),
    ("statx DAX", |at| attribute(at, "large", 0x0020_0000)),
    ("statx AUTOMOUNT", |at| attribute(at, "large", libc::STATX_ATTR_AUTOMOUNT)),
    ("statx MOUNT_ROOT", |at| attribute(at, ".", 0x2000)),
    ("statx with a flag of none", |at| raw::statx(&at.path("large"), 1 << 30, ALL).map(|_| 0)),
    ("statx AT_STATX_FORCE_SYNC", |at| raw::statx(&at.path("large"), 0x2000, ALL).map(|_| 0)),
    ("statx, direct memory", |at| Ok(i64::from(statx(at, "large")?.stx_dio_mem_align != 0))),
    ("stat, size", |at| Ok(statx(at, "large")?.stx_size as i64)),
    ("stat, block size", |at| Ok(statx(at, "large")?.stx_blksize.into())),
    ("stat, blocks", |at| Ok(statx(at, "large")?.stx_blocks as i64)),
    ("stat, blocks of holes", |at| Ok(statx(at, "sparse")?.stx_blocks as i64)),
    ("stat, mode", |at| Ok(statx(at, "program")?.stx_mode.into())),
    ("stat, links of a folder", |at| Ok(statx(at, "folder")?.stx_nlink.into())),
    ("stat, time", |at| Ok(statx(at, "large")?.stx_mtime.tv_sec)),
    ("stat, size of a folder", |at| Ok(statx(at, "folder")?.stx_size as i64)),
    ("stat, size of a link", |at| Ok(statx(at, "link")?.stx_size as i64)),
    ("statfs, block size", |at| Ok(statfs(at)?.f_bsize)),
    ("statfs, longest name", |at| Ok(statfs(at)?.f_namelen)),
    ("statfs, flags", |at| Ok(statfs(at)?.f_flags)),
    ("statfs, free", |at| Ok((statfs(at)?.f_bavail + statfs(at)?.f_ffree) as i64)),
    ("getxattr", |at| get(at, "small", "user.note", 100)),
    ("getxattr, its length", |at| get(at, "small", "user.note", 0)),
    ("getxattr, no room", |at| get(at, "small", "user.note", 2)),
    ("getxattr of nothing", |at| get(at, "small", "user.empty", 100)),
    ("getxattr of none", |at| get(at, "small", "user.none", 100)),
    ("getxattr of a file without", |at| get(at, "large", "user.note", 100)),
    ("getxattr of a link", |at| get(at, "link", "user.note", 100)),
    ("getxattr trusted", |at| get(at, "small", "trusted.note", 100)),
    ("getxattr security", |at| get(at, "small", "security.note", 100)),
    ("getxattr system.posix_acl_access", |at| get(at, "empty", "system.posix_acl_access", 100)),
    ("getxattr system.posix_acl_default", |at| get(at, "folder", "system.posix_acl_default", 100)),
    ("getxattr ACL of a link", |at| get(at, "link", "system.posix_acl_access", 100)),
    ("getxattr system.other", |at| get(at, "small", "system.other", 100)),
    ("getxattr of no namespace", |at| get(at, "small", "other.note", 100)),
    ("getxattr of user.", |at| get(at, "small", "user.", 100)),
    ("getxattr of a long name", |at| get(at, "small", &format!("user.{}", "x".repeat(300)), 100)),
    ("listxattr", |at| list(at, "small", 1000)),
    ("listxattr, its length", |at| list(at, "small", 0)),
    ("listxattr, no room", |at| list(at, "small", 3)),
    ("listxattr of a file without", |at| list(at, "large", 100)),
    ("listxattr of a link", |at| list(at, "link", 100)),
    ("listxattr of an ACL", |at| list(at, "empty", 100)),
    ("setxattr", |at| {
        rustix::fs::lsetxattr(at.path("small"), "user.x", b"y", XattrFlags::empty()).map(|()| 0)
    }),
    ("setxattr of a link", |at| {
        rustix::fs::lsetxattr(at.path("link"), "user.x", b"y", XattrFlags::empty()).map(|()| 0)
    }),
    ("removexattr", |at| rustix::fs::lremovexattr(at.path("small"), "user.note").map(|()| 0)),
    ("removexattr of none", |at| rustix::fs::lremovexattr(at.path("small"), "user.none").map(|()| 0)),
    ("handle of a file", |at| handle(at, "large", 0)),
    ("handle of a folder", |at| handle(at, "folder", 0)),
    ("handle of a link", |at| handle(at, "link", 0)),
    ("handle AT_HANDLE_FID", |at| handle(at, "large", libc::AT_REMOVEDIR)),
    ("handle AT_HANDLE_CONNECTABLE", |at| handle(at, "large", 2)),
    ("access R_OK", |at| access(at, "large", libc::R_OK)),
    ("access W_OK", |at| access(at, "large", libc::W_OK)),
    ("access W_OK of a FIFO", |at| access(at, "fifo", libc::W_OK)),
    ("access X_OK", |at| access(at, "large", libc::X_OK)),
    ("access W_OK of a folder", |at| access(at, "folder", libc::W_OK)),
    ("open of a loop of links", |at| open(at, "loop", libc::O_RDONLY)),
    ("open O_NOFOLLOW of a link", |at| open(at, "link", libc::O_NOFOLLOW)),
    ("open of a name that is not there", |at| open(at, "none", libc::O_RDONLY)),
    ("open below a file", |at| open(at, "large/none", libc::O_RDONLY)),
    ("open of a long name", |at| open(at, &"x".repeat(256), libc::O_RDONLY)),
    ("open of the longest name", |at| open(at, &"x".repeat(255), libc::O_RDONLY)),
    ("open of a FIFO", |at| open(at, "fifo", libc::O_RDWR)),
    ("readlink of a file", |at| rustix::fs::readlink(at.path("large"), vec![]).map(|_| 0)),
    ("create", |at| open(at, "new", libc::O_CREAT | libc::O_WRONLY)),
    ("truncate", |at| call(at, libc::SYS_truncate, "large", [0; 3])),
    ("chmod", |at| here(at, libc::SYS_fchmodat, "large", [0o600, 0, 0])),
    ("chown", |at| here(at, libc::SYS_fchownat, "large", [1, 1, 0])),
    ("lchown of a link", |at| here(at, libc::SYS_fchownat, "link", [1, 1, libc::AT_SYMLINK_NOFOLLOW.into()])),
    ("utime", |at| here(at, libc::SYS_utimensat, "large", [0; 3])),
    ("unlink", |at| here(at, libc::SYS_unlinkat, "large", [0; 3])),
    ("unlink of a name that is not there", |at| here(at, libc::SYS_unlinkat, "none", [0; 3])),
    ("unlink of a folder", |at| here(at, libc::SYS_unlinkat, "folder", [0; 3])),
    ("rmdir", |at| here(at, libc::SYS_unlinkat, "folder", [libc::AT_REMOVEDIR.into(), 0, 0])),
    ("mkdir", |at| here(at, libc::SYS_mkdirat, "new", [0o700, 0, 0])),
    ("mkdir of a name that is there", |at| here(at, libc::SYS_mkdirat, "folder", [0o700, 0, 0])),
    ("mknod", |at| here(at, libc::SYS_mknodat, "new", [libc::S_IFIFO.into(), 0, 0])),
    ("link", |at| two(at, libc::SYS_linkat, "large", "new")),
    ("symlink", |at| raw::symlink(&at.path("large"), &at.path("new"))),
    ("rename", |at| two(at, libc::SYS_renameat2, "large", "new")),
    ("rename to another file system", |at| {
        raw::two_paths(libc::SYS_renameat2, &at.path("large"), Path::new("/tmp/new"))
    }),
    ("swapon", |at| call(at, libc::SYS_swapon, "large", [0; 3])),
    ("acct", |at| call(at, libc::SYS_acct, "large", [0; 3])),
    ("chroot of a file", |at| call(at, libc::SYS_chroot, "large", [0; 3])),
    ("inotify_add_watch", |at| raw::watch(&at.path("large"))),
    ("fanotify_mark of a file", |at| raw::mark(&at.path("large"), 0)),
    ("fanotify_mark of the file system", |at| raw::mark(&at.path("large"), 0x100)),
];
