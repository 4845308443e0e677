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
//! - here the tree is walked, which uses the inodes up; the names stay, and the files with holes;
//! - `file` reads contents.

mod acl;
mod ahead;
mod file;
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

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::file::{OpenTarFile, TarFile};
use self::growing::Growing;
use self::index::{Index, Indexed};
pub(super) use self::lookup::Archive;
use self::names::Named;
use self::node::{Sparse, What};
use self::nodes::Nodes;
pub(super) use self::unpack::unpack;
use super::{ArchiveNotes, DeviceList, Devices, FileTask, Filter, Found, LeftOut, Source, Walked};
use crate::error::{path_of, Error, Result};
use crate::tree::{Attributes, Kind, TreeBuilder, TreeError};

/// An archive, indexed.
#[derive(Debug)]
pub struct TarSource {
    path: PathBuf,
    file: File,
    /// The archive before it was indexed.
    stamp: Stamp,
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
        let stamp = stamp(&file).map_err(Error::io("stat", &shown))?;
        let root = Growing::new(filter.archive.strip).map_err(|reason| Error::unsupported(&shown, reason))?;
        let mut index = Index::new(&filter, root);
        index.archive(&file, &shown, 0..stamp.len)?;
        let mut indexed = index.finish(&shown)?;
        indexed.choose_root(&filter, &shown)?;
        Ok(Self::new(indexed, file, stamp, shown, filter))
    }

    /// The tree that was indexed in `file`, which had this stamp before, and is `path` in messages.
    fn new(indexed: Indexed, file: File, stamp: Stamp, path: PathBuf, filter: Filter) -> Self {
        let Indexed { nodes, root, left_out, notes } = indexed;
        let (names, sparse, files) = (nodes.all_names().clone(), nodes.sparse(), nodes.files());
        let nodes = Mutex::new(Some(nodes));
        Self { path, file, stamp, filter, nodes, names, sparse, files, root, left_out, notes }
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

/// By which it is told that a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Its size.
    len: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok(Stamp { len: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) })
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
                        let file = TarFile::new(at, offset);
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
        Ok(self.open_file(task))
    }

    fn read_each<'a>(&'a self, tasks: &'a [FileTask<TarFile>]) -> Result<Vec<(OpenTarFile<'a>, Vec<u8>)>> {
        let files: Vec<_> = tasks.iter().map(|task| self.open_file(task)).collect();
        let contents = self.read_runs(&files)?;
        Ok(files.into_iter().zip(contents).collect())
    }

    fn close(&self) -> Result<()> {
        if stamp(&self.file).map_err(Error::io("stat", &self.path))? != self.stamp {
            return Err(Error::Changed { path: self.path.clone(), what: "its size or mtime is different" });
        }
        Ok(())
    }

    fn path(&self, task: &FileTask<TarFile>) -> PathBuf {
        let named = self.names.get(task.file.name());
        path_of(&super::join(&self.names.path(self.root, named.dir), named.name)).to_owned()
    }
}
