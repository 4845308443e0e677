// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a composition, for people and for machines.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tesserafs_image::text::size;

use super::layers::Layer;
use super::Composition;
use crate::encode::Map;
use crate::error::Shown;
use crate::image::Written;
use crate::packs::PackReport;
use crate::report::to_json;
use crate::tree::Tree;

/// The image that a composition made.
#[derive(Clone, Debug, Serialize)]
pub struct ComposeReport {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The image that was made.
    pub image: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// `sha256:` and the tree ID.
    pub tree_id: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of all files; of a hard-linked one once.
    pub raw_bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// The packs that it names, those of the lowest image first.
    pub packs: Vec<PackReport>,
    /// The images with a signature, which is not for this one.
    pub signed: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl ComposeReport {
    pub(super) fn new(
        composition: &Composition,
        layers: &[Layer<'_>],
        written: &Written,
        tree: &Tree,
        map: &Map,
        packs: Vec<PackReport>,
        time: Duration,
    ) -> Self {
        let signed = layers.iter().filter(|layer| layer.is_signed());
        Self {
            version: 1,
            image: Shown(&composition.output).to_string(),
            image_id: format!("sha256:{}", written.image_id()),
            tree_id: format!("sha256:{}", written.superblock.tree_id),
            image_bytes: written.superblock.layout.image_bytes,
            inodes: tree.nodes.len() as u64,
            raw_bytes: map.figures.raw_bytes,
            chunks: map.chunks.len() as u64,
            stored_bytes: map.figures.stored_bytes,
            packs,
            signed: signed.map(|layer| Shown(layer.path).to_string()).collect(),
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
        let _ = writeln!(
            text,
            "{}: {} and {} in packs, {} inodes with {} of files, in {:.2} s",
            self.image,
            size(self.image_bytes),
            size(self.stored_bytes),
            self.inodes,
            size(self.raw_bytes),
            self.seconds
        );
        let _ = writeln!(text, "image ID  {}", self.image_id);
        let _ = writeln!(text, "tree ID   {}", self.tree_id);
        for PackReport { digest, bytes, live_bytes, .. } in &self.packs {
            let _ = writeln!(text, "pack {digest}: {} of {} used", size(*live_bytes), size(*bytes));
        }
        if !self.signed.is_empty() {
            let _ = writeln!(
                text,
                "not signed: the signature of {} is not for this image",
                self.signed.join(", ")
            );
        }
        text
    }
}
