// SPDX-License-Identifier: GPL-2.0
//! The folder outside the repository that keeps files which are expensive to make.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{ensure, Context, Result};
use rustix::fs::{flock, FlockOperation};
use sha2::{Digest, Sha256};

use crate::advice::ROOM;

/// `$TESSERAFS_CACHE`, else `$XDG_CACHE_HOME/tesserafs`, else `~/.cache/tesserafs`.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
    /// The locks of the folders in use.
    held: Arc<Mutex<Vec<File>>>,
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
        std::fs::create_dir_all(&root).with_context(|| {
            format!(
                "failed to create the cache folder {}; name another one: TESSERAFS_CACHE=DIR cargo xtask ...",
                root.display()
            )
        })?;
        let root = root.canonicalize().with_context(|| format!("failed to resolve {}", root.display()))?;
        Ok(Self { root, held: Arc::default() })
    }

    /// A folder in the cache, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(folder)
    }

    /// The folder `name`, filled by `make` unless an earlier run has done so to the end.
    ///
    /// Nothing is left of a run that fails, and the leftovers of an interrupted one are removed first. Two runs at once
    /// wait for each other, and no other run forgets the folder before this one ends.
    pub(crate) fn once(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if self.hold(name)? {
            return Ok(folder);
        }
        self.make(name, make)?;
        // Between the two locks a run with another input may forget it.
        ensure!(self.hold(name)?, "another run has removed {} at once", folder.display());
        Ok(folder)
    }

    /// Keeps others from forgetting the folder `name`, if it is there.
    fn hold(&self, name: &str) -> Result<bool> {
        let lock = self.lock_file(name)?;
        flock(&lock, FlockOperation::LockShared).with_context(|| format!("failed to lock {name}"))?;
        let is_done = self.done(name).exists();
        if is_done {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
        }
        Ok(is_done)
    }

    /// The mark that the folder `name` is complete.
    fn done(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.done"))
    }

    /// Fills the folder `name`, unless another run has just done so.
    fn make(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let folder = self.root.join(name);
        let done = self.done(name);
        let parent = folder.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
        let _lock = self.lock(name)?;
        if done.exists() {
            return Ok(());
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("failed to remove the unfinished {}", folder.display()))?;
        }
        room(&self.root)?;
        std::fs::create_dir(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        // Not every program says that it could not write: a full disk is a failure, whatever `make` says.
        let made = make(&folder).and_then(|()| room(&folder)).and_then(|()| {
            File::create(&done).map(drop).with_context(|| format!("failed to create {}", done.display()))
        });
        if made.is_err() {
            // On a full disk half a root is gigabytes that nothing uses. The next run removes what stays here.
            if let Err(kept) = std::fs::remove_dir_all(&folder) {
                crate::run::say(format_args!("{} is left, unfinished: {kept}", folder.display()));
            }
        }
        made
    }

    /// The log of a program that serves no folder of the cache.
    pub(crate) fn log(&self, name: &str) -> Result<PathBuf> {
        Ok(self.folder("logs")?.join(format!("{name}.log")))
    }

    /// Removes the folders beside `keep` whose names begin with `prefix`: they are of an older input. Those in use stay.
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

/// Free bytes without which nothing is begun, and nothing is taken for finished.
const ROOM_MIN: u64 = 1 << 20;

/// Fails if the disk of a folder is full: apt, for one, would wait for ever.
pub(crate) fn room(folder: &Path) -> Result<()> {
    let disk = rustix::fs::statvfs(folder)
        .with_context(|| format!("failed to ask for the free space of {}", folder.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(free >= ROOM_MIN, "the disk of {} is full: found {free} free bytes; {ROOM}", folder.display());
    Ok(())
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

    fn at(root: &Path) -> Cache {
        Cache { root: root.to_path_buf(), held: Arc::default() }
    }

    #[test]
    fn what_was_made_is_kept_and_what_was_not_finished_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = at(dir.path());
        let failed = cache.once("a/b", |folder| {
            std::fs::write(folder.join("half"), "x")?;
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(!dir.path().join("a/b").exists(), "half a folder is left");
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

    /// Where this test finds itself on a full disk.
    const FULL: &str = "TESSERAFS_TEST_FULL_DISK";

    #[test]
    fn nothing_counts_as_made_on_a_full_disk() {
        if let Some(folder) = std::env::var_os(FULL) {
            return on_a_full_disk(Path::new(&folder));
        }
        let dir = tempfile::tempdir().unwrap();
        const MOUNT: &str = "mount -t tmpfs -o size=3m tmpfs \"$1\" || exit 42; shift; exec \"$@\"";
        let mut again = crate::run::command("unshare");
        again.args(["--mount", "--map-root-user", "--", "sh", "-c", MOUNT, "sh"]).arg(dir.path());
        again.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture"]);
        again.arg("cache::tests::nothing_counts_as_made_on_a_full_disk").env(FULL, dir.path());
        let output = crate::run::output(&mut again).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.code() == Some(42) || said.contains("unshare failed") {
            eprintln!("not tried: no file system may be mounted here: {said}");
            return;
        }
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    fn on_a_full_disk(root: &Path) {
        let cache = at(root);
        let left = |name: &str| (root.join(name).exists(), root.join(format!("{name}.done")).exists());
        let write = |folder: &Path| std::fs::write(folder.join("big"), vec![1; 4 << 20]);
        // A write of this program itself, a program that fails, and one that keeps it to itself.
        let error = cache.once("own", |folder| write(folder).context("failed to write")).unwrap_err();
        assert!(crate::advice::told(&error).contains("TESSERAFS_CACHE=DIR"), "{error:#}");
        let log = log_of(&root.join("program"));
        let dd = |folder: &Path, end: &str| {
            let mut sh = crate::run::command("sh");
            sh.args(["-c", &format!("dd if=/dev/zero of=\"$1\" bs=4M count=1{end}"), "sh"])
                .arg(folder.join("big"));
            crate::run::logged(&mut sh, &log)
        };
        let error = cache.once("program", |folder| dd(folder, "")).unwrap_err();
        assert!(error.to_string().contains("is full: found 0 free bytes; make room"), "{error:#}");
        let error = cache.once("silent", |folder| dd(folder, "; true")).unwrap_err();
        assert!(error.to_string().contains("is full: found 0 free bytes"), "{error:#}");
        for name in ["own", "program", "silent"] {
            assert_eq!(left(name), (false, false), "{name}");
        }
        // There is room again: nothing of the failures stands in the way.
        cache.once("own", |folder| Ok(std::fs::write(folder.join("small"), "x")?)).unwrap();
        // And nothing is begun without any.
        let _ = write(root);
        let error = cache.once("none", |_| panic!("begun on a full disk")).unwrap_err();
        assert!(error.to_string().contains("is full"), "{error:#}");
    }

    #[test]
    fn what_is_in_use_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, other) = (at(dir.path()), at(dir.path()), at(dir.path()));
        let whole = |folder: &Path| Ok(std::fs::write(folder.join("whole"), "x")?);
        let old = one.once("a/of-1", whole).unwrap();
        assert_eq!(two.clone().once("a/of-1", |_| panic!("made twice")).unwrap(), old);
        let new = other.once("a/of-2", whole).unwrap();
        for run in [one, two] {
            other.forget_others(&new, "of-").unwrap();
            assert!(old.join("whole").exists());
            drop(run);
        }
        other.forget_others(&new, "of-").unwrap();
        assert!(!old.exists() && new.join("whole").exists());
    }

    #[test]
    fn keys_know_where_one_part_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
