// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs`: see `tesserafs --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tesserafs_image::open_files::allow_many();
    tesserafs_store::cli::main()
}
