// SPDX-License-Identifier: GPL-2.0
//! A tree as a list of facts that two file systems can be compared by.

use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Everything that an image must keep of one name in a tree.
///
/// The size and link count of a directory are not those that the source's file system shows (ext4, tmpfs and
/// overlayfs all differ): the size is left out, the count is 2 + subdirectories.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below the root, in bytes; the root is empty.
    pub path: Vec<u8>,
    /// `st_mode`, type included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of this inode in the tree; of a directory, 2 + subdirectories.
    pub nlink: u32,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Device number of a character device (a whiteout is 0:0).
    pub rdev: (u32, u32),
    /// Symlink target.
    pub target: Vec<u8>,
    /// Extended attributes by name, POSIX ACLs among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// First path, in order, of the same inode, where there are several.
    pub first_name: Option<Vec<u8>>,
    /// Checksum of a regular file's bytes (see [`crate::tree::checksum`]).
    pub content: u128,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mode {:o} owner {}:{} nlink {} size {} mtime {}.{:09} rdev {}:{}",
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.size,
            self.mtime.0,
            self.mtime.1,
            self.rdev.0,
            self.rdev.1
        )?;
        if !self.target.is_empty() {
            write!(f, " target of {} bytes", self.target.len())?;
        }
        for (name, value) in &self.xattrs {
            write!(
                f,
                " {}={}",
                name.escape_ascii(),
                value.iter().map(|b| format!("{b:02x}")).collect::<String>()
            )?;
        }
        if let Some(first) = &self.first_name {
            write!(f, " same inode as /{}", first.escape_ascii())?;
        }
        write!(f, " content {:032x}", self.content)
    }
}

/// A tree: its entries in byte order of their paths.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// All names, the root first.
    pub entries: Vec<Entry>,
}

/// How many differences are worth printing: the rest only hides the first.
const SHOWN: usize = 10;

impl Manifest {
    /// Reads a file that [`Manifest::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        postcard::from_bytes(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes the manifest for the guest.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        postcard::to_io(self, std::io::BufWriter::new(file))
            .with_context(|| format!("failed to write {}", path.display()))?;
        Ok(())
    }

    /// The differences in `found`, in words; empty if there are none.
    pub fn differences(&self, found: &Manifest) -> Vec<String> {
        let mut out = Vec::new();
        let mut expected = self.entries.iter().peekable();
        let mut found = found.entries.iter().peekable();
        loop {
            let order = match (expected.peek(), found.peek()) {
                (None, None) => return out,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(e), Some(f)) => e.path.cmp(&f.path),
            };
            match order {
                std::cmp::Ordering::Less => {
                    let entry = expected.next().expect("peeked");
                    out.push(format!("/{}: missing", entry.path.escape_ascii()));
                }
                std::cmp::Ordering::Greater => {
                    let entry = found.next().expect("peeked");
                    out.push(format!("/{}: not in the source", entry.path.escape_ascii()));
                }
                std::cmp::Ordering::Equal => {
                    let (e, f) = (expected.next().expect("peeked"), found.next().expect("peeked"));
                    if e != f {
                        out.push(format!(
                            "/{}:\n    expected {e:?}\n    found    {f:?}",
                            e.path.escape_ascii()
                        ));
                    }
                }
            }
        }
    }

    /// Fails with the first differences, if there are any.
    pub fn expect_equal(&self, found: &Manifest) -> Result<()> {
        let differences = self.differences(found);
        if differences.is_empty() {
            return Ok(());
        }
        let count = differences.len();
        let shown = differences.into_iter().take(SHOWN).collect::<Vec<_>>().join("\n  ");
        anyhow::bail!("{count} differences:\n  {shown}");
    }

    /// Bytes of all regular files, each inode once, without those too big to be read.
    pub fn data_bytes(&self) -> u64 {
        self.entries
            .iter()
            .filter(|e| e.first_name.as_ref().is_none_or(|first| *first == e.path))
            .filter(|e| crate::tree::is_file(e.mode) && e.size <= crate::tree::READ_WHOLE)
            .map(|e| e.size)
            .sum()
    }
}

impl Entry {
    /// The path as the system takes it, below `root`.
    pub fn below(&self, root: &Path) -> std::path::PathBuf {
        // `join` of an empty path would add a slash, which turns a symlink root into its target.
        if self.path.is_empty() {
            root.to_path_buf()
        } else {
            root.join(std::ffi::OsStr::from_bytes(&self.path))
        }
    }
}
