// SPDX-License-Identifier: GPL-2.0-or-later

//! The differences of two trees, by their metadata alone: contents are compared by their digests, and nothing is decoded.
//!
//! Both trees are walked at once, in the order of names. Of an image whose entries are in no order, or whose directories do not make
//! a tree, the walk ends with the rule that is broken: nobody has to check the images before.

mod compare;
mod needs;
mod paths;
mod renames;

use tesserafs_format::{Directory, FileKind, Ino, Inode};

use self::compare::Compare;
pub use self::needs::{needs, Needs};
pub use self::paths::PathIndex;
use self::paths::Paths;
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
    /// The path; that in the second image, if it has the file.
    pub path: PathIndex,
    /// The path in the first image, of a file that was renamed.
    pub from: Option<PathIndex>,
    /// The file in the first image.
    pub before: Option<Inode>,
    /// The file in the second one.
    pub after: Option<Inode>,
    /// What differs, where both have it; nothing of a file that was renamed only.
    pub aspects: Vec<Aspect>,
}

/// Differences, and their paths.
#[derive(Clone, Debug)]
pub struct Differences {
    /// In the order of paths.
    pub all: Vec<Difference>,
    paths: Paths,
}

impl Differences {
    /// A path from the root; that of the root is `.`.
    pub fn path(&self, index: PathIndex) -> Vec<u8> {
        self.paths.get(index)
    }
}

/// The differences; `ignored` ones are none. A file that is removed, and added with the same bytes elsewhere, was renamed.
pub fn diff(a: &Unchecked<'_>, b: &Unchecked<'_>, ignored: &[Aspect]) -> Result<Differences, Error> {
    // Equal tree IDs are no proof: nobody has compared them with the trees.
    let mut walk =
        Walk { compare: Compare::new(a, b, ignored), paths: Paths::new(), differences: Vec::new() };
    walk.run()?;
    let Walk { mut compare, paths, differences } = walk;
    Ok(Differences { all: renames::find(&mut compare, differences)?, paths })
}

/// A walk of both trees at once.
struct Walk<'a> {
    compare: Compare<'a>,
    paths: Paths,
    differences: Vec<Difference>,
}

/// A directory that both trees have, or one of them.
struct Level {
    a: Cursor,
    b: Cursor,
    path: PathIndex,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let (mut seen_a, mut seen_b) = (Seen::default(), Seen::default());
        let (a, b) = (self.compare.a, self.compare.b);
        let roots = [a.of(a.image.inode(Ino::ROOT))?, b.of(b.image.inode(Ino::ROOT))?];
        self.note(Some(roots[0]), Some(roots[1]), |_| PathIndex::ROOT)?;
        let mut levels = vec![Level {
            a: Cursor::new(&a, &mut seen_a, directory(&roots[0]))?,
            b: Cursor::new(&b, &mut seen_b, directory(&roots[1]))?,
            path: PathIndex::ROOT,
        }];
        let mut name = Vec::new();
        while let Some(level) = levels.last_mut() {
            let order = match (level.a.name(), level.b.name()) {
                (None, None) => {
                    levels.pop();
                    continue;
                }
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            name.clear();
            name.extend_from_slice(
                if order.is_le() { level.a.name() } else { level.b.name() }.unwrap_or_default(),
            );
            let before = if order.is_le() { level.a.take(&a)? } else { None };
            let after = if order.is_ge() { level.b.take(&b)? } else { None };
            let parent = level.path;
            let noted = self.note(before, after, |paths| paths.add(parent, &name))?;
            let below = |inode: &Option<Inode>| inode.as_ref().and_then(directory);
            let (below_a, below_b) = (below(&before), below(&after));
            if below_a.is_some() || below_b.is_some() {
                let path = noted.unwrap_or_else(|| self.paths.add(parent, &name));
                let a = Cursor::new(&a, &mut seen_a, below_a)?;
                let b = Cursor::new(&b, &mut seen_b, below_b)?;
                levels.push(Level { a, b, path });
            }
        }
        Ok(())
    }

    /// Notes how the files of one path differ, if they do.
    fn note(
        &mut self,
        before: Option<Inode>,
        after: Option<Inode>,
        path: impl FnOnce(&mut Paths) -> PathIndex,
    ) -> Result<Option<PathIndex>, Error> {
        let mut aspects = Vec::new();
        if let (Some(before), Some(after)) = (&before, &after) {
            aspects = self.compare.aspects(before, after)?;
            if aspects.is_empty() {
                return Ok(None);
            }
        }
        let path = path(&mut self.paths);
        self.differences.push(Difference { path, from: None, before, after, aspects });
        Ok(Some(path))
    }
}

/// The tables of a directory, and its number.
fn directory(inode: &Inode) -> Option<(Ino, Directory)> {
    match inode.kind {
        FileKind::Directory(directory) => Some((inode.ino, directory)),
        _ => None,
    }
}
