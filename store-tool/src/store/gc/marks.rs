// SPDX-License-Identifier: GPL-2.0-or-later

//! The files that are needed: by images that have a name, and by those that are mounted.

use std::collections::{HashMap, HashSet};

use rustix::fs::Stat;
use tesserafs_format::Digest;
use tesserafs_image::{superblock, text, Error, Source};

use super::{digests, Kept};
use crate::artifact::{Artifact, Document};
use crate::chain;
use crate::store::images::packs_of;
use crate::store::in_use::InUse;
use crate::store::Store;

/// The files that are needed.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) blobs: HashSet<Digest>,
    pub(super) documents: HashSet<Digest>,
    /// The packs of each image, by its ID.
    pub(super) images: HashMap<Digest, Vec<Digest>>,
    pub(super) kept: Vec<Kept>,
    /// Whether the packs of a mounted image could not be told: then each may be one of them.
    pub(super) all_blobs: bool,
}

impl Marks {
    fn mark(&mut self, manifest: Digest, artifact: &Artifact) {
        self.documents.extend([manifest, artifact.config.digest]);
        self.blobs.extend(artifact.files().map(|blob| blob.digest));
        let packs = self.images.entry(artifact.image_id).or_default();
        packs.extend(artifact.packs.iter().map(|pack| pack.digest));
    }
}

impl Store {
    /// Marks what names lead to.
    pub(super) fn mark_named(&self, marks: &mut Marks) -> Result<(), Error> {
        let unknown = |what: String, why: String, remedy: &str| {
            Error::Refused(format!(
                "nothing was removed, as it is not known what {what} needs: {why}; {remedy}"
            ))
        };
        let (names, others) = self.names_and_others()?;
        for named in names {
            let artifact = self.artifact(&named.manifest).map_err(|error| {
                let shown = text::escape(named.reference.to_string().as_bytes());
                let remedy = format!("`tesserafs pull {shown}` or `tesserafs rm {shown}` first");
                unknown(shown, chain(&error), &remedy)
            })?;
            marks.mark(named.manifest, &artifact);
        }
        if let Some(link) = others.iter().find(|other| other.is_link) {
            let shown = text::path(&link.path);
            return Err(unknown(shown, format!("found {}", link.found), "remove it first"));
        }
        Ok(())
    }

    /// Marks what is mounted.
    pub(super) fn mark_mounted(
        &self,
        marks: &mut Marks,
        blobs: &[(Digest, Stat)],
        in_use: &InUse,
    ) -> Result<(), Error> {
        for (digest, _) in blobs {
            if marks.blobs.contains(digest) {
                continue;
            }
            let path = self.blobs.join(digest.to_string());
            let source = Source::open(&path)?;
            // Most are packs.
            let head = superblock::read_head(&source).ok();
            let is_used = match &head {
                Some(head) => in_use.has(self, digest, &head.id),
                None => in_use.has_file(self, digest),
            };
            if !is_used {
                continue;
            }
            marks.blobs.insert(*digest);
            let why = match (in_use.mounts(digest).next(), in_use.unknown()) {
                (Some(at), _) => format!("it is mounted at {at}"),
                (None, Some(why)) => format!("it is not known whether it is mounted: {why}"),
                (None, None) => "it is mounted".to_owned(),
            };
            let image_id = head.as_ref().map(|head| head.id);
            marks.kept.push(Kept { image_id, why });
            match head.map(|head| (head.id, packs_of(&source, &head.sb))) {
                Some((id, Ok(packs))) => {
                    let packs: Vec<_> = packs.into_iter().map(|pack| pack.digest).collect();
                    marks.blobs.extend(&packs);
                    marks.images.entry(id).or_default().extend(packs);
                }
                Some((_, Err(error))) => {
                    let why = format!("{}: its packs cannot be told: {}", text::path(&path), chain(&error));
                    marks.kept.push(Kept { image_id, why });
                    marks.all_blobs = true;
                }
                None => {
                    let why = format!("{}: it is in use, and no image", text::path(&path));
                    marks.kept.push(Kept { image_id, why });
                    marks.all_blobs = true;
                }
            }
        }
        Ok(())
    }

    /// Marks the documents of images that are mounted and have no name, so that they can get one again.
    pub(super) fn mark_documents(&self, marks: &mut Marks) -> Result<(), Error> {
        let kept: HashSet<_> = marks.kept.iter().filter_map(|kept| kept.image_id).collect();
        if kept.is_empty() {
            return Ok(());
        }
        for (digest, _) in digests(&self.images)? {
            let Ok(Some(bytes)) = self.document(&digest) else { continue };
            if let Ok(Document::Image(artifact)) = Document::parse(&bytes) {
                if kept.contains(&artifact.image_id) {
                    marks.documents.extend([digest, artifact.config.digest]);
                }
            }
        }
        Ok(())
    }
}
