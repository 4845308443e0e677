// SPDX-License-Identifier: GPL-2.0-or-later

//! A difference: its first byte, and the freedom that whoever made the image took.

use serde::{Serialize, Serializer};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::superblock::Layout;
use tesserafs_format::{ChunkIndex, Place};
use tesserafs_image::context::read;
use tesserafs_image::{Context, Error};

/// A choice that readers leave open, and builders make in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// Where a content is cut.
    CutPoint,
    /// Which zeros are a hole.
    Hole,
    /// Which group a small content is in, and where.
    Group,
    /// A part of a chunk for the whole of another.
    ChunkPart,
    /// Raw bytes that are stored twice.
    DuplicateChunk,
    /// The order of chunks.
    ChunkOrder,
    /// Whether a chunk is filtered.
    Filter,
    /// Raw bytes in place of a shorter frame.
    Plain,
    /// The bytes of a frame.
    Frame,
    /// Anything else.
    Other,
}

impl Freedom {
    /// The word in the machine report.
    pub const fn name(self) -> &'static str {
        match self {
            Freedom::CutPoint => "cut-point",
            Freedom::Hole => "hole",
            Freedom::Group => "group",
            Freedom::ChunkPart => "chunk-part",
            Freedom::DuplicateChunk => "duplicate-chunk",
            Freedom::ChunkOrder => "chunk-order",
            Freedom::Filter => "filter",
            Freedom::Plain => "plain",
            Freedom::Frame => "frame",
            Freedom::Other => "other",
        }
    }

    /// The freedom in words, with the section of `FORMAT.md` that takes it away.
    pub const fn text(self) -> &'static str {
        match self {
            Freedom::CutPoint => "cut elsewhere (FORMAT.md 5.1, 5.3)",
            Freedom::Hole => "holes elsewhere (FORMAT.md 5.1)",
            Freedom::Group => "grouped otherwise (FORMAT.md 5.1)",
            Freedom::ChunkPart => "a part of a chunk in place of a chunk (FORMAT.md 5.1)",
            Freedom::DuplicateChunk => "raw bytes that are stored twice (FORMAT.md 5.1)",
            Freedom::ChunkOrder => "chunks in another order (FORMAT.md 5.1)",
            Freedom::Filter => "another choice of the filter (FORMAT.md 5.5)",
            Freedom::Plain => "stored plain, though a frame is shorter (FORMAT.md 5.4)",
            Freedom::Frame => "another frame of the same bytes (FORMAT.md 5.4)",
            Freedom::Other => "no freedom that has a name",
        }
    }
}

impl Serialize for Freedom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Where an image differs first from what a builder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The first byte of the image that is another one.
    pub byte: u64,
    /// The region that it is in, as in the list of regions: in the image, or, if that is the earlier one, as a builder makes it.
    pub region: &'static str,
    /// The freedom that was taken.
    pub freedom: Freedom,
}

/// The first byte that differs.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstByte {
    pub(super) offset: u64,
    /// The byte of the image; none behind its end.
    pub(super) found: Option<u8>,
    /// The byte that a builder writes.
    pub(super) expected: Option<u8>,
}

impl FirstByte {
    /// The region that it is in: in the image, or, if that is the earlier one, as a builder makes it.
    pub(super) fn region(&self, image: &Layout, built: &Layout) -> &'static str {
        match self.offset {
            at if at < BLOCK_BYTES => "superblock",
            at if at < image.tree_offset.max(built.tree_offset) => "pack",
            at if at < image.map_offset.max(built.map_offset) => "tree",
            at if at < image.hash_offset.max(built.hash_offset) => "map",
            _ => "hash",
        }
    }

    /// Which byte of which chunk it is.
    pub(super) fn chunk(&self, context: &Context<'_>) -> Result<Option<String>, Error> {
        let Some(at) = self.offset.checked_sub(BLOCK_BYTES) else { return Ok(None) };
        let chunks = u32::try_from(context.image.sb.layout.chunks.records()).unwrap_or(u32::MAX);
        // Chunks lie in the order of their indices.
        let (mut low, mut high) = (0, chunks);
        while low < high {
            let middle = low.midpoint(high);
            if read(context.image.chunk(ChunkIndex(middle)))?.offset <= at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(index) = low.checked_sub(1) else { return Ok(None) };
        let chunk = read(context.image.chunk(ChunkIndex(index)))?;
        let within = at - chunk.offset;
        Ok((within < chunk.stored_len.into()).then(|| format!("byte {within} of chunk {index}")))
    }
}

/// Why there is a difference.
#[derive(Debug)]
pub(super) struct Explanation {
    pub(super) freedom: Freedom,
    /// The content or chunk that it is about.
    pub(super) about: Option<Place>,
    pub(super) found: String,
    pub(super) expected: String,
    pub(super) more: Vec<String>,
}

impl Explanation {
    pub(super) fn new(freedom: Freedom) -> Self {
        let (found, expected) = (String::new(), String::new());
        Self { freedom, about: None, found, expected, more: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_takes_each_freedom_away_in_the_section_that_is_named() {
        let spec = include_str!("../../../format/FORMAT.md");
        let (_, section) = spec.split_once("\n### 9.1 Canonical images\n").expect("section 9.1");
        for freedom in [
            Freedom::CutPoint,
            Freedom::Hole,
            Freedom::Group,
            Freedom::ChunkPart,
            Freedom::DuplicateChunk,
            Freedom::ChunkOrder,
            Freedom::Filter,
            Freedom::Plain,
            Freedom::Frame,
        ] {
            let (_, sections) = freedom.text().split_once("(FORMAT.md ").expect("a section");
            assert!(section.contains(&format!("| {} |", sections.trim_end_matches(')'))), "{freedom:?}");
        }
    }
}
