// SPDX-License-Identifier: GPL-2.0-or-later

//! Helpers that the tests of the command share: running the real binary on an image in a directory of its
//! own.
#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory with an image in it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) image: PathBuf,
}

impl Bench {
    pub(crate) fn new(image: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        fs::write(&path, image).expect("written");
        Self { dir, image: path }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs fsck with `args` and the image.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(args.into_iter().map(|arg| arg.as_ref().to_owned()).chain([self.image.clone().into()]))
    }
}

impl Bench {
    /// The same with a standard output that nobody reads.
    pub(crate) fn run_unread(&self, args: &[&str]) -> Output {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
        command.args(args).arg(&self.image).stdin(Stdio::null()).stdout(OwnedFd::from(ours));
        command.stderr(Stdio::piped()).spawn().expect("fsck runs").wait_with_output().expect("it ends")
    }
}

pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
    command.args(args).stdin(Stdio::null()).output().expect("fsck runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
