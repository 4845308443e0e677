// SPDX-License-Identifier: GPL-2.0
//! A `mkfs.erofs` that knows zstd: the installed one, else the newest of Debian's archive, built here.

use std::path::PathBuf;

use anyhow::{bail, Context, Result};

use crate::cache::{log_of, Cache};
use crate::debian::Suite;
use crate::{kernel, run, setup};

/// Where the newest source package is.
const SUITE: &str = "sid";

/// To build it.
const PACKAGES: &[&str] =
    &["autoconf", "automake", "dpkg-dev", "gcc", "libtool", "libzstd-dev", "make", "pkg-config", "uuid-dev"];

/// The program, and its version as it says it.
pub(crate) fn mkfs(cache: &Cache) -> Result<(PathBuf, String)> {
    let installed = PathBuf::from("mkfs.erofs");
    if let Ok(version) = zstd_version(&installed) {
        return Ok((installed, version));
    }
    let folder = cache.once("erofs-utils", |folder| {
        setup::install(cache, PACKAGES)?;
        run::say("building a mkfs.erofs that knows zstd");
        let suite = Suite::fetch(folder, SUITE, true)?;
        run::logged(
            suite.apt("apt-get").args(["source", "--download-only", "erofs-utils"]),
            &log_of(folder),
        )?;
        let description = std::fs::read_dir(folder)
            .context("failed to list downloads")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
            .context("apt downloaded no source package")?;
        let source = folder.join("source");
        // The archive has vouched for the package: apt checked its hash against a signed list.
        run::logged(
            run::command("dpkg-source").args(["--no-check", "-x"]).arg(description).arg(&source),
            &log_of(folder),
        )?;
        let steps: [&[&str]; 3] = [
            &["./autogen.sh"],
            &["./configure", "--with-libzstd", "--disable-fuse", "--without-selinux"],
            &["make", &format!("-j{}", kernel::processors())],
        ];
        for step in steps {
            run::logged(
                run::command(step[0]).current_dir(&source).env_remove("MAKEFLAGS").args(&step[1..]),
                &log_of(folder),
            )?;
        }
        Ok(())
    })?;
    let program = folder.join("source/mkfs/mkfs.erofs");
    let version = zstd_version(&program)?;
    Ok((program, version))
}

/// The version of a program that can compress with zstd.
fn zstd_version(program: &PathBuf) -> Result<String> {
    let help = run::output(run::command(program).arg("--help"))?;
    let help = [help.stdout, help.stderr].concat();
    if !String::from_utf8_lossy(&help).contains("zstd") {
        bail!("{} knows no zstd", program.display());
    }
    let version = run::output(run::command(program).arg("-V"))?;
    let version = [version.stdout, version.stderr].concat();
    let version = String::from_utf8_lossy(&version);
    Ok(version.lines().next().unwrap_or_default().trim().to_owned())
}
