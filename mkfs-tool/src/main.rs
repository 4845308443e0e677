// SPDX-License-Identifier: GPL-2.0-or-later

//! `mkfs.tesserafs`: see `mkfs.tesserafs --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tesserafs_image::open_files::allow_many();
    mkfs_tesserafs::cli::main().into()
}
