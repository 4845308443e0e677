// SPDX-License-Identifier: GPL-2.0-or-later

//! An image in memory that programs can open by a path.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{memfd_create, MemfdFlags};

/// A file that is nowhere but in memory.
#[derive(Debug)]
pub struct MemoryFile(File);

impl MemoryFile {
    /// A file of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let file = memfd_create("image", MemfdFlags::CLOEXEC).expect("a file in memory");
        let file = Self(File::from(file));
        file.write(0, bytes);
        file
    }

    /// Writes bytes from `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, offset).expect("memory");
    }

    /// Where it can be opened.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
