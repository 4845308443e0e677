// SPDX-License-Identifier: GPL-2.0-or-later

//! From a source to an image; from a container image to an image of each layer.

mod layers;

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tesserafs_image::sbom::KEY;

pub use self::layers::{build_layers, LayersReport};
use crate::config::{self, Config, SourcePath};
use crate::encode::{encode, Resources};
use crate::error::{path_of, Error, Result, Shown};
use crate::image::{Annotations, ImageFile, ImageWriter};
use crate::memory_budget;
use crate::output::{self, Output};
use crate::packs::{arrange, NewPack, Parents};
use crate::progress::{step, Progress};
use crate::report::{Report, SbomReport};
use crate::sign;
use crate::source::dir::DirSource;
use crate::source::holes::HoleLimit;
use crate::source::materials::Materials;
use crate::source::oci::Unpacked;
use crate::source::tar::{self, TarSource};
use crate::source::{self, Filter, LeftOut, Sbom, Source, Walked};

/// Builds an image.
pub fn build(config: &Config, progress: &dyn Progress) -> Result<Report> {
    config::check_profile(&config.profile)?;
    config::check_annotations(&config.annotations, config.sbom)?;
    if let SourcePath::Directory(path) = &config.source {
        check_directory(path)?;
    }
    let mut image = Image::begin(config, &config.image, config.force)?;
    match &config.source {
        SourcePath::Directory(path) => {
            let source = DirSource::open(path, image.filter())?;
            image.finish(&source, progress)
        }
        SourcePath::Tar(path) => {
            let reading = step(progress, || format!("reading the archive {}", Shown(path)));
            let source = TarSource::open(path, &image.spool(), image.filter())?;
            drop(reading);
            image.finish(&source, progress)
        }
        SourcePath::Oci(container) => {
            let unpacked = Unpacked::open(container, &image.spool(), progress)?;
            annotate(&mut image.annotations, unpacked.annotations(), config.sbom)?;
            let reading = step(progress, || "reading the layers".to_owned());
            let source = unpacked.tree(image.filter())?;
            drop(reading);
            image.finish(&source, progress)
        }
    }
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

/// Adds annotations of the source to those that are asked for.
fn annotate(annotations: &mut Annotations, others: &Annotations, sbom: bool) -> Result<()> {
    for (key, value) in others {
        if annotations.insert(key.clone(), value.clone()).is_some() {
            let key = Shown(path_of(key)).to_string();
            return Err(Error::Usage(format!("--annotate {key}: the container image has that itself")));
        }
    }
    config::check_annotations(annotations, sbom)
}

/// An image on its way.
struct Image<'a> {
    config: &'a Config,
    path: &'a Path,
    started: Instant,
    /// Nothing where nothing is written.
    output: Option<Output>,
    annotations: Annotations,
}

impl<'a> Image<'a> {
    fn begin(config: &'a Config, path: &'a Path, force: bool) -> Result<Self> {
        let started = Instant::now();
        let output = if config.dry_run { None } else { Some(Output::create(path, force)?) };
        Ok(Self { config, path, started, output, annotations: config.annotations.clone() })
    }

    /// The filter of a source that may hold the image itself.
    fn filter(&self) -> Filter {
        let mut filter = self.config.filter.clone();
        filter.image = match &self.output {
            Some(output) => output.identities(),
            None => output::identity(self.path).into_iter().collect(),
        };
        filter.pack_dir = self.config.shared.as_ref().and_then(|form| output::identity(&form.dir));
        filter
    }

    /// The directory for what must be unpacked.
    fn spool(&self) -> PathBuf {
        self.output.as_ref().map_or_else(env::temp_dir, |output| output.directory().to_owned())
    }

    /// Builds the image, and gives it its name.
    fn finish<S: Source>(self, source: &S, progress: &dyn Progress) -> Result<Report>
    where
        S::File: Clone,
    {
        let encoded = self.encode(source, progress)?;
        self.name(encoded, progress)
    }

    /// Gives the encoded image its name, and its pack before.
    fn name(self, (mut report, pack): (Report, Option<NewPack>), progress: &dyn Progress) -> Result<Report> {
        if let Some(output) = self.output {
            let _step = step(progress, || format!("writing {}", Shown(self.path)));
            match pack {
                Some(pack) => pack.commit_before(output)?,
                None => output.commit()?,
            }
        }
        report.threads = self.config.threads.get() as u64;
        report.seconds = self.started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn encode<S: Source>(&self, source: &S, progress: &dyn Progress) -> Result<(Report, Option<NewPack>)>
    where
        S::File: Clone,
    {
        let Self { config, path, annotations, .. } = self;
        let threads = config.threads.get();
        let resources = Resources { threads, budget: memory_budget(threads) };
        let file = self.output.as_ref().map(Output::file).transpose()?;
        let sink = self.output.as_ref().map(Output::file).transpose()?;
        let mut writer = ImageWriter::new(sink.map(|file| ImageFile::new(file, path)));
        let annotation_bytes: usize =
            annotations.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        let source = &Materials::new(source, config.sbom);
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
        let mut annotations = Cow::Borrowed(annotations);
        let sbom = walked.sbom.take().map(|Sbom { document, notes }| {
            let report = SbomReport { packages: document.packages, bytes: document.json.len() as u64, notes };
            annotations.to_mut().insert(KEY.to_vec(), document.json);
            report
        });
        config::check_annotations(&annotations, false)?;
        let mut written = writer.finish(&walked.tree, &map, &config.profile, &annotations)?;
        drop(tables);
        if let (Some(signer), Some(file)) = (&config.signer, &file) {
            let signature = signer.sign(&written.signed_prefix)?;
            sign::append_signature(file, path, &written.superblock, &signature)?;
            written.superblock.signature_bytes = signature.len() as u32;
        }
        if let Some(path) = &config.signed_data {
            sign::emit_signed_data(&written.signed_prefix, path)?;
        }
        let mut report = Report::new(path, &written, &walked.tree, &map);
        report.shared = packs;
        report.sbom = sbom;
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
        report.unmatched_excludes = unmatched_excludes(config);
        Ok((report, pack))
    }
}

/// The patterns of `--exclude` that match nothing, as they are shown.
fn unmatched_excludes(config: &Config) -> Vec<String> {
    let unmatched = config.filter.exclude.unmatched();
    unmatched.iter().map(|text| Shown(text.as_ref()).to_string()).collect()
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
