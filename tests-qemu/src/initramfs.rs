// SPDX-License-Identifier: GPL-2.0
//! The first root of the guest: a newc archive, written here (the format is a page of fixed fields).
//!
//! It holds the static init, the module, and util-linux's `mount` and `umount` with the libraries
//! they need, taken from the Debian root: the tests mount as a user does.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// The parts that an archive is made of.
pub(crate) struct Contents<'a> {
    /// The static init.
    pub(crate) init: &'a Path,
    /// The module.
    pub(crate) module: Option<&'a Path>,
    /// The Debian root that `mount` comes from.
    pub(crate) debian: Option<&'a Path>,
    /// More files, by their path in the archive.
    pub(crate) files: &'a [(String, PathBuf)],
}

/// Folders that the init mounts something on, or that libraries lie in.
const FOLDERS: [&str; 8] = ["dev", "proc", "sys", "tmp", "disk", "mnt", "etc", "lib"];

/// Programs that are taken from the Debian root.
const PROGRAMS: [&str; 2] = ["/bin/mount", "/bin/umount"];

/// Writes the archive.
pub(crate) fn write(path: &Path, contents: &Contents<'_>) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut archive = Newc::new(std::io::BufWriter::new(file));
    let mut folders: BTreeSet<String> = FOLDERS.iter().map(|name| (*name).to_owned()).collect();
    let mut files = vec![(String::from("init"), contents.init.to_path_buf())];
    files.extend_from_slice(contents.files);
    if let Some(module) = contents.module {
        files.push(("lib/tesserafs.ko".to_owned(), module.to_path_buf()));
    }
    if let Some(debian) = contents.debian {
        files.extend(programs(debian)?);
    }
    for (name, _) in &files {
        let parents = Path::new(name).ancestors().skip(1);
        folders.extend(
            parents
                .filter(|parent| !parent.as_os_str().is_empty())
                .map(|parent| parent.to_string_lossy().into_owned()),
        );
    }
    for folder in &folders {
        archive.entry(folder, 0o040_755, &[])?;
    }
    for (name, source) in &files {
        let bytes = std::fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
        archive.entry(name, 0o100_755, &bytes)?;
    }
    archive.finish()
}

/// `mount`, `umount` and every library of theirs: path in the archive, file to copy.
fn programs(debian: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listing = run::capture(run::command("chroot").arg(debian).arg("/usr/bin/ldd").args(PROGRAMS))?;
    let mut names: BTreeSet<&str> = libraries(&listing).collect();
    names.extend(PROGRAMS);
    Ok(names
        .into_iter()
        .map(|name| {
            let name = name.trim_start_matches('/');
            (name.to_owned(), debian.join(name))
        })
        .collect())
}

/// Absolute paths in the output of `ldd`.
fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing
        .lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// Writer of the "new ASCII" archive that the kernel unpacks (`Documentation/driver-api/early-userspace`).
struct Newc<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Newc<W> {
    fn new(out: W) -> Self {
        Self { out, inode: 1 }
    }

    /// Adds one file or folder.
    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let size =
            u32::try_from(bytes.len()).with_context(|| format!("{name} is too large for the archive"))?;
        self.inode += 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).context("a name is too long for the archive")?,
            0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len())
    }

    /// Header with name, and contents, each end at a multiple of four.
    fn pad(&mut self, length: usize) -> Result<()> {
        let zeros = [0u8; 3];
        self.out.write_all(&zeros[..length.wrapping_neg() % 4]).context("failed to write the initramfs")
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush().context("failed to write the initramfs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_reads() {
        let mut bytes = Vec::new();
        let mut archive = Newc::new(&mut bytes);
        archive.entry("a", 0o040_755, &[]).unwrap();
        archive.entry("a/file", 0o100_644, b"hello").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000002000041ed"));
        assert!(text.contains("a/file\0"));
        assert!(text.contains("hello\0\0\x00070701"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let listing = "/bin/mount:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            libraries(listing).collect::<Vec<_>>(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}
