// SPDX-License-Identifier: GPL-2.0-or-later

//! A working directory for one thread.
//!
//! Calls for xattrs take a path. One by way of `/proc/self/fd` costs three times as much as a name in the working directory,
//! and a walk asks for the xattrs of everything. But a process has one working directory, which the path of the image counts on, unless a
//! thread asks for its own.

use std::env;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{unshare, CloneFlags};
use rustix::fs::{open, Mode, OFlags};
use rustix::process::fchdir;

/// The working directory of this thread. When it is dropped, the thread is where it was.
#[derive(Debug)]
pub(super) struct Here {
    before: OwnedFd,
}

impl Here {
    /// Nothing where the system refuses that, and where a library is preloaded: it may keep account of the one working directory.
    pub(super) fn new() -> Option<Self> {
        if env::var_os("LD_PRELOAD").is_some_and(|libraries| !libraries.is_empty()) {
            return None;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let before = open(".", flags, Mode::empty()).ok()?;
        unshare(CloneFlags::CLONE_FS).ok()?;
        Some(Self { before })
    }

    /// Makes `dir` the working directory; whether it is.
    pub(super) fn enter(&self, dir: impl AsFd) -> bool {
        fchdir(dir).is_ok()
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = fchdir(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn only_one_thread_is_elsewhere_and_it_comes_back() {
        let before = env::current_dir().expect("a working directory");
        let dir = tempfile::tempdir().expect("a directory");
        let is_elsewhere = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A sandbox may forbid it.
                if let Some(here) = Here::new() {
                    assert!(here.enter(File::open(dir.path()).expect("the directory")));
                    let path = dir.path().canonicalize().expect("its path");
                    assert_eq!(env::current_dir().expect("a working directory"), path);
                    is_elsewhere.wait();
                    is_elsewhere.wait();
                    drop(here);
                } else {
                    is_elsewhere.wait();
                    is_elsewhere.wait();
                }
                assert_eq!(env::current_dir().expect("a working directory"), before);
            });
            is_elsewhere.wait();
            assert_eq!(env::current_dir().expect("a working directory"), before);
            is_elsewhere.wait();
        });
    }
}
