// SPDX-License-Identifier: GPL-2.0
//! A `mkfs.erofs` and an `erofsfuse` that know zstd: the installed ones, else the newest of Debian's archive, built here.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::cache::{log_of, Cache};
use crate::debian::Suite;
use crate::{kernel, run, setup};

/// Where the newest source package is.
const SUITE: &str = "sid";

/// To build it.
const PACKAGES: &[&str] =
    &["autoconf", "automake", "dpkg-dev", "gcc", "libtool", "libzstd-dev", "make", "pkg-config", "uuid-dev"];

/// To build `erofsfuse`, too.
const FUSE_PACKAGES: &[&str] = &["libfuse3-dev"];

/// The first release that reads zstd.
const ZSTD_SINCE: (u32, u32) = (1, 8);

/// The builder, and its version as it says it.
pub(crate) fn mkfs(cache: &Cache) -> Result<(PathBuf, String)> {
    let installed = PathBuf::from("mkfs.erofs");
    if let Ok(version) = zstd_version(&installed) {
        return Ok((installed, version));
    }
    let program = build(cache, "erofs-utils", "--disable-fuse", &[])?.join("mkfs/mkfs.erofs");
    let version = zstd_version(&program)?;
    Ok((program, version))
}

/// The server for FUSE, and its version.
pub(crate) fn fuse(cache: &Cache) -> Result<(PathBuf, String)> {
    let installed = PathBuf::from("erofsfuse");
    // It does not say what it decompresses, only what it is.
    if let Ok(version) = run::version(&installed, "--help", "erofsfuse ") {
        if release(&version).is_some_and(|release| release >= ZSTD_SINCE) {
            return Ok((installed, version));
        }
    }
    // A folder of its own: that of the builder is made without the library of FUSE.
    let program = build(cache, "erofs-utils-fuse", "--enable-fuse", FUSE_PACKAGES)?.join("fuse/erofsfuse");
    let version = run::version(&program, "--help", "erofsfuse ")?;
    Ok((program, version))
}

/// Builds the newest source package, once, in a folder of the cache; returns its source tree.
fn build(cache: &Cache, name: &str, fuse: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = cache.once(name, |folder| {
        setup::install(cache, &[PACKAGES, packages].concat())?;
        run::say("building programs of EROFS that know zstd");
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
            &["./configure", "--with-libzstd", fuse, "--without-selinux"],
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
    Ok(folder.join("source"))
}

/// The version of a program that can compress with zstd.
fn zstd_version(program: &Path) -> Result<String> {
    let help = run::output(run::command(program).arg("--help"))?;
    let help = [help.stdout, help.stderr].concat();
    if !String::from_utf8_lossy(&help).contains("zstd") {
        bail!("{} knows no zstd", program.display());
    }
    run::version(program, "-V", "")
}

/// The first two numbers of a version: `erofsfuse 1.9.4` is 1.9.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(' ').nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_for_zstd_is_not_used() {
        assert!(release("erofsfuse 1.9.4").is_some_and(|release| release >= ZSTD_SINCE));
        assert!(release("erofsfuse 1.8.6-1").is_some_and(|release| release >= ZSTD_SINCE));
        assert!(release("erofsfuse 1.5").is_some_and(|release| release < ZSTD_SINCE));
        assert_eq!(release("usage:"), None);
    }
}
