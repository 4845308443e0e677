// SPDX-License-Identifier: GPL-2.0-or-later

//! The part of a tree that is wanted: all of it, or what is at a path.

use std::collections::HashMap;

use tesserafs_format::{FileKind, Ino};

use crate::context::{read, Context};
use crate::error::Error;
use crate::lookup::Found;
use crate::walk::{Directory, Tree};

/// A tree, or a part of one, whose names all lie below one directory.
#[derive(Debug)]
pub struct Scope<'a> {
    tree: &'a Tree,
    part: Option<Part>,
}

/// The inode at a path other than the root.
#[derive(Debug)]
struct Part {
    /// The directory that the names lie below.
    top: u32,
    /// Whether that directory belongs to the part: not where the part is one file in it.
    has_top: bool,
    /// Directories of the part, in the order of numbers.
    directories: Vec<Directory>,
    /// The first name that each inode has in the part.
    names: HashMap<u32, (Directory, u32)>,
    /// The inodes that have one, in the order of numbers.
    inodes: Vec<u32>,
}

impl<'a> Scope<'a> {
    /// All of the tree.
    pub fn whole(tree: &'a Tree) -> Self {
        Self { tree, part: None }
    }

    /// The inode that was found at a path. The tree was checked.
    pub fn at(context: &Context<'_>, tree: &'a Tree, found: &Found) -> Result<Self, Error> {
        let Some((parent, n)) = found.entry else { return Ok(Self::whole(tree)) };
        let mut part = Part {
            top: found.inode.ino.get(),
            has_top: true,
            directories: Vec::new(),
            names: HashMap::new(),
            inodes: Vec::new(),
        };
        if let FileKind::Directory(_) = found.inode.kind {
            let mut todo = vec![part.top];
            while let Some(number) = todo.pop() {
                context.cancel.check()?;
                let Some(directory) = tree.directory(number) else { continue };
                part.directories.push(directory);
                for n in 0..directory.tables.entries {
                    let Some(entry) = read(context.image.dirent(&directory.tables, n))? else { break };
                    let child = entry.ino.get();
                    part.names.entry(child).or_insert((directory, n));
                    if entry.file_type == tesserafs_format::FileType::Directory {
                        todo.push(child);
                    }
                }
            }
            part.directories.sort_unstable_by_key(|directory| directory.ino);
        } else {
            part.top = parent.get();
            part.has_top = false;
            if let Some(directory) = tree.directory(part.top) {
                part.names.insert(found.inode.ino.get(), (directory, n));
            }
        }
        part.inodes = part.names.keys().copied().collect();
        part.inodes.sort_unstable();
        Ok(Self { tree, part: Some(part) })
    }

    /// The number of the directory that all names lie below.
    pub fn top(&self) -> u32 {
        self.part.as_ref().map_or(Ino::ROOT.get(), |part| part.top)
    }

    /// Whether that directory is a part of it.
    pub fn has_top(&self) -> bool {
        self.part.as_ref().is_none_or(|part| part.has_top)
    }

    /// The directories, in the order of numbers, so that each comes behind the one that it is in.
    pub fn directories(&self) -> &[Directory] {
        self.part.as_ref().map_or(&self.tree.directories, |part| &part.directories)
    }

    /// The inodes below [`top`](Self::top), in the order of numbers; `last` is the last one of the image.
    pub fn inodes(&self, last: u32) -> Box<dyn Iterator<Item = u32> + '_> {
        match &self.part {
            None => Box::new(2..=last),
            Some(part) => Box::new(part.inodes.iter().copied()),
        }
    }

    /// The directory of the first name that an inode has here, and that entry of it.
    pub fn first_name(&self, ino: u32) -> Option<(Directory, u32)> {
        match &self.part {
            None => self.tree.first_name(ino).map(|(directory, n)| (*directory, n)),
            Some(part) => part.names.get(&ino).copied(),
        }
    }
}
