// SPDX-License-Identifier: GPL-2.0-or-later

//! The tree as a whole: numbering, names, links, parents, and that the tables are filled by exactly what is used.
//!
//! In an image that breaks no rule directories are numbered in the order in which they are visited, and their entries lie in that order.
//! So two passes in table order see everything that a walk from the root would, need no queue, and end whatever the entries
//! say: each record is read a bounded number of times.

mod entries;
mod inodes;
mod order;
mod paths;
mod tables;
mod tree;
mod users;
mod xattrs;

use tesserafs_format::{FormatError, Ino, Inode, Place};

use crate::context::Context;
use crate::error::{Broken, Error};

pub use self::paths::{content_path, name, name_file, path};
pub use self::tree::{Directory, Tree};

/// Records between two looks at the cancel flag, and two steps of the progress bar.
const STEP: u64 = 1 << 12;

/// Checks the records of the tree region, and the tree that they make.
pub fn walk(context: &Context<'_>) -> Result<Tree, Error> {
    let layout = &context.image.sb.layout;
    let records = [layout.attributes, layout.inodes, layout.dirents, layout.xattr_sets]
        .iter()
        .fold(0, |sum: u64, table| sum.saturating_add(table.records()));
    context.progress.begin("tree", records);
    let mut tree = Tree::empty(context)?;
    inodes::check_attributes(context)?;
    let refused = xattrs::check_sets(context)?;
    inodes::check_inodes(context, &mut tree, &refused)?;
    tables::check_content_digests(context)?;
    entries::check_entries(context, &mut tree)?;
    entries::check_links(context, &tree)?;
    Ok(tree)
}

/// Looks at the cancel flag and moves the bar, now and then.
fn step(context: &Context<'_>, record: u64) -> Result<(), Error> {
    if record % STEP == 0 {
        context.cancel.check()?;
        context.progress.advance(STEP);
    }
    Ok(())
}

/// The inode of that number, which is in the table.
fn ino_of(number: u64) -> Ino {
    u32::try_from(number).ok().and_then(Ino::from_number).unwrap_or(Ino::ROOT)
}

/// The inode of that number; defects of its attributes were found when those were checked.
fn inode(context: &Context<'_>, ino: Ino) -> Result<Option<Inode>, Error> {
    match context.image.inode(ino) {
        Err(Broken::Rule(FormatError { place: Place::Attributes(_), .. })) => Ok(None),
        result => context.note(result),
    }
}
