// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a build, for people and for machines.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tesserafs_format::FileType;
use tesserafs_image::profile::ProfileReport;
use tesserafs_image::text::size;

use crate::encode::{Figures, Map};
use crate::error::Shown;
use crate::image::Written;
use crate::packs::PacksReport;
use crate::sign::signed_bytes;
use crate::source::{ArchiveNotes, LeftOut};
use crate::tree::Tree;

/// The version of the JSON report.
pub const VERSION: u32 = 1;

/// Inodes by type, and names.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// All inodes.
    pub inodes: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Named pipes.
    pub fifos: u64,
    /// Sockets.
    pub sockets: u64,
    /// Whiteouts.
    pub whiteouts: u64,
    /// Names in directories.
    pub names: u64,
    /// Names beyond the first of an inode.
    pub hard_links: u64,
    /// Distinct sets of xattrs.
    pub xattr_sets: u64,
}

/// The bill of materials of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SbomReport {
    /// Packages in it.
    pub packages: u64,
    /// Bytes of the document.
    pub bytes: u64,
    /// Databases in the tree that could not be read, in sentences.
    pub notes: Vec<String>,
}

/// The report of a build.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this report: higher where a field went away or means something else. README.md tells of each field.
    pub version: u32,
    /// The image.
    pub image: String,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// `sha256:` and the tree ID.
    pub tree_id: String,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Whether the image has a signature.
    pub signed: bool,
    /// Bytes of the image with its signature.
    pub image_bytes: u64,
    /// Bytes of the tree and map regions and their hashes.
    pub metadata_bytes: u64,
    /// Inodes by type.
    pub counts: Counts,
    /// Distinct contents.
    pub contents: u64,
    /// Chunks, groups among them.
    pub chunks: u64,
    /// Extents.
    pub extents: u64,
    /// Bytes and duplicates.
    #[serde(flatten)]
    pub figures: Figures,
    /// Packs beside the image, where it has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<PacksReport>,
    /// The parts of the source that are not in the image.
    pub left_out: LeftOut,
    /// The bill of materials, where one was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<SbomReport>,
    /// Patterns of `--exclude` that match nothing.
    pub unmatched_excludes: Vec<String>,
    /// Of an archive: how it was read where it leaves that open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveNotes>,
    /// How chunks were cut and compressed.
    pub profile: ProfileReport,
    /// Threads that read and compressed.
    pub threads: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// The report of a build.
    pub fn new(image: &Path, written: &Written, tree: &Tree, map: &Map) -> Self {
        let superblock = &written.superblock;
        Self {
            version: VERSION,
            image: Shown(image).to_string(),
            image_id: format!("sha256:{}", written.image_id()),
            tree_id: format!("sha256:{}", superblock.tree_id),
            dry_run: false,
            signed: superblock.signature_bytes != 0,
            image_bytes: signed_bytes(superblock, superblock.signature_bytes as usize),
            metadata_bytes: superblock.layout.image_bytes - superblock.layout.tree_offset,
            counts: counts(tree),
            contents: map.content_digests.len() as u64,
            chunks: map.chunks.len() as u64,
            extents: map.extents.len() as u64,
            figures: map.figures,
            shared: None,
            left_out: LeftOut::default(),
            sbom: None,
            unmatched_excludes: Vec::new(),
            archive: None,
            profile: superblock.profile.into(),
            threads: 0,
            seconds: 0.0,
        }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// As a few lines for people.
    pub fn to_text(&self) -> String {
        let Self { counts, figures, left_out, .. } = self;
        let mut text = String::new();
        // Of a tiny tree the image is mostly structure, and the ratio says nothing.
        let packs = self.shared.as_ref().map_or(0, |shared| shared.live_bytes());
        let bytes = self.image_bytes + packs;
        let ratio = if bytes < figures.raw_bytes {
            format!(", {:.1} %", 100.0 * bytes as f64 / figures.raw_bytes as f64)
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "{}: {}{} from {} of files{ratio}, in {:.1} s{}",
            self.image,
            size(self.image_bytes),
            if packs > 0 { format!(" and {} in packs", size(packs)) } else { String::new() },
            size(figures.raw_bytes),
            self.seconds,
            if self.dry_run {
                ", not written"
            } else if self.signed {
                ", signed"
            } else {
                ""
            }
        );
        let _ = writeln!(text, "image ID  {}", self.image_id);
        let _ = writeln!(text, "tree ID   {}", self.tree_id);
        let others = counts.fifos + counts.sockets + counts.whiteouts;
        let _ = writeln!(
            text,
            "{} files, {} directories, {} symlinks, {others} others, {} more hard links",
            counts.files, counts.directories, counts.symlinks, counts.hard_links
        );
        let _ = writeln!(
            text,
            "{} chunks ({} groups of {} small files); not stored again: {} files ({}), {} chunks ({}); holes {}{}",
            self.chunks,
            figures.groups,
            figures.grouped_contents,
            figures.duplicate_files,
            size(figures.duplicate_bytes),
            figures.duplicate_chunks,
            size(figures.duplicate_chunk_bytes),
            size(figures.hole_bytes),
            self.profile.named("; ")
        );
        text.push_str(&self.shared.as_ref().map_or_else(String::new, PacksReport::to_text));
        if let Some(SbomReport { packages, bytes, .. }) = &self.sbom {
            let _ = writeln!(text, "bill of materials of {packages} packages ({})", size(*bytes));
        }
        text.push_str(&left_out.to_text(true));
        text.push_str(&self.archive.as_ref().map_or_else(String::new, ArchiveNotes::to_text));
        text
    }
}

fn counts(tree: &Tree) -> Counts {
    let mut counts = Counts {
        inodes: tree.nodes.len() as u64,
        xattr_sets: tree.xattr_sets.len() as u64,
        ..Counts::default()
    };
    for node in &tree.nodes {
        *match node.file_type {
            FileType::Regular => &mut counts.files,
            FileType::Directory => &mut counts.directories,
            FileType::Symlink => &mut counts.symlinks,
            FileType::Fifo => &mut counts.fifos,
            FileType::Socket => &mut counts.sockets,
            FileType::Whiteout => &mut counts.whiteouts,
        } += 1;
    }
    // Each directory has a fence among the entries; every inode but the root has a first name.
    counts.names = tree.entries.len() as u64 - counts.directories;
    counts.hard_links = counts.names + 1 - counts.inodes;
    counts
}

/// A report for machines, with a newline.
pub(crate) fn to_json(report: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}
