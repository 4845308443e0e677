// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree that overlayfs shows over mounts of images, in the order of the format.

use std::collections::{HashMap, VecDeque};

use tesserafs_format::{settable, FileKind, FileType, FormatError, Ino, Inode, Place, Rule};
use tesserafs_image::error::vec_of;
use tesserafs_image::unchecked::{Cursor, Seen, Unchecked};

use super::contents::Contents;
use super::layers::Layer;
use super::marks::{self, Marks};
use crate::error::{path_of, Error, Result, Shown};
use crate::source::join;
use crate::source::overlay::{OPAQUE, OPAQUE_VALUE};
use crate::tree::{Attributes, Kind, Tree, TreeBuilder, TreeError, Xattrs};

/// Permission bits of directories on the way to where an image is put, that no image has.
const ON_THE_WAY: u16 = 0o755;

/// A file of an image, or a directory on the way to where its root is.
#[derive(Clone)]
enum Found {
    File { layer: usize, inode: Inode, marks: Marks },
    OnTheWay { layer: usize, depth: usize },
}

/// A directory of the result that is to be filled.
struct Visit {
    ino: u32,
    /// Those that it is made of, the uppermost first.
    parts: Vec<Found>,
    /// Whether nothing below the result is seen in it, so that whiteouts hide nothing.
    is_closed: bool,
}

/// The file that a name stands for.
enum Resolved {
    Nothing,
    Whiteout(Found),
    File(Found),
    /// The directories, the uppermost first; and the marks that hide what is below, where something does.
    Directory(Vec<Found>, Option<Vec<&'static [u8]>>),
}

/// Merges the trees of `layers`, the lowest first; the contents of regular files go to `contents`.
pub(super) fn merge(layers: &[Layer<'_>], partial: bool, contents: &mut Contents<'_>) -> Result<Tree> {
    let images: Vec<Unchecked<'_>> = layers.iter().map(Layer::image).collect();
    let mut numbers = Vec::new();
    for image in &images {
        image.check_xattr_sets()?;
        numbers.push(vec_of(image.image.sb.layout.inodes.records(), "the numbers of inodes")?);
    }
    let target_bytes = vec![0; layers.len()];
    let (sets, whiteouts) = Default::default();
    let merge = Merge { layers, images, partial, sets, numbers, whiteouts, target_bytes };
    merge.run(contents)
}

struct Merge<'a> {
    layers: &'a [Layer<'a>],
    images: Vec<Unchecked<'a>>,
    partial: bool,
    /// The xattr sets that were read, by layer and index.
    sets: HashMap<(usize, u32), Set>,
    /// The number in the result of each inode of each layer, 0 where it has none yet.
    numbers: Vec<Vec<u32>>,
    /// The same of regular files that are whiteouts by some of their names, which are files by others.
    whiteouts: HashMap<(usize, u32), u32>,
    /// Bytes of the symlink targets of each layer that are in the result.
    target_bytes: Vec<u64>,
}

/// An xattr set of a layer.
#[derive(Default)]
struct Set {
    xattrs: Xattrs,
    marks: Marks,
    /// The types of files that setxattr(2) refuses one of these xattrs on, a bit for each.
    refused: u8,
}

impl Set {
    fn new(xattrs: Xattrs) -> Self {
        let is_refused =
            |of: &FileType| xattrs.iter().any(|(name, value)| settable::refusal(*of, name, value).is_some());
        let refused = FileType::ALL.iter().filter(|of| is_refused(of)).fold(0, |types, of| types | bit(*of));
        Self { marks: marks::read(&xattrs), xattrs, refused }
    }
}

fn bit(file_type: FileType) -> u8 {
    1 << file_type.value()
}

impl<'a> Merge<'a> {
    fn run(mut self, contents: &mut Contents<'_>) -> Result<Tree> {
        let mut seen: Vec<Seen> = self.layers.iter().map(|_| Seen::default()).collect();
        let mut parts = Vec::new();
        for layer in (0..self.layers.len()).rev() {
            parts.push(if self.layers[layer].at.is_empty() {
                self.root(layer)?
            } else {
                Found::OnTheWay { layer, depth: 0 }
            });
        }
        // As overlayfs has it, a root hides nothing, whatever its marks say.
        let attributes = self.attributes_of_directory(&parts, None)?;
        let mut builder = TreeBuilder::new(attributes).map_err(|error| refused(b"", error))?;
        let mut queue = VecDeque::from([Visit { ino: 1, parts, is_closed: false }]);
        while let Some(visit) = queue.pop_front() {
            if let Err(error) = builder.open_directory(visit.ino) {
                return Err(refused(&builder.path(visit.ino), error));
            }
            let mut entries = self.entries(&visit, &mut seen)?;
            while let Some(name) = entries.iter().filter_map(Entries::name).min().map(<[u8]>::to_vec) {
                let mut found = Vec::new();
                for entries in &mut entries {
                    if entries.name() == Some(&name) {
                        found.extend(self.take(entries)?);
                    }
                }
                // Where it is is found out when it is said: of all directories that wait, paths could be more than memory.
                let path = |builder: &TreeBuilder| join(&builder.path(visit.ino), &name);
                let resolved = self.resolve(&|| path(&builder), found)?;
                let added = match resolved {
                    Resolved::Nothing => Ok(()),
                    Resolved::Whiteout(_) if !self.partial || visit.is_closed => Ok(()),
                    Resolved::Whiteout(found) => self.add(&mut builder, &name, &found, true, contents),
                    Resolved::File(found) => self.add(&mut builder, &name, &found, false, contents),
                    Resolved::Directory(parts, closed) => {
                        let attributes = self.attributes_of_directory(&parts, closed.as_deref())?;
                        let added = builder.add(&name, &Kind::Directory, attributes);
                        added.map_err(Stop::Tree).map(|ino| {
                            let is_closed = visit.is_closed || closed.is_some();
                            queue.push_back(Visit { ino, parts, is_closed });
                        })
                    }
                };
                added.map_err(|stop| match stop {
                    Stop::Tree(error) => refused(&path(&builder), error),
                    Stop::Other(error) => error,
                })?;
            }
        }
        builder.finish().map_err(|error| refused(b"", error))
    }

    fn root(&mut self, layer: usize) -> Result<Found> {
        let inode = self.images[layer].of(self.images[layer].image.inode(Ino::ROOT))?;
        self.found(layer, inode)
    }

    fn found(&mut self, layer: usize, inode: Inode) -> Result<Found> {
        let image = self.images[layer];
        let set = self.set(layer, &inode)?;
        if set.refused & bit(inode.kind.file_type()) != 0 {
            let error = FormatError::new(Rule::XattrSettable, Place::Ino(inode.ino.get()), 1, 0);
            return Ok(image.of(Err(error.into()))?);
        }
        let marks = set.marks.clone();
        Ok(Found::File { layer, inode, marks })
    }

    /// The xattrs of an inode.
    fn set(&mut self, layer: usize, inode: &Inode) -> Result<&Set> {
        // No set has this index: an image has fewer.
        let index = inode.xattrs.map_or(u32::MAX, |set| set.0);
        if !self.sets.contains_key(&(layer, index)) {
            let xattrs = self.images[layer].xattrs(inode)?;
            self.sets.insert((layer, index), Set::new(xattrs));
        }
        Ok(&self.sets[&(layer, index)])
    }

    /// The entries of all parts of a directory, each at its first one.
    fn entries(&self, visit: &Visit, seen: &mut [Seen]) -> Result<Vec<Entries>> {
        let mut all = Vec::new();
        for part in &visit.parts {
            all.push(match part {
                Found::File { layer, inode, marks } => {
                    let FileKind::Directory(directory) = inode.kind else { continue };
                    let at = Some((inode.ino, directory));
                    let cursor = Cursor::new(&self.images[*layer], &mut seen[*layer], at)?;
                    Entries::Of { layer: *layer, cursor, has_files: marks.has_files }
                }
                Found::OnTheWay { layer, depth } => {
                    let name = self.layers[*layer].at[*depth].clone();
                    Entries::One { layer: *layer, depth: *depth, name: Some(name) }
                }
            });
        }
        Ok(all)
    }

    /// The file of the entry, and on to the next one.
    fn take(&mut self, entries: &mut Entries) -> Result<Option<Found>> {
        match entries {
            Entries::Of { layer, cursor, has_files } => {
                let Some(inode) = cursor.take(&self.images[*layer])? else { return Ok(None) };
                let mut found = self.found(*layer, inode)?;
                if let Found::File { marks, .. } = &mut found {
                    let is_empty = matches!(inode.kind, FileKind::Regular { size: 0, .. });
                    marks.is_whiteout &= *has_files && is_empty;
                }
                Ok(Some(found))
            }
            Entries::One { layer, depth, name } => {
                *name = None;
                let (layer, depth) = (*layer, *depth + 1);
                if depth == self.layers[layer].at.len() {
                    return self.root(layer).map(Some);
                }
                Ok(Some(Found::OnTheWay { layer, depth }))
            }
        }
    }

    /// The one that overlayfs shows of the files that one name has in several layers, the uppermost first.
    fn resolve(&self, path: &dyn Fn() -> Vec<u8>, found: Vec<Found>) -> Result<Resolved> {
        let mut parts = Vec::new();
        // A file below a directory that is none itself hides all below it, and so does an opaque directory.
        let mut closed = None;
        for file in found {
            let Found::File { layer, inode, marks } = &file else {
                parts.push(file);
                continue;
            };
            if let Some(mark) = &marks.elsewhere {
                return Err(Error::unsupported(
                    self.layers[*layer].path,
                    format!(
                        "{} has the xattr {mark}, which says that it, or what it has, is elsewhere; a layer that overlayfs made \
                         without redirect_dir and metacopy has none",
                        Shown(shown(&path()))
                    ),
                ));
            }
            let is_whiteout = inode.kind == FileKind::Whiteout || marks.is_whiteout;
            let is_directory = matches!(inode.kind, FileKind::Directory(_));
            if is_directory {
                let opaque = marks.opaque.clone();
                parts.push(file);
                if !opaque.is_empty() {
                    closed = Some(opaque);
                    break;
                }
            } else if parts.is_empty() {
                return Ok(if is_whiteout { Resolved::Whiteout(file) } else { Resolved::File(file) });
            } else {
                let only_on_the_way = parts.iter().all(|part| matches!(part, Found::OnTheWay { .. }));
                if only_on_the_way && !is_whiteout {
                    return Err(Error::unsupported(
                        self.layers[*layer].path,
                        format!(
                            "{} is a {:?}, and an image is to be put below it: a directory is wanted there",
                            Shown(shown(&path())),
                            inode.kind.file_type()
                        ),
                    ));
                }
                closed = Some(OPAQUE.to_vec());
                break;
            }
        }
        Ok(if parts.is_empty() { Resolved::Nothing } else { Resolved::Directory(parts, closed) })
    }

    /// The attributes of a directory: those of its uppermost part that is one of an image.
    fn attributes_of_directory(
        &mut self,
        parts: &[Found],
        closed: Option<&[&'static [u8]]>,
    ) -> Result<Attributes> {
        let own = parts.iter().find_map(|part| match part {
            Found::File { layer, inode, .. } => Some((*layer, *inode)),
            Found::OnTheWay { .. } => None,
        });
        let mut attributes = match (own, parts.first()) {
            (Some((layer, inode)), _) => self.attributes(layer, &inode)?,
            (None, Some(Found::OnTheWay { layer, .. })) => {
                let root = self.images[*layer].of(self.images[*layer].image.inode(Ino::ROOT))?;
                Attributes { mode: ON_THE_WAY, mtime: root.mtime, ..Attributes::default() }
            }
            _ => Attributes::default(),
        };
        if let Some(closed) = closed.filter(|_| self.partial) {
            attributes.xattrs.extend(closed.iter().map(|mark| (mark.to_vec(), OPAQUE_VALUE.to_vec())));
        }
        Ok(attributes)
    }

    /// The attributes of a file, without marks.
    fn attributes(&mut self, layer: usize, inode: &Inode) -> Result<Attributes> {
        let partial = self.partial;
        let xattrs = marks::without(self.set(layer, inode)?.xattrs.clone(), partial);
        let Inode { mode, uid, gid, mtime, .. } = *inode;
        Ok(Attributes { mode, uid, gid, mtime, xattrs })
    }

    /// Adds a file that is no directory, or another name of it.
    fn add(
        &mut self,
        builder: &mut TreeBuilder,
        name: &[u8],
        found: &Found,
        is_whiteout: bool,
        contents: &mut Contents<'_>,
    ) -> Result<(), Stop> {
        let Found::File { layer, inode, .. } = found else { return Ok(()) };
        let known = *self.number(*layer, inode, is_whiteout);
        if known != 0 {
            return Ok(builder.add_link(name, known)?);
        }
        let kind = match inode.kind {
            _ if is_whiteout => Kind::Whiteout,
            FileKind::Regular { size, .. } => Kind::Regular { size },
            FileKind::Symlink { .. } => Kind::Symlink(self.target(*layer, inode)?),
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::Directory(_) | FileKind::Whiteout => Kind::Whiteout,
        };
        let mut attributes = self.attributes(*layer, inode)?;
        if is_whiteout {
            // A file that is one may have xattrs that a device has not.
            attributes
                .xattrs
                .retain(|(name, value)| settable::refusal(FileType::Whiteout, name, value).is_none());
        }
        let ino = builder.add(name, &kind, attributes)?;
        *self.number(*layer, inode, is_whiteout) = ino;
        if is_whiteout {
            return Ok(());
        }
        if let FileKind::Regular { content: Some(content), .. } = inode.kind {
            contents.add(ino, *layer, content, inode.blocks)?;
        }
        Ok(())
    }

    /// The number in the result of an inode of a layer, 0 where it has none yet.
    fn number(&mut self, layer: usize, inode: &Inode, is_whiteout: bool) -> &mut u32 {
        if is_whiteout && inode.kind != FileKind::Whiteout {
            return self.whiteouts.entry((layer, inode.ino.get())).or_default();
        }
        &mut self.numbers[layer][inode.ino.index() as usize]
    }

    /// The target of a symlink. Those of all symlinks are no more than their table, unless some have the same bytes of it.
    fn target(&mut self, layer: usize, inode: &Inode) -> Result<Vec<u8>> {
        let image = self.images[layer];
        let target = image.target(inode)?;
        let (so_far, records) = (&mut self.target_bytes[layer], image.image.sb.layout.targets.records());
        *so_far += target.len() as u64;
        if *so_far > records {
            let place = Place::Ino(inode.ino.get());
            return Ok(image.of(Err(FormatError::new(Rule::TreeTargets, place, *so_far, records).into()))?);
        }
        Ok(target)
    }
}

/// Why a file was not added.
enum Stop {
    /// The tree cannot have it, which is said with its path.
    Tree(TreeError),
    Other(Error),
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// The entries of one part of a directory.
enum Entries {
    Of { layer: usize, cursor: Cursor, has_files: bool },
    One { layer: usize, depth: usize, name: Option<Vec<u8>> },
}

impl Entries {
    fn name(&self) -> Option<&[u8]> {
        match self {
            Entries::Of { cursor, .. } => cursor.name(),
            Entries::One { name, .. } => name.as_deref(),
        }
    }
}

fn refused(path: &[u8], error: TreeError) -> Error {
    Error::unsupported(shown(path), error.to_string())
}

/// A path in an error; that of the root is a slash.
fn shown(path: &[u8]) -> &std::path::Path {
    path_of(if path.is_empty() { b"/" } else { path })
}
