// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that are gone at one path, and there with the same bytes at another one.

use std::collections::{HashMap, VecDeque};

use tesserafs_format::{Digest, FileKind, Inode};

use super::{aspects, Aspect, Difference};
use crate::error::Error;
use crate::unchecked::Unchecked;

/// Makes one difference of two, where content says so: of several files with the same bytes, in the order of paths.
pub(super) fn find(
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    ignored: &[Aspect],
    mut differences: Vec<Difference>,
) -> Result<Vec<Difference>, Error> {
    let mut gone: HashMap<Digest, VecDeque<usize>> = HashMap::new();
    for (number, difference) in differences.iter().enumerate() {
        if let Difference { before: Some(before), after: None, .. } = difference {
            if let Some(digest) = digest(a, before)? {
                gone.entry(digest).or_default().push_back(number);
            }
        }
    }
    let mut is_merged = vec![false; differences.len()];
    for number in 0..differences.len() {
        let Difference { before: None, after: Some(after), .. } = &differences[number] else { continue };
        let Some(digest) = digest(b, after)? else { continue };
        let Some(old) = gone.get_mut(&digest).and_then(VecDeque::pop_front) else { continue };
        let Some(before) = differences[old].before else { continue };
        let mut what = aspects(a, b, &before, after, ignored)?;
        if !ignored.contains(&Aspect::Xattrs) && a.xattrs(&before)? != b.xattrs(after)? {
            what.push(Aspect::Xattrs);
        }
        let from = std::mem::take(&mut differences[old].path);
        is_merged[old] = true;
        let difference = &mut differences[number];
        (difference.from, difference.before, difference.aspects) = (Some(from), Some(before), what);
    }
    let mut is_merged = is_merged.into_iter();
    differences.retain(|_| !is_merged.next().unwrap_or_default());
    Ok(differences)
}

/// The digest of a file that has bytes.
fn digest(side: &Unchecked<'_>, inode: &Inode) -> Result<Option<Digest>, Error> {
    match inode.kind {
        FileKind::Regular { content: Some(content), .. } => {
            side.of(side.image.content_digest(content)).map(Some)
        }
        _ => Ok(None),
    }
}
