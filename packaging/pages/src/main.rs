// SPDX-License-Identifier: GPL-2.0-or-later

//! Writes the manual pages and the completions of `mkfs.tesserafs` and `fsck.tesserafs`, from what defines their
//! command lines, into the folder that its first argument names (`man/`, `bash/`, `zsh/`, `fish/`); the second is the date of the pages.

#![forbid(unsafe_code)]

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Command;
use clap_complete::Shell;

/// The programs, as they are installed.
fn programs() -> [Command; 2] {
    [mkfs_tesserafs::cli::command(), fsck_tesserafs::cli::command()]
}

/// Each shell, and the folder of its completions.
const SHELLS: [(Shell, &str); 3] = [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(date), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("usage: tesserafs-pages FOLDER YYYY-MM-DD");
    };
    write(&PathBuf::from(folder), &date.to_string_lossy())
}

/// Writes all files.
fn write(folder: &Path, date: &str) -> Result<()> {
    let pages = make(&folder.join("man"))?;
    for program in programs() {
        let path = pages.join(format!("{}.8", program.get_name()));
        fs::write(&path, page::page(&program, date)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    for (shell, name) in SHELLS {
        let completions = make(&folder.join(name))?;
        for mut program in programs() {
            let name = program.get_name().to_owned();
            clap_complete::generate_to(shell, &mut program, name, &completions)
                .with_context(|| format!("failed to write into {}", completions.display()))?;
        }
    }
    Ok(())
}

/// Makes a folder.
fn make(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    Ok(folder.to_path_buf())
}
