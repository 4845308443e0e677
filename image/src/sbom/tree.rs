// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree of an image that nobody has checked.

use std::ops::Range;
use std::path::Path;

use tesserafs_format::{Directory, FileKind, FormatError, Ino, Inode, Place, Rule};

use super::{Files, Kind, Names, NodeIndex, KEY};
use crate::error::Error;
use crate::metadata::VerifiedMetadata;
use crate::serve;
use crate::unchecked::{Cursor, Seen, Unchecked};

/// Bytes of decoded chunks that are kept.
const CACHED: usize = 32 << 20;

/// The names of an image, and the bytes of its files.
#[derive(Debug)]
pub struct ImageTree<'a> {
    image: Unchecked<'a>,
    files: serve::Files<'a>,
    names: Names,
}

impl<'a> ImageTree<'a> {
    /// Reads the names of an image, and opens its packs, which are in `pack_dir` where they are not embedded.
    pub fn open(metadata: &'a VerifiedMetadata<'a>, pack_dir: &Path) -> Result<Self, Error> {
        let image = Unchecked::new(metadata);
        let names = names(&image)?;
        let files = image.of(serve::Files::open(metadata, pack_dir, CACHED))?;
        Ok(Self { image, files, names })
    }

    /// The names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The inode of that number, which is that of a name.
    pub(super) fn inode(&self, ino: u32) -> Result<Inode, Error> {
        self.image.of(self.image.image.inode(Ino::from_number(ino).unwrap_or(Ino::ROOT)))
    }

    /// Hands `take` the bytes of a range of a regular file.
    pub(super) fn with<T>(
        &self,
        inode: &Inode,
        range: Range<u64>,
        buf: &mut Vec<u8>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Error> {
        self.image.of(self.files.read(inode, range, buf, take))
    }
}

impl Files for ImageTree<'_> {
    type Error = Error;

    fn read(&self, ino: u32, range: Range<u64>, buf: &mut Vec<u8>) -> Result<(), Error> {
        let inode = self.inode(ino)?;
        let len = range.end - range.start;
        let found = self.with(&inode, range, &mut Vec::new(), |bytes| {
            buf.extend_from_slice(bytes);
            bytes.len() as u64
        })?;
        if found == len {
            Ok(())
        } else {
            Err(Error::Refused(format!("inode {ino}: found {found} bytes, expected {len}")))
        }
    }
}

/// The document that an image has in its annotations; nothing where it has none.
pub fn stored(metadata: &VerifiedMetadata<'_>) -> Result<Option<Vec<u8>>, Error> {
    Unchecked::new(metadata).annotation(KEY, u32::MAX)
}

/// A directory whose entries are being read.
struct Level {
    cursor: Cursor,
    node: NodeIndex,
}

fn names(image: &Unchecked<'_>) -> Result<Names, Error> {
    let mut names = Names::new(Ino::ROOT.get());
    let mut seen = Seen::default();
    let root = image.of(image.image.inode(Ino::ROOT))?;
    let mut levels =
        vec![Level { cursor: Cursor::new(image, &mut seen, directory(&root))?, node: NodeIndex::ROOT }];
    let mut name = Vec::new();
    while let Some(level) = levels.last_mut() {
        let Some(found) = level.cursor.name() else {
            levels.pop();
            continue;
        };
        name.clear();
        name.extend_from_slice(found);
        let parent = level.node;
        let Some(inode) = level.cursor.take(image)? else { continue };
        let kind = match inode.kind {
            FileKind::Regular { size, .. } => Kind::File(size),
            FileKind::Directory(_) => Kind::Directory,
            FileKind::Symlink { .. } => Kind::Symlink,
            _ => Kind::Other,
        };
        let node = names.add(parent, &name, inode.ino.get(), inode.mode, kind);
        if let FileKind::Symlink { len, .. } = inode.kind {
            add_target(image, &mut names, &inode, len)?;
        }
        if let Some(at) = directory(&inode) {
            levels.push(Level { cursor: Cursor::new(image, &mut seen, Some(at))?, node });
        }
    }
    Ok(names)
}

/// Adds the target of a symlink. All together have no more bytes than the table, also where symlinks share them.
fn add_target(image: &Unchecked<'_>, names: &mut Names, inode: &Inode, len: u64) -> Result<(), Error> {
    let ino = inode.ino.get();
    if names.has_target(ino) {
        return Ok(());
    }
    let (all, table) = (names.target_bytes().saturating_add(len), image.image.sb.layout.targets.records());
    if all > table {
        let error = FormatError::new(Rule::TreeTargets, Place::Ino(ino), all, table);
        return image.of(Err(error.into()));
    }
    names.set_target(ino, &image.target(inode)?);
    Ok(())
}

/// The tables of a directory, and its number.
fn directory(inode: &Inode) -> Option<(Ino, Directory)> {
    match inode.kind {
        FileKind::Directory(directory) => Some((inode.ino, directory)),
        _ => None,
    }
}
