// SPDX-License-Identifier: GPL-2.0-or-later

//! An ordinary image in an OCI image layout, to be pushed as it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mkfs_tesserafs::source::oci::OciImage;
use oci_spec::image::{ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde_json::Value;
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::{text, Error};

use crate::artifact::{config, Blob, Document, Entry, DOCUMENT_MAX};
use crate::reference::parse_digest;

/// The annotation of an index with the name of an image.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The type of docker's manifests, which layouts can have, too.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A manifest of the image.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) blob: Blob,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// The image.
#[derive(Debug)]
pub(super) struct Layout {
    place: PathBuf,
    entries: Vec<Entry>,
    manifests: Vec<Manifest>,
    blobs: Vec<Blob>,
}

impl Layout {
    /// Finds the image that is meant, and reads its documents, of all platforms that it has.
    pub(super) fn open(image: &OciImage) -> Result<Self, Error> {
        let mut layout = Self {
            place: image.place.clone(),
            entries: Vec::new(),
            manifests: Vec::new(),
            blobs: Vec::new(),
        };
        let top = layout.read(&layout.place.join("index.json"), DOCUMENT_MAX)?;
        let (found, descriptor) = layout.named(&top, image.reference.as_deref())?;
        let bytes = layout.document(&found)?;
        let copied: Value = layout.parse(&found, &bytes)?;
        if copied.get("manifests").is_none() {
            let entry = layout.entry_of_manifest(&found, &bytes, &descriptor)?;
            layout.entries.push(entry);
            layout.add(found, &bytes)?;
            return Ok(layout);
        }
        let Document::Index(index) = layout.understand(&found, Document::parse(&bytes))? else {
            return Err(layout.refused("the image is neither a manifest nor an index"));
        };
        // An image that was pushed before is replaced by the one of this push.
        let entries: Vec<_> = index.entries.into_iter().filter(|entry| !entry.is_ours).collect();
        for entry in &entries {
            let bytes = layout.document(&entry.manifest)?;
            layout.add(entry.manifest, &bytes)?;
        }
        layout.entries = entries;
        Ok(layout)
    }

    /// Its entries in the index.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Its manifests.
    pub(super) fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// Its blobs, and where they are.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (Blob, PathBuf)> + '_ {
        self.blobs.iter().map(|blob| (*blob, self.path(&blob.digest)))
    }

    fn refused(&self, why: impl AsRef<str>) -> Error {
        Error::Refused(format!("{}: {}", text::path(&self.place), text::escape(why.as_ref().as_bytes())))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.place.join(format!("blobs/sha256/{digest}"))
    }

    /// The image of that name, or the only one, with its descriptor.
    fn named(&self, top: &[u8], wanted: Option<&str>) -> Result<(Blob, Value), Error> {
        let parse = |error: serde_json::Error| self.refused(format!("index.json: {error}"));
        let index: ImageIndex = serde_json::from_slice(top).map_err(parse)?;
        let copied: Value = serde_json::from_slice(top).map_err(parse)?;
        let name = |at: usize| {
            let annotations = index.manifests().get(at)?.annotations().as_ref()?;
            annotations.get(NAME).map(String::as_str)
        };
        let all = 0..index.manifests().len();
        let found: Vec<usize> = match wanted {
            None => all.clone().collect(),
            Some(wanted) => all
                .clone()
                .filter(|at| name(*at) == Some(wanted) || index.manifests()[*at].digest().as_ref() == wanted)
                .collect(),
        };
        let digests: BTreeSet<&str> =
            found.iter().map(|at| index.manifests()[*at].digest().as_ref()).collect();
        let (Some(at), true) = (found.first(), digests.len() == 1) else {
            let names: Vec<_> = all.filter_map(name).take(20).collect();
            let names = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
            return Err(self.refused(match wanted {
                Some(wanted) => format!("found no single image {wanted}; it has {names}"),
                None => format!("found {} images; say which, as oci:LAYOUT:REF: {names}", digests.len()),
            }));
        };
        let descriptor = &index.manifests()[*at];
        let digest = parse_digest(descriptor.digest().as_ref())
            .ok_or_else(|| self.refused(format!("{} is no digest by sha256", descriptor.digest())))?;
        Ok((Blob { digest, len: descriptor.size() }, copied["manifests"][*at].clone()))
    }

    /// The entry of an index for a single manifest, whose platform its configuration says.
    fn entry_of_manifest(&self, found: &Blob, bytes: &[u8], descriptor: &Value) -> Result<Entry, Error> {
        let manifest: ImageManifest = self.parse(found, bytes)?;
        let media_type = match (manifest.media_type(), &descriptor["mediaType"]) {
            (Some(media_type), _) => media_type.to_string(),
            (None, Value::String(media_type)) => media_type.clone(),
            (None, _) => MediaType::ImageManifest.to_string(),
        };
        if media_type != MediaType::ImageManifest.as_ref() && media_type != DOCKER_MANIFEST {
            return Err(self.refused(format!("the image is of the type {media_type}, expected a manifest")));
        }
        let blob = self.blob_of(manifest.config())?;
        let platform = self.understand(&blob, config::platform(&self.document(&blob)?))?;
        Ok(Entry::plain(*found, &media_type, &platform))
    }

    /// Takes a manifest and its blobs.
    fn add(&mut self, found: Blob, bytes: &[u8]) -> Result<(), Error> {
        let manifest: ImageManifest = self.parse(&found, bytes)?;
        for descriptor in [manifest.config()].into_iter().chain(manifest.layers()) {
            let blob = self.blob_of(descriptor)?;
            let path = self.path(&blob.digest);
            let len = std::fs::metadata(&path)
                .map_err(|source| Error::Io { what: format!("cannot read {}", text::path(&path)), source })?
                .len();
            if len != blob.len {
                let shown = text::path(&path);
                return Err(Error::Refused(format!("{shown} has {len} bytes, expected {}", blob.len)));
            }
            self.blobs.push(blob);
        }
        let media_type = manifest.media_type().as_ref().unwrap_or(&MediaType::ImageManifest).to_string();
        self.manifests.push(Manifest { blob: found, media_type, bytes: bytes.to_vec() });
        Ok(())
    }

    fn blob_of(&self, descriptor: &oci_spec::image::Descriptor) -> Result<Blob, Error> {
        let digest = parse_digest(descriptor.digest().as_ref());
        let digest =
            digest.ok_or_else(|| self.refused(format!("{} is no digest by sha256", descriptor.digest())))?;
        Ok(Blob { digest, len: descriptor.size() })
    }

    /// A document, whose digest is compared.
    fn document(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        let path = self.path(&blob.digest);
        let bytes = self.read(&path, DOCUMENT_MAX)?;
        let found = sha256(&bytes);
        if found != blob.digest {
            return Err(Error::Refused(format!("{} has the digest sha256:{found}", text::path(&path))));
        }
        Ok(bytes)
    }

    fn read(&self, path: &Path, max: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
        read.map_err(|source| Error::Io { what: format!("cannot read {}", text::path(path)), source })?;
        if bytes.len() as u64 > max {
            return Err(Error::Refused(format!("{} has more than {max} bytes", text::path(path))));
        }
        Ok(bytes)
    }

    fn parse<'b, T: Deserialize<'b>>(&self, blob: &Blob, bytes: &'b [u8]) -> Result<T, Error> {
        self.understand(
            blob,
            serde_json::from_slice(bytes).map_err(|error| text::escape(error.to_string().as_bytes())),
        )
    }

    /// Adds the name of a document to what is wrong with it.
    fn understand<T>(&self, blob: &Blob, result: Result<T, String>) -> Result<T, Error> {
        result.map_err(|why| Error::Refused(format!("{}: {why}", text::path(&self.path(&blob.digest)))))
    }
}
