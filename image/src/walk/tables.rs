// SPDX-License-Identifier: GPL-2.0-or-later

//! The table of content digests.

use std::collections::HashSet;

use tesserafs_format::{Digest, Place, Rule};

use super::step;
use crate::context::Context;
use crate::error::Error;
use crate::finding::Finding;

/// That contents are distinct.
///
/// 8 bytes for each are enough to find those that may be equal, which no builder makes: only they are read once more and
/// compared as a whole.
pub(super) fn check_content_digests(context: &Context<'_>) -> Result<(), Error> {
    let contents = context.image.sb.layout.content_digests.records();
    let memory = |_| Error::Memory { what: "a digest for each content" };
    let mut prefixes: Vec<u64> = Vec::new();
    prefixes.try_reserve_exact(usize::try_from(contents).unwrap_or(usize::MAX)).map_err(memory)?;
    for number in 0..contents {
        step(context, number)?;
        prefixes.extend(digest(context, number)?.map(|digest| digest.prefix()));
    }
    prefixes.sort_unstable();
    let mut next = 0;
    let mut before = None;
    for at in 0..prefixes.len() {
        let prefix = prefixes[at];
        if before.replace(prefix) == Some(prefix) {
            prefixes[next] = prefix;
            next += 1;
        }
    }
    prefixes.truncate(next);
    if prefixes.is_empty() {
        return Ok(());
    }
    let mut seen: HashSet<Digest> = HashSet::new();
    for number in 0..contents {
        step(context, number)?;
        let Some(digest) = digest(context, number)? else { continue };
        if prefixes.binary_search(&digest.prefix()).is_err() {
            continue;
        }
        seen.try_reserve(1).map_err(memory)?;
        if !seen.insert(digest) {
            let place = Place::Content(u32::try_from(number).unwrap_or(u32::MAX));
            let finding = Finding::new(Rule::TreeContents, place, digest, "a digest no other content has");
            context.findings.add(finding);
        }
    }
    Ok(())
}

/// The digest of that content, unless it cannot be read.
fn digest(context: &Context<'_>, number: u64) -> Result<Option<Digest>, Error> {
    let index = tesserafs_format::ContentIndex(u32::try_from(number).unwrap_or(u32::MAX));
    context.note(context.image.content_digest(index))
}
