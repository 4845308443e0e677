// SPDX-License-Identifier: GPL-2.0

//! Where a tree comes from.
//!
//! A source walks its tree in the canonical order and names the regular files on the way; the encoder opens
//! them, in any order and on several threads.

pub mod dir;
pub mod left_out;
pub mod tar;

use std::ops::Range;
use std::path::PathBuf;

use tesserafs_format::limits::{MTIME_MAX, MTIME_MIN};
use tesserafs_format::Timestamp;

pub use self::left_out::{ArchiveNotes, LeftOut};
use crate::error::Result;
use crate::tree::{Attributes, Tree};

/// A regular file to encode.
#[derive(Debug)]
pub struct FileTask<F> {
    /// Its inode.
    pub ino: u32,
    /// Its bytes, 1 at least.
    pub size: u64,
    /// What its source needs to open it.
    pub file: F,
}

/// Gets the files of a walk; an error ends the walk.
pub type Found<'a, F> = &'a mut dyn FnMut(FileTask<F>) -> Result<()>;

/// A tree, and the bytes of its files.
pub trait Source: Sync {
    /// What it takes to open a file.
    type File: Send;
    /// An open file.
    type Open<'a>: OpenFile
    where
        Self: 'a;

    /// Walks the tree in canonical order; `found` gets the regular files with bytes, by inode number.
    fn walk(&self, found: Found<'_, Self::File>) -> Result<Walked>;

    /// Opens a file.
    fn open<'a>(&'a self, task: &'a FileTask<Self::File>) -> Result<Self::Open<'a>>;
}

/// What a walk gives beside the files.
#[derive(Debug)]
pub struct Walked {
    /// The tree.
    pub tree: Tree,
    /// What was left out, and said to be.
    pub left_out: LeftOut,
    /// Of an archive: how it was read where it does not say.
    pub archive: Option<ArchiveNotes>,
}

/// An open regular file.
pub trait OpenFile {
    /// The next range at or behind `pos` that may have other bytes than zero. It begins at a multiple of a block,
    /// and ends at one or at the end of the file, where there is no more it is empty.
    fn data(&mut self, pos: u64) -> Result<Range<u64>>;

    /// Appends exactly the bytes of `range` to `buf`.
    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()>;

    /// Proves that the file did not change since the walk.
    fn close(self) -> Result<()>;
}

/// What is done to the attributes of every inode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Override {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// The largest mtime, in seconds.
    pub mtime_max: Option<i64>,
    /// Whether an mtime that an image cannot hold becomes the nearest that it can.
    pub clamp_mtime: bool,
}

impl Override {
    /// Applies it.
    pub fn apply(&self, attributes: &mut Attributes) {
        attributes.uid = self.uid.unwrap_or(attributes.uid);
        attributes.gid = self.gid.unwrap_or(attributes.gid);
        if let Some(max) = self.mtime_max {
            attributes.mtime = attributes.mtime.min(Timestamp { sec: max, nsec: 0 });
        }
        if self.clamp_mtime {
            let least = Timestamp { sec: MTIME_MIN, nsec: 0 };
            attributes.mtime = attributes.mtime.clamp(least, Timestamp { sec: MTIME_MAX, nsec: 999_999_999 });
        }
    }
}

/// What to do with device nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Devices {
    /// Refuse the tree, and list them.
    #[default]
    Refuse,
    /// Leave them out.
    Skip,
}

/// Who says which number a user has whom an access control list of an archive names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AclNames {
    /// The headers of the archive, and nobody else: the image depends on nothing but the archive.
    #[default]
    Archive,
    /// This machine, where they do not.
    Host,
}

/// How an archive is taken for a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// How many names are taken off the start of each path.
    pub strip: usize,
    /// The directory that becomes the root.
    pub prefix: Option<PathBuf>,
    /// Who knows users by name.
    pub acl_names: AclNames,
}

/// What is left out, and what happens to the rest.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Paths relative to the root of the tree.
    pub exclude: globset::GlobSet,
    /// What to do with device nodes.
    pub devices: Devices,
    /// What is done to attributes.
    pub attributes: Override,
    /// Device and inode numbers of files that are the image itself.
    pub image: Vec<(u64, u64)>,
    /// How an archive is taken for a tree.
    pub archive: ArchiveOptions,
    /// Whether the report names what is left out.
    pub verbose: bool,
}

/// Device nodes that were met; an error names all of them.
#[derive(Debug, Default)]
pub struct DeviceList(Vec<PathBuf>);

impl DeviceList {
    /// Notes a node.
    pub fn push(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// The error, if there are any.
    pub fn refuse(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(crate::error::Error::Devices(self.0))
        }
    }
}

/// The path of a name in a directory; the root's is empty.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    if !dir.is_empty() {
        path.extend_from_slice(dir);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
