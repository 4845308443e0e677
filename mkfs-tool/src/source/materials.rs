// SPDX-License-Identifier: GPL-2.0-or-later

//! A bill of materials of the tree, made at the end of the walk, while files are still being encoded.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use tesserafs_format::limits::NAME_ALIGN;
use tesserafs_format::raw::RawDirent;
use tesserafs_format::FileType;
use tesserafs_image::sbom::{document, inventory, Files, Kind, Names, NodeIndex};

use super::{FileTask, Found, OpenFile, Sbom, Source, Walked};
use crate::error::{Error, Result};
use crate::tree::Tree;

/// A source that makes a bill of materials of its tree, if that is wanted.
#[derive(Debug)]
pub struct Materials<'a, S> {
    source: &'a S,
    is_wanted: bool,
}

impl<'a, S: Source> Materials<'a, S> {
    /// Wraps a source.
    pub fn new(source: &'a S, is_wanted: bool) -> Self {
        Self { source, is_wanted }
    }
}

impl<S: Source> Source for Materials<'_, S>
where
    S::File: Clone,
{
    type File = S::File;
    type Open<'b>
        = S::Open<'b>
    where
        Self: 'b;

    fn files_at_most(&self) -> usize {
        self.source.files_at_most()
    }

    fn walk(&self, found: Found<'_, S::File>) -> Result<Walked> {
        if !self.is_wanted {
            return self.source.walk(found);
        }
        // A database can be a further name of a file, so all are kept until the tree is known.
        let mut tasks = HashMap::new();
        let mut walked = self.source.walk(&mut |task| {
            let FileTask { ino, size, file } = &task;
            tasks.insert(*ino, FileTask { ino: *ino, size: *size, file: file.clone() });
            found(task)
        })?;
        let originals = walked.tree.copies.iter().copied().collect();
        let inventory = inventory(&names(&walked.tree), &Walk { source: self.source, tasks, originals })?;
        walked.sbom = Some(Sbom { document: document(&inventory)?, notes: inventory.notes });
        Ok(walked)
    }

    fn open<'b>(&'b self, task: &'b FileTask<S::File>) -> Result<S::Open<'b>> {
        self.source.open(task)
    }

    fn read_each<'b>(&'b self, tasks: &'b [FileTask<S::File>]) -> Result<Vec<(S::Open<'b>, Vec<u8>)>> {
        self.source.read_each(tasks)
    }

    fn close(&self) -> Result<()> {
        self.source.close()
    }

    fn path(&self, task: &FileTask<S::File>) -> PathBuf {
        self.source.path(task)
    }
}

/// The files that a walk has found.
struct Walk<'a, S: Source> {
    source: &'a S,
    tasks: HashMap<u32, FileTask<S::File>>,
    /// Files that are copies of others, with these.
    originals: HashMap<u32, u32>,
}

impl<S: Source> Files for Walk<'_, S> {
    type Error = Error;

    fn read(&self, ino: u32, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let ino = self.originals.get(&ino).unwrap_or(&ino);
        // The walk hands out each file that has bytes.
        let Some(task) = self.tasks.get(ino) else { return Err(Error::Stopped) };
        let mut file = self.source.open(task)?;
        file.read(range, buf)?;
        file.close()
    }
}

/// The names of a tree.
fn names(tree: &Tree) -> Names {
    let mut names = Names::new(1);
    // By inode; directories are numbered behind those that they are in.
    let mut places = vec![NodeIndex::ROOT; tree.nodes.len() + 1];
    for (index, node) in tree.nodes.iter().enumerate() {
        if node.file_type != FileType::Directory {
            continue;
        }
        let (first, count) = (node.start as usize, node.size as u32 as usize);
        let table = (node.size >> 32) * NAME_ALIGN;
        let offset = |entry: &RawDirent| (table + u64::from(entry.name.get() & ((1 << 29) - 1))) as usize;
        // Behind the last entry is a fence, which says where its name ends.
        for pair in tree.entries[first..=first + count].windows(2) {
            let name = &tree.names[offset(&pair[0])..offset(&pair[1])];
            let ino = pair[0].ino.get();
            let found = &tree.nodes[ino as usize - 1];
            let kind = match found.file_type {
                FileType::Regular => Kind::File(found.size),
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Symlink,
                _ => Kind::Other,
            };
            let mode = tree.attributes[found.attributes as usize].mode.get();
            let place = names.add(places[index + 1], name, ino, mode, kind);
            match found.file_type {
                FileType::Directory => places[ino as usize] = place,
                FileType::Symlink if !names.has_target(ino) => {
                    let start = found.start as usize;
                    names.set_target(ino, &tree.targets[start..start + found.size as usize]);
                }
                _ => {}
            }
        }
    }
    names
}
