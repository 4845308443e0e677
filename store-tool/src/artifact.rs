// SPDX-License-Identifier: GPL-2.0-or-later

//! The documents that describe an image in a registry (`FORMAT.md` 5.10), made and read.
//!
//! An image is an OCI manifest whose layers are its packs, in the order of its pack table, and behind them the image file; an
//! image in one file has no packs. Its configuration is an ordinary one. An index names the manifest of a plain OCI image first,
//! where there is one, because old clients take the first that fits, and then that of ours, with a feature of the operating system
//! that they do not know. A bundle is a manifest of its own.
//!
//! - [`Document::parse`] reads any of them, from anybody; this module makes ours, [`mod@config`] configurations, [`Index`] indexes;
//! - [`compressed`]: the image file of an image in packs, which is metadata, and travels in a fifth of its bytes.

pub mod compressed;
pub mod config;
mod index;
mod read;

use oci_spec::image::MediaType;
use serde_json::{json, Map, Value};
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;

pub use self::index::{Entry, Index};

/// The layer that is a pack. Engines take what begins with `application/vnd.oci.image.layer.` for a layer, and fetch anything else at once.
pub const PACK: &str = "application/vnd.oci.image.layer.tesserafs.pack.v1";
/// The layer that is an image file.
pub const IMAGE: &str = "application/vnd.oci.image.layer.tesserafs.image.v1";
/// The layer that is an image file, compressed.
pub const IMAGE_ZSTD: &str = "application/vnd.oci.image.layer.tesserafs.image.v1+zstd";
/// A bundle: the type of its layer and of its manifest.
pub const DELTA: &str = "application/vnd.tesserafs.delta.v1";
/// The feature of the operating system that a client has who reads images.
pub const OS_FEATURE: &str = "tesserafs";
/// The annotation of a manifest with the image ID.
pub const IMAGE_ID: &str = "org.tesserafs.image.id";
/// That with the tree ID.
pub const TREE_ID: &str = "org.tesserafs.tree.id";
/// That with the digest of the image file, where the layer has it compressed.
pub const IMAGE_DIGEST: &str = "org.tesserafs.image.digest";
/// That with its length in bytes.
pub const IMAGE_SIZE: &str = "org.tesserafs.image.size";
/// Those of a bundle's manifest with the IDs of the old and the new image.
pub const DELTA_FROM: &str = "org.tesserafs.delta.from";
/// As [`DELTA_FROM`].
pub const DELTA_TO: &str = "org.tesserafs.delta.to";

/// The configuration of an artifact that has none.
pub const EMPTY: &[u8] = b"{}";
/// Bytes of a document, a configuration too.
pub const DOCUMENT_MAX: u64 = 4 << 20;

/// A blob, as a descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub len: u64,
}

impl Blob {
    /// That which has these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: sha256(bytes), len: bytes.len() as u64 }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.len })
    }
}

/// An image, as its manifest says. Nothing of it is proven: the image ID is that of the first 512 bytes of the image blob, or it is
/// another image; packs are those that its pack table names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The image ID.
    pub image_id: Digest,
    /// The tree ID.
    pub tree_id: Digest,
    /// The packs, as the pack table has them.
    pub packs: Vec<Blob>,
    /// The image file.
    pub image: Blob,
    /// The blob that has the image file compressed; none where the file itself is the blob.
    pub compressed: Option<Blob>,
    /// The configuration.
    pub config: Blob,
}

impl Artifact {
    /// Its manifest: the same one for the same image.
    pub fn to_manifest(&self) -> Vec<u8> {
        let layers = self.packs.iter().map(|pack| pack.descriptor(PACK));
        let mut annotations = Map::from_iter([
            (IMAGE_ID.to_owned(), format!("sha256:{}", self.image_id).into()),
            (TREE_ID.to_owned(), format!("sha256:{}", self.tree_id).into()),
        ]);
        let image = match &self.compressed {
            None => self.image.descriptor(IMAGE),
            Some(compressed) => {
                annotations.insert(IMAGE_DIGEST.into(), format!("sha256:{}", self.image.digest).into());
                annotations.insert(IMAGE_SIZE.into(), self.image.len.to_string().into());
                compressed.descriptor(IMAGE_ZSTD)
            }
        };
        let layers: Vec<_> = layers.chain([image]).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.as_ref(),
            "config": self.config.descriptor(MediaType::ImageConfig.as_ref()),
            "layers": layers,
            "annotations": annotations,
        });
        manifest.to_string().into_bytes()
    }

    /// The blob by which the image file comes.
    pub fn image_blob(&self) -> Blob {
        self.compressed.unwrap_or(self.image)
    }

    /// All blobs that the manifest names, but for the configuration, and the image file where it comes compressed.
    pub fn blobs(&self) -> impl Iterator<Item = Blob> + '_ {
        self.files().chain(self.compressed)
    }

    /// All files in the order of the manifest; their digests are the diff IDs of the configuration.
    pub fn files(&self) -> impl Iterator<Item = Blob> + '_ {
        self.packs.iter().copied().chain([self.image])
    }
}

/// A bundle, as its manifest says; nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The image ID of the old image.
    pub from: Digest,
    /// That of the new one.
    pub to: Digest,
    /// The bundle.
    pub bundle: Blob,
}

impl Delta {
    /// Its manifest. The configuration is [`EMPTY`].
    pub fn to_manifest(&self) -> Vec<u8> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.as_ref(),
            "artifactType": DELTA,
            "config": Blob::of(EMPTY).descriptor(MediaType::EmptyJSON.as_ref()),
            "layers": [self.bundle.descriptor(DELTA)],
            "annotations": {
                DELTA_FROM: format!("sha256:{}", self.from),
                DELTA_TO: format!("sha256:{}", self.to),
            },
        });
        manifest.to_string().into_bytes()
    }

    /// The tag under which the bundle between two images is found, in the repository of the new one.
    pub fn tag(from: &Digest, to: &Digest) -> String {
        sha256(&[from.0, to.0].concat()).to_string()
    }
}

/// The kinds of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The manifest of an image of this filesystem.
    Image(Artifact),
    /// The manifest of a bundle.
    Delta(Delta),
    /// An index.
    Index(Index),
    /// The manifest of an ordinary image, or of something else that is not ours: the type of its first layer, if it has any.
    Other {
        /// The media type, as the document has it: text from elsewhere.
        layer: Option<String>,
    },
}

impl Document {
    /// Reads a document, and checks all that can be checked without the blobs. The error is one sentence, without the name of the document.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        read::parse(bytes)
    }
}

#[cfg(test)]
mod tests;
