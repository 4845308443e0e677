// SPDX-License-Identifier: GPL-2.0-or-later

//! The entries of a directory, one after the other, proven to be in order; and that directories make a tree.

use std::collections::HashSet;

use tesserafs_format::limits::NAME_MAX;
use tesserafs_format::{Directory, Dirent, FormatError, Ino, Inode, Place, Rule};

use super::Side;
use crate::error::Error;

/// The directories that a walk has met.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<u32>);

/// A place in a directory; or nowhere, where an image has no such directory.
pub(super) struct Cursor {
    at: Option<(Ino, Directory)>,
    next: u32,
    entry: Option<Dirent>,
    name: Vec<u8>,
}

impl Cursor {
    /// At the first entry of a directory.
    pub(super) fn new(side: &Side<'_>, seen: &mut Seen, at: Option<(Ino, Directory)>) -> Result<Self, Error> {
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

    /// At the first entry of a directory that is in the directory `parent`.
    pub(super) fn below(
        side: &Side<'_>,
        seen: &mut Seen,
        parent: Option<Ino>,
        at: Option<(Ino, Directory)>,
    ) -> Result<Self, Error> {
        if let (Some((ino, directory)), Some(parent)) = (at, parent) {
            if directory.parent != parent {
                let (found, expected) = (directory.parent.get().into(), parent.get().into());
                let error = FormatError::new(Rule::InodeParent, Place::Ino(ino.get()), found, expected);
                return side.of(Err(error.into()));
            }
        }
        Self::new(side, seen, at)
    }

    /// The number of the directory.
    pub(super) fn ino(&self) -> Option<Ino> {
        self.at.map(|(ino, _)| ino)
    }

    /// The name of the entry; none behind the last one.
    pub(super) fn name(&self) -> Option<&[u8]> {
        self.entry.as_ref().map(|_| &*self.name)
    }

    /// The inode of the entry, and on to the next one.
    pub(super) fn take(&mut self, side: &Side<'_>) -> Result<Option<Inode>, Error> {
        let Some(entry) = self.entry else { return Ok(None) };
        let inode = side.of(side.image.inode(entry.ino))?;
        self.advance(side)?;
        Ok(Some(inode))
    }

    fn advance(&mut self, side: &Side<'_>) -> Result<(), Error> {
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
