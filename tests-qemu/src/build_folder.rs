// SPDX-License-Identifier: GPL-2.0
//! Whether a folder is a kernel build that the driver can be built against: kbuild itself fails in many words, none of
//! which says what is missing.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

/// The advice without a kernel of one's own.
const INSTEAD: &str = "or leave --build out, and type `cargo xtask module --stock` for Debian's kernel";

/// The folder by its full path, checked.
pub(crate) fn find(build: &Path) -> Result<PathBuf> {
    let build = build.canonicalize().with_context(|| format!("there is no folder {}", build.display()))?;
    check(&build)?;
    Ok(build)
}

/// Fails with what the folder lacks, and what to type.
pub(crate) fn check(build: &Path) -> Result<()> {
    let place = build.display();
    let path = build.join("include/config/auto.conf");
    let config = std::fs::read_to_string(&path).ok().with_context(|| {
        format!(
            "{place} is no finished kernel build: found no include/config/auto.conf; name the folder that a kernel was \
             built in (`make LLVM=1 O=DIR` in its source), {INSTEAD}"
        )
    })?;
    ensure!(
        is_set(&config, "CONFIG_RUST"),
        "the kernel of {place} has no Rust: found no CONFIG_RUST=y in include/config/auto.conf; type `make LLVM=1 \
         rustavailable` in its source, which says what the machine lacks, set CONFIG_RUST and build it anew, {INSTEAD}"
    );
    ensure!(
        is_set(&config, "CONFIG_MODULES"),
        "the kernel of {place} loads no modules: found no CONFIG_MODULES=y in include/config/auto.conf; set it and \
         build the kernel anew, {INSTEAD}"
    );
    for (file, what) in
        [("rust/libkernel.rmeta", "the metadata of its crates"), ("Module.symvers", "its symbols")]
    {
        ensure!(
            build.join(file).is_file(),
            "{place} does not have {what}: found no {file}, which headers alone do not have, nor an unfinished build; \
             type `make LLVM=1` there, {INSTEAD}"
        );
    }
    Ok(())
}

/// Fails unless these compilers are the kernel's: Rust takes no metadata of another version.
pub(crate) fn check_compilers(build: &Path, rustc: &str) -> Result<()> {
    let path = build.join("include/config/auto.conf");
    let config =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let (place, rustc) = (build.display(), rustc.trim());
    let text = config.lines().find_map(|line| line.strip_prefix("CONFIG_RUSTC_VERSION_TEXT="));
    if let Some(wanted) = text.map(|text| text.trim_matches('"')) {
        ensure!(
            wanted == rustc,
            "the kernel of {place} was built by another compiler: found {wanted}, and /usr/bin/rustc is {rustc}; build \
             the kernel anew with `make LLVM=1 RUSTC=/usr/bin/rustc`, {INSTEAD}"
        );
    }
    ensure!(
        is_set(&config, "CONFIG_CC_IS_CLANG"),
        "the kernel of {place} was built by another C compiler than clang; build it anew with `make LLVM=1`, {INSTEAD}"
    );
    Ok(())
}

fn is_set(config: &str, option: &str) -> bool {
    config.lines().any(|line| line.strip_prefix(option) == Some("=y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, and what is said of it; nothing where it will do.
    fn said(files: &[(&str, &str)]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let checked =
            check(folder.path()).and_then(|()| check_compilers(folder.path(), "rustc 1.85.0 (x)\n"));
        checked.err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn a_folder_that_will_not_do_is_refused_with_what_to_type() {
        const CONF: &str = "include/config/auto.conf";
        const ALL: &str = "CONFIG_RUST=y\nCONFIG_MODULES=y\nCONFIG_CC_IS_CLANG=y\n";
        let (rmeta, symbols) = (("rust/libkernel.rmeta", ""), ("Module.symvers", ""));
        let other = format!("{ALL}CONFIG_RUSTC_VERSION_TEXT=\"rustc 1.90.0 (y)\"\n");
        let same = format!("{ALL}CONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.0 (x)\"\n");
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[], "no finished kernel build"),
            (&[(CONF, "CONFIG_MODULES=y\nCONFIG_RUSTC_VERSION=0\n")], "make LLVM=1 rustavailable"),
            (&[(CONF, "CONFIG_RUST=y\n")], "loads no modules"),
            (&[(CONF, ALL), symbols], "found no rust/libkernel.rmeta"),
            (&[(CONF, ALL), rmeta], "found no Module.symvers"),
            (
                &[(CONF, &other), rmeta, symbols],
                "found rustc 1.90.0 (y), and /usr/bin/rustc is rustc 1.85.0 (x)",
            ),
            (&[(CONF, "CONFIG_RUST=y\nCONFIG_MODULES=y\n"), rmeta, symbols], "another C compiler than clang"),
        ];
        for (files, says) in cases {
            let said = said(files).unwrap_or_else(|| panic!("{files:?} is accepted"));
            assert!(said.contains(says) && said.contains("--stock"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        assert_eq!(said(&[(CONF, &same), rmeta, symbols]), None);
    }
}
