// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that nobody has checked: whoever walks one proves on the way what the walk relies on, that entries are in order and directories
//! make a tree. So each walk ends, and a broken rule is an error with the name of the image.

use std::collections::HashSet;
use std::path::Path;

use tesserafs_format::limits::{ANNOTATION_KEY_MAX, NAME_ALIGN, NAME_MAX, XATTR_LIST_MAX, XATTR_NAME_MAX};
use tesserafs_format::{
    Directory, Dirent, FileKind, FormatError, Image, Ino, Inode, Place, Rule, XattrSetIndex,
};

use crate::error::{Broken, Error};
use crate::metadata::VerifiedMetadata;
use crate::text;

/// Bytes of an annotation that are read at once.
const PIECE: u64 = 1 << 16;

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

    /// The value of the annotation of that key, of `max` bytes at most; nothing where there is none.
    pub fn annotation(&self, key: &[u8], max: u32) -> Result<Option<Vec<u8>>, Error> {
        for number in 0..self.image.sb.layout.annotations.records() {
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let annotation = self.of(self.image.annotation(index))?;
            let mut buf = [0; ANNOTATION_KEY_MAX as usize];
            let found = &mut buf[..annotation.key_len as usize];
            self.of(self.image.annotation_bytes(index, annotation.key_offset, found))?;
            if *found != *key {
                continue;
            }
            let len = annotation.value_len;
            if len > max {
                let (path, key) = (text::path(self.path), text::escape(key));
                return Err(Error::Refused(format!(
                    "{path}: the annotation {key} has {len} bytes, expected {max} at most"
                )));
            }
            // The table has these bytes; whether it is there, its first read tells before memory is taken for all.
            let mut value = Vec::new();
            let (mut at, end) = (annotation.value_offset(), annotation.value_offset() + u64::from(len));
            while at < end {
                let len = (end - at).min(PIECE);
                let start = value.len();
                value.resize(start + len as usize, 0);
                self.of(self.image.annotation_bytes(index, at, &mut value[start..]))?;
                at += len;
            }
            return Ok(Some(value));
        }
        Ok(None)
    }

    /// The xattrs, in their order.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Error> {
        let Some(index) = inode.xattrs else { return Ok(Vec::new()) };
        let place = Place::XattrSet(index.0);
        let refused =
            |rule, found, expected| self.of(Err(FormatError::new(rule, place, found, expected).into()));
        let mut xattrs: Vec<Xattr> = Vec::new();
        let mut list_bytes = 0;
        let mut cursor = self.image.xattrs(self.of(self.image.xattr_set(index))?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = self.of(cursor.next(&mut buf))? {
            if xattrs.last().is_some_and(|(last, _)| name <= &**last) {
                return refused(Rule::XattrOrder, 0, 1);
            }
            list_bytes += name.len() as u64 + 1;
            // Proven to be 64 KiB at most.
            let mut value = vec![0; entry.value_len as usize];
            self.of(self.image.xattr_value(index, &entry, &mut value))?;
            xattrs.push((name.to_vec(), value));
        }
        if list_bytes > XATTR_LIST_MAX.into() {
            return refused(Rule::XattrListLength, list_bytes, XATTR_LIST_MAX.into());
        }
        Ok(xattrs)
    }

    /// Proves that no two xattr sets have the same bytes, so that all of them are no more than their table.
    pub fn check_xattr_sets(&self) -> Result<(), Error> {
        let mut end_of_last = 0;
        for number in 0..self.image.sb.layout.xattr_sets.records() {
            let index = XattrSetIndex(u32::try_from(number).unwrap_or(u32::MAX));
            let set = self.of(self.image.xattr_set(index))?;
            if set.offset != end_of_last {
                let place = Place::XattrSet(index.0);
                let error = FormatError::new(Rule::TreeXattrs, place, set.offset, end_of_last);
                return self.of(Err(error.into()));
            }
            end_of_last = set.offset.saturating_add(set.bytes.into());
        }
        Ok(())
    }
}

/// The directories that a walk has met: each once, and together with no more entries and bytes of names than the image has. So a walk takes
/// time and memory by the size of the image, also where directories have the same entries, or the same names.
#[derive(Debug, Default)]
pub struct Seen {
    directories: HashSet<u32>,
    /// Entries, with the fences.
    entries: u64,
    /// Bytes of names, with the zeros behind them.
    names: u64,
}

impl Seen {
    fn add(&mut self, side: &Unchecked<'_>, ino: Ino, directory: &Directory) -> Result<(), Broken> {
        let place = Place::Ino(ino.get());
        if !self.directories.insert(ino.get()) {
            let parent = directory.parent.get().into();
            return Err(FormatError::new(Rule::TreeNlink, place, 2, parent).into());
        }
        let layout = &side.image.sb.layout;
        self.entries = self.entries.saturating_add(u64::from(directory.entries)).saturating_add(1);
        if self.entries > layout.dirents.records() {
            let records = layout.dirents.records();
            return Err(FormatError::new(Rule::TreeEntries, place, self.entries, records).into());
        }
        // Names begin where the one before ends, and the last one ends where the fence says.
        let names = u64::from(side.image.fence(directory)?).next_multiple_of(NAME_ALIGN);
        self.names = self.names.saturating_add(names);
        if self.names > layout.names.records() {
            return Err(FormatError::new(Rule::TreeNames, place, self.names, layout.names.records()).into());
        }
        Ok(())
    }
}

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
            side.of(seen.add(side, ino, &directory))?;
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
