// SPDX-License-Identifier: GPL-2.0
//! Builds `tesserafs.ko` out of the tree, with zero warnings and without a path to a panic.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::kernel::Compilers;
use crate::{run, tools};

/// How the module is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lint {
    /// As it is used.
    Plain,
    /// With the kernel's clippy lints (`CLIPPY=1`).
    Clippy,
}

/// Builds the module against the kernel build folder `build`; returns the `.ko`.
///
/// All output goes to a folder of the cache (`MO=`), so that the repository stays clean. A build with
/// a warning fails and is forgotten: an incremental build would not repeat the warning.
pub(crate) fn build(cache: &Cache, compilers: &dyn Compilers, build: &Path, lint: Lint) -> Result<PathBuf> {
    let repository = tools::repository();
    let kind = match lint {
        Lint::Plain => "module",
        Lint::Clippy => "module-clippy",
    };
    let name = format!(
        "{kind}/{}",
        key(&[build.as_os_str().as_encoded_bytes(), repository.as_os_str().as_encoded_bytes()])
    );
    let _lock = cache.lock(&name)?;
    let output = cache.folder(&name)?;
    let log = log_of(&output);
    let mut make = compilers.make(build);
    make.arg(format!("M={}", repository.display())).arg(format!("MO={}", output.display()));
    if lint == Lint::Clippy {
        make.arg("CLIPPY=1");
    }
    make.arg("modules");
    let result = run::logged(&mut make, &log);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let warnings = warnings(&text);
    if result.is_ok() && warnings.is_empty() {
        let module = output.join("tesserafs.ko");
        if !module.is_file() {
            bail!("the build made no {}", module.display());
        }
        return Ok(module);
    }
    std::fs::remove_dir_all(&output).with_context(|| format!("failed to remove {}", output.display()))?;
    result?;
    bail!("{} warnings; see {}:\n{}", warnings.len(), log.display(), warnings.join("\n"))
}

/// Lines of a build log that warn, as rustc, clang, modpost, objtool and make word it.
fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| {
            let lower = line.to_ascii_lowercase();
            lower.starts_with("warning:") || lower.starts_with("warning[") || lower.contains(": warning:")
        })
        .collect()
}

/// Fails if the module could panic: no symbol of `core::panicking` may be referenced.
pub(crate) fn check_panic_free(compilers: &dyn Compilers, module: &Path) -> Result<()> {
    let symbols = run::capture(compilers.nm().args(["-u", "-C", "-j"]).arg(module))?;
    let panics: Vec<&str> = symbols
        .lines()
        .filter(|symbol| symbol.contains("panicking") || symbol.contains("rust_begin_unwind"))
        .collect();
    if !panics.is_empty() {
        bail!("{} can panic: it references {}", module.display(), panics.join(", "));
    }
    if !symbols.lines().any(|symbol| symbol.contains("register_filesystem")) {
        bail!("{} does not look like a file system: the check would prove nothing", module.display());
    }
    Ok(())
}

/// Fails unless KASAN watches what the objects of Rust do to memory.
pub(crate) fn check_instrumented(compilers: &dyn Compilers, module: &Path) -> Result<()> {
    let folder = module.parent().context("the module is in no folder")?;
    for object in ["kernel-module/main.o", "format/src/lib.o"] {
        let object = folder.join(object);
        let symbols = run::capture(compilers.nm().args(["-u", "-j"]).arg(&object))?;
        if !symbols.lines().any(|symbol| symbol.starts_with("__asan_report_")) {
            bail!("{} is compiled without KASAN", object.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_all_tools_are_found() {
        let log = "  RUSTC [M] kernel-module/main.o\n\
                   warning: unused variable: `x`\n\
                   helpers.c:3:1: warning: unused function\n\
                   WARNING: modpost: missing MODULE_LICENSE()\n\
                   tesserafs.o: warning: objtool: x() falls through\n\
                   \x20 note: this warning is explained elsewhere\n";
        assert_eq!(warnings(log).len(), 4);
    }
}
