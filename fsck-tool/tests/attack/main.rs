// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that are meant to do harm, and ends that come early: nothing outside of the destination is created or changed,
//! no file is there by half, nothing that a terminal obeys is printed.

#[path = "../bench/mod.rs"]
mod bench;
#[path = "../../../format/tests/common/mod.rs"]
mod common;
mod ends;
mod names;
mod swaps;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use bench::Bench;
use common::{inode, pattern, Draft, DraftInode, Piece};

/// The longest that any of these programs may take before the test takes it for one that hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// The state of a path: type and mode, owner and group, size, mtime, bytes or target.
pub(crate) type State = (u32, u32, u32, u64, (i64, i64), Vec<u8>);

/// All that is in a directory, and it itself.
pub(crate) fn states(root: &Path) -> BTreeMap<PathBuf, State> {
    let mut states = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).expect("a file");
        let bytes = match metadata.file_type() {
            kind if kind.is_symlink() => {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            }
            kind if kind.is_file() => fs::read(&path).expect("a file"),
            kind if kind.is_dir() => {
                paths.extend(
                    fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("one").path()),
                );
                Vec::new()
            }
            _ => Vec::new(),
        };
        let time = (metadata.mtime(), metadata.mtime_nsec());
        let size = if metadata.is_dir() { 0 } else { metadata.size() };
        let state = (metadata.mode(), metadata.uid(), metadata.gid(), size, time, bytes);
        states.insert(path, state);
    }
    states
}

/// An image beside a tree that nothing may touch, and the destination `out`, which is not there.
pub(crate) struct Canary {
    pub(crate) bench: Bench,
    pub(crate) before: BTreeMap<PathBuf, State>,
}

impl Canary {
    pub(crate) fn new(image: &[u8]) -> Self {
        let bench = Bench::new(image);
        for (name, bytes) in
            [("outside/file", "precious"), ("outside/dir/deep", "precious"), ("outside/fifo", "")]
        {
            let path = bench.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, bytes).expect("written");
        }
        fs::set_permissions(bench.path("outside/file"), fs::Permissions::from_mode(0o640)).expect("a mode");
        let before = states(&bench.path("outside"));
        Self { bench, before }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.bench.path("out")
    }

    pub(crate) fn extract(&self) -> Output {
        self.bench.run([OsStr::new("--extract"), self.out().as_os_str()])
    }

    /// Nothing but the destination is new, and nothing is changed.
    pub(crate) fn assert_untouched(&self, what: &str) {
        assert_eq!(states(&self.bench.path("outside")), self.before, "{what}");
        let names = fs::read_dir(self.bench.dir.path()).expect("the directory");
        let names: BTreeSet<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
        let known = ["image", "out", "outside"].map(Into::into);
        assert!(names.is_subset(&known.into()), "{what}: {names:?}");
    }
}

/// An image of directories, each with files and FIFOs in it.
pub(crate) fn many_directories(dirs: u32, each: u32) -> Draft {
    let mut draft = Draft::empty();
    draft.directory(1, dirs.into(), 2 + dirs, 0);
    for dir in 0..dirs {
        draft.directory(1, u64::from(each) * 2, 2, 0);
        draft.dirent(format!("dir{dir:03}").as_bytes(), dir + 2, 2);
    }
    let mut ino = dirs + 2;
    for dir in 0..dirs {
        for n in 0..each {
            draft.inode(DraftInode { file_type: 4, mode: 0o666.into(), uid: 1.into(), ..inode(1) });
            draft.dirent(format!("fifo{n:03}").as_bytes(), ino + n, 4);
        }
        for n in 0..each {
            let bytes = pattern(3000, u64::from(dir * each + n));
            let content = draft.content(&[Piece::Data(&bytes)], &bytes);
            draft.regular(content, 3000, 1, 0);
            draft.dirent(format!("file{n:03}").as_bytes(), ino + each + n, 1);
        }
        ino += 2 * each;
    }
    draft.seal();
    draft
}
