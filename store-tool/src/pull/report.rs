// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a pull.

use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;
use tesserafs_format::Digest;
use tesserafs_image::text::{escape, size};

use super::find::Found;
use super::Request;

/// A pull, for people and for machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The name of the image.
    pub reference: String,
    /// `sha256:` and the digest of its manifest.
    pub manifest: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// Bytes of the image file and all packs.
    pub bytes: u64,
    /// Bytes of blobs that came from the registry.
    pub fetched_bytes: u64,
    /// Bytes that other images of the store had.
    pub copied_bytes: u64,
    /// Bytes whose raw ones other images of the store had.
    pub encoded_bytes: u64,
    /// Ranges and blobs that were asked for.
    pub requests: u64,
    /// The bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaReport>,
    /// How long it took.
    pub seconds: f64,
}

/// A bundle, in a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeltaReport {
    /// `sha256:` and the image ID of what it was applied to.
    pub from: String,
    /// Its length.
    pub bytes: u64,
}

impl Report {
    pub(super) fn name(&mut self, request: &Request, found: &Found, manifest: Digest, started: Instant) {
        self.version = 1;
        self.reference = request.reference.to_string();
        self.manifest = format!("sha256:{manifest}");
        self.image_id = format!("sha256:{}", found.artifact.image_id);
        self.bytes = found.artifact.files().map(|blob| blob.len).sum();
        self.seconds = started.elapsed().as_secs_f64();
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        // Numbers and text can be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let reference = escape(self.reference.as_bytes());
        let _ = writeln!(text, "{reference}: {}, in {:.1} s", size(self.bytes), self.seconds);
        let _ = writeln!(text, "manifest  {}\nimage ID  {}", self.manifest, self.image_id);
        let (fetched, copied, encoded) =
            (size(self.fetched_bytes), size(self.copied_bytes), size(self.encoded_bytes));
        let _ = write!(
            text,
            "{fetched} fetched by {} requests, {copied} copied, {encoded} encoded again",
            self.requests
        );
        if let Some(delta) = &self.delta {
            let _ = write!(text, "; a bundle of {} from {}", size(delta.bytes), delta.from);
        }
        text.push('\n');
        text
    }
}
