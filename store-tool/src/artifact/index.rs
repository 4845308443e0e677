// SPDX-License-Identifier: GPL-2.0-or-later

//! Indexes.

use base64::prelude::{Engine as _, BASE64_STANDARD};
use mkfs_tesserafs::source::oci::Platform;
use oci_spec::image::{Descriptor, ImageIndex, MediaType};
use serde_json::{json, Value};
use tesserafs_image::hash::sha256;
use tesserafs_image::text;

use super::read::blob;
use super::{Blob, OS_FEATURE};

/// Manifests that an index is believed to have.
const ENTRIES_MAX: usize = 4096;

/// The annotation of a manifest in an index that is the manifest itself, in base64. The specification has the field `data` for that, which
/// skopeo 1.9 leaves out when it copies.
const EMBEDDED: &str = "org.tesserafs.manifest";

/// Bytes of a manifest that stand in an index, at most: the index is read by clients that want another one, too.
const EMBEDDED_MAX: usize = 16 << 10;

/// An index: manifests for clients to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// In the order in which clients look.
    pub entries: Vec<Entry>,
}

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The manifest.
    pub manifest: Blob,
    /// The descriptor as it stands in the index: it is copied with all that it says.
    descriptor: Value,
    /// Whether it is for clients that read images of this filesystem.
    pub is_ours: bool,
    platform: Option<(String, String, Option<String>)>,
}

impl Entry {
    /// That of one of our images.
    pub fn ours(manifest: Blob, platform: &Platform) -> Self {
        let mut described = described(platform);
        described["os.features"] = json!([OS_FEATURE]);
        Self::new(manifest, MediaType::ImageManifest.as_ref(), platform, described, true)
    }

    /// The same, with the manifest itself, if it is short: a client that has the index asks once less.
    pub fn with_embedded(mut self, manifest: &[u8]) -> Self {
        if manifest.len() <= EMBEDDED_MAX {
            self.descriptor["annotations"][EMBEDDED] = BASE64_STANDARD.encode(manifest).into();
        }
        self
    }

    /// The manifest, if it stands in the index. Anything else there is of no use.
    pub fn embedded(&self) -> Option<Vec<u8>> {
        let manifest = BASE64_STANDARD.decode(self.descriptor["annotations"][EMBEDDED].as_str()?).ok()?;
        let is_it = manifest.len() as u64 == self.manifest.len && sha256(&manifest) == self.manifest.digest;
        is_it.then_some(manifest)
    }

    /// That of an ordinary image.
    pub fn plain(manifest: Blob, media_type: &str, platform: &Platform) -> Self {
        Self::new(manifest, media_type, platform, described(platform), false)
    }

    fn new(manifest: Blob, media_type: &str, platform: &Platform, described: Value, is_ours: bool) -> Self {
        let mut descriptor = manifest.descriptor(media_type);
        descriptor["platform"] = described;
        let parts = (platform.os(), platform.architecture(), platform.variant());
        let platform = Some((parts.0.to_owned(), parts.1.to_owned(), parts.2.map(str::to_owned)));
        Self { manifest, descriptor, is_ours, platform }
    }

    /// Reads a descriptor, which `copied` is too, with fields that nobody here knows.
    fn read(descriptor: &Descriptor, copied: &Value) -> Result<Self, String> {
        let manifest = blob(descriptor, "a manifest of the index")?;
        let platform = descriptor.platform().as_ref();
        // oci-spec looks for os_features, which nobody writes.
        let features = copied["platform"]["os.features"].as_array();
        let is_ours = features.is_some_and(|all| all.iter().any(|feature| feature == OS_FEATURE));
        let platform = platform.map(|platform| {
            (platform.os().to_string(), platform.architecture().to_string(), platform.variant().clone())
        });
        Ok(Self { manifest, descriptor: copied.clone(), is_ours, platform })
    }

    /// Whether the manifest is for such a machine.
    pub fn is_for(&self, platform: &Platform) -> bool {
        self.platform
            .as_ref()
            .is_some_and(|(os, architecture, variant)| platform.takes(os, architecture, variant.as_deref()))
    }

    /// The machine that it is for, as text for a terminal.
    pub fn platform(&self) -> String {
        let Some((os, architecture, variant)) = &self.platform else {
            return "any platform".into();
        };
        let variant = variant.iter().map(|variant| format!("/{variant}"));
        text::escape(format!("{os}/{architecture}{}", variant.collect::<String>()).as_bytes())
    }
}

fn described(platform: &Platform) -> Value {
    let mut described = json!({ "os": platform.os(), "architecture": platform.architecture() });
    if let Some(variant) = platform.variant() {
        described["variant"] = variant.into();
    }
    described
}

impl Index {
    /// Reads an index, which `copied` is too.
    pub(super) fn read(index: &ImageIndex, copied: &Value) -> Result<Self, String> {
        let found = index.manifests().len();
        if found > ENTRIES_MAX {
            return Err(format!("the index has {found} manifests, expected {ENTRIES_MAX} at most"));
        }
        let copied = copied["manifests"].as_array().into_iter().flatten();
        let entries = index.manifests().iter().zip(copied).map(|(entry, copied)| Entry::read(entry, copied));
        let entries = entries.collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// The image of this filesystem for such a machine: the first one.
    pub fn ours(&self, platform: &Platform) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_ours && entry.is_for(platform))
    }

    /// Takes from an older index the manifests for which this one has none of the same kind and platform. Those of ordinary images stay first.
    pub fn keep(&mut self, older: Index) {
        let is_replaced = |old: &Entry| {
            self.entries.iter().any(|new| new.is_ours == old.is_ours && new.platform == old.platform)
        };
        let kept: Vec<_> = older.entries.into_iter().filter(|old| !is_replaced(old)).collect();
        self.entries.extend(kept);
        self.entries.sort_by_key(|entry| entry.is_ours);
    }

    /// Its document.
    pub fn to_document(&self) -> Vec<u8> {
        let manifests: Vec<_> = self.entries.iter().map(|entry| &entry.descriptor).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex.as_ref(),
            "manifests": manifests,
        });
        index.to_string().into_bytes()
    }
}
