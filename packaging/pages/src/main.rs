// SPDX-License-Identifier: GPL-2.0-or-later

//! Writes the manual pages and the completions of `mkfs.tesserafs`, `fsck.tesserafs` and `tesserafs`, from what defines their
//! command lines, into the folder that its first argument names (`man/`, `bash/`, `zsh/`, `fish/`); the second is the date of the pages.

#![forbid(unsafe_code)]

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Command;
use clap_complete::Shell;

/// The programs, as they are installed.
fn programs() -> [Command; 3] {
    [mkfs_tesserafs::cli::command(), fsck_tesserafs::cli::command(), tesserafs_store::cli::command()]
}

/// The commands that have a page: each program, but of one with verbs each verb, as `tesserafs-mount`; `tesserafs(8)` is about the driver.
fn pages() -> Vec<Command> {
    let mut pages = Vec::new();
    for program in programs() {
        let name = program.get_name().to_owned();
        if !program.has_subcommands() {
            pages.push(program);
            continue;
        }
        let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
        pages.extend(verbs.map(|verb| {
            let (page, typed) =
                (format!("{name}-{}", verb.get_name()), format!("{name} {}", verb.get_name()));
            // The process ends at once, and with it what is leaked; the programs and this one have one version.
            verb.clone().name(&*page.leak()).bin_name(typed).version(env!("CARGO_PKG_VERSION"))
        }));
    }
    pages
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
    let man = make(&folder.join("man"))?;
    for program in pages() {
        let path = man.join(format!("{}.8", program.get_name()));
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
