// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that are gone at one path, and there with the same bytes at another one.

use std::collections::{HashMap, VecDeque};

use tesserafs_format::{Digest, FileKind, Inode};

use super::compare::Compare;
use super::Difference;
use crate::error::Error;
use crate::unchecked::Unchecked;

/// Makes one difference of two, where content says so: of several files with the same bytes, in the order of paths.
pub(super) fn find(
    compare: &mut Compare<'_>,
    mut differences: Vec<Difference>,
) -> Result<Vec<Difference>, Error> {
    let mut gone: HashMap<Digest, VecDeque<usize>> = HashMap::new();
    for (number, difference) in differences.iter().enumerate() {
        if let Difference { before: Some(before), after: None, .. } = difference {
            if let Some(digest) = digest(&compare.a, before)? {
                gone.entry(digest).or_default().push_back(number);
            }
        }
    }
    let mut is_merged = vec![false; differences.len()];
    for number in 0..differences.len() {
        let Difference { before: None, after: Some(after), .. } = differences[number] else { continue };
        let Some(digest) = digest(&compare.b, &after)? else { continue };
        let Some(old) = gone.get_mut(&digest).and_then(VecDeque::pop_front) else { continue };
        let Difference { path: from, before: Some(before), .. } = differences[old] else { continue };
        is_merged[old] = true;
        let difference = &mut differences[number];
        difference.aspects = compare.aspects(&before, &after)?;
        (difference.from, difference.before) = (Some(from), Some(before));
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
