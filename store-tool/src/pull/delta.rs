// SPDX-License-Identifier: GPL-2.0-or-later

//! The bundle by which an image of the store becomes the one that is wanted.
//!
//! It is found under a tag that follows from the two image IDs. What it makes is compared with the image ID, as whatever comes; if it
//! cannot be applied, because it was made with another libzstd, say, the chunks are fetched.

use std::collections::HashSet;
use std::fs;

use mkfs_tesserafs::bundle::{apply, ApplyRequest};
use mkfs_tesserafs::progress::Silent;
use tesserafs_format::Digest;
use tesserafs_image::{text, Error};

use super::ranges::{Piece, Pieces};
use super::report::DeltaReport;
use super::Pull;
use crate::artifact::{Delta, Document};
use crate::reference::Name;
use crate::store::{Image, Slot};
use crate::{chain, say};

/// Images of the store for which a bundle is asked for, at most.
const OLD: usize = 4;

/// Bytes that come and are written at once.
const PIECE: u64 = 1 << 20;

/// A bundle, and the image that it is for.
pub(super) struct Candidate {
    old: Image,
    pub(super) bundle: crate::artifact::Blob,
}

/// The bundles that there are, the smallest first.
pub(super) fn candidates(pull: &Pull<'_>) -> Result<Vec<Candidate>, Error> {
    let own = &pull.request.reference;
    let new = pull.found.artifact.image_id;
    let mut names = pull.using.names()?;
    names.retain(|named| named.reference.host == own.host && named.reference.repository == own.repository);
    names.sort_by_key(|named| named.reference != *own);
    let mut seen: HashSet<Digest> = HashSet::from([new]);
    let mut found = Vec::new();
    for named in names {
        let Ok(Some(old)) = pull.using.image(&named.reference) else { continue };
        if seen.len() > OLD || !seen.insert(old.artifact.image_id) {
            continue;
        }
        let from = old.artifact.image_id;
        let tag = Name::Tag(Delta::tag(&from, &new));
        let Some(manifest) = pull.fetcher.repository().manifest(&tag)? else { continue };
        match Document::parse(&manifest.bytes) {
            Ok(Document::Delta(delta)) if delta.from == from && delta.to == new => {
                found.push(Candidate { old, bundle: delta.bundle });
            }
            _ => say(&format!("{own}: the tag {tag} is no bundle from {from} to {new}: it is not used")),
        }
    }
    found.sort_by_key(|candidate| candidate.bundle.len);
    Ok(found)
}

/// Fetches a bundle, and applies it. `None` where that cannot be done, and the chunks have to be fetched.
pub(super) fn take(pull: &Pull<'_>, candidate: &Candidate) -> Result<Option<DeltaReport>, Error> {
    let bundle = candidate.bundle;
    let cannot = |why: String| {
        say(&format!(
            "{}: the bundle sha256:{} is of no use: {why}; fetching chunks",
            pull.request.reference, bundle.digest
        ));
        None
    };
    let old = &candidate.old;
    // Where the new image looks for them, and the old one, too.
    for pack in old.artifact.packs.iter().chain(&pull.found.artifact.packs) {
        let is_old = old.artifact.packs.contains(pack);
        if pull.using.blob_of(&pack.digest, pack.len)?.is_none() {
            if is_old {
                return Ok(cannot("a pack of its old image is not complete here".to_owned()));
            }
            continue;
        }
        pull.filling.file(&pack.digest, pack.len)?;
    }
    let Slot::Unfinished(file) = pull.filling.file(&bundle.digest, bundle.len)? else {
        return Ok(cannot("it has the digest of a file of an image".to_owned()));
    };
    let starts = (0..bundle.len).step_by(PIECE as usize);
    let pieces =
        starts.map(|start| Piece { start, len: (bundle.len - start).min(PIECE) as u32, chunk: None });
    pull.fetcher.fetch(bundle, &file, &Pieces::new(pieces.collect()))?;
    let image = pull.filling.path().join(pull.found.artifact.image.digest.to_string());
    let request = ApplyRequest {
        old: old.path.clone(),
        bundle: file.path().to_owned(),
        new: image,
        pack_dir: Some(pull.filling.path().to_owned()),
        force: true,
    };
    let applied = apply(&request, &Silent);
    pull.filling.discard(file)?;
    if let Err(error) = applied {
        // What it has begun has names that no file of the store has.
        let _ = fs::remove_file(request.new.with_extension("partial"));
        return Ok(cannot(chain(&error)));
    }
    if pull.request.lines {
        say(&format!("bundle sha256:{}: fetched {}", bundle.digest, text::size(bundle.len)));
    }
    Ok(Some(DeltaReport { from: format!("sha256:{}", old.artifact.image_id), bytes: bundle.len }))
}
