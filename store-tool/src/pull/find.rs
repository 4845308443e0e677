// SPDX-License-Identifier: GPL-2.0-or-later

//! The manifest that a reference means.

use tesserafs_image::{text, Error};

use super::Request;
use crate::artifact::{Artifact, Document};
use crate::reference::Name;
use crate::registry::Repository;
use crate::store::Store;

/// An image in a registry.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) artifact: Artifact,
    /// Its manifest.
    pub(super) manifest: Vec<u8>,
}

/// Asks the registry, but not for what the store has under its digest.
pub(super) fn find(
    request: &Request,
    repository: &Repository,
    store: Option<&Store>,
) -> Result<Found, Error> {
    let shown = text::escape(request.reference.to_string().as_bytes());
    let refuse = |why: String| Error::Refused(format!("{shown}: {why}"));
    let get = |name: &Name| -> Result<Vec<u8>, Error> {
        if let (Name::Digest(digest), Some(store)) = (name, store) {
            // One that is broken comes again.
            if let Ok(Some(bytes)) = store.document(digest) {
                return Ok(bytes);
            }
        }
        let manifest = repository.manifest(name)?;
        let none = || refuse(format!("the registry has no manifest {name}"));
        Ok(manifest.ok_or_else(none)?.bytes)
    };
    let named = get(&request.reference.name)?;
    let index = match Document::parse(&named).map_err(refuse)? {
        Document::Index(index) => index,
        document => return ours(document, named).map_err(refuse),
    };
    let Some(entry) = index.ours(&request.platform) else {
        let wanted = &request.platform;
        let others: Vec<_> = index
            .entries
            .iter()
            .map(|entry| {
                let kind = if entry.is_ours { "an image of this filesystem" } else { "an ordinary image" };
                format!("{kind} for {}", entry.platform())
            })
            .collect();
        let is_any_ours = index.entries.iter().any(|entry| entry.is_ours);
        let found = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
        let advice = if is_any_ours { "--platform names another one".to_owned() } else { conversion() };
        return Err(refuse(format!(
            "found {found}, expected an image of this filesystem for {wanted}; {advice}"
        )));
    };
    let manifest = match entry.embedded() {
        Some(manifest) => manifest,
        None => get(&Name::Digest(entry.manifest.digest))?,
    };
    ours(Document::parse(&manifest).map_err(refuse)?, manifest).map_err(refuse)
}

fn ours(document: Document, manifest: Vec<u8>) -> Result<Found, String> {
    match document {
        Document::Image(artifact) => Ok(Found { artifact, manifest }),
        Document::Delta(_) => {
            Err("this is a bundle, which `tesserafs pull` takes by itself where it serves".into())
        }
        Document::Index(_) => Err("found an index in an index, expected the manifest of an image".into()),
        Document::Other { layer } => {
            let layer = layer.map_or("none".to_owned(), |layer| text::escape(layer.as_bytes()));
            Err(format!(
                "found an ordinary image (its first layer is {layer}), expected one of this filesystem; {}",
                conversion()
            ))
        }
    }
}

/// How an ordinary image becomes one of this filesystem.
fn conversion() -> String {
    "to convert an ordinary image: `skopeo copy docker://REF oci:LAYOUT:TAG`, `mkfs.tesserafs --oci LAYOUT:TAG IMAGE`, and `tesserafs push`".to_owned()
}
