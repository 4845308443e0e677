// SPDX-License-Identifier: GPL-2.0-or-later

//! The paths of inodes, and of what findings are about.

use tesserafs_format::limits::NAME_MAX;
use tesserafs_format::{Ino, Inode, Place};

use super::ino_of;
use super::tree::{Directory, Tree};
use super::users::Users;
use crate::context::Context;
use crate::error::{vec_of, Error};
use crate::finding::Finding;

/// Components that a path is printed with at most.
const PATH_DEPTH_MAX: usize = 256;

/// The first path of an inode, with a leading slash; `None` where it has none that can be read.
pub fn path(context: &Context<'_>, tree: &Tree, ino: u32) -> Option<Vec<u8>> {
    let mut components = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT.get() {
        if components.len() == PATH_DEPTH_MAX {
            components.push(b"...".to_vec());
            break;
        }
        let (directory, n) = tree.first_name(at)?;
        components.push(name(context, directory, n)?);
        at = directory.ino;
    }
    if components.is_empty() {
        return Some(b"/".to_vec());
    }
    Some(components.iter().rev().flat_map(|name| [b"/", name.as_slice()].concat()).collect())
}

/// The first path of the first file that has a content; `None` where there is none that can be read.
pub fn content_path(context: &Context<'_>, tree: &Tree, content: u32) -> Option<Vec<u8>> {
    let ino = tree.content_users.get(content as usize).copied().filter(|ino| *ino != 0)?;
    path(context, tree, ino)
}

/// The name of entry `n` of a directory, unless it cannot be read.
pub fn name(context: &Context<'_>, directory: &Directory, n: u32) -> Option<Vec<u8>> {
    let mut buf = [0; NAME_MAX];
    let entry = context.image.dirent(&directory.tables, n).ok()??;
    context.image.name(&entry, &mut buf).ok().map(<[u8]>::to_vec)
}

/// Says which file a finding affects, where that can be told.
pub fn name_file(context: &Context<'_>, tree: &mut Tree, finding: &mut Finding) -> Result<(), Error> {
    let ino = match finding.place {
        Place::Ino(ino) => Some(ino),
        Place::Dirent(entry) => {
            finding.path = entry_path(context, tree, entry);
            None
        }
        Place::XattrSet(set) => set_user(context, tree, set)?,
        Place::Content(content) => tree.content_users.get(content as usize).copied(),
        Place::Extent(_) | Place::Chunk(_) => {
            if tree.map_users.is_none() {
                tree.map_users = Some(Users::find(context, tree)?);
            }
            let content = tree.map_users.as_ref().and_then(|users| users.content(finding.place));
            content.and_then(|content| tree.content_users.get(content as usize).copied())
        }
        _ => None,
    };
    if let Some(ino) = ino.filter(|ino| *ino != 0) {
        finding.path = path(context, tree, ino);
    }
    Ok(())
}

/// The path that an entry gives; that of its directory where the name cannot be read.
fn entry_path(context: &Context<'_>, tree: &Tree, entry: u32) -> Option<Vec<u8>> {
    // The fence counts as the directory's.
    let holds = |directory: &&Directory| {
        entry.checked_sub(directory.tables.first).is_some_and(|n| n <= directory.tables.entries)
    };
    let directory = tree.directories.iter().find(holds)?;
    let mut path = path(context, tree, directory.ino)?;
    if let Some(name) = name(context, directory, entry - directory.tables.first) {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
    }
    Some(path)
}

/// The first inode that has an xattr set; 0 where none has.
fn set_user(context: &Context<'_>, tree: &mut Tree, set: u32) -> Result<Option<u32>, Error> {
    if tree.set_users.is_none() {
        let mut users: Vec<u32> =
            vec_of(context.image.sb.layout.xattr_sets.records(), "a record for each xattr set")?;
        for number in 1..=context.image.sb.layout.inodes.records() {
            context.cancel.check()?;
            let ino = ino_of(number);
            if let Ok(Inode { xattrs: Some(set), .. }) = context.image.inode(ino) {
                let user = &mut users[set.0 as usize];
                *user = if *user == 0 { ino.get() } else { *user };
            }
        }
        tree.set_users = Some(users);
    }
    Ok(tree.set_users.as_ref().and_then(|users| users.get(set as usize).copied()))
}
