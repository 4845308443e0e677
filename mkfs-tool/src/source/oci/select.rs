// SPDX-License-Identifier: GPL-2.0-or-later

//! From the files of container images to the one that is meant: its configuration and its layers.
//!
//! Three ways to keep images are known by the file that they begin with: `oci-layout` (OCI image layout), `version` (a directory of
//! `skopeo copy … dir:`), `manifest.json` (what `docker save` and `podman save` write). A place with the first of them and the last is
//! read as the first, which says more.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;
use serde::Deserialize;

use super::digest::check;
use super::files::{refused, Files, Part};
use super::place::{OciImage, Platform};
use crate::error::{Error, Result};

/// Indexes that lead to indexes are followed so far.
const DEPTH_MAX: usize = 4;
/// Layers of an image that are believed. Docker makes 127 at most.
const LAYERS_MAX: usize = 1024;

/// The name of an image in an index of a layout, and that which containerd and docker write beside it.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
/// BuildKit puts this on what it says of an image, beside the image.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The image that is meant.
#[derive(Debug)]
pub(super) struct Selected {
    /// The bytes of its manifest, where it has one.
    pub(super) manifest: Option<Vec<u8>>,
    /// The bytes of its configuration.
    pub(super) config: Vec<u8>,
    /// Its layers, the lowest first.
    pub(super) layers: Vec<Layer>,
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// The name of its file.
    pub(super) file: String,
    /// Digest and bytes of the file, where the manifest says them.
    pub(super) blob: Option<(Digest, u64)>,
    /// The digest of the archive in it.
    pub(super) diff_id: Digest,
}

/// The part of a configuration that is read here. Programs write much more into it, in forms of their own.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    /// Go's programs leave an empty list out, or write null.
    diff_ids: Option<Vec<Digest>>,
}

/// An image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// How blobs are named.
#[derive(Clone, Copy)]
enum Naming {
    /// `blobs/sha256/HEX`.
    Layout,
    /// `HEX`.
    Directory,
}

impl Naming {
    fn name(self, digest: &Digest) -> String {
        match self {
            Self::Layout => format!("blobs/{}/{}", digest.algorithm(), digest.digest()),
            Self::Directory => digest.digest().to_owned(),
        }
    }
}

/// Finds the image that is meant.
pub(super) fn select(files: &Files, image: &OciImage) -> Result<Selected> {
    let selection = Selection { files, image };
    if files.find("oci-layout")?.is_some() {
        return selection.of_layout();
    }
    match (files.find("version")?, files.find("manifest.json")?) {
        (Some(_), Some(manifest)) => selection.of_directory(manifest),
        (None, Some(manifest)) => selection.of_saved(manifest),
        _ => Err(Error::unsupported(
            &files.path,
            "holds no container image: it has neither oci-layout, as an OCI image layout, nor manifest.json, as what `docker save` and \
             `skopeo copy ... dir:` write",
        )),
    }
}

struct Selection<'a> {
    files: &'a Files,
    image: &'a OciImage,
}

impl Selection<'_> {
    fn refused(&self, reason: impl AsRef<str>) -> Error {
        refused(&self.files.path, reason)
    }

    fn parse<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| refused(&self.files.path.join(name), error.to_string()))
    }

    fn of_layout(&self) -> Result<Selected> {
        let name = "index.json";
        let bytes = self.files.document(name, self.files.get(name, "oci-layout")?)?;
        let index: ImageIndex = self.parse(name, &bytes)?;
        let mut found = self.named(&index)?;
        let mut depth = 0;
        while is_index(found.media_type()) {
            depth += 1;
            if depth > DEPTH_MAX {
                return Err(self.refused(format!("leads through more than {DEPTH_MAX} indexes")));
            }
            let bytes = self.blob(&found, Naming::Layout, name)?;
            let index: ImageIndex = self.parse(&Naming::Layout.name(found.digest()), &bytes)?;
            found = self.of_platform(&images(&index).collect::<Vec<_>>())?;
        }
        let manifest = self.blob(&found, Naming::Layout, name)?;
        self.of_manifest(&Naming::Layout.name(found.digest()), manifest, Naming::Layout)
    }

    /// The image with the name that is asked for, or the only one.
    fn named(&self, index: &ImageIndex) -> Result<Descriptor> {
        let names: BTreeSet<&str> = images(index).flat_map(names_of).collect();
        let found: Vec<&Descriptor> = match &self.image.reference {
            None => images(index).collect(),
            Some(wanted) => images(index)
                .filter(|image| {
                    names_of(image).any(|name| name == wanted) || image.digest().as_ref() == wanted
                })
                .collect(),
        };
        if let (true, Some(wanted)) = (found.is_empty(), &self.image.reference) {
            return Err(self.refused(format!("has no image {wanted}; it has {}", list(names))));
        }
        let different: BTreeSet<Vec<&str>> = found.iter().map(|image| names_of(image).collect()).collect();
        if different.len() > 1 && self.image.reference.is_none() {
            return Err(self.refused(format!("has several images; say which, as PLACE:REF: {}", list(names))));
        }
        self.of_platform(&found)
    }

    /// The first of these images for the platform that is asked for, or the only one.
    fn of_platform(&self, found: &[&Descriptor]) -> Result<Descriptor> {
        let platform = |image: &Descriptor| {
            image.platform().as_ref().map(|platform| {
                let variant = platform.variant().clone();
                (platform.os().to_string(), platform.architecture().to_string(), variant)
            })
        };
        let takes = |wanted: &Platform, image: &Descriptor| {
            platform(image).is_some_and(|(os, arch, variant)| wanted.takes(&os, &arch, variant.as_deref()))
        };
        match (found, &self.image.platform) {
            ([], _) => return Err(self.refused("has no image")),
            ([one], None) => return Ok((*one).clone()),
            // Its configuration has the platform, too.
            ([one], Some(_)) if one.platform().is_none() => return Ok((*one).clone()),
            _ => {}
        }
        let wanted = self.image.platform.clone().unwrap_or_else(Platform::host);
        let chosen = found.iter().find(|image| takes(&wanted, image));
        chosen.map(|image| (*image).clone()).ok_or_else(|| {
            let there: BTreeSet<String> = found
                .iter()
                .map(|image| match platform(image) {
                    Some((os, arch, variant)) => {
                        format!("{os}/{arch}{}", variant.map(|name| format!("/{name}")).unwrap_or_default())
                    }
                    None => format!("{} without a platform", image.digest()),
                })
                .collect();
            let there = list(there.iter().map(String::as_str));
            self.refused(format!("has no image for {wanted}; --platform chooses one of: {there}"))
        })
    }

    fn of_directory(&self, manifest: Part) -> Result<Selected> {
        let mut name = "manifest.json".to_owned();
        let mut bytes = self.files.document(&name, manifest)?;
        if let Some(wanted) = &self.image.reference {
            return Err(
                self.refused(format!("is a directory of skopeo, whose images have no names; found {wanted}"))
            );
        }
        if is_index(&self.media_type(&name, &bytes)?) {
            let index: ImageIndex = self.parse(&name, &bytes)?;
            let found = self.of_platform(&images(&index).collect::<Vec<_>>())?;
            name = format!("{}.manifest.json", found.digest().digest());
            let part = self.files.get(&name, "manifest.json")?;
            bytes = self.files.document(&name, part)?;
            check(&self.files.path.join(&name), &bytes, found.digest())?;
        }
        self.of_manifest(&name, bytes, Naming::Directory)
    }

    /// The type that a document says it has. Those of OCI may say nothing, and have `manifests` or `layers`.
    fn media_type(&self, name: &str, bytes: &[u8]) -> Result<MediaType> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<MediaType>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let typed: Typed = self.parse(name, bytes)?;
        Ok(match (typed.media_type, typed.manifests) {
            (Some(media_type), _) => media_type,
            (None, Some(_)) => MediaType::ImageIndex,
            (None, None) => MediaType::ImageManifest,
        })
    }

    fn of_manifest(&self, name: &str, bytes: Vec<u8>, naming: Naming) -> Result<Selected> {
        let shown = self.files.path.join(name);
        let media_type = self.media_type(name, &bytes)?;
        if media_type != MediaType::ImageManifest && media_type.to_string() != DOCKER_MANIFEST {
            let reason =
                format!("is of the type {media_type}, expected a manifest of OCI or of docker (schema 2)");
            return Err(refused(&shown, reason));
        }
        let manifest: ImageManifest = self.parse(name, &bytes)?;
        let config_type = manifest.config().media_type();
        if *config_type != MediaType::ImageConfig && config_type.to_string() != DOCKER_CONFIG {
            let reason = format!("is no container image: its configuration is of the type {config_type}");
            return Err(refused(&shown, reason));
        }
        self.check_layers(&shown, manifest.layers().len())?;
        let config = self.blob(manifest.config(), naming, name)?;
        let blobs: Vec<_> = manifest
            .layers()
            .iter()
            .map(|layer| {
                if layer.media_type().to_string().ends_with("+encrypted") {
                    let reason = format!("has the layer {}, which is encrypted", layer.digest());
                    return Err(refused(&shown, reason));
                }
                Ok((naming.name(layer.digest()), Some((layer.digest().clone(), layer.size()))))
            })
            .collect::<Result<_>>()?;
        self.with_config(&naming.name(manifest.config().digest()), config, blobs, Some(bytes))
    }

    fn of_saved(&self, manifest: Part) -> Result<Selected> {
        let name = "manifest.json";
        let bytes = self.files.document(name, manifest)?;
        let mut images: Vec<Saved> = self.parse(name, &bytes)?;
        let names =
            list(images.iter().flat_map(|image| image.repo_tags.iter().flatten()).map(String::as_str));
        if let Some(wanted) = &self.image.reference {
            images.retain(|image| image.repo_tags.iter().flatten().any(|name| name == wanted));
        }
        let image = match (images.pop(), images.is_empty(), &self.image.reference) {
            (Some(image), true, _) => image,
            (None, _, Some(wanted)) => {
                return Err(self.refused(format!("has no image {wanted}; it has {names}")));
            }
            (None, _, None) => return Err(self.refused("has no image")),
            _ => return Err(self.refused(format!("has several images; say which, as PLACE:REF: {names}"))),
        };
        let config = self.files.document(&image.config, self.files.get(&image.config, name)?)?;
        // It is named by its digest: HEX.json, or blobs/sha256/HEX.
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        if let Ok(digest) = format!("sha256:{}", stem.trim_end_matches(".json")).parse() {
            check(&self.files.path.join(&image.config), &config, &digest)?;
        }
        let layers = image.layers.unwrap_or_default();
        self.check_layers(&self.files.path.join(name), layers.len())?;
        let blobs = layers.into_iter().map(|name| (name, None)).collect();
        self.with_config(&image.config, config, blobs, None)
    }

    fn with_config(
        &self,
        name: &str,
        bytes: Vec<u8>,
        blobs: Vec<(String, Option<(Digest, u64)>)>,
        manifest: Option<Vec<u8>>,
    ) -> Result<Selected> {
        let shown = self.files.path.join(name);
        let config: Config = self.parse(name, &bytes)?;
        if let Some(wanted) = &self.image.platform {
            let Config { os, architecture, variant, .. } = &config;
            if !wanted.takes(os, architecture, variant.as_deref()) {
                let reason = format!("is for {os}/{architecture}, expected {wanted}");
                return Err(refused(&shown, reason));
            }
        }
        let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != blobs.len() {
            let reason = format!("has {} diff_ids for {} layers", diff_ids.len(), blobs.len());
            return Err(refused(&shown, reason));
        }
        let layers =
            blobs.into_iter().zip(diff_ids).map(|((file, blob), diff_id)| Layer { file, blob, diff_id });
        Ok(Selected { manifest, config: bytes, layers: layers.collect() })
    }

    fn check_layers(&self, path: &Path, found: usize) -> Result<()> {
        if found > LAYERS_MAX {
            return Err(refused(path, format!("has {found} layers, expected {LAYERS_MAX} at most")));
        }
        Ok(())
    }

    /// A blob that is a document, whose bytes are those of its descriptor.
    fn blob(&self, descriptor: &Descriptor, naming: Naming, wanted_by: &str) -> Result<Vec<u8>> {
        let name = naming.name(descriptor.digest());
        let path = self.files.path.join(&name);
        let part = self.files.get(&name, wanted_by)?;
        if part.len() != descriptor.size() {
            return Err(refused(&path, format!("has {} bytes, expected {}", part.len(), descriptor.size())));
        }
        let bytes = self.files.document(&name, part)?;
        check(&path, &bytes, descriptor.digest())?;
        Ok(bytes)
    }
}

/// Names that an error lists, at most.
const LISTED: usize = 20;

/// Names, for an error.
fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut text = names.by_ref().take(LISTED).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 if text.is_empty() => text.push_str("no names"),
        0 => {}
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}

fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || media_type.to_string() == DOCKER_INDEX
}

/// The images of an index, but not what is said of them beside them.
fn images(index: &ImageIndex) -> impl Iterator<Item = &Descriptor> {
    let is_beside =
        |image: &&Descriptor| image.annotations().iter().flatten().any(|(key, _)| key == REFERENCE_TYPE);
    index.manifests().iter().filter(move |image| !is_beside(image))
}

fn names_of(image: &Descriptor) -> impl Iterator<Item = &str> {
    let annotations = image.annotations().as_ref();
    NAMES.iter().filter_map(move |name| annotations?.get(*name).map(String::as_str))
}
