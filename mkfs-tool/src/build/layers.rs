// SPDX-License-Identifier: GPL-2.0-or-later

//! An image of each layer of a container image, for `tesserafs compose`.
//!
//! The name of an image is the chain ID of its layer, which stands for it and all below it, so a directory has a layer once whatever
//! images are on it. The uppermost one has the documents of the container image, and the name of that.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use serde::Serialize;
use tesserafs_image::{superblock, Source as ImageSource};

use super::{annotate, unmatched_excludes, Image};
use crate::config::{self, Config, SourcePath};
use crate::convert::broken;
use crate::error::{Error, Result, Shown};
use crate::output::is_stdout;
use crate::packs::NewPack;
use crate::progress::Progress;
use crate::report::Report;
use crate::source::oci::{OciImage, Unpacked};
use crate::source::tar::TarSource;

/// The report of layers.
#[derive(Clone, Debug, Serialize)]
pub struct LayersReport {
    /// The images, the lowest first.
    pub images: Vec<String>,
    /// Those of them that are new; the others were there already, with these bytes.
    pub built: Vec<Report>,
    /// Patterns of `--exclude` that match nothing in any of them.
    pub unmatched_excludes: Vec<String>,
}

impl LayersReport {
    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        // Strings and numbers only, which cannot fail.
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// As lines for people.
    pub fn to_text(&self) -> String {
        let mut text: String = self.built.iter().map(Report::to_text).collect();
        let there = self.images.len() - self.built.len();
        if there > 0 {
            let _ = writeln!(text, "{there} layers were there");
        }
        let _ = writeln!(text, "tesserafs compose IMAGE {}", self.images.join(" "));
        text
    }
}

/// Builds an image of each layer in the directory that is named for the image.
pub fn build_layers(config: &Config, progress: &dyn Progress) -> Result<LayersReport> {
    config::check_profile(&config.profile)?;
    let SourcePath::Oci(container) = &config.source else {
        return Err(Error::Usage("layers are those of a container image, which --oci names".into()));
    };
    let dir = &config.image;
    if is_stdout(dir) {
        return Err(Error::Usage("--layers makes several images: name a directory for them".into()));
    }
    let is_new = !config.dry_run && create(dir)?;
    build_in(config, container, progress).inspect_err(|_| {
        if is_new {
            // There may be layers in it that are complete.
            let _ = fs::remove_dir(dir);
        }
    })
}

/// Creates the directory, and says whether it was not there.
fn create(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("create the directory", dir)(error)),
    }
}

fn build_in(config: &Config, container: &OciImage, progress: &dyn Progress) -> Result<LayersReport> {
    let dir = &config.image;
    let spool = if config.dry_run { env::temp_dir() } else { dir.clone() };
    let unpacked = Unpacked::open(container, &spool, progress)?;
    let mut uppermost = config.annotations.clone();
    annotate(&mut uppermost, unpacked.annotations(), config.sbom)?;
    if unpacked.layers() == 0 {
        return Err(Error::unsupported(&container.place, "has no layers"));
    }
    let mut report = LayersReport { images: Vec::new(), built: Vec::new(), unmatched_excludes: Vec::new() };
    unpacked.each_layer(&config.filter, |name, source| {
        let path = dir.join(format!("{name}.tess"));
        report.images.push(Shown(&path).to_string());
        let mut image = Image::begin(config, &path, true)?;
        if report.images.len() == unpacked.layers() {
            image.annotations.clone_from(&uppermost);
        }
        report.built.extend(image.finish_unless_there(&source, progress)?);
        Ok(())
    })?;
    report.unmatched_excludes = unmatched_excludes(config);
    Ok(report)
}

impl Image<'_> {
    /// Builds the image; nothing is reported, and the file stays, where that has these bytes already, but perhaps for a signature.
    fn finish_unless_there(self, source: &TarSource, progress: &dyn Progress) -> Result<Option<Report>> {
        let there = match self.path.exists() {
            true => Some(there(self.path)?),
            false => None,
        };
        let encoded = self.encode(source, progress)?;
        let id = &encoded.0.image_id;
        match there {
            Some((other, _)) if other != *id && !self.config.force => {
                let reason = format!("exists, and is the image {other}, not {id}; --force replaces it");
                return Err(Error::unsupported(self.path, reason));
            }
            Some((other, is_signed)) if other == *id && (is_signed || !encoded.0.signed) => {
                // Its packs may be missing.
                encoded.1.map_or(Ok(()), NewPack::commit)?;
                return Ok(None);
            }
            _ => {}
        }
        self.name(encoded, progress).map(Some)
    }
}

/// The ID of an image that is there, and whether it is signed.
fn there(path: &Path) -> Result<(String, bool)> {
    let head = superblock::read_head(&ImageSource::open(path)?).map_err(broken(path))?;
    Ok((format!("sha256:{}", head.id), head.sb.signature_bytes > 0))
}
