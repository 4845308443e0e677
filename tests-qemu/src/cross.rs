// SPDX-License-Identifier: GPL-2.0
//! The project's programs for arm64, compiled on this machine.
//!
//! The compilers are those of the kernel: clang and rustc compile for all architectures. The libraries come from a root of
//! that architecture, which is unpacked and not entered: nothing of this machine changes, and nothing is emulated.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::debian::{self, Suite};
use crate::{kernel, rootfs, run, setup, tools};

/// Debian's name of the architecture.
const ARCHITECTURE: &str = "arm64";

/// Rust's name of it.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The name that C compilers and Debian's library folders have for it.
const TRIPLE: &str = "aarch64-linux-gnu";

/// The libraries that the programs are linked with, and the `mount` of the guest.
const PACKAGES: &str = "libc6-dev,libgcc-12-dev,libssl-dev,mount";

/// Programs of the root that the guest has.
const PROGRAMS: [&str; 2] = ["bin/mount", "bin/umount"];

/// The programs of a guest of arm64.
pub(crate) struct Userland {
    /// The static init.
    pub(crate) init: PathBuf,
    /// More files, by their path in the initramfs.
    pub(crate) files: Vec<(String, PathBuf)>,
}

/// Compiles the guest's init, `mkfs.tesserafs` and `fsck.tesserafs`, and collects what the tests start besides.
pub(crate) fn userland(cache: &Cache) -> Result<Userland> {
    let root = root(cache)?;
    let packages = ["tesserafs-guest", "mkfs-tesserafs", "fsck-tesserafs"];
    let built = tools::build_for(TARGET, &packages, &environment(&root))?;
    let mut files = programs(&root)?;
    for name in ["mkfs-tesserafs", "fsck-tesserafs"] {
        files.push((format!("bin/{name}"), tools::find(&built, name)?));
    }
    Ok(Userland { init: tools::find(&built, "tesserafs-guest")?, files })
}

/// The root with the libraries of C and of Rust, made once for this compiler.
fn root(cache: &Cache) -> Result<PathBuf> {
    let package = setup::rust_library()?;
    let version = run::capture(run::command("dpkg-query").args(["-W", "-f=${Version}", package]))?;
    let key = key(&[PACKAGES.as_bytes(), package.as_bytes(), version.as_bytes()]);
    cache.once(&format!("cross-{ARCHITECTURE}-{key}"), |folder| {
        setup::require_root("make a Debian root (mmdebstrap)")?;
        run::say(format_args!("unpacking {PACKAGES} and {package} {version} of {ARCHITECTURE}"));
        debian::extract(folder, rootfs::SUITE, ARCHITECTURE, PACKAGES, &log_of(folder))?;
        let scratch = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
        let suite = Suite::fetch_updated_for(scratch.path(), &debian::codename()?, Some(ARCHITECTURE))?;
        let library = suite.download(package, Some(&version)).with_context(|| {
            format!(
                "the archive has no {package} {version} of {ARCHITECTURE} any more; type `apt-get install {package}` for \
                 the compiler that it has"
            )
        })?;
        run::quiet(run::command("dpkg-deb").arg("-x").arg(library).arg(folder))
    })
}

/// The environment that makes cargo compile for a root.
fn environment(root: &Path) -> Vec<(String, OsString)> {
    let (name, root) = (TARGET.replace('-', "_"), root.display());
    let upper = name.to_uppercase();
    let clang = format!("{}/clang", kernel::LLVM);
    let c_flags = format!("--target={TRIPLE} --sysroot={root}");
    let links = [&format!("--target={TRIPLE}"), &format!("--sysroot={root}"), "-fuse-ld=lld"]
        .map(|flag| format!("-Clink-arg={flag}"))
        .join(" ");
    [
        // The compiler whose library the root holds.
        ("RUSTC".to_owned(), kernel::RUSTC.to_owned()),
        (format!("CARGO_TARGET_{upper}_LINKER"), clang.clone()),
        (
            format!("CARGO_TARGET_{upper}_RUSTFLAGS"),
            format!("--sysroot={root}/usr -Ctarget-feature=+crt-static {links}"),
        ),
        (format!("CC_{name}"), clang),
        (format!("CFLAGS_{name}"), c_flags),
        (format!("AR_{name}"), format!("{}/llvm-ar", kernel::LLVM)),
        (format!("{upper}_OPENSSL_LIB_DIR"), format!("{root}/usr/lib/{TRIPLE}")),
        (format!("{upper}_OPENSSL_INCLUDE_DIR"), format!("{root}/usr/include")),
        (format!("{upper}_OPENSSL_STATIC"), "1".to_owned()),
    ]
    .map(|(name, value)| (name, value.into()))
    .to_vec()
}

/// `mount`, `umount`, and every library of theirs: path in the archive, file to copy.
fn programs(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = BTreeMap::new();
    let mut todo: Vec<String> = PROGRAMS.map(ToOwned::to_owned).to_vec();
    while let Some(name) = todo.pop() {
        if files.contains_key(&name) {
            continue;
        }
        let file = root.join(&name);
        let readelf = Path::new(kernel::LLVM).join("llvm-readelf");
        let listing = run::capture(run::command(readelf).arg("-dlW").arg(&file))?;
        for needed in needed(&listing) {
            let place = match needed.strip_prefix('/') {
                Some(interpreter) => interpreter.to_owned(),
                None => find(root, needed).with_context(|| format!("{} needs {needed}", file.display()))?,
            };
            todo.push(place);
        }
        files.insert(name, file);
    }
    Ok(files.into_iter().collect())
}

/// Where a library lies in the root.
fn find(root: &Path, library: &str) -> Result<String> {
    ["lib", "usr/lib"]
        .map(|folder| format!("{folder}/{TRIPLE}/{library}"))
        .into_iter()
        .find(|place| root.join(place).is_file())
        .with_context(|| format!("found no {library} in {}, neither in lib nor in usr/lib", root.display()))
}

/// The files that the loader loads with a program, as `readelf` lists it: libraries by their names, the loader itself by its path.
fn needed(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| {
        let library =
            line.split_once("Shared library: [").or_else(|| line.split_once("program interpreter: "));
        library?.1.split(']').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_from_readelf() {
        let listing = "      [Requesting program interpreter: /lib/ld-linux-aarch64.so.1]\n  \
                       0x0000000000000001 (NEEDED)  Shared library: [libmount.so.1]\n  \
                       0x000000000000000e (SONAME)  Library soname: [libx.so.1]\n";
        assert_eq!(needed(listing).collect::<Vec<_>>(), ["/lib/ld-linux-aarch64.so.1", "libmount.so.1"]);
    }

    #[test]
    fn libraries_are_found_by_name_and_missing_ones_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/lib").join(TRIPLE);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("liba.so"), "").unwrap();
        assert_eq!(find(root.path(), "liba.so").unwrap(), format!("usr/lib/{TRIPLE}/liba.so"));
        assert!(find(root.path(), "libb.so").unwrap_err().to_string().contains("libb.so"));
    }

    #[test]
    fn cargo_is_told_everything_about_the_target_and_nothing_about_this_machine() {
        let environment = environment(Path::new("/root-of-arm64"));
        let value = |name: &str| {
            let (_, value) = environment.iter().find(|(known, _)| known == name).unwrap();
            value.to_str().unwrap().to_owned()
        };
        let flags = value("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS");
        assert!(flags.starts_with("--sysroot=/root-of-arm64/usr "), "{flags}");
        assert!(value("CFLAGS_aarch64_unknown_linux_gnu").contains("--target=aarch64-linux-gnu"));
        assert!(!environment.iter().any(|(name, _)| name == "RUSTFLAGS" || name == "CFLAGS"));
    }
}
