// SPDX-License-Identifier: GPL-2.0
//! Installs what the machine lacks, and nothing else.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::cache::{log_of, Cache};
use crate::{debian, run};

/// The packages that a verb needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To build a kernel and the module.
    Kernel,
    /// To build the module for Debian's own kernel.
    Stock,
    /// To make test input and run the virtual machine.
    Machine,
    /// To run a virtual machine of arm64.
    Arm64,
    /// To test mkfs and fsck against other programs.
    Source,
    /// To build the fuzz targets.
    Fuzz,
    /// To compare with other file systems' builders.
    Bench,
    /// To compare with what serves images by FUSE.
    Fuse,
    /// To build Debian packages.
    Packages,
    /// To judge them.
    Lint,
}

/// The version that the kernel's own list of requirements is known to work with.
const BINDGEN: &str = "0.71.1";

/// One whose configuration `deny.toml` is written for.
const DENY: &str = "0.20.2";

/// To build the project's own programs, which are linked with OpenSSL.
const PROGRAMS: &[&str] = &["gcc", "libc6-dev", "libssl-dev", "pkg-config"];

/// Other readers and writers of what mkfs and fsck read and write, and where they are used in: tests without them prove
/// less. The program with which users mount, and a reader of shell scripts.
const SOURCE: &[&str] =
    &["fakeroot", "file", "fuse3", "libarchive-tools", "python3-minimal", "shellcheck", "tar"];
const KERNEL: &[&str] = &[
    "bc",
    "bison",
    "clang-19",
    "cpio",
    "flex",
    "kmod",
    "libclang-19-dev",
    "libelf-dev",
    "lld-19",
    "llvm-19",
    "make",
    "xz-utils",
    "zstd",
];
/// Compilers are not among them: they are in a root of their own.
const STOCK: &[&str] = &["debian-archive-keyring", "kmod", "mmdebstrap", "xz-utils"];
const MACHINE: &[&str] = &[
    "acl",
    "attr",
    "btrfs-progs",
    "checkpolicy",
    "debian-archive-keyring",
    "e2fsprogs",
    "erofs-utils",
    "libcap2-bin",
    "mmdebstrap",
    "openssl",
    "qemu-system-x86",
    "squashfs-tools",
    "xfsprogs",
];
/// Programs for it are linked with libraries that are in a root of their own.
const ARM64: &[&str] = &["qemu-system-arm"];
/// libFuzzer is C++; its crate has the source.
const FUZZ: &[&str] = &["g++"];
const BENCH: &[&str] =
    &["casync", "cryptsetup-bin", "erofs-utils", "python3-pip", "squashfs-tools", "util-linux", "xdelta3"];
const FUSE: &[&str] = &["fuse3", "squashfuse", "util-linux"];
const PACKAGES: &[&str] = &["debhelper", "dpkg-dev", "git"];
/// `man` formats the pages.
const LINT: &[&str] = &["file", "lintian", "man-db"];

/// The compiler that the distribution keeps new enough for the kernel, with the source of its core.
///
/// Bookworm's `rustc` is of 2022; browsers need a newer one, which it carries under another name.
fn rust_packages(codename: &str) -> &'static [&'static str] {
    match codename {
        "bookworm" => &["rustc-web", "rust-web-src", "rust-web-clippy"],
        _ => &["rustc", "rust-src", "rust-clippy"],
    }
}

/// The package with the standard library of that compiler.
pub(crate) fn rust_library() -> Result<&'static str> {
    Ok(match debian::codename()?.as_str() {
        "bookworm" => "libstd-rust-web-dev",
        _ => "libstd-rust-dev",
    })
}

/// The servers for FUSE of other file systems. EROFS's of bookworm does not know zstd, and a newer one is built there.
fn fuse_packages(codename: &str) -> &'static [&'static str] {
    match codename {
        "bookworm" => &[],
        _ => &["erofsfuse"],
    }
}

/// Makes sure that everything for `needs` is there, and what every verb needs.
pub(crate) fn ensure(cache: &Cache, needs: &[Need]) -> Result<()> {
    let codename = debian::codename()?;
    let mut wanted = PROGRAMS.to_vec();
    for need in needs {
        match need {
            Need::Kernel => {
                wanted.extend(KERNEL);
                wanted.extend(rust_packages(&codename));
            }
            Need::Source => wanted.extend(SOURCE),
            Need::Stock => wanted.extend(STOCK),
            Need::Machine => wanted.extend(MACHINE),
            Need::Arm64 => wanted.extend(ARM64),
            Need::Fuzz => wanted.extend(FUZZ),
            Need::Bench => wanted.extend(BENCH),
            Need::Fuse => {
                wanted.extend(FUSE);
                wanted.extend(fuse_packages(&codename));
            }
            Need::Packages => wanted.extend(PACKAGES),
            Need::Lint => wanted.extend(LINT),
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    install(cache, &wanted)?;
    if needs.contains(&Need::Kernel) {
        bindgen(cache)?;
    }
    Ok(())
}

/// Installs those of `wanted` that are missing.
pub(crate) fn install(cache: &Cache, wanted: &[&str]) -> Result<()> {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("this machine lacks packages, and only root can install them; type `sudo apt-get install {names}`");
    }
    let log = cache.log("apt-install")?;
    run::say(format_args!(
        "installing {} packages, with the log in {}: {names}",
        missing.len(),
        log.display()
    ));
    // The lists that are here may do, so that a failure counts only if the installation fails.
    let updated = run::logged(apt().arg("update"), &cache.log("apt-update")?);
    let mut install = apt();
    let installed =
        run::logged(install.args(["install", "-y", "--no-install-recommends"]).args(&missing), &log);
    match (updated, installed) {
        (_, Ok(())) => Ok(()),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// apt for this machine: it asks nothing, and waits for another run of itself.
fn apt() -> Command {
    let mut apt = run::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    apt.args(["-q", "-oDpkg::Use-Pty=0", "-oDPkg::Lock::Timeout=600", "-oAPT::Update::Error-Mode=any"]);
    apt
}

/// Which packages dpkg does not know as installed.
fn missing(wanted: &[&str]) -> Result<Vec<String>> {
    // dpkg-query fails when it does not know one of the names, and still lists the others.
    let output = run::output(
        run::command("dpkg-query").args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(wanted),
    )?;
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(not_installed(wanted, &known))
}

fn not_installed(wanted: &[&str], known: &str) -> Vec<String> {
    wanted
        .iter()
        .filter(|name| !known.lines().any(|line| line == format!("{name} installed")))
        .map(|name| (*name).to_owned())
        .collect()
}

/// The generator of the kernel's bindings.
pub(crate) fn bindgen(cache: &Cache) -> Result<PathBuf> {
    program(cache, "bindgen", "bindgen-cli", BINDGEN, &[])
}

/// The program that judges the licences of what the packages use.
pub(crate) fn deny(cache: &Cache) -> Result<PathBuf> {
    // It runs for a second, and to optimize it takes minutes.
    program(cache, "cargo-deny", "cargo-deny", DENY, &["--debug"])
}

/// A program of crates.io, built into the cache.
fn program(cache: &Cache, name: &str, package: &str, version: &str, options: &[&str]) -> Result<PathBuf> {
    let folder = cache.once(&format!("{name}-{version}"), |folder| {
        run::say(format_args!("building {package} {version} (a few minutes, once)"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        run::logged(
            run::command(cargo)
                // Not in the target folder of this workspace, which `cargo clean` empties.
                .env_remove("CARGO_TARGET_DIR")
                // Nobody looks into it with a debugger.
                .env("CARGO_PROFILE_DEV_DEBUG", "false")
                .args(["install", "--locked", "--root"])
                .arg(folder)
                .args(options)
                .args(["--version", version, package]),
            &log_of(folder),
        )
    })?;
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        bail!("{} is gone; remove {}.done", program.display(), folder.display());
    }
    Ok(program)
}

/// Fails with one clear sentence where root is needed and missing.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(anyhow::anyhow!("not root")).with_context(|| format!("only root can {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let known = "bc installed\nflex config-files\nclang-19 installed\n";
        assert_eq!(not_installed(&["bc", "flex", "bison", "clang-19"], known), ["flex", "bison"]);
    }

    #[test]
    fn each_suite_has_a_compiler_that_is_new_enough() {
        assert!(rust_packages("bookworm").contains(&"rustc-web"));
        assert!(rust_packages("trixie").contains(&"rustc"));
    }
}
