// SPDX-License-Identifier: GPL-2.0-or-later

//! Builds tesserafs images from directories and tar archives.
//!
//! `format/FORMAT.md` is the specification of the result: the same tree gives the same bytes, whatever the
//! order of directories on disk, the number of threads, the machine, the clock, the umask or the path that it
//! was built at.
//!
//! Modules, in the order in which data passes them:
//!
//! - [`cli`] reads the command line, [`config`] is what it asks for, validated;
//! - [`source`] walks a directory or an archive, [`tree`] numbers what it finds;
//! - [`chunker`] says where contents are cut, [`mod@encode`] runs that, dedup and compression on all processors;
//! - [`packs`] has the chunks of other images, and those that go beside this one;
//! - [`convert`] makes one form of the other, [`compose`] one image of several, [`bundle`] one of an older one, [`repair`] a whole one of a
//!   damaged one;
//! - [`layout`] places the tables, [`image`] writes them, [`sign`] signs;
//! - [`output`] is the file, [`report`] and [`progress`] tell of it, [`error`] and [`exit_code`] of failure.
//!
//! # Memory
//!
//! A build holds at most twice [`memory_budget`] of file data, whatever the size of the files: windows of files that are being
//! cut, and compressed chunks that wait for their turn. Beyond that it grows with the tables of the image: about 200
//! bytes for an inode with a content of its own (320 from an archive, of which the index stays in memory; measured with
//! 200,000 files of a few bytes, all that the program takes divided by them), and about 250 bytes for a chunk, which is some 2 MB
//! for 1 GB of distinct data. `tests/memory.rs` holds it to that.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod chunker;
pub mod cli;
pub mod compose;
pub mod config;
pub mod convert;
pub mod encode;
pub mod error;
pub mod exit_code;
pub mod file_contexts;
pub mod image;
pub mod layout;
pub mod output;
pub mod packs;
pub mod progress;
pub mod repair;
pub mod report;
pub mod sign;
pub mod source;
pub mod tree;
pub mod xattr;

use std::env;
use std::path::Path;
use std::time::Instant;

use crate::config::{Config, SourcePath};
use crate::encode::{encode, Resources};
use crate::error::{path_of, Error, Result, Shown};
use crate::image::{ImageFile, ImageWriter};
use crate::output::Output;
use crate::packs::{arrange, NewPack, Parents};
use crate::progress::{step, Progress};
use crate::report::Report;
use crate::source::dir::DirSource;
use crate::source::holes::HoleLimit;
use crate::source::tar::{self, TarSource};
use crate::source::{LeftOut, Source, Walked};

/// Bytes of file data that `threads` threads have in flight.
pub const fn memory_budget(threads: usize) -> u64 {
    (48 << 20) + ((threads as u64) << 23)
}

/// The name of the program, as it is installed and as `mkfs -t tesserafs` looks for it.
pub const PROGRAM: &str = "mkfs.tesserafs";

/// Builds an image.
pub fn build(config: &Config, progress: &dyn Progress) -> Result<Report> {
    let started = Instant::now();
    config::check_profile(&config.profile)?;
    config::check_annotations(&config.annotations)?;
    if let SourcePath::Directory(path) = &config.source {
        check_directory(path)?;
    }
    let output = if config.dry_run { None } else { Some(Output::create(&config.image, config.force)?) };
    let mut filter = config.filter.clone();
    filter.image = match &output {
        Some(output) => output.identities(),
        None => output::identity(&config.image).into_iter().collect(),
    };
    filter.pack_dir = config.shared.as_ref().and_then(|form| output::identity(&form.dir));
    let (mut report, pack) = match &config.source {
        SourcePath::Directory(path) => {
            build_from(&DirSource::open(path, filter)?, config, output.as_ref(), progress)?
        }
        SourcePath::Tar(path) => {
            let temporary = env::temp_dir();
            let spool = output.as_ref().map_or(&*temporary, Output::directory);
            let reading = step(progress, || format!("reading the archive {}", Shown(path)));
            let source = TarSource::open(path, spool, filter)?;
            drop(reading);
            build_from(&source, config, output.as_ref(), progress)?
        }
    };
    if let Some(output) = output {
        let _step = step(progress, || format!("writing {}", Shown(&config.image)));
        match pack {
            Some(pack) => pack.commit_before(output)?,
            None => output.commit()?,
        }
    }
    report.threads = config.threads.get() as u64;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Says of a source that is no directory what it is.
fn check_directory(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    Err(Error::unsupported(
        path,
        if tar::is_archive(path) {
            "is an archive, no directory; use mkfs.tesserafs --tar ARCHIVE IMAGE"
        } else {
            "is a file; SOURCE must be a directory, and an archive is taken with --tar ARCHIVE"
        },
    ))
}

fn build_from<S: Source>(
    source: &S,
    config: &Config,
    output: Option<&Output>,
    progress: &dyn Progress,
) -> Result<(Report, Option<NewPack>)> {
    let threads = config.threads.get();
    let resources = Resources { threads, budget: memory_budget(threads) };
    let file = output.map(Output::file).transpose()?;
    let sink = output.map(Output::file).transpose()?.map(|file| ImageFile::new(file, &config.image));
    let mut writer = ImageWriter::new(sink);
    let annotation_bytes: usize =
        config.annotations.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
    let source = &HoleLimit::new(source, config.profile.hole_min, annotation_bytes as u64);
    let (mut walked, map, shared) = match &config.shared {
        None => {
            let none = Parents::default();
            let (walked, map) = encode(source, &config.profile, resources, &none, &mut writer, progress)?;
            (walked, map, None)
        }
        Some(form) => {
            let mut parents = Parents::open(form, &config.profile)?;
            let mut pack = NewPack::create(&form.dir, config.dry_run)?;
            let encoded = encode(source, &config.profile, resources, &parents, &mut pack, progress)?;
            let (walked, mut map) = encoded;
            let report = arrange(&mut map, &mut parents, form.rebase, &mut pack)?;
            (walked, map, Some((report, pack)))
        }
    };
    let (packs, pack) = shared.unzip();
    let tables = step(progress, || "writing the tables".to_owned());
    let mut written = writer.finish(&walked.tree, &map, &config.profile, &config.annotations)?;
    drop(tables);
    if let (Some(signer), Some(file)) = (&config.signer, &file) {
        let signature = signer.sign(&written.signed_prefix)?;
        sign::append_signature(file, &config.image, &written.superblock, &signature)?;
        written.superblock.signature_bytes = signature.len() as u32;
    }
    if let Some(path) = &config.signed_data {
        sign::emit_signed_data(&written.signed_prefix, path)?;
    }
    let mut report = Report::new(&config.image, &written, &walked.tree, &map);
    report.shared = packs;
    // The bytes of a copy are those of its original, which were read.
    for (copy, _) in &walked.tree.copies {
        let size = walked.tree.nodes[*copy as usize - 1].size;
        report.figures.raw_bytes += size;
        report.figures.duplicate_files += 1;
        report.figures.duplicate_bytes += size;
    }
    report.dry_run = config.dry_run;
    report.archive = walked.archive.take();
    report.left_out = left_out(walked);
    let unmatched = config.filter.exclude.unmatched();
    report.unmatched_excludes = unmatched.iter().map(|text| Shown(text.as_ref()).to_string()).collect();
    Ok((report, pack))
}

/// The account of a walk, with what the tree left out.
fn left_out(walked: Walked) -> LeftOut {
    let Walked { tree, mut left_out, .. } = walked;
    for refused in &tree.refused_xattrs {
        left_out.xattrs += 1;
        let what = format!("xattr {}: {}", Shown(path_of(&refused.xattr)), refused.why);
        left_out.names.push(|| source::join(&tree.path(refused.dir), &refused.file), what);
    }
    left_out
}
