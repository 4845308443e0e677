// SPDX-License-Identifier: GPL-2.0
//! The kernel that reads: Linux as a user-mode program, with the filesystem linked into it.
//!
//! It runs at the speed of the processor, which an emulated machine does not. It loads no module of Rust,
//! so the filesystem is put into a copy of the kernel's source, where `fs/tesserafs` is this repository's
//! `Kbuild`, `kernel-module` and `format`. The copy and its build folder stay in the cache: after a change
//! of the filesystem only that is compiled, and the kernel linked again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::kernel::{self, Toolchain};
use crate::{run, tools};

/// What the kernel needs on top of `tinyconfig`.
const FRAGMENT: &str = include_str!("../../kernel/uml.config");

/// What the driver is made of, below the repository.
const PARTS: [&str; 3] = ["Kbuild", "kernel-module", "format"];

/// Lines that make a kernel's source know the driver: the file, the line after which they go, the line.
const HOOKS: [(&str, &str, &str); 2] = [
    ("fs/Kconfig", "source \"fs/erofs/Kconfig\"", "source \"fs/tesserafs/kernel-module/Kconfig\""),
    ("fs/Makefile", "obj-$(CONFIG_EROFS_FS)\t\t+= erofs/", "obj-$(CONFIG_TESSERAFS_FS)\t+= tesserafs/"),
];

/// A kernel that was built.
pub(super) struct Uml {
    /// The program.
    pub(super) program: PathBuf,
    /// Version of the kernel.
    pub(super) version: String,
}

/// Builds the kernel with the driver of this clone; the program is put into `folder`.
pub(super) fn build(cache: &Cache, toolchain: &Toolchain, folder: &Path) -> Result<Uml> {
    let original = kernel::source(cache)?;
    let version = kernel::version(&original)?;
    let hooks = format!("{HOOKS:?}");
    let source = cache.once(
        &format!(
            "uml/source-{version}-{}",
            key(&[original.as_os_str().as_encoded_bytes(), hooks.as_bytes()])
        ),
        |source| {
            run::say(format_args!("copying Linux {version}, to put the filesystem into it"));
            let all = original.join(".");
            run::run(run::command("cp").args(["-a", "--reflink=auto"]).arg(all).arg(source))?;
            for (file, after, line) in HOOKS {
                let path = source.join(file);
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("failed to read {}", path.display()))?;
                let text = hooked(&text, after, line).with_context(|| format!("in {file}"))?;
                std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
            }
            Ok(())
        },
    )?;
    // From here on nobody else may change the copy: another clone has another driver.
    let _lock = cache.lock("uml/build")?;
    let target = source.join("fs/tesserafs");
    std::fs::create_dir_all(&target).with_context(|| format!("failed to create {}", target.display()))?;
    for part in PARTS {
        copy_changed(&tools::repository().join(part), &target.join(part))?;
    }
    let inputs =
        [source.as_os_str().as_encoded_bytes(), toolchain.versions().as_bytes(), FRAGMENT.as_bytes()];
    let name = format!("uml/build-{version}-{}", key(&inputs));
    let make = |build: &Path| {
        let mut make = toolchain.make(&source);
        make.arg(format!("O={}", build.display())).arg("ARCH=um");
        make
    };
    let build = cache.once(&name, |build| {
        run::say(format_args!("building Linux {version} as a user-mode program (5 to 8 minutes, once)"));
        let log = log_of(build);
        run::logged(make(build).arg("tinyconfig"), &log)?;
        kernel::configure(build, FRAGMENT, || run::logged(make(build).arg("olddefconfig"), &log))?;
        run::logged(make(build).arg("linux"), &log)
    })?;
    run::say("linking the filesystem into user-mode Linux");
    run::logged(make(&build).arg("linux"), &log_of(&build))?;
    let program = folder.join("linux");
    std::fs::copy(build.join("linux"), &program).context("the build made no user-mode Linux")?;
    Ok(Uml { program, version })
}

/// `text` with `line` after the line `after`.
fn hooked(text: &str, after: &str, line: &str) -> Result<String> {
    // Spaces and tabs between words differ from release to release.
    let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let Some(place) = text.lines().position(|candidate| words(candidate) == words(after)) else {
        bail!("there is no line `{after}`");
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(place + 1, line);
    Ok(lines.join("\n") + "\n")
}

/// Makes `target` equal to `source`, without touching what is equal already: make goes by times.
fn copy_changed(source: &Path, target: &Path) -> Result<()> {
    if source.is_file() {
        let bytes = std::fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
        if std::fs::read(target).ok().as_ref() != Some(&bytes) {
            std::fs::write(target, bytes).with_context(|| format!("failed to write {}", target.display()))?;
        }
        return Ok(());
    }
    std::fs::create_dir_all(target).with_context(|| format!("failed to create {}", target.display()))?;
    let names = |folder: &Path| -> Result<BTreeSet<std::ffi::OsString>> {
        folder
            .read_dir()
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
            .with_context(|| format!("failed to list {}", folder.display()))
    };
    let wanted = names(source)?;
    for name in names(target)?.difference(&wanted) {
        let path = target.join(name);
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .with_context(|| format!("failed to remove {}", path.display()))?;
    }
    wanted.iter().try_for_each(|name| copy_changed(&source.join(name), &target.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_after_its_neighbour() {
        assert_eq!(hooked("a\nb  += c\nd\n", "b\t+= c", "new").unwrap(), "a\nb  += c\nnew\nd\n");
        assert!(hooked("a\n", "b", "new").is_err());
    }

    #[test]
    fn what_is_equal_keeps_its_time_and_what_is_gone_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/same"), "1").unwrap();
        std::fs::write(from.join("gone"), "2").unwrap();
        copy_changed(&from, &to).unwrap();
        let time = || std::fs::metadata(to.join("sub/same")).unwrap().modified().unwrap();
        let before = time();
        std::fs::remove_file(from.join("gone")).unwrap();
        std::fs::write(from.join("new"), "3").unwrap();
        copy_changed(&from, &to).unwrap();
        assert_eq!(time(), before);
        assert!(!to.join("gone").exists());
        assert_eq!(std::fs::read(to.join("new")).unwrap(), b"3");
    }
}
