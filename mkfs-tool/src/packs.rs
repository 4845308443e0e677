// SPDX-License-Identifier: GPL-2.0-or-later

//! Packs beside the image (`FORMAT.md` 5.7): the shared form.
//!
//! - [`Parents`]: the chunks that other images have, for the encoder, which neither compresses nor writes them again;
//! - [`NewPack`]: the file that gets all others;
//! - [`arrange`]: which packs of the parents stay, and the tables in the order of this form.

mod arrange;
mod new_pack;
mod parents;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use tesserafs_image::text::size;

pub use self::arrange::arrange;
pub(crate) use self::arrange::sort;
pub use self::new_pack::NewPack;
pub use self::parents::{KnownChunk, ParentPack, Parents};

/// The shared form, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedForm {
    /// Where the packs are, and the new one will be.
    pub dir: PathBuf,
    /// Images whose chunks may be used, the first one first.
    pub parents: Vec<PathBuf>,
    /// Whether everything goes into one new pack.
    pub rebase: bool,
}

/// A pack of an image, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackReport {
    /// The digest, which is the name of the file.
    pub digest: String,
    /// All bytes of it.
    pub bytes: u64,
    /// Those of the chunks that this image has in it.
    pub live_bytes: u64,
    /// Whether this build wrote it.
    pub new: bool,
}

/// The packs of an image in the shared form, for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PacksReport {
    /// The packs beside the image, the oldest first.
    pub packs: Vec<PackReport>,
    /// Stored bytes that were copied from packs of parents into the new one.
    pub absorbed_bytes: u64,
    /// The parents.
    pub parents: Vec<ParentReport>,
}

impl PacksReport {
    /// Stored bytes that the image has in its packs.
    pub fn live_bytes(&self) -> u64 {
        self.packs.iter().map(|pack| pack.live_bytes).sum()
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for ParentReport { image, chunks, stored_bytes, refused } in &self.parents {
            let _ = match refused {
                Some(why) => writeln!(text, "nothing taken from {image}: {why}"),
                None => writeln!(text, "taken from {image}: {chunks} chunks ({})", size(*stored_bytes)),
            };
        }
        for PackReport { digest, bytes, live_bytes, new } in &self.packs {
            let what = if *new { "new" } else { "kept" };
            let _ = writeln!(text, "pack {digest}: {what}, {} of {} used", size(*live_bytes), size(*bytes));
        }
        if self.absorbed_bytes > 0 {
            let _ =
                writeln!(text, "{} of the new pack come from packs of parents", size(self.absorbed_bytes));
        }
        text
    }
}

/// A parent, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParentReport {
    /// The image.
    pub image: String,
    /// Chunks of it that this image has, too.
    pub chunks: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Why none can be used, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
