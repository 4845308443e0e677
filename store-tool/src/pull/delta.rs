// SPDX-License-Identifier: GPL-2.0-or-later

//! The bundle by which an image of the store becomes the one that is wanted.
//!
//! It is found under a tag that follows from the two image IDs. What it makes is compared with the image ID, as whatever comes; if it
//! cannot be applied, because it was made with another libzstd, say, the chunks are fetched.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mkfs_tesserafs::bundle::{apply, proven, ApplyRequest};
use mkfs_tesserafs::progress::Silent;
use tesserafs_format::Digest;
use tesserafs_image::{parallel, text, Error};

use super::report::DeltaReport;
use super::whole::{self, Failed};
use super::Pull;
use crate::artifact::{Blob, Delta, Document};
use crate::reference::Name;
use crate::store::{Image, Slot, Unfinished};
use crate::{chain, say};

/// Images of the store for which a bundle is asked for, at most.
const OLD: usize = 4;

/// A bundle, and the image that it is for.
pub(super) struct Candidate {
    old: Image,
    pub(super) bundle: Blob,
}

/// The smallest bundle that there is. A registry that cannot tell has none.
pub(super) fn best(pull: &Pull<'_>) -> Result<Option<Candidate>, Error> {
    let own = &pull.request.reference;
    let new = pull.found.artifact.image_id;
    let mut names = pull.using.names()?;
    names.retain(|named| named.reference.host == own.host && named.reference.repository == own.repository);
    // The version before is likely to be the one that came last.
    names.sort_by_key(|named| (named.reference != *own, Reverse(named.since)));
    let mut seen: HashSet<Digest> = HashSet::from([new]);
    let images = names.iter().filter_map(|named| pull.using.image(&named.reference).ok().flatten());
    let old: Vec<_> = images.filter(|old| seen.insert(old.artifact.image_id)).take(OLD).collect();
    let found = Mutex::new(Vec::new());
    let cancel = &pull.request.options.cancel;
    parallel::for_each(OLD, old.len() as u64, cancel, |number| {
        let old = &old[number as usize];
        match bundle(pull, old) {
            Ok(None) => (),
            Ok(Some(bundle)) => found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Candidate { old: old.clone(), bundle }),
            Err(error @ Error::Cancelled) => return Err(error),
            Err(error) => say(&format!("{}: no bundle is used: {}", pull.fetcher.shown(), chain(&error))),
        }
        Ok(())
    })?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(found.into_iter().min_by_key(|candidate| candidate.bundle.len))
}

/// The bundle by which an image becomes the one that is wanted, if it can be applied here.
fn bundle(pull: &Pull<'_>, old: &Image) -> Result<Option<Blob>, Error> {
    let (from, to) = (old.artifact.image_id, pull.found.artifact.image_id);
    for pack in &old.artifact.packs {
        // An image may have only the chunks of a pack that it needs itself.
        if pull.using.blob_of(&pack.digest, pack.len)?.is_none() {
            return Ok(None);
        }
    }
    let tag = Name::Tag(Delta::tag(&from, &to));
    let Some(manifest) = pull.fetcher.repository().manifest(&tag)? else { return Ok(None) };
    match Document::parse(&manifest.bytes) {
        // Its file must be no other one of the image.
        Ok(Document::Delta(delta))
            if delta.from == from
                && delta.to == to
                && pull.found.artifact.blobs().all(|blob| blob.digest != delta.bundle.digest) =>
        {
            Ok(Some(delta.bundle))
        }
        _ => Err(Error::Refused(format!("the tag {tag} is no bundle from {from} to {to}"))),
    }
}

/// Fetches a bundle, and applies it. `None` where that cannot be done, and the chunks have to be fetched.
pub(super) fn take(pull: &Pull<'_>, candidate: &Candidate) -> Result<Option<DeltaReport>, Error> {
    let bundle = candidate.bundle;
    let is_pack = pull.filling.has_pack(&bundle.digest)?;
    let taken = match (!is_pack).then(|| pull.filling.file(&bundle.digest, bundle.len)).transpose() {
        Err(error) => Err(error),
        Ok(None) => Err(Error::Refused("it is a pack of the image".to_owned())),
        Ok(Some(Slot::Complete(_))) => {
            pull.filling.leave(&bundle.digest)?;
            Err(Error::Refused("it is a file of another image".to_owned()))
        }
        Ok(Some(Slot::Unfinished(file))) => {
            let (applied, is_begun) = match fetch(pull, bundle, &file) {
                Ok(()) => (apply_to(pull, &candidate.old, &file), false),
                Err(Failed { error, is_begun }) => (Err(error), is_begun),
            };
            // One that did not come to its end goes on where it stopped.
            if !is_begun {
                pull.filling.discard(file)?;
            }
            applied
        }
    };
    match taken {
        Ok(()) => (),
        Err(error @ Error::Cancelled) => return Err(error),
        Err(error) => {
            say(&format!(
                "{}: the bundle sha256:{} is of no use: {}; fetching chunks",
                pull.fetcher.shown(),
                bundle.digest,
                chain(&error)
            ));
            return Ok(None);
        }
    }
    if pull.request.lines {
        say(&format!("bundle sha256:{}: fetched {}", bundle.digest, text::size(bundle.len)));
    }
    Ok(Some(DeltaReport { from: format!("sha256:{}", candidate.old.artifact.image_id), bytes: bundle.len }))
}

/// Brings all bytes of a bundle.
fn fetch(pull: &Pull<'_>, bundle: Blob, file: &Unfinished) -> Result<(), Failed> {
    let proven = |path: &Path| proven(path).map_err(|error| Error::Refused(chain(&error)));
    whole::fetch(&pull.fetcher, bundle, file, proven, &pull.request.options.cancel)
}

/// Makes the image, and the packs that the old one lacks.
fn apply_to(pull: &Pull<'_>, old: &Image, bundle: &Unfinished) -> Result<(), Error> {
    let new = &pull.found.artifact;
    // Where both images look for them.
    for pack in old.artifact.packs.iter().chain(&new.packs) {
        if pull.using.blob_of(&pack.digest, pack.len)?.is_some() {
            pull.filling.file(&pack.digest, pack.len)?;
        }
    }
    let file_of = |digest: &Digest| pull.filling.path().join(digest.to_string());
    let request = ApplyRequest {
        old: old.path.clone(),
        bundle: bundle.path().to_owned(),
        new: file_of(&new.image.digest),
        pack_dir: Some(pull.filling.path().to_owned()),
        force: true,
    };
    apply(&request, &Silent).map(drop).map_err(|error| {
        // What it has begun has names that no file of the store has.
        for layer in new.files() {
            let _ = fs::remove_file(file_of(&layer.digest).with_extension("partial"));
        }
        Error::Refused(chain(&error))
    })
}
