// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a conversion, for people and for machines.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tesserafs_format::SuperBlock;
use tesserafs_image::text::size;

use super::{Conversion, Tables};
use crate::error::Shown;
use crate::image::Written;
use crate::packs::PacksReport;
use crate::report::to_json;

/// The image that a conversion made.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertReport {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The image that was made.
    pub image: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// `sha256:` and the tree ID, which is that of the image that there was.
    pub tree_id: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Packs beside the image, where it has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<PacksReport>,
    /// Whether the image that there was has a signature, which is for its form only.
    pub signature_dropped: bool,
    /// How long it took.
    pub seconds: f64,
}

impl ConvertReport {
    pub(super) fn new(
        conversion: &Conversion,
        old: &SuperBlock,
        written: &Written,
        tables: &Tables,
        shared: Option<PacksReport>,
        time: Duration,
    ) -> Self {
        Self {
            version: 1,
            image: Shown(&conversion.output).to_string(),
            image_id: format!("sha256:{}", written.image_id()),
            tree_id: format!("sha256:{}", written.superblock.tree_id),
            image_bytes: written.superblock.layout.image_bytes,
            chunks: tables.chunks.len() as u64,
            stored_bytes: tables.chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum(),
            shared,
            signature_dropped: old.signature_bytes != 0,
            seconds: time.as_secs_f64(),
        }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let packs = self
            .shared
            .as_ref()
            .map_or(String::new(), |shared| format!(" and {} in packs", size(shared.live_bytes())));
        let _ = writeln!(text, "{}: {}{packs}, in {:.1} s", self.image, size(self.image_bytes), self.seconds);
        let _ = writeln!(text, "image ID  {}", self.image_id);
        let _ = writeln!(text, "tree ID   {}", self.tree_id);
        if self.signature_dropped {
            let _ = writeln!(
                text,
                "not signed: the signature that there was is for the other form; sign this one"
            );
        }
        text.push_str(&self.shared.as_ref().map_or_else(String::new, PacksReport::to_text));
        text
    }
}
