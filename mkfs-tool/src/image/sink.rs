// SPDX-License-Identifier: GPL-2.0-or-later

//! Where the bytes of an image go: to a file, to nobody, or to somebody who compares them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Takes the bytes of an image.
pub trait Sink {
    /// Takes the bytes at `offset`. They come in order and without a gap, but for the superblock, which comes last.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

impl<S: Sink> Sink for &mut S {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        (**self).put(offset, bytes)
    }
}

/// Where there is no sink only the IDs are wanted.
impl<S: Sink> Sink for Option<S> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.as_mut().map_or(Ok(()), |sink| sink.put(offset, bytes))
    }
}

/// The file that an image is written to. Until the superblock comes, zeros stand for it: this is no image.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
}

impl ImageFile {
    /// An image in an empty file; `path` is for messages.
    pub fn new(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }
}

impl Sink for ImageFile {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write", &self.path))
    }
}
