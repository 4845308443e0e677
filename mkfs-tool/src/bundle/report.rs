// SPDX-License-Identifier: GPL-2.0-or-later

//! Reports of bundles, for people and for machines.

use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;
use tesserafs_format::SuperBlock;
use tesserafs_image::text::size;

use super::stream::Header;
use super::wanted::Wanted;
use super::{ApplyRequest, BundleRequest};
use crate::error::Shown;
use crate::report::to_json;

/// The bundle that was made.
#[derive(Clone, Debug, Serialize)]
pub struct BundleReport {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The bundle.
    pub bundle: String,
    /// `sha256:` and the image ID of what it is applied to.
    pub old_image_id: String,
    /// `sha256:` and the image ID of the result.
    pub new_image_id: String,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// Of these, bytes of tables.
    pub metadata_bytes: u64,
    /// Chunks that the old image lacks.
    pub chunks: u64,
    /// Their stored bytes: what a portable bundle has of them.
    pub stored_bytes: u64,
    /// Whether it has chunks as they are stored.
    pub portable: bool,
    /// How long it took.
    pub seconds: f64,
}

impl BundleReport {
    pub(super) fn new(
        request: &BundleRequest,
        header: &Header,
        wanted: &Wanted,
        stored_bytes: u64,
        metadata_bytes: u64,
        bundle_bytes: u64,
        started: Instant,
    ) -> Self {
        Self {
            version: 1,
            bundle: Shown(&request.output).to_string(),
            old_image_id: format!("sha256:{}", header.old),
            new_image_id: format!("sha256:{}", header.new),
            bundle_bytes,
            metadata_bytes,
            chunks: wanted.lacking.len() as u64,
            stored_bytes,
            portable: header.portable,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}: {}, in {:.1} s", self.bundle, size(self.bundle_bytes), self.seconds);
        let _ = writeln!(text, "from      {}", self.old_image_id);
        let _ = writeln!(text, "to        {}", self.new_image_id);
        let (chunks, stored) = (self.chunks, size(self.stored_bytes));
        let _ = writeln!(
            text,
            "{} of tables; {chunks} chunks that are stored in {stored}",
            size(self.metadata_bytes)
        );
        text
    }
}

/// The image that a bundle made.
#[derive(Clone, Debug, Serialize)]
pub struct ApplyReport {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The image.
    pub image: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// Chunks that came from the old image.
    pub copied_chunks: u64,
    /// Chunks that came from the bundle.
    pub chunks: u64,
    /// How long it took.
    pub seconds: f64,
}

impl ApplyReport {
    pub(super) fn new(
        request: &ApplyRequest,
        header: &Header,
        sb: &SuperBlock,
        wanted: &Wanted,
        bundle_bytes: u64,
        started: Instant,
    ) -> Self {
        Self {
            version: 1,
            image: Shown(&request.new).to_string(),
            image_id: format!("sha256:{}", header.new),
            image_bytes: sb.layout.image_bytes,
            bundle_bytes,
            copied_chunks: wanted.known.len() as u64,
            chunks: wanted.lacking.len() as u64,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let (bytes, bundle) = (size(self.image_bytes), size(self.bundle_bytes));
        let _ = writeln!(text, "{}: {bytes}, by {bundle}, in {:.1} s", self.image, self.seconds);
        let _ = writeln!(text, "image ID  {}", self.image_id);
        let _ =
            writeln!(text, "{} chunks of the old image, {} of the bundle", self.copied_chunks, self.chunks);
        text
    }
}
