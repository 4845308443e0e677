// SPDX-License-Identifier: GPL-2.0-or-later

//! Where a tree comes from.
//!
//! A source walks its tree in the order of the format and names the regular files on the way; the encoder opens
//! them, in any order and on several threads.

mod archive;
pub mod dir;
pub mod exclude;
mod filter;
pub mod holes;
pub mod left_out;
pub mod materials;
pub mod oci;
pub(crate) mod overlay;
pub mod owner;
pub mod tar;

use std::ops::Range;
use std::path::PathBuf;

pub use self::archive::{AclNames, ArchiveOptions};
pub use self::filter::{DeviceList, Devices, Filter, Override};
pub use self::left_out::{ArchiveNotes, LeftOut};
use tesserafs_image::sbom::Document;

use crate::chunker::Summary;
use crate::error::Result;
use crate::tree::Tree;

/// A regular file to encode.
#[derive(Debug)]
pub struct FileTask<F> {
    /// Its inode.
    pub ino: u32,
    /// Its bytes, 1 at least.
    pub size: u64,
    /// The handle that its source needs to open it.
    pub file: F,
}

/// Gets the files of a walk; an error ends the walk.
pub type Found<'a, F> = &'a mut dyn FnMut(FileTask<F>) -> Result<()>;

/// A tree, and the bytes of its files.
pub trait Source: Sync {
    /// The handle that is needed to open a file.
    type File: Send;
    /// An open file.
    type Open<'a>: OpenFile
    where
        Self: 'a;

    /// How many files the walk finds at most, where that is known before it; else 0. Tables get room for so many at once: those that
    /// grow little by little leave holes in memory that nothing fits into.
    fn files_at_most(&self) -> usize {
        0
    }

    /// Walks the tree, once, in the order of the format; `found` gets the regular files with bytes, by inode number.
    fn walk(&self, found: Found<'_, Self::File>) -> Result<Walked>;

    /// Opens a file.
    fn open<'a>(&'a self, task: &'a FileTask<Self::File>) -> Result<Self::Open<'a>>;

    /// Opens files and reads them whole, as they are small: one after the other, in their order. A source in which files lie side by side reads several at once.
    fn read_each<'a>(&'a self, tasks: &'a [FileTask<Self::File>]) -> Result<Vec<(Self::Open<'a>, Vec<u8>)>> {
        let read = |task: &'a FileTask<Self::File>| {
            let mut file = self.open(task)?;
            let mut bytes = Vec::new();
            file.read(0..task.size, &mut bytes)?;
            Ok((file, bytes))
        };
        tasks.iter().map(read).collect()
    }

    /// Proves, once all files were read, that the source did not change since it was opened, where that is not proved file by file.
    fn close(&self) -> Result<()>;

    /// The path of a file, for messages.
    fn path(&self, task: &FileTask<Self::File>) -> PathBuf;
}

/// The result of a walk, beside the files.
#[derive(Debug)]
pub struct Walked {
    /// The tree.
    pub tree: Tree,
    /// The parts of the source that were left out, for the report.
    pub left_out: LeftOut,
    /// Of an archive: how it was read where it leaves that open.
    pub archive: Option<ArchiveNotes>,
    /// The bill of materials, where one was made.
    pub sbom: Option<Sbom>,
}

/// The bill of materials of a tree.
#[derive(Debug)]
pub struct Sbom {
    /// The document.
    pub document: Document,
    /// Databases that could not be read, in sentences.
    pub notes: Vec<String>,
}

/// An open regular file.
pub trait OpenFile: Sized {
    /// The next range at or behind `pos` that may have other bytes than zero. It begins at a multiple of a block,
    /// and ends at one or at the end of the file. All that an empty one says is that there are zeros up to it.
    fn data(&mut self, pos: u64) -> Result<Range<u64>>;

    /// Appends exactly the bytes of `range` to `buf`.
    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()>;

    /// Proves, where the system cannot tell whether bytes that were read are still those of the file, that they are:
    /// by reading all of them again.
    fn confirm(&mut self, _read: &Summary) -> Result<()> {
        Ok(())
    }

    /// Proves that the file did not change since the walk, where that is proved file by file.
    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// The path of a name in a directory; the root's is empty.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    if !dir.is_empty() {
        path.extend_from_slice(dir);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
