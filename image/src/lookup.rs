// SPDX-License-Identifier: GPL-2.0-or-later

//! From a path to an inode, as the kernel would walk it with the image as its root.

use tesserafs_format::limits::SYMLINK_MAX;
use tesserafs_format::{Directory, FileKind, Ino, Inode};

use crate::context::{read, Context};
use crate::error::Error;
use crate::text::escape;

/// Symlinks that are followed in one path, as in Linux.
const SYMLINKS_MAX: usize = 40;

/// The inode that a path leads to.
#[derive(Clone, Debug)]
pub struct Found {
    /// The inode.
    pub inode: Inode,
    /// The directory and the entry in it that the path ends with; `None` of the root.
    pub entry: Option<(Ino, u32)>,
    /// The name of that entry; empty of the root.
    pub name: Vec<u8>,
}

/// Whether a symlink that a path ends with is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is what was asked for.
    Stay,
    /// It stands for what it points to.
    Follow,
}

/// Finds what is at `path`, from the root; a leading slash makes no difference. Symlinks on the way are followed within
/// the image. The metadata was checked.
pub fn find(context: &Context<'_>, path: &[u8], last: Last) -> Result<Found, Error> {
    let image = &context.image;
    let refuse = |at: &[u8], why: &str| {
        let shown = escape(path);
        let at = escape(at);
        Error::Refused(if at == shown { format!("{shown}: {why}") } else { format!("{shown}: {at} {why}") })
    };
    // Where the walk is: each directory with the entry that led to it.
    let mut at = vec![Found { inode: read(image.inode(Ino::ROOT))?, entry: None, name: Vec::new() }];
    let mut todo = components(path);
    let mut symlinks = 0;
    while let Some(name) = todo.pop() {
        context.cancel.check()?;
        let Some(here) = at.last() else { break };
        let FileKind::Directory(directory) = here.inode.kind else {
            return Err(refuse(&shown(&at), "is not a directory of the image"));
        };
        match name.as_slice() {
            b"." => continue,
            b".." => {
                // Above the root is the root.
                if at.len() > 1 {
                    at.pop();
                }
                continue;
            }
            _ => (),
        }
        let parent = here.inode.ino;
        let Some(dirent) = read(image.lookup(&directory, &name))? else {
            let mut missing = shown(&at);
            if !missing.is_empty() {
                missing.push(b'/');
            }
            missing.extend_from_slice(&name);
            return Err(refuse(&missing, "is not in the image"));
        };
        let inode = read(image.inode(dirent.ino))?;
        if let FileKind::Symlink { offset, len } = inode.kind {
            if last == Last::Follow || !todo.is_empty() {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(refuse(path, "leads through more than 40 symlinks"));
                }
                let mut target = [0; SYMLINK_MAX as usize];
                let target = &mut target[..len as usize];
                read(image.target(inode.ino, offset, target))?;
                if target.first() == Some(&b'/') {
                    at.truncate(1);
                }
                todo.append(&mut components(target));
                continue;
            }
        }
        let n = number(context, &directory, &name)?;
        at.push(Found { inode, entry: Some((parent, n)), name });
    }
    let no_root = || Error::Refused("the image has no root".to_owned());
    at.pop().ok_or_else(no_root)
}

/// The names of a path, the last one first. A slash at the end asks for a directory.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    if path.ends_with(b"/") && !names.is_empty() {
        names.push(b".".to_vec());
    }
    names.reverse();
    names
}

fn shown(at: &[Found]) -> Vec<u8> {
    let names: Vec<&[u8]> = at.iter().skip(1).map(|found| found.name.as_slice()).collect();
    names.join(&b'/')
}

/// The number of the entry of that name.
fn number(context: &Context<'_>, directory: &Directory, name: &[u8]) -> Result<u32, Error> {
    let mut buf = [0; tesserafs_format::limits::NAME_MAX];
    let (mut low, mut high) = (0, directory.entries);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(entry) = read(context.image.dirent(directory, middle))? else { break };
        match read(context.image.name(&entry, &mut buf))?.cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Ok(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(Error::Refused(format!("the image changed while {} was looked for", escape(name))))
}
