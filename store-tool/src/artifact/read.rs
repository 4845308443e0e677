// SPDX-License-Identifier: GPL-2.0-or-later

//! Documents from elsewhere.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::Digest;
use tesserafs_image::text;

use super::{
    Artifact, Blob, Delta, Document, Index, DELTA, DELTA_FROM, DELTA_TO, DOCUMENT_MAX, IMAGE, IMAGE_DIGEST,
    IMAGE_ID, IMAGE_SIZE, IMAGE_ZSTD, PACK, TREE_ID,
};
use crate::reference::parse_digest;

/// Packs of an image beside pack 0 (FORMAT.md 3).
const PACKS_MAX: usize = 1023;

/// The parts of a document that tell which one it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Document, String> {
    if bytes.len() as u64 > DOCUMENT_MAX {
        return Err(format!("the document has {} bytes, expected {DOCUMENT_MAX} at most", bytes.len()));
    }
    let shape: Shape = from_json(bytes)?;
    if shape.schema_version != Some(2) {
        let found = shape.schema_version.map_or("none".into(), |version| version.to_string());
        return Err(format!("schemaVersion: found {found}, expected 2"));
    }
    match (shape.manifests.is_some(), shape.layers.is_some()) {
        (true, false) => {
            let index: ImageIndex = from_json(bytes)?;
            Index::read(&index, &from_json(bytes)?).map(Document::Index)
        }
        (false, true) => manifest(&from_json(bytes)?),
        // What one program takes for an index must not be a manifest to another.
        (true, true) => Err("the document is an index and a manifest at once".into()),
        (false, false) => Err("the document is neither an index nor a manifest".into()),
    }
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        format!("the document is not what is expected: {}", text::escape(error.to_string().as_bytes()))
    })
}

fn manifest(manifest: &ImageManifest) -> Result<Document, String> {
    let layers = manifest.layers();
    if manifest.artifact_type().as_ref().is_some_and(|kind| kind.as_ref() == DELTA) {
        return delta(manifest).map(Document::Delta);
    }
    if !layers.iter().any(|layer| [PACK, IMAGE, IMAGE_ZSTD].contains(&media_type(layer))) {
        return Ok(Document::Other { layer: layers.first().map(|layer| media_type(layer).to_owned()) });
    }
    let (last, packs) = layers.split_last().ok_or("the manifest has no layers")?;
    if packs.len() > PACKS_MAX {
        return Err(format!("the manifest has {} packs, expected {PACKS_MAX} at most", packs.len()));
    }
    for (at, layer) in layers.iter().enumerate() {
        let expected = if at == packs.len() { IMAGE } else { PACK };
        let is_compressed = at == packs.len() && media_type(layer) == IMAGE_ZSTD;
        if media_type(layer) != expected && !is_compressed {
            let found = text::escape(media_type(layer).as_bytes());
            return Err(format!("layer {at} has the type {found}, expected {expected}"));
        }
    }
    let (image, compressed) = match blob(last, "the image")? {
        compressed if media_type(last) == IMAGE_ZSTD => (uncompressed(manifest)?, Some(compressed)),
        image => (image, None),
    };
    if image.len < BLOCK_SIZE as u64 {
        return Err(format!("the image has {} bytes, expected {BLOCK_SIZE} at least", image.len));
    }
    let packs = packs.iter().map(|pack| blob(pack, "a pack")).collect::<Result<Vec<_>, _>>()?;
    let mut known = HashSet::from([image.digest]);
    if let Some(twice) = packs.iter().chain(&compressed).find(|blob| !known.insert(blob.digest)) {
        return Err(format!("the manifest names the blob sha256:{} twice", twice.digest));
    }
    let all = packs.iter().chain(&compressed).try_fold(image.len, |sum, pack| sum.checked_add(pack.len));
    if all.is_none_or(|all| i64::try_from(all).is_err()) {
        return Err("the blobs together are longer than any file".into());
    }
    if manifest.config().media_type() != &MediaType::ImageConfig {
        let found = text::escape(media_type(manifest.config()).as_bytes());
        return Err(format!("the configuration has the type {found}, expected {}", MediaType::ImageConfig));
    }
    let config = blob(manifest.config(), "the configuration")?;
    if config.len > DOCUMENT_MAX {
        return Err(format!("the configuration has {} bytes, expected {DOCUMENT_MAX} at most", config.len));
    }
    let (image_id, tree_id) = (annotated(manifest, IMAGE_ID)?, annotated(manifest, TREE_ID)?);
    Ok(Document::Image(Artifact { image_id, tree_id, packs, image, compressed, config }))
}

/// The image file that a compressed one becomes.
fn uncompressed(manifest: &ImageManifest) -> Result<Blob, String> {
    let size = annotation(manifest, IMAGE_SIZE)?;
    let len = size.parse::<i64>().ok().and_then(|len| u64::try_from(len).ok()).ok_or_else(|| {
        let found = text::escape(size.as_bytes());
        format!("the annotation {IMAGE_SIZE} is {found}, expected the length of a file")
    })?;
    Ok(Blob { digest: annotated(manifest, IMAGE_DIGEST)?, len })
}

fn delta(manifest: &ImageManifest) -> Result<Delta, String> {
    let [layer] = &manifest.layers()[..] else {
        return Err(format!("the manifest of a bundle has {} layers, expected 1", manifest.layers().len()));
    };
    if media_type(layer) != DELTA {
        let found = text::escape(media_type(layer).as_bytes());
        return Err(format!("the layer of a bundle has the type {found}, expected {DELTA}"));
    }
    let bundle = blob(layer, "the bundle")?;
    Ok(Delta { from: annotated(manifest, DELTA_FROM)?, to: annotated(manifest, DELTA_TO)?, bundle })
}

fn media_type(descriptor: &Descriptor) -> &str {
    descriptor.media_type().as_ref()
}

/// The blob of a descriptor. Its length is that of a file.
pub(super) fn blob(descriptor: &Descriptor, what: &str) -> Result<Blob, String> {
    let digest = parse_digest(descriptor.digest().as_ref()).ok_or_else(|| {
        let found = text::escape(descriptor.digest().as_ref().as_bytes());
        format!("{what} has the digest {found}, expected one by sha256")
    })?;
    if i64::try_from(descriptor.size()).is_err() {
        return Err(format!("{what} has {} bytes, which no file has", descriptor.size()));
    }
    Ok(Blob { digest, len: descriptor.size() })
}

/// The digest that an annotation has.
fn annotated(manifest: &ImageManifest, key: &str) -> Result<Digest, String> {
    let value = annotation(manifest, key)?;
    parse_digest(value).ok_or_else(|| {
        let found = text::escape(value.as_bytes());
        format!("the annotation {key} is {found}, expected sha256: and 64 digits")
    })
}

fn annotation<'m>(manifest: &'m ImageManifest, key: &str) -> Result<&'m str, String> {
    let value = manifest.annotations().as_ref().and_then(|all| all.get(key));
    value.map(String::as_str).ok_or_else(|| format!("the manifest has no annotation {key}"))
}
