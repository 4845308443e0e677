// SPDX-License-Identifier: GPL-2.0-or-later

//! A whole check: superblock, signature, Merkle tree, tree, map, chunks, and what a builder makes; each step needs those before it.

use std::path::PathBuf;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Digest, PackIndex, SuperBlock};

use crate::check_signature::Certificate;
use crate::progress::Progress;
use crate::report::{Counts, Region, Report};
use crate::{canonical, check_chunk, check_map, check_signature, check_superblock, check_tree};
use tesserafs_image::error::Error;
use tesserafs_image::finding::Findings;
use tesserafs_image::metadata::VerifiedMetadata;
use tesserafs_image::parallel::Cancel;
use tesserafs_image::source::Source;
use tesserafs_image::walk::{self, Tree};
use tesserafs_image::Context;

/// The options of a check.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads to work on, 1 at least.
    pub threads: usize,
    /// Read no chunk.
    pub metadata_only: bool,
    /// Compare the image, where nothing is wrong with it, with what a builder makes; not if no chunk is read.
    pub canonical: bool,
    /// Signers to trust; a signature is asked for when there is one.
    pub trusted: Vec<Certificate>,
    /// The image ID that the image must have.
    pub pinned: Option<Digest>,
    /// Where packs other than the embedded one are; beside the image if not said.
    pub pack_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads,
            metadata_only: false,
            canonical: false,
            trusted: Vec::new(),
            pinned: None,
            pack_dir: None,
        }
    }
}

/// Checks the image in `source`. The report says what is wrong with it, and why the check ended early, if it
/// did.
pub fn check(source: &Source, options: &Options, progress: &dyn Progress, cancel: &Cancel) -> Report {
    check_then(source, options, progress, cancel, |_, _| Ok(()))
}

/// [`check`], and then `then` with the tree where nothing is wrong with it, but perhaps with xattrs of some files.
pub(crate) fn check_then(
    source: &Source,
    options: &Options,
    progress: &dyn Progress,
    cancel: &Cancel,
    then: impl FnOnce(&Context<'_>, &Tree) -> Result<(), Error>,
) -> Report {
    let findings = Findings::default();
    let mut report = Report::new(source.path());
    report.is_canonical_asked = options.canonical;
    let result = run(source, options, progress, cancel, &findings, &mut report, then);
    progress.end();
    report.finish(findings, result.err())
}

fn run(
    source: &Source,
    options: &Options,
    progress: &dyn Progress,
    cancel: &Cancel,
    findings: &Findings,
    report: &mut Report,
    then: impl FnOnce(&Context<'_>, &Tree) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(head) = check_superblock::check(source, options.pinned.as_ref(), findings)? else {
        return Ok(());
    };
    let Some(sb) = &head.sb else { return Ok(()) };
    report.image_id = Some(head.image_id);
    report.tree_id = Some(sb.tree_id);
    report.signed = sb.signature_bytes != 0;
    report.profile = Some(sb.profile);
    report.counts = Some(Counts::of(sb));
    report.signature_is_trusted =
        check_signature::check(source, &head.block, sb, &options.trusted, findings)?;

    let metadata = VerifiedMetadata::new(source, sb);
    let mut context = Context::new(&metadata, findings, progress, cancel);
    context.threads = options.threads.max(1);
    if let Some(dir) = &options.pack_dir {
        context.pack_dir.clone_from(dir);
    }
    report.regions = regions(&context, sb);
    check_tree::check(&context)?;
    let mut tree = walk::walk(&context)?;
    let map = check_map::check(&context, &tree)?;
    report.file_bytes = tree.file_bytes();
    let data = if options.metadata_only { Ok(()) } else { check_chunk::check(&context, &tree, &map) };
    let compared = data.and_then(|()| {
        if options.canonical && !options.metadata_only && findings.count() == 0 {
            report.difference = canonical::check(&context, &mut tree)?;
            report.canonical = Some(report.difference.is_none());
        }
        Ok(())
    });
    let then = compared.and_then(|()| if findings.spare_the_tree() { then(&context, &tree) } else { Ok(()) });
    findings.with_kept(|kept| {
        // Found after the check: a file that a finding is about.
        kept.iter_mut().try_for_each(|finding| walk::name_file(&context, &mut tree, finding))
    })?;
    then
}

/// Where the parts of the image are; pack and signature without their padding.
fn regions(context: &Context<'_>, sb: &SuperBlock) -> Vec<Region> {
    let layout = &sb.layout;
    let pack = match context.image.pack(PackIndex(0)) {
        Ok(pack) => pack.bytes,
        Err(_) => layout.tree_offset - BLOCK_BYTES,
    };
    let region = |name, offset, length| Region { name, offset, length };
    vec![
        region("superblock", 0, BLOCK_BYTES),
        region("pack", BLOCK_BYTES, pack),
        region("tree", layout.tree_offset, layout.map_offset - layout.tree_offset),
        region("map", layout.map_offset, layout.hash_offset - layout.map_offset),
        region("hash", layout.hash_offset, layout.image_bytes - layout.hash_offset),
        region("signature", layout.image_bytes, sb.signature_bytes.into()),
    ]
}
