// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree that overlayfs shows over mounts of images, in the order of the format.

use std::collections::{HashMap, VecDeque};

use tesserafs_format::{FileKind, Ino, Inode};
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
    path: Vec<u8>,
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
        numbers.push(vec_of(image.image.sb.layout.inodes.records(), "the numbers of inodes")?);
    }
    let merge = Merge { layers, images, partial, xattrs: HashMap::new(), numbers };
    merge.run(contents)
}

struct Merge<'a> {
    layers: &'a [Layer<'a>],
    images: Vec<Unchecked<'a>>,
    partial: bool,
    /// The xattr sets that were read, by layer and index.
    xattrs: HashMap<(usize, u32), Xattrs>,
    /// The number in the result of each inode of each layer, 0 where it has none yet.
    numbers: Vec<Vec<u32>>,
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
        let refused = |path: &[u8], error: TreeError| Error::unsupported(shown(path), error.to_string());
        let mut builder = TreeBuilder::new(attributes).map_err(|error| refused(b"", error))?;
        let mut queue = VecDeque::from([Visit { ino: 1, path: Vec::new(), parts, is_closed: false }]);
        while let Some(visit) = queue.pop_front() {
            builder.open_directory(visit.ino).map_err(|error| refused(&visit.path, error))?;
            let mut entries = self.entries(&visit, &mut seen)?;
            while let Some(name) = entries.iter().filter_map(Entries::name).min().map(<[u8]>::to_vec) {
                let path = join(&visit.path, &name);
                let mut found = Vec::new();
                for entries in &mut entries {
                    if entries.name() == Some(&name) {
                        found.extend(self.take(entries)?);
                    }
                }
                let refused = |error| refused(&path, error);
                match self.resolve(&path, found)? {
                    Resolved::Nothing => (),
                    Resolved::Whiteout(_) if !self.partial || visit.is_closed => (),
                    Resolved::Whiteout(found) => {
                        self.add(&mut builder, &name, &found, true, contents, &refused)?;
                    }
                    Resolved::File(found) => {
                        self.add(&mut builder, &name, &found, false, contents, &refused)?;
                    }
                    Resolved::Directory(parts, closed) => {
                        let attributes = self.attributes_of_directory(&parts, closed.as_deref())?;
                        let ino = builder.add(&name, &Kind::Directory, attributes).map_err(refused)?;
                        let is_closed = visit.is_closed || closed.is_some();
                        queue.push_back(Visit { ino, path, parts, is_closed });
                    }
                }
            }
        }
        builder.finish().map_err(|error| refused(b"", error))
    }

    fn root(&mut self, layer: usize) -> Result<Found> {
        let inode = self.images[layer].of(self.images[layer].image.inode(Ino::ROOT))?;
        self.found(layer, inode)
    }

    fn found(&mut self, layer: usize, inode: Inode) -> Result<Found> {
        let marks = marks::read(self.xattrs(layer, &inode)?);
        Ok(Found::File { layer, inode, marks })
    }

    fn xattrs(&mut self, layer: usize, inode: &Inode) -> Result<&Xattrs> {
        // No set has this index: an image has fewer.
        let index = inode.xattrs.map_or(u32::MAX, |set| set.0);
        if !self.xattrs.contains_key(&(layer, index)) {
            let xattrs = self.images[layer].xattrs(inode)?;
            self.xattrs.insert((layer, index), xattrs);
        }
        Ok(&self.xattrs[&(layer, index)])
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
    fn resolve(&self, path: &[u8], found: Vec<Found>) -> Result<Resolved> {
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
                        Shown(shown(path))
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
                            Shown(shown(path)),
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
        let xattrs = marks::without(self.xattrs(layer, inode)?.clone(), partial);
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
        refused: &dyn Fn(TreeError) -> Error,
    ) -> Result<()> {
        let Found::File { layer, inode, .. } = found else { return Ok(()) };
        let number = inode.ino.index() as usize;
        let known = self.numbers[*layer][number];
        if known != 0 {
            return builder.add_link(name, known).map_err(refused);
        }
        let kind = match inode.kind {
            _ if is_whiteout => Kind::Whiteout,
            FileKind::Regular { size, .. } => Kind::Regular { size },
            FileKind::Symlink { .. } => Kind::Symlink(self.images[*layer].target(inode)?),
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::Directory(_) | FileKind::Whiteout => Kind::Whiteout,
        };
        let attributes = self.attributes(*layer, inode)?;
        let ino = builder.add(name, &kind, attributes).map_err(refused)?;
        self.numbers[*layer][number] = ino;
        if let FileKind::Regular { content: Some(content), .. } = inode.kind {
            contents.add(ino, *layer, content, inode.blocks)?;
        }
        Ok(())
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

/// A path in an error; that of the root is a slash.
fn shown(path: &[u8]) -> &std::path::Path {
    path_of(if path.is_empty() { b"/" } else { path })
}
