// SPDX-License-Identifier: GPL-2.0
//! Where tesserafs answers something else than ext4, each with the reason; `kernel-module/UPSTREAM.md` has them, too.

use super::Different;

/// An answer that EROFS gives, too.
const fn as_erofs(question: &'static str, answer: &'static str, why: &'static str) -> Different {
    Different { question, answer, like_erofs: true, why }
}

/// An answer that neither has.
const fn alone(question: &'static str, answer: &'static str, why: &'static str) -> Different {
    Different { question, answer, like_erofs: false, why }
}

const DIRECT: &str = "a direct read goes through the page cache, and may have any alignment";
const PLACES: &str = "bytes are compressed and shared: there is no place of the file's own on the device";
const FREEZE: &str = "nothing is written, so there is nothing to hold up";
const VERITY: &str = "the digest of the image vouches for all files; none has an fs-verity digest of its own";
const IMMUTABLE: &str =
    "nobody can write, rename or remove it, as long as the image is mounted and ever after";
const KEPT: &str = "the image keeps no times of creation and access";

pub(super) const DIFFERENT: &[Different] = &[
    alone("read O_DIRECT, not aligned", "100", DIRECT),
    as_erofs("SEEK_SET to 2^62", "4611686018427387904", "files may have 2^63-1 bytes"),
    as_erofs("FIBMAP", "EINVAL", PLACES),
    alone("FS_IOC_FIEMAP", "EOPNOTSUPP", PLACES),
    alone("folder: FS_IOC_FIEMAP", "EOPNOTSUPP", PLACES),
    as_erofs("FIFREEZE", "EOPNOTSUPP", FREEZE),
    as_erofs("FITHAW", "EINVAL", FREEZE),
    as_erofs("FITRIM", "ENOTTY", "nothing is free, so nothing can be given back"),
    as_erofs("folder: FITRIM", "ENOTTY", "nothing is free, so nothing can be given back"),
    alone("FS_IOC_GETFLAGS", "0", "ext4's flag says that it maps the file by extents"),
    as_erofs("FS_IOC_SETFSLABEL", "ENOTTY", "an image has no label"),
    as_erofs("FS_IOC_ENABLE_VERITY", "ENOTTY", VERITY),
    as_erofs("FS_IOC_MEASURE_VERITY", "ENOTTY", VERITY),
    as_erofs("FS_IOC_READ_VERITY_METADATA", "ENOTTY", VERITY),
    as_erofs("folder: FS_IOC_MEASURE_VERITY", "ENOTTY", VERITY),
    as_erofs("FS_IOC_GET_ENCRYPTION_POLICY", "ENOTTY", "files are not encrypted"),
    as_erofs("folder: FS_IOC_GET_ENCRYPTION_POLICY", "ENOTTY", "files are not encrypted"),
    as_erofs("statx basic", "2015", KEPT),
    as_erofs("statx basic of a folder", "2015", KEPT),
    as_erofs("statx btime", "0", KEPT),
    as_erofs("statx WRITE_ATOMIC", "0", "nothing is written, be it as a whole or in parts"),
    as_erofs("statx IMMUTABLE", "3", IMMUTABLE),
    as_erofs("statx IMMUTABLE of a folder", "3", IMMUTABLE),
    as_erofs("statx IMMUTABLE of a link", "3", IMMUTABLE),
    as_erofs("statx COMPRESSED", "3", "its chunks are compressed"),
    as_erofs("statx, direct memory", "0", DIRECT),
    alone("stat, size of a folder", "3000", "the number of names; a directory has no bytes of its own"),
    alone("statfs, free", "0", "there is nothing that could be written"),
];
