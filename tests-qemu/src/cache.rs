// SPDX-License-Identifier: GPL-2.0
//! The folder outside the repository that keeps files which are expensive to make.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{flock, FlockOperation};
use sha2::{Digest, Sha256};

/// `$TESSERAFS_CACHE`, else `$XDG_CACHE_HOME/tesserafs`, else `~/.cache/tesserafs`.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the folder and makes it.
    pub(crate) fn open() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = if let Some(folder) = set("TESSERAFS_CACHE") {
            PathBuf::from(folder)
        } else if let Some(folder) = set("XDG_CACHE_HOME") {
            PathBuf::from(folder).join("tesserafs")
        } else {
            let home = set("HOME").context("neither TESSERAFS_CACHE nor HOME is set")?;
            PathBuf::from(home).join(".cache/tesserafs")
        };
        std::fs::create_dir_all(&root)
            .with_context(|| format!("failed to create the cache folder {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("failed to resolve {}", root.display()))?;
        Ok(Self { root })
    }

    /// A folder in the cache, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(folder)
    }

    /// The folder `name`, filled by `make` unless an earlier run has done so to the end.
    ///
    /// The leftovers of an interrupted run are removed first. Two runs at once wait for each other.
    pub(crate) fn once(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.root.join(name);
        let done = self.root.join(format!("{name}.done"));
        let parent = folder.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
        let _lock = self.lock(name)?;
        if done.exists() {
            return Ok(folder);
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("failed to remove the unfinished {}", folder.display()))?;
        }
        std::fs::create_dir(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        make(&folder)?;
        File::create(&done).with_context(|| format!("failed to create {}", done.display()))?;
        Ok(folder)
    }

    /// As [`Self::once`], and nobody forgets the folder as long as the value lives.
    pub(crate) fn hold(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<Held> {
        let mut make = Some(make);
        loop {
            let lock = self.lock_file(name)?;
            flock(&lock, FlockOperation::LockShared).with_context(|| format!("failed to lock {name}"))?;
            let folder = self.root.join(name);
            if self.root.join(format!("{name}.done")).exists() {
                return Ok(Held { folder, _lock: lock });
            }
            drop(lock);
            // Between the two locks somebody may forget it, who does so once, for another input.
            let make = make.take().with_context(|| format!("{} vanishes at once", folder.display()))?;
            self.once(name, make)?;
        }
    }

    /// Removes the folders beside `keep` whose names begin with `prefix`: they are of an older input. Those that another run
    /// holds stay.
    pub(crate) fn forget_others(&self, keep: &Path, prefix: &str) -> Result<()> {
        let parent = keep.parent().unwrap_or(&self.root);
        for entry in parent.read_dir().with_context(|| format!("failed to list {}", parent.display()))? {
            let entry = entry.with_context(|| format!("failed to list {}", parent.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(prefix) || entry.path() == keep || !entry.path().is_dir() {
                continue;
            }
            let lock = self.lock_file(
                &entry.path().strip_prefix(&self.root).unwrap_or(&entry.path()).to_string_lossy(),
            )?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            // The mark goes first: the rest after an interrupted removal must not look complete.
            let mark = parent.join(format!("{name}.done"));
            if mark.exists() {
                std::fs::remove_file(&mark)
                    .with_context(|| format!("failed to remove {}", mark.display()))?;
            }
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("failed to remove {}", entry.path().display()))?;
        }
        Ok(())
    }

    /// Waits until no other run makes `name`; the lock ends with the value.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let file = self.lock_file(name)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            crate::run::say(format_args!("waiting for another run that makes {name}"));
            flock(&file, FlockOperation::LockExclusive).with_context(|| format!("failed to lock {name}"))?;
        }
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!("{}.lock", name.replace('/', "-")));
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))
    }
}

/// A folder of the cache that is in use.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

/// The log beside a folder of the cache. (`with_extension` would cut a version number in two.)
pub(crate) fn log_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".log");
    PathBuf::from(name)
}

/// A short name for an input: the beginning of the SHA-256 of its parts.
pub(crate) fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    std::io::copy(&mut file, &mut hash).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_kept_and_what_was_not_finished_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_path_buf() };
        let failed = cache.once("a/b", |folder| {
            std::fs::write(folder.join("half"), "x")?;
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        let made = cache
            .once("a/b", |folder| {
                assert!(!folder.join("half").exists());
                Ok(std::fs::write(folder.join("whole"), "x")?)
            })
            .unwrap();
        let again = cache.once("a/b", |_| panic!("made twice")).unwrap();
        assert_eq!(made, again);
        assert!(again.join("whole").exists());
    }

    #[test]
    fn what_is_held_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_path_buf() };
        let held = cache.hold("a/of-1", |folder| Ok(std::fs::write(folder.join("whole"), "x")?)).unwrap();
        let again = cache.hold("a/of-1", |_| panic!("made twice")).unwrap();
        let other = cache.hold("a/of-2", |_| Ok(())).unwrap();
        cache.forget_others(other.path(), "of-").unwrap();
        assert!(held.path().join("whole").exists());
        drop(held);
        cache.forget_others(other.path(), "of-").unwrap();
        assert!(again.path().join("whole").exists());
        drop(again);
        cache.forget_others(other.path(), "of-").unwrap();
        assert!(!dir.path().join("a/of-1").exists());
    }

    #[test]
    fn keys_know_where_one_part_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
