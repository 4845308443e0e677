// SPDX-License-Identifier: GPL-2.0
//! The kernel's source with the driver in it, for all kernels: those that load the driver leave it out, and share their objects
//! with one that has it built in.
//!
//! A copy of the source, where `fs/tesserafs` is this repository's `Kbuild`, `kernel-module` and `format`. It stays
//! in the cache, as do the folders that are built from it: after a change of the driver only that is compiled, and
//! the kernel linked again.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::cache::{key, Cache};
use crate::{kernel, run, tools};

/// The parts of the driver, below the repository.
const PARTS: [&str; 3] = ["Kbuild", "kernel-module", "format"];

/// A change in the kernel's source.
#[derive(Debug)]
struct Edit {
    file: &'static str,
    /// The line after which `line` goes, or which it replaces.
    at: &'static str,
    replaces: bool,
    line: &'static str,
}

/// The source gets to know the driver, and user-mode Linux the SHA instructions of the processor, which each
/// kernel for real machines uses: without them the verified systems would be compared by how slow C is.
const EDITS: [Edit; 4] = [
    Edit {
        file: "fs/Kconfig",
        at: "source \"fs/erofs/Kconfig\"",
        replaces: false,
        line: "source \"fs/tesserafs/kernel-module/Kconfig\"",
    },
    Edit {
        file: "fs/Makefile",
        at: "obj-$(CONFIG_EROFS_FS) += erofs/",
        replaces: false,
        line: "obj-$(CONFIG_TESSERAFS_FS)\t+= tesserafs/",
    },
    Edit {
        file: "lib/crypto/Kconfig",
        at: "depends on CRYPTO_LIB_SHA256 && !UML",
        replaces: true,
        line: "\tdepends on CRYPTO_LIB_SHA256",
    },
    Edit {
        file: "lib/crypto/Makefile",
        at: "libsha256-$(CONFIG_SPARC) += sparc/sha256_asm.o",
        replaces: false,
        line: "libsha256-$(CONFIG_UML) += x86/sha256-ni-asm.o",
    },
];

/// Where the library looks for an architecture's SHA-256, and the header that it finds there.
const SHA256_HEADER: (&str, &str) = ("lib/crypto/um/sha256.h", include_str!("../kernel/um-sha256.h"));

/// The source, which nobody else changes while this value lives.
pub(crate) struct Linked {
    /// Its folder.
    pub(crate) source: PathBuf,
    /// Version of the kernel.
    pub(crate) version: String,
    _lock: File,
}

/// The copy in the cache, with the driver of this clone.
pub(crate) fn source(cache: &Cache) -> Result<Linked> {
    let original = kernel::source(cache)?;
    let version = kernel::version(&original)?;
    let edits = format!("{EDITS:?}{SHA256_HEADER:?}");
    let inputs = [original.as_os_str().as_encoded_bytes(), edits.as_bytes()];
    let source = cache.once(&format!("kernel/linked-{version}-{}", key(&inputs)), |source| {
        run::say(format_args!("copying Linux {version}, to put the filesystem into it"));
        let all = original.join(".");
        run::quiet(run::command("cp").args(["-a", "--reflink=auto"]).arg(all).arg(source))?;
        EDITS.iter().try_for_each(|edit| edit.apply(source))?;
        let (name, text) = SHA256_HEADER;
        let header = source.join(name);
        std::fs::create_dir_all(header.parent().context("a header in no folder")?)
            .and_then(|()| std::fs::write(&header, text))
            .with_context(|| format!("failed to write {}", header.display()))
    })?;
    // From here on nobody else may change the copy: another clone has another driver.
    let lock = cache.lock("kernel/linked")?;
    let target = source.join("fs/tesserafs");
    std::fs::create_dir_all(&target).with_context(|| format!("failed to create {}", target.display()))?;
    for part in PARTS {
        copy_changed(&tools::repository().join(part), &target.join(part))?;
    }
    Ok(Linked { source, version, _lock: lock })
}

impl Edit {
    /// Changes the file below `source`.
    fn apply(&self, source: &Path) -> Result<()> {
        let path = source.join(self.file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let text = self.edited(&text).with_context(|| format!("in {}", self.file))?;
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// The text with the change.
    fn edited(&self, text: &str) -> Result<String> {
        // Spaces and tabs between words differ from release to release.
        let is_place = |line: &&str| line.split_whitespace().eq(self.at.split_whitespace());
        let mut places = text.lines().enumerate().filter(|(_, line)| is_place(line));
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            bail!("the line `{}` is not there once", self.at);
        };
        let mut lines: Vec<&str> = text.lines().collect();
        if self.replaces {
            lines[place] = self.line;
        } else {
            lines.insert(place + 1, self.line);
        }
        Ok(lines.join("\n") + "\n")
    }
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
    fn a_line_is_added_or_replaced_where_it_belongs() {
        let edit = Edit { file: "", at: "b += c", replaces: false, line: "new" };
        assert_eq!(edit.edited("a\nb\t+= c\nd\n").unwrap(), "a\nb\t+= c\nnew\nd\n");
        let edit = Edit { replaces: true, ..edit };
        assert_eq!(edit.edited("a\nb  += c\nd\n").unwrap(), "a\nnew\nd\n");
        assert!(edit.edited("a\n").is_err());
        assert!(edit.edited("b += c\nb += c\n").is_err());
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
