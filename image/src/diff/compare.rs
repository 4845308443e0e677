// SPDX-License-Identifier: GPL-2.0-or-later

//! How two files differ.

use std::collections::HashMap;

use tesserafs_format::{FileKind, Inode};

use super::Aspect;
use crate::error::Error;
use crate::unchecked::Unchecked;

/// Compares files of two images.
pub(super) struct Compare<'a> {
    pub(super) a: Unchecked<'a>,
    pub(super) b: Unchecked<'a>,
    ignored: &'a [Aspect],
    /// Pairs of xattr sets that were compared: many inodes share one.
    xattrs: HashMap<(u32, u32), bool>,
}

impl<'a> Compare<'a> {
    pub(super) fn new(a: &Unchecked<'a>, b: &Unchecked<'a>, ignored: &'a [Aspect]) -> Self {
        Self { a: *a, b: *b, ignored, xattrs: HashMap::new() }
    }

    /// The aspects in which two files differ.
    pub(super) fn aspects(&mut self, before: &Inode, after: &Inode) -> Result<Vec<Aspect>, Error> {
        let mut aspects = Vec::new();
        for aspect in Aspect::ALL {
            if !self.ignored.contains(&aspect) && self.differs(aspect, before, after)? {
                aspects.push(aspect);
            }
        }
        Ok(aspects)
    }

    fn differs(&mut self, aspect: Aspect, before: &Inode, after: &Inode) -> Result<bool, Error> {
        Ok(match aspect {
            Aspect::Type => before.kind.file_type() != after.kind.file_type(),
            Aspect::Bytes => self.bytes_differ(before, after)?,
            Aspect::Target => self.targets_differ(before, after)?,
            Aspect::Mode => before.mode != after.mode,
            Aspect::Owner => (before.uid, before.gid) != (after.uid, after.gid),
            Aspect::Time => before.mtime != after.mtime,
            Aspect::Xattrs => self.xattrs_differ(before, after)?,
        })
    }

    fn bytes_differ(&self, before: &Inode, after: &Inode) -> Result<bool, Error> {
        let (
            FileKind::Regular { size: old_size, content: old },
            FileKind::Regular { size: new_size, content: new },
        ) = (before.kind, after.kind)
        else {
            return Ok(false);
        };
        match (old, new) {
            _ if old_size != new_size => Ok(true),
            (Some(old), Some(new)) => Ok(self.a.of(self.a.image.content_digest(old))?
                != self.b.of(self.b.image.content_digest(new))?),
            // Both are empty.
            _ => Ok(false),
        }
    }

    fn targets_differ(&self, before: &Inode, after: &Inode) -> Result<bool, Error> {
        match (before.kind, after.kind) {
            (FileKind::Symlink { len: old, .. }, FileKind::Symlink { len: new, .. }) => {
                Ok(old != new || self.a.target(before)? != self.b.target(after)?)
            }
            _ => Ok(false),
        }
    }

    fn xattrs_differ(&mut self, before: &Inode, after: &Inode) -> Result<bool, Error> {
        let (Some(a), Some(b)) = (before.xattrs, after.xattrs) else {
            return Ok(before.xattrs.is_some() || after.xattrs.is_some());
        };
        if let Some(differ) = self.xattrs.get(&(a.0, b.0)) {
            return Ok(*differ);
        }
        let differ = self.a.xattrs(before)? != self.b.xattrs(after)?;
        self.xattrs.insert((a.0, b.0), differ);
        Ok(differ)
    }
}
