// SPDX-License-Identifier: GPL-2.0-or-later

//! An image of each layer of a container image, for `tesserafs compose`.
//!
//! The name of an image is the chain ID of its layer, which stands for it and all below it, so a directory has a layer once whatever
//! images are on it. The uppermost one has the documents of the container image, and the name of that.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use tesserafs_format::Profile;
use tesserafs_image::{superblock, Source as ImageSource};

use super::Image;
use crate::config::{self, Config, SourcePath};
use crate::convert::broken;
use crate::error::{Error, Result, Shown};
use crate::progress::Progress;
use crate::report::Report;
use crate::source::oci::Unpacked;

/// The report of layers.
#[derive(Clone, Debug, Serialize)]
pub struct LayersReport {
    /// The images, the lowest first.
    pub images: Vec<String>,
    /// Those of them that were built; the others were there.
    pub built: Vec<Report>,
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
    config::check_annotations(&config.annotations, config.sbom)?;
    let SourcePath::Oci(container) = &config.source else {
        return Err(Error::Usage("layers are those of a container image, which --oci names".into()));
    };
    let dir = &config.image;
    if !config.dry_run {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create the directory", dir)(error));
            }
            _ => {}
        }
    }
    let spool = if config.dry_run { std::env::temp_dir() } else { dir.clone() };
    let unpacked = Unpacked::open(container, &spool, progress)?;
    let mut report = LayersReport { images: Vec::new(), built: Vec::new() };
    unpacked.each_layer(&config.filter, |name, source| {
        let path = dir.join(format!("{name}.tess"));
        report.images.push(Shown(&path).to_string());
        let is_uppermost = report.images.len() == unpacked.layers();
        if !config.force && is_there(&path, &config.profile)? {
            return Ok(());
        }
        let mut image = Image::begin(config, &path)?;
        if is_uppermost {
            image.annotate(unpacked.annotations())?;
        }
        report.built.push(image.finish(&source, progress)?);
        Ok(())
    })?;
    Ok(report)
}

/// Whether there is an image of that name, of that profile.
fn is_there(path: &Path, profile: &Profile) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let found = superblock::read(&ImageSource::open(path)?).map_err(broken(path))?;
    if found.profile != *profile {
        return Err(Error::unsupported(path, "exists, of another profile; --force replaces it"));
    }
    Ok(true)
}
