// SPDX-License-Identifier: GPL-2.0

//! A whole check: superblock, signature, Merkle tree, tree, map, chunks; each step needs those before it.

use std::path::PathBuf;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Digest, Image, PackIndex, SuperBlock};

use crate::check_signature::Certificate;
use crate::error::{Broken, Error};
use crate::finding::{Finding, Findings};
use crate::metadata::VerifiedMetadata;
use crate::parallel::Cancel;
use crate::progress::Progress;
use crate::report::{Counts, Region, Report};
use crate::source::Source;
use crate::walk::Tree;
use crate::{check_chunk, check_map, check_signature, check_superblock, check_tree, walk};

/// The options of a check.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads to work on, 1 at least.
    pub threads: usize,
    /// Read no chunk.
    pub metadata_only: bool,
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
        Self { threads, metadata_only: false, trusted: Vec::new(), pinned: None, pack_dir: None }
    }
}

/// The context that every step of a check gets.
pub(crate) struct Context<'a> {
    pub(crate) image: Image<'a, VerifiedMetadata<'a>>,
    pub(crate) metadata: &'a VerifiedMetadata<'a>,
    pub(crate) findings: &'a Findings,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancel: &'a Cancel,
    pub(crate) threads: usize,
    pub(crate) pack_dir: PathBuf,
}

impl Context<'_> {
    /// Turns a broken rule into a finding and `None`; an error into one.
    pub(crate) fn note<T>(&self, result: Result<T, Broken>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Broken::Rule(error)) => {
                if !VerifiedMetadata::is_reported(&error) {
                    self.findings.add(error);
                }
                Ok(None)
            }
            Err(Broken::Stop(error)) => Err(error),
        }
    }

    /// In words, what metadata block `number` holds.
    pub(crate) fn block_name(&self, number: u64) -> String {
        let layout = &self.image.sb.layout;
        let start = self.metadata.offset(number);
        let end = start.saturating_add(BLOCK_BYTES);
        if start >= layout.hash_offset {
            return "the block is one of the hash region".to_owned();
        }
        let tables = [
            (layout.attributes, "attributes"),
            (layout.inodes, "inodes"),
            (layout.dirents, "entries"),
            (layout.names, "names"),
            (layout.targets, "symlink targets"),
            (layout.xattr_sets, "xattr sets"),
            (layout.xattr_entries, "xattr entries"),
            (layout.content_digests, "content digests"),
            (layout.packs, "packs"),
            (layout.chunks, "chunks"),
            (layout.chunk_digests, "chunk digests"),
            (layout.content_map, "content map"),
            (layout.extents, "extents"),
            (layout.raw_digests, "raw digests"),
            (layout.annotations, "annotations"),
            (layout.annotation_data, "annotation data"),
        ];
        let names: Vec<&str> = tables
            .iter()
            .filter(|(table, _)| table.offset() < end && table.end() > start)
            .map(|(_, name)| *name)
            .collect();
        format!("the block holds: {}", if names.is_empty() { "padding".to_owned() } else { names.join(", ") })
    }
}

/// Checks the image in `source`. The report says what is wrong with it, and why the check ended early, if it
/// did.
pub fn check(source: &Source, options: &Options, progress: &dyn Progress, cancel: &Cancel) -> Report {
    check_then(source, options, progress, cancel, |_, _| Ok(()))
}

/// [`check`], and then `then` with the tree where nothing is wrong with it.
pub(crate) fn check_then(
    source: &Source,
    options: &Options,
    progress: &dyn Progress,
    cancel: &Cancel,
    then: impl FnOnce(&Context<'_>, &Tree) -> Result<(), Error>,
) -> Report {
    let findings = Findings::default();
    let mut report = Report::new(source.path());
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
    report.counts = Some(Counts::of(sb));
    report.signature_is_trusted =
        check_signature::check(source, &head.block, sb, &options.trusted, findings)?;

    let metadata = VerifiedMetadata::new(source, sb);
    let image = Image::new(sb, &metadata);
    let beside = || source.path().parent().map(PathBuf::from).unwrap_or_default();
    let pack_dir = options.pack_dir.clone().unwrap_or_else(beside);
    let threads = options.threads.max(1);
    let context = Context { image, metadata: &metadata, findings, progress, cancel, threads, pack_dir };
    report.regions = regions(&context, sb);
    check_tree::check(&context)?;
    let mut tree = walk::walk(&context)?;
    let map = check_map::check(&context, &tree)?;
    report.file_bytes = tree.file_bytes();
    let data = if options.metadata_only { Ok(()) } else { check_chunk::check(&context, &tree, &map) };
    let then = data.and_then(|()| if findings.count() == 0 { then(&context, &tree) } else { Ok(()) });
    findings.for_each(|finding| walk::name_file(&context, &mut tree, finding))?;
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

/// A finding's file, where it has one, is found after the check: see [`walk::name_file`].
impl Findings {
    fn for_each(&self, mut name: impl FnMut(&mut Finding) -> Result<(), Error>) -> Result<(), Error> {
        self.with_kept(|kept| kept.iter_mut().try_for_each(&mut name))
    }
}
