// SPDX-License-Identifier: GPL-2.0-or-later

//! The differences of two trees, by their metadata alone: contents are compared by their digests, and nothing is decoded.
//!
//! Both trees are walked at once, in the order of names. Of an image whose entries are in no order, or whose directories do not make
//! a tree, the walk ends with the rule that is broken: nobody has to check the images before.

mod needs;
mod renames;

use tesserafs_format::{Directory, FileKind, Ino, Inode};

pub use self::needs::{needs, Needs};
use crate::error::Error;
use crate::unchecked::{Cursor, Seen, Unchecked};

/// A property of a file that can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The type.
    Type,
    /// The bytes of a regular file.
    Bytes,
    /// The target of a symlink.
    Target,
    /// The permission bits.
    Mode,
    /// Owner and group.
    Owner,
    /// The modification time.
    Time,
    /// The xattrs.
    Xattrs,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Type, Self::Bytes, Self::Target, Self::Mode, Self::Owner, Self::Time, Self::Xattrs];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Aspect::Type => "type",
            Aspect::Bytes => "bytes",
            Aspect::Target => "target",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Time => "time",
            Aspect::Xattrs => "xattrs",
        }
    }
}

/// A name that one image has and the other has not, or that is another file in each.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The path, from the root; that in the second image, if it has the file.
    pub path: Vec<u8>,
    /// The path in the first image, of a file that was renamed.
    pub from: Option<Vec<u8>>,
    /// The file in the first image.
    pub before: Option<Inode>,
    /// The file in the second one.
    pub after: Option<Inode>,
    /// What differs, where both have it; nothing of a file that was renamed only.
    pub aspects: Vec<Aspect>,
}

/// The differences, in the order of paths; `ignored` ones are none. A file that is removed, and added with the same bytes elsewhere, was
/// renamed.
pub fn diff(a: &Unchecked<'_>, b: &Unchecked<'_>, ignored: &[Aspect]) -> Result<Vec<Difference>, Error> {
    // Equal tree IDs are no proof: nobody has compared them with the trees.
    let mut walk = Walk { a: *a, b: *b, ignored, xattrs: Default::default(), differences: Vec::new() };
    walk.run()?;
    let differences = walk.differences;
    renames::find(a, b, ignored, differences)
}

/// A walk of both trees at once.
struct Walk<'a> {
    a: Unchecked<'a>,
    b: Unchecked<'a>,
    ignored: &'a [Aspect],
    /// Pairs of xattr sets that were compared.
    xattrs: std::collections::HashMap<(u32, u32), bool>,
    differences: Vec<Difference>,
}

/// A directory that both trees have, or one of them.
struct Level {
    a: Cursor,
    b: Cursor,
    /// Bytes of its path.
    path_len: usize,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let (mut seen_a, mut seen_b) = (Seen::default(), Seen::default());
        let (a, b) = (self.a, self.b);
        let roots = [a.of(a.image.inode(Ino::ROOT))?, b.of(b.image.inode(Ino::ROOT))?];
        let mut path = Vec::new();
        self.compare(b".", Some(roots[0]), Some(roots[1]))?;
        let mut levels = vec![Level {
            a: Cursor::new(&a, &mut seen_a, directory(&roots[0]))?,
            b: Cursor::new(&b, &mut seen_b, directory(&roots[1]))?,
            path_len: 0,
        }];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let order = match (level.a.name(), level.b.name()) {
                (None, None) => {
                    levels.pop();
                    continue;
                }
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(
                if order.is_le() { level.a.name() } else { level.b.name() }.unwrap_or_default(),
            );
            let before = if order.is_le() { level.a.take(&a)? } else { None };
            let after = if order.is_ge() { level.b.take(&b)? } else { None };
            self.compare(&path, before, after)?;
            let below = |inode: &Option<Inode>| inode.as_ref().and_then(directory);
            let (below_a, below_b) = (below(&before), below(&after));
            if below_a.is_some() || below_b.is_some() {
                let path_len = path.len();
                let a = Cursor::new(&a, &mut seen_a, below_a)?;
                let b = Cursor::new(&b, &mut seen_b, below_b)?;
                levels.push(Level { a, b, path_len });
            }
        }
        Ok(())
    }

    /// Notes how the files of one name differ.
    fn compare(&mut self, path: &[u8], before: Option<Inode>, after: Option<Inode>) -> Result<(), Error> {
        let aspects = match (&before, &after) {
            (Some(before), Some(after)) => {
                let mut aspects = aspects(&self.a, &self.b, before, after, self.ignored)?;
                if !self.ignored.contains(&Aspect::Xattrs) && !self.same_xattrs(before, after)? {
                    aspects.push(Aspect::Xattrs);
                }
                if aspects.is_empty() {
                    return Ok(());
                }
                aspects
            }
            _ => Vec::new(),
        };
        self.differences.push(Difference { path: path.to_vec(), from: None, before, after, aspects });
        Ok(())
    }

    /// Sets are shared by many inodes: each pair is compared once.
    fn same_xattrs(&mut self, before: &Inode, after: &Inode) -> Result<bool, Error> {
        let (Some(a), Some(b)) = (before.xattrs, after.xattrs) else {
            return Ok(before.xattrs.is_none() && after.xattrs.is_none());
        };
        if let Some(same) = self.xattrs.get(&(a.0, b.0)) {
            return Ok(*same);
        }
        let same = self.a.xattrs(before)? == self.b.xattrs(after)?;
        self.xattrs.insert((a.0, b.0), same);
        Ok(same)
    }
}

/// The tables of a directory, and its number.
fn directory(inode: &Inode) -> Option<(Ino, Directory)> {
    match inode.kind {
        FileKind::Directory(directory) => Some((inode.ino, directory)),
        _ => None,
    }
}

/// The aspects in which two files differ, but for xattrs.
fn aspects(
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    before: &Inode,
    after: &Inode,
    ignored: &[Aspect],
) -> Result<Vec<Aspect>, Error> {
    let mut aspects = Vec::new();
    let mut note = |aspect, differs: bool| {
        if differs && !ignored.contains(&aspect) {
            aspects.push(aspect);
        }
    };
    note(Aspect::Type, before.kind.file_type() != after.kind.file_type());
    match (before.kind, after.kind) {
        (FileKind::Regular { .. }, FileKind::Regular { .. }) => {
            note(Aspect::Bytes, !same_bytes(a, b, before, after)?);
        }
        (FileKind::Symlink { len: old, .. }, FileKind::Symlink { len: new, .. }) => {
            note(Aspect::Target, old != new || a.target(before)? != b.target(after)?);
        }
        _ => (),
    }
    note(Aspect::Mode, before.mode != after.mode);
    note(Aspect::Owner, (before.uid, before.gid) != (after.uid, after.gid));
    note(Aspect::Time, before.mtime != after.mtime);
    Ok(aspects)
}

fn same_bytes(a: &Unchecked<'_>, b: &Unchecked<'_>, before: &Inode, after: &Inode) -> Result<bool, Error> {
    let (
        FileKind::Regular { size: old_size, content: old },
        FileKind::Regular { size: new_size, content: new },
    ) = (before.kind, after.kind)
    else {
        return Ok(false);
    };
    match (old, new) {
        _ if old_size != new_size => Ok(false),
        (Some(old), Some(new)) => {
            Ok(a.of(a.image.content_digest(old))? == b.of(b.image.content_digest(new))?)
        }
        // Both are empty.
        _ => Ok(true),
    }
}
