// SPDX-License-Identifier: GPL-2.0
//! Two releases of one distribution: the Debian root of the tests as its suite was published, and the same
//! root after the updates that the archive has for it.
//!
//! Both are as images of systems are: without package lists and downloaded packages, and without the
//! special cases of the tests. The updates are installed by the root's own dpkg, maintainer scripts and all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::fs::{makedev, mknodat, FileType, Mode, CWD};

use crate::cache::{key, log_of, Cache};
use crate::debian::{self, Suite};
use crate::{rootfs, run, setup};

/// Two roots.
pub(crate) struct Releases {
    /// As published.
    pub(crate) before: PathBuf,
    /// With updates.
    pub(crate) after: PathBuf,
    /// Suite that they are of.
    pub(crate) suite: String,
    /// Packages that the roots have.
    pub(crate) packages: usize,
    /// Those of another version in the second one.
    pub(crate) updated: Vec<String>,
}

/// A file that the tests add to the root: no release has it.
const CASES: &str = "srv";

/// Where dpkg keeps what is installed.
const STATUS: &str = "var/lib/dpkg/status";

/// Where in the second root the packages lie while they are installed.
const PACKAGES: &str = "var/cache/apt/archives";

/// Runs of dpkg at most: one, and one more for each step of a chain of packages that must be configured before others are unpacked.
const RUNS: usize = 4;

/// Devices that maintainer scripts expect: name, major and minor number.
const DEVICES: [(&str, u32, u32); 3] = [("null", 1, 3), ("zero", 1, 5), ("urandom", 1, 9)];

/// The roots in the cache, made once: they depend on the Debian root, on this file and on the archive.
pub(crate) fn prepare(cache: &Cache) -> Result<Releases> {
    let root = rootfs::debian(cache)?;
    let suite = debian::codename_of(&root)?;
    let key = key(&[root.as_os_str().as_encoded_bytes(), include_bytes!("releases.rs")]);
    let folder = cache.once(&format!("releases-{key}"), |folder| {
        setup::require_root("install packages into a Debian root")?;
        run::say(format_args!("making two releases of Debian {suite}: without updates, and with them"));
        let (before, after) = (folder.join("before"), folder.join("after"));
        copy(&root, &before, &[CASES])?;
        debian::clean(&before)?;
        copy(&before, &after, &[])?;
        update(folder, &after, &suite)?;
        debian::clean(&after)
    })?;
    cache.forget_others(&folder, "releases-")?;
    let (before, after) = (folder.join("before"), folder.join("after"));
    let (old, new) = (versions(&before)?, versions(&after)?);
    let updated = updated(&old, &new);
    ensure!(!updated.is_empty(), "the archive has no update for any package of the Debian root");
    Ok(Releases { before, after, suite, packages: old.len(), updated })
}

/// Copies a root, without some of its top folders.
fn copy(source: &Path, target: &Path, without: &[&str]) -> Result<()> {
    std::fs::create_dir(target).with_context(|| format!("failed to create {}", target.display()))?;
    let mut copy = run::command("cp");
    copy.args(["-a", "--reflink=auto"]);
    for entry in source.read_dir().with_context(|| format!("failed to list {}", source.display()))? {
        let entry = entry.with_context(|| format!("failed to list {}", source.display()))?;
        if !without.iter().any(|name| entry.file_name() == *name) {
            copy.arg(entry.path());
        }
    }
    run::quiet(copy.arg(target))
}

/// Installs the updates of `suite` into `root`.
fn update(scratch: &Path, root: &Path, suite: &str) -> Result<()> {
    let apt = scratch.join("apt");
    let suite = Suite::fetch_updated(&apt, suite)?;
    run::logged(
        suite.apt("apt-get").arg(format!("-oDir::State::status={}", root.join(STATUS).display())).args([
            "upgrade",
            "--yes",
            "--download-only",
            "--with-new-pkgs",
        ]),
        &log_of(root),
    )?;
    let packages = files(&apt.join("archives"), "deb")?;
    ensure!(!packages.is_empty(), "the archive has no update for any package of the Debian root");
    let mut install = run::command("chroot");
    install
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg(root)
        .args(["dpkg", "--force-confold", "--install"]);
    for package in &packages {
        let name = package.file_name().unwrap_or_default();
        std::fs::copy(package, root.join(PACKAGES).join(name))
            .with_context(|| format!("failed to copy {}", package.display()))?;
        install.arg(Path::new("/").join(PACKAGES).join(name));
    }
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, root.join("dev").join(name), FileType::CharacterDevice, mode, makedev(major, minor))
            .with_context(|| format!("failed to make the device {name}"))?;
    }
    // A package that pre-depends on another of the same run is refused, as dpkg configures that one at the end; the next run takes it,
    // and installs the others once more.
    let log = log_of(root);
    let mut runs = 1;
    while let Err(error) = run::logged(&mut install, &log) {
        if runs == RUNS {
            return Err(error);
        }
        runs += 1;
    }
    std::fs::remove_dir_all(&apt).context("failed to remove the downloads")
}

/// The files of a folder with this extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The packages of a root with their versions.
fn versions(root: &Path) -> Result<BTreeMap<String, String>> {
    let path = root.join(STATUS);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(status: &str) -> BTreeMap<String, String> {
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(ToOwned::to_owned))
    };
    status
        .split("\n\n")
        .filter_map(|package| Some((field(package, "Package")?, field(package, "Version")?)))
        .collect()
}

/// Packages that are not in the old root in the version of the new one.
fn updated(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    new.iter()
        .filter(|(name, version)| old.get(*name) != Some(*version))
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_updated_if_its_version_is_another_one() {
        let old =
            parse("Package: a\nVersion: 1\n\nPackage: b\nDescription: x\n Version: 7\nVersion: 1+deb12u1\n");
        let new =
            parse("Package: a\nVersion: 1\n\nPackage: b\nVersion: 1+deb12u2\n\nPackage: c\nVersion: 3\n");
        assert_eq!(old["b"], "1+deb12u1");
        assert_eq!(updated(&old, &new), ["b", "c"]);
    }
}
