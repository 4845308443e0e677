// SPDX-License-Identifier: GPL-2.0-or-later

//! `fsck-tesserafs`: see `fsck-tesserafs --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tesserafs_image::open_files::allow_many();
    fsck_tesserafs::cli::main().into()
}
