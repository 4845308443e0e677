// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a push.

use std::fmt::Write as _;

use serde::Serialize;
use tesserafs_image::text::size;

use super::Request;
use crate::artifact::{Artifact, Blob};
use crate::reference::Name;

/// A push, for people and for machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The name of the index.
    pub reference: String,
    /// `sha256:` and the digest of the index.
    pub index: String,
    /// The name of the image alone.
    pub image_reference: String,
    /// `sha256:` and the digest of its manifest.
    pub manifest: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Of these, bytes that were sent.
    pub uploaded_bytes: u64,
    /// Bytes that the registry took from other repositories.
    pub mounted_bytes: u64,
    /// Bytes that were there.
    pub present_bytes: u64,
    /// The bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaReport>,
}

/// A bundle, in a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeltaReport {
    /// `sha256:` and the image ID of what it is applied to.
    pub from: String,
    /// Its tag.
    pub tag: String,
    /// Its length.
    pub bytes: u64,
}

impl Report {
    pub(super) fn of_bytes(present_bytes: u64, mounted_bytes: u64, uploaded_bytes: u64) -> Self {
        let bytes = present_bytes + mounted_bytes + uploaded_bytes;
        Self { version: 1, bytes, uploaded_bytes, mounted_bytes, present_bytes, ..Self::default() }
    }

    pub(super) fn named(
        self,
        request: &Request,
        artifact: &Artifact,
        alone: &Name,
        manifest: Blob,
        index: Blob,
    ) -> Self {
        Self {
            reference: request.reference.to_string(),
            index: format!("sha256:{}", index.digest),
            image_reference: request.reference.with_name(alone.clone()).to_string(),
            manifest: format!("sha256:{}", manifest.digest),
            image_id: format!("sha256:{}", artifact.image_id),
            ..self
        }
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}: index {}", self.reference, self.index);
        let _ = writeln!(text, "{}: manifest {}", self.image_reference, self.manifest);
        let _ = writeln!(text, "image {}", self.image_id);
        let _ = write!(text, "{} uploaded", size(self.uploaded_bytes));
        if self.mounted_bytes > 0 {
            let _ = write!(text, ", {} taken from other repositories", size(self.mounted_bytes));
        }
        let _ = writeln!(text, ", {} of {} were there", size(self.present_bytes), size(self.bytes));
        if let Some(delta) = &self.delta {
            let _ = writeln!(text, "bundle from {}: {}, tag {}", delta.from, size(delta.bytes), delta.tag);
        }
        text
    }

    /// As a JSON object.
    pub fn to_json(&self) -> String {
        // Numbers and text can be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
