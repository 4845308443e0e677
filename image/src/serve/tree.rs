// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree of an image that nobody has walked.

use tesserafs_format::limits::{NAME_MAX, XATTR_NAME_MAX};
use tesserafs_format::{
    Directory, Dirent, FileKind, FormatError, Image, Ino, Inode, Place, Rule, XattrEntry, XattrSetIndex,
};

use crate::error::Broken;
use crate::metadata::VerifiedMetadata;

/// The inodes, names, targets and xattrs of an image.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    image: Image<'a, VerifiedMetadata<'a>>,
}

impl<'a> Tree<'a> {
    /// The tree of an image.
    pub fn new(metadata: &'a VerifiedMetadata<'a>) -> Self {
        Self { image: Image::new(metadata.superblock(), metadata) }
    }

    /// The records themselves.
    pub fn image(&self) -> &Image<'a, VerifiedMetadata<'a>> {
        &self.image
    }

    /// The inode of that number; `None` where the image has none.
    pub fn inode(&self, number: u64) -> Result<Option<Inode>, Broken> {
        let ino = u32::try_from(number).ok().and_then(|number| Ino::new(number, &self.image.sb.layout));
        ino.map(|ino| self.image.inode(ino)).transpose()
    }

    /// The inode of that name in the directory `ino`.
    pub fn lookup(&self, ino: Ino, directory: &Directory, name: &[u8]) -> Result<Option<Inode>, Broken> {
        match self.image.lookup(directory, name)? {
            Some(entry) => self.entry(ino, &entry).map(Some),
            None => Ok(None),
        }
    }

    /// The inode of an entry of the directory `ino`. The two agree, and a directory is named by its parent only: else a tree could
    /// have a directory with two names, or one that contains itself.
    pub fn entry(&self, ino: Ino, entry: &Dirent) -> Result<Inode, Broken> {
        let inode = self.image.inode(entry.ino)?;
        let file_type = inode.kind.file_type();
        if file_type != entry.file_type {
            let (found, expected) = (entry.file_type.value().into(), file_type.value().into());
            return Err(
                FormatError::new(Rule::DirentType, Place::Dirent(entry.index), found, expected).into()
            );
        }
        if let FileKind::Directory(tables) = inode.kind {
            if tables.parent != ino || inode.ino == ino {
                // For a directory that names itself no parent is right.
                let expected = if inode.ino == ino { 0 } else { ino.get() };
                let (place, found) = (Place::Ino(inode.ino.get()), tables.parent.get());
                return Err(FormatError::new(Rule::TreeParent, place, found.into(), expected.into()).into());
            }
        }
        Ok(inode)
    }

    /// Hands `each` the entries of a directory from number `first` on, with their numbers and names, until it has enough.
    pub fn entries(
        &self,
        directory: &Directory,
        first: u32,
        mut each: impl FnMut(u32, &Dirent, &[u8]) -> bool,
    ) -> Result<(), Broken> {
        let mut buf = [0; NAME_MAX];
        for n in first..directory.entries {
            let Some(entry) = self.image.dirent(directory, n)? else { break };
            let name = self.image.name(&entry, &mut buf)?;
            if !each(n, &entry, name) {
                break;
            }
        }
        Ok(())
    }

    /// The target of a symlink; `None` of any other file.
    pub fn target(&self, inode: &Inode) -> Result<Option<Vec<u8>>, Broken> {
        let FileKind::Symlink { offset, len } = inode.kind else { return Ok(None) };
        // Proven to be 4095 at most when the inode was parsed.
        let mut target = vec![0; usize::try_from(len).unwrap_or(0)];
        self.image.target(inode.ino, offset, &mut target)?;
        Ok(Some(target))
    }

    /// The xattr of that name, without its value.
    pub fn xattr(&self, inode: &Inode, wanted: &[u8]) -> Result<Option<(XattrSetIndex, XattrEntry)>, Broken> {
        let Some(index) = inode.xattrs else { return Ok(None) };
        let mut xattrs = self.image.xattrs(self.image.xattr_set(index)?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = xattrs.next(&mut buf)? {
            if name == wanted {
                return Ok(Some((index, entry)));
            }
        }
        Ok(None)
    }

    /// The value of an xattr that [`xattr`](Self::xattr) gave.
    pub fn xattr_value(&self, set: XattrSetIndex, entry: &XattrEntry) -> Result<Vec<u8>, Broken> {
        // Proven to be 64 KiB at most when the entry was parsed.
        let mut value = vec![0; entry.value_len as usize];
        self.image.xattr_value(set, entry, &mut value)?;
        Ok(value)
    }

    /// Hands `each` the names of an inode's xattrs.
    pub fn xattr_names(&self, inode: &Inode, mut each: impl FnMut(&[u8])) -> Result<(), Broken> {
        let Some(index) = inode.xattrs else { return Ok(()) };
        let mut xattrs = self.image.xattrs(self.image.xattr_set(index)?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((_, name)) = xattrs.next(&mut buf)? {
            each(name);
        }
        Ok(())
    }
}
