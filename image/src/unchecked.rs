// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that nobody has checked: whoever walks one proves on the way what the walk relies on, that entries are in order and directories
//! make a tree. So each walk ends, and a broken rule is an error with the name of the image.

use std::collections::HashSet;
use std::path::Path;

use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::{Directory, Dirent, FileKind, FormatError, Image, Ino, Inode, Place, Rule};

use crate::error::{Broken, Error};
use crate::metadata::VerifiedMetadata;
use crate::text;

/// An xattr: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// An image that nobody has checked.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked<'a> {
    /// Its records.
    pub image: Image<'a, VerifiedMetadata<'a>>,
    path: &'a Path,
}

impl<'a> Unchecked<'a> {
    /// The image of this metadata.
    pub fn new(metadata: &'a VerifiedMetadata<'a>) -> Self {
        let image = Image::new(metadata.superblock(), metadata);
        Self { image, path: metadata.source().path() }
    }

    /// Adds the name of the image to an error.
    pub fn of<T>(&self, result: Result<T, Broken>) -> Result<T, Error> {
        result.map_err(|error| match error {
            Broken::Rule(error) => Error::Refused(format!("{}: {error}", text::path(self.path))),
            Broken::Stop(error) => error,
        })
    }

    /// The target of a symlink; empty of any other file.
    pub fn target(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let FileKind::Symlink { offset, len } = inode.kind else { return Ok(Vec::new()) };
        // Proven to be 4095 at most.
        let mut target = vec![0; len as usize];
        self.of(self.image.target(inode.ino, offset, &mut target))?;
        Ok(target)
    }

    /// The xattrs, in their order.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Error> {
        let Some(index) = inode.xattrs else { return Ok(Vec::new()) };
        let mut xattrs = Vec::new();
        let mut cursor = self.image.xattrs(self.of(self.image.xattr_set(index))?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = self.of(cursor.next(&mut buf))? {
            // Proven to be 64 KiB at most.
            let mut value = vec![0; entry.value_len as usize];
            self.of(self.image.xattr_value(index, &entry, &mut value))?;
            xattrs.push((name.to_vec(), value));
        }
        Ok(xattrs)
    }
}

/// The directories that a walk has met.
#[derive(Debug, Default)]
pub struct Seen(HashSet<u32>);

/// A place in a directory; or nowhere, where an image has no such directory.
#[derive(Debug)]
pub struct Cursor {
    at: Option<(Ino, Directory)>,
    next: u32,
    entry: Option<Dirent>,
    name: Vec<u8>,
}

impl Cursor {
    /// At the first entry of a directory.
    pub fn new(side: &Unchecked<'_>, seen: &mut Seen, at: Option<(Ino, Directory)>) -> Result<Self, Error> {
        let mut cursor = Self { at, next: 0, entry: None, name: Vec::new() };
        if let Some((ino, directory)) = at {
            if !seen.0.insert(ino.get()) {
                let (place, parent) = (Place::Ino(ino.get()), directory.parent.get().into());
                return side.of(Err(FormatError::new(Rule::TreeNlink, place, 2, parent).into()));
            }
            cursor.advance(side)?;
        }
        Ok(cursor)
    }

    /// The name of the entry; none behind the last one.
    pub fn name(&self) -> Option<&[u8]> {
        self.entry.as_ref().map(|_| &*self.name)
    }

    /// The inode of the entry, and on to the next one.
    pub fn take(&mut self, side: &Unchecked<'_>) -> Result<Option<Inode>, Error> {
        let Some(entry) = self.entry else { return Ok(None) };
        let inode = side.of(side.image.inode(entry.ino))?;
        if let (FileKind::Directory(directory), Some((parent, _))) = (inode.kind, self.at) {
            if directory.parent != parent {
                let (found, expected) = (directory.parent.get().into(), parent.get().into());
                let error = FormatError::new(Rule::InodeParent, Place::Ino(inode.ino.get()), found, expected);
                return side.of(Err(error.into()));
            }
        }
        self.advance(side)?;
        Ok(Some(inode))
    }

    fn advance(&mut self, side: &Unchecked<'_>) -> Result<(), Error> {
        let Some((_, directory)) = &self.at else { return Ok(()) };
        let entry = side.of(side.image.dirent(directory, self.next))?;
        if let Some(entry) = &entry {
            let mut buf = [0; NAME_MAX];
            let name = side.of(side.image.name(entry, &mut buf))?;
            if self.entry.is_some() && *name <= *self.name {
                let place = Place::Dirent(entry.index);
                return side.of(Err(FormatError::new(Rule::DirentOrder, place, 0, 1).into()));
            }
            self.name.clear();
            self.name.extend_from_slice(name);
            self.next += 1;
        }
        self.entry = entry;
        Ok(())
    }
}
