// SPDX-License-Identifier: GPL-2.0
//! Where a mount by FUSE answers something else than one by the kernel driver, each with the reason.
//!
//! An entry that is not true any more fails its test, so that the list says what is.

use crate::fstests::Exception;

const NO_IOCTL: &str = "the daemon answers for flags only";
const NO_WAIT: &str = "the kernel's FUSE knows no read that must not wait, or must leave nothing in memory";
const HUGE: &str = "the kernel's FUSE makes no huge pages";
const STATX: &str = "attributes of statx cannot be told by FUSE, nor that there is no time of access";
const HANDLE: &str = "a handle of FUSE is longer";

/// Cases on the image that must fail.
pub(super) const ON_IMAGE: &[Exception] = &[("generic-423-statx", STATX)];

/// Questions with the answers of FUSE.
pub(super) const ANSWERS: &[(&str, &str, &str)] = &[
    ("preadv2 NOWAIT", "EOPNOTSUPP", NO_WAIT),
    ("preadv2 DONTCACHE", "EOPNOTSUPP", NO_WAIT),
    ("epoll_ctl", "0", "any file of FUSE can be polled"),
    ("FIBMAP", "0", "0 is said where there is no block device"),
    ("FS_IOC_GETVERSION", "ENOTTY", NO_IOCTL),
    ("FS_IOC_GETFSLABEL", "ENOTTY", NO_IOCTL),
    ("FS_IOC_GETFSUUID", "ENOTTY", NO_IOCTL),
    ("FS_IOC_GETFSSYSFSPATH", "ENOTTY", NO_IOCTL),
    ("folder: SEEK_END", "2", "the size of a folder, which is the number of its names, is taken for its end"),
    ("folder: FS_IOC_GETVERSION", "ENOTTY", NO_IOCTL),
    ("folder: FS_IOC_GETFSLABEL", "ENOTTY", NO_IOCTL),
    ("folder: FS_IOC_GETFSUUID", "ENOTTY", NO_IOCTL),
    ("folder: FS_IOC_GETFSSYSFSPATH", "ENOTTY", NO_IOCTL),
    ("madvise COLLAPSE", "EINVAL", HUGE),
    ("madvise COLLAPSE of shared", "EINVAL", HUGE),
    ("statx basic", "2047", STATX),
    ("statx basic of a folder", "2047", STATX),
    ("statx DIOALIGN", "0", STATX),
    ("statx IMMUTABLE", "0", STATX),
    ("statx IMMUTABLE of a folder", "0", STATX),
    ("statx IMMUTABLE of a link", "0", STATX),
    ("statx APPEND", "0", STATX),
    ("statx COMPRESSED", "0", STATX),
    ("statx COMPRESSED of an empty file", "0", STATX),
    ("statx COMPRESSED of a folder", "0", STATX),
    ("statx ENCRYPTED", "0", STATX),
    ("statx NODUMP", "0", STATX),
    ("handle of a file", "12912", HANDLE),
    ("handle of a folder", "12912", HANDLE),
    ("handle of a link", "12912", HANDLE),
    ("handle AT_HANDLE_FID", "12912", HANDLE),
    ("handle AT_HANDLE_CONNECTABLE", "6566624", HANDLE),
    ("fanotify_mark of the file system", "error 19", "filesystems of FUSE have no number of their own"),
];
