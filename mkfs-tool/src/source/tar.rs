// SPDX-License-Identifier: GPL-2.0-or-later

//! A tar archive as the source of a tree: ustar, PAX and GNU, plain or compressed (`FORMAT.md` 4.9).
//!
//! Archives come in any order, an image has one, so contents are read twice over: a plain archive in a file is read in place;
//! a compressed one, or one from a pipe, is first unpacked into an unnamed file beside the image, still as one archive.
//! Modules, in the order in which bytes pass them:
//!
//! - `unpack` makes a plain archive of any;
//! - `reader` reads entries by way of `ahead`, each from a `header` and, before it, `pax` records with `xattr`s and `acl`s; `sparse` reads maps of holes;
//! - `index` adds them to a `growing` tree, which becomes `nodes`, each a `node` with `names`; `mark` and `layers` are about those that hide others;
//!   `image_archive` tells archives that hold no tree;
//! - here the tree is walked, which uses the inodes up; the names stay, and the files with holes.

mod acl;
mod ahead;
mod growing;
mod header;
mod image_archive;
mod index;
mod layers;
mod lookup;
mod mark;
mod names;
mod node;
mod nodes;
mod pax;
mod reader;
mod sparse;
mod unpack;
mod xattr;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tesserafs_format::limits::BLOCK_BYTES;
use zerocopy::little_endian::U64;

use self::growing::Growing;
use self::index::{Index, Indexed};
pub(super) use self::lookup::Archive;
use self::names::Named;
use self::node::{Sparse, What};
use self::nodes::Nodes;
use self::sparse::Segment;
pub(super) use self::unpack::unpack;
use super::{ArchiveNotes, DeviceList, Devices, FileTask, Filter, Found, LeftOut, OpenFile, Source, Walked};
use crate::error::{path_of, Error, Result};
use crate::tree::{Attributes, Kind, TreeBuilder, TreeError};

/// An archive, indexed.
#[derive(Debug)]
pub struct TarSource {
    path: PathBuf,
    file: File,
    /// Size and times of the archive when it was indexed.
    stamp: (u64, i64, i64),
    filter: Filter,
    /// The inodes, until the walk: they take as much memory as the tree that it makes of them.
    nodes: Mutex<Option<Nodes>>,
    /// Their names, which the messages about a file need to the end.
    names: Arc<names::Sorted>,
    /// Files with holes, by node.
    sparse: HashMap<u32, Arc<Sparse>>,
    /// How many files have bytes.
    files: usize,
    /// The node that becomes the root.
    root: u32,
    left_out: LeftOut,
    notes: ArchiveNotes,
}

/// Whether a file is an archive that [`TarSource`] would read, or would with another program's help.
pub fn is_archive(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.is_ok() && unpack::is_archive(&start)
}

impl TarSource {
    /// Opens and indexes an archive; `-` is standard input. An archive that must be unpacked goes to an
    /// unnamed file in `spool`.
    pub fn open(path: &Path, spool: &Path, filter: Filter) -> Result<Self> {
        let (file, shown) = open_in_place(path, spool)?;
        let len = file.metadata().map_err(Error::io("stat", &shown))?.len();
        let root = Growing::new(filter.archive.strip).map_err(|reason| Error::unsupported(&shown, reason))?;
        let mut index = Index::new(&filter, root);
        index.archive(&file, &shown, 0..len)?;
        let mut indexed = index.finish(&shown)?;
        indexed.choose_root(&filter, &shown)?;
        Self::new(indexed, file, shown, filter)
    }

    /// The tree that was indexed in `file`, which is `path` in messages.
    fn new(indexed: Indexed, file: File, path: PathBuf, filter: Filter) -> Result<Self> {
        let stamp = stamp(&file).map_err(Error::io("stat", &path))?;
        let Indexed { nodes, root, left_out, notes } = indexed;
        let (names, sparse, files) = (nodes.all_names().clone(), nodes.sparse(), nodes.files());
        let nodes = Mutex::new(Some(nodes));
        Ok(Self { path, file, stamp, filter, nodes, names, sparse, files, root, left_out, notes })
    }

    /// The inodes, for the one walk that there is.
    fn take_nodes(&self) -> Result<Nodes> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).take();
        nodes.ok_or_else(|| Error::unsupported(&self.path, "was walked before, which can be done once"))
    }

    fn attributes(&self, nodes: &Nodes, node: u32) -> Attributes {
        let mut attributes = nodes.marked_attributes(node);
        self.filter.attributes.apply(&mut attributes);
        attributes
    }
}

/// A plain archive at the start of a file, and its name in messages.
fn open_in_place(path: &Path, spool: &Path) -> Result<(File, PathBuf)> {
    let is_stdin = path.as_os_str() == "-";
    let input = match is_stdin {
        true => File::from(io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("open", path))?),
        false => File::open(path).map_err(Error::io("open", path))?,
    };
    let shown = if is_stdin { Path::new("standard input") } else { path };
    Ok((unpack::in_place(input, shown, spool)?, shown.to_owned()))
}

/// The error for a name that cannot be in a tree.
fn refused(path: &[u8]) -> impl FnOnce(TreeError) -> Error + '_ {
    move |error| Error::unsupported(path_of(path), error.to_string())
}

/// Size and times of a file.
fn stamp(file: &File) -> io::Result<(u64, i64, i64)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Source for TarSource {
    type File = TarFile;
    type Open<'a> = OpenTarFile<'a>;

    fn files_at_most(&self) -> usize {
        self.files
    }

    fn walk(&self, found: Found<'_, TarFile>) -> Result<Walked> {
        let nodes = self.take_nodes()?;
        let (mut left_out, mut notes) = (self.left_out.clone(), self.notes.clone());
        let mut devices = DeviceList::default();
        let mut builder = TreeBuilder::new(self.attributes(&nodes, self.root)).map_err(refused(b"/"))?;
        builder.configure(&self.filter).map_err(refused(b"/"))?;
        let names = &self.names;
        builder.make_room(nodes.len(), names.directories() + 1, names.len(), names.bytes());
        // Inodes by node, 0 for none yet.
        let mut inodes = vec![0; nodes.len()];
        // Inode, node, and whether whiteouts in the directory above hide nothing.
        let mut queue = VecDeque::from([(1_u32, self.root, false)]);
        while let Some((dir_ino, dir, above_hides)) = queue.pop_front() {
            let path_of_dir = || self.names.path(self.root, dir);
            builder.open_directory(dir_ino).map_err(|error| refused(&path_of_dir())(error))?;
            // Overlayfs does not heed the mark on a root: all layers' roots are one.
            let is_opaque = dir != self.root && nodes.hides_all(dir, above_hides);
            if let What::Directory { implied: true, .. } = nodes.what(dir) {
                notes.implied_directories += 1;
                notes.names.push(path_of_dir, "a directory without an entry");
            }
            // Put together once for the names in it, all of which patterns are matched with.
            let matched = (!self.filter.exclude.is_empty()).then(path_of_dir);
            for at in self.names.of(dir) {
                let Named { name, node, .. } = self.names.get(at);
                let path = || super::join(&path_of_dir(), name);
                let is_match = |dir: &Vec<u8>| self.filter.exclude.is_match(path_of(&super::join(dir, name)));
                if matched.as_ref().is_some_and(is_match) {
                    left_out.excluded += 1;
                    left_out.names.push(path, "excluded");
                    continue;
                }
                if mark::is_aufs(name) {
                    left_out.aufs += 1;
                    left_out.names.push(path, "a file of AUFS itself");
                    continue;
                }
                let mut offset = 0;
                let kind = match nodes.what(node) {
                    What::Directory { .. } => Kind::Directory,
                    What::Regular { size, offset: at } => {
                        offset = *at;
                        Kind::Regular { size: *size }
                    }
                    What::Sparse(sparse) => Kind::Regular { size: sparse.size },
                    What::Symlink(target) => Kind::Symlink(target.to_vec()),
                    What::Fifo => Kind::Fifo,
                    What::Whiteout { .. } if is_opaque => {
                        left_out.whiteouts += 1;
                        left_out.names.push(path, "a whiteout in an opaque directory");
                        continue;
                    }
                    What::Whiteout { .. } => Kind::Whiteout,
                    What::Device => {
                        match self.filter.devices {
                            Devices::Refuse => devices.push(path_of(&path()).to_owned()),
                            Devices::Skip => {
                                left_out.devices += 1;
                                left_out.names.push(path, "a device");
                            }
                        }
                        continue;
                    }
                };
                let inode = &mut inodes[node as usize];
                if *inode != 0 {
                    builder.add_link(name, *inode).map_err(|error| refused(&path())(error))?;
                    continue;
                }
                let ino = builder.add(name, &kind, self.attributes(&nodes, node));
                let ino = ino.map_err(|error| refused(&path())(error))?;
                *inode = ino;
                match kind {
                    Kind::Directory => queue.push_back((ino, node, is_opaque)),
                    Kind::Regular { size } if size > 0 => {
                        let file = TarFile { name: at, offset: offset.into() };
                        found(FileTask { ino, size, file })?;
                    }
                    _ => {}
                }
            }
        }
        devices.refuse()?;
        let tree = builder.finish().map_err(refused(b"/"))?;
        Ok(Walked { tree, left_out, archive: Some(notes), sbom: None })
    }

    fn open<'a>(&'a self, task: &'a FileTask<TarFile>) -> Result<OpenTarFile<'a>> {
        let TarFile { name, offset } = task.file;
        let segments = match self.sparse.get(&self.names.get(name).node) {
            Some(sparse) => Cow::Borrowed(&*sparse.segments),
            None => Cow::Owned(vec![Segment { start: 0, offset: offset.get(), len: task.size }]),
        };
        Ok(OpenTarFile { source: self, segments, size: task.size })
    }

    fn path(&self, task: &FileTask<TarFile>) -> PathBuf {
        let named = self.names.get(task.file.name);
        path_of(&super::join(&self.names.path(self.root, named.dir), named.name)).to_owned()
    }
}

/// The handle of a file. All files may wait for a thread at a time, so it is small.
#[derive(Clone, Copy, Debug)]
pub struct TarFile {
    /// The index of the name.
    name: u32,
    /// Where its bytes begin in the archive; 0 for a file with holes, whose bytes the source finds by its node. A `u64` would take 4
    /// bytes more, to lie at a multiple of 8.
    offset: U64,
}

const _: () = assert!(size_of::<FileTask<TarFile>>() <= 24);

/// A file in an archive.
#[derive(Debug)]
pub struct OpenTarFile<'a> {
    source: &'a TarSource,
    segments: Cow<'a, [Segment]>,
    size: u64,
}

impl OpenTarFile<'_> {
    /// The segments from the one that ends behind `pos`.
    fn from(&self, pos: u64) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.end() <= pos);
        &self.segments[first..]
    }
}

impl OpenFile for OpenTarFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        let Some(segment) = self.from(pos).first() else { return Ok(self.size..self.size) };
        let start = segment.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = segment.end().checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).min(self.size);
        Ok(start.max(pos)..end)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let before = buf.len();
        buf.resize(before + (range.end - range.start) as usize, 0);
        let bytes = &mut buf[before..];
        for segment in self.from(range.start) {
            if segment.start >= range.end {
                break;
            }
            let start = segment.start.max(range.start);
            let end = segment.end().min(range.end);
            let part = &mut bytes[(start - range.start) as usize..(end - range.start) as usize];
            self.source
                .file
                .read_exact_at(part, segment.offset + (start - segment.start))
                .map_err(Error::io("read", &self.source.path))?;
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        let path = &self.source.path;
        if stamp(&self.source.file).map_err(Error::io("stat", path))? != self.source.stamp {
            return Err(Error::Changed { path: path.clone(), what: "its size or mtime is different" });
        }
        Ok(())
    }
}
