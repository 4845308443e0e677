// SPDX-License-Identifier: GPL-2.0-or-later

//! One image of several, by their metadata alone (`FORMAT.md` 5.8): no file is read, and packs are referred to.
//!
//! - [`layers`]: the images, opened, and what they must have in common;
//! - [`merge`]: their trees as overlayfs shows them, by [`marks`] such as whiteouts;
//! - [`contents`]: the contents and chunks of the files that are left;
//! - [`report`] tells of it.

mod contents;
mod layers;
mod marks;
mod merge;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use tesserafs_image::{superblock, Source};

pub use self::report::ComposeReport;
use crate::convert::broken;
use crate::error::Result;
use crate::image::{Annotations, ImageFile, ImageWriter};
use crate::output::Output;

/// An image to put over others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPath {
    /// The image.
    pub image: PathBuf,
    /// The directory that its root becomes; nothing for the root.
    pub at: Vec<Vec<u8>>,
}

/// A request to compose images.
#[derive(Clone, Debug)]
pub struct Composition {
    /// The image that is made.
    pub output: PathBuf,
    /// The images, the lowest first.
    pub layers: Vec<LayerPath>,
    /// Whether the result is a layer itself: whiteouts and opaque directories stay.
    pub partial: bool,
    /// Keys and values beside those of the images.
    pub annotations: Annotations,
    /// Whether a file of its name is replaced.
    pub force: bool,
}

/// Composes images.
pub fn compose(composition: &Composition) -> Result<ComposeReport> {
    let started = Instant::now();
    let output = Output::create(&composition.output, composition.force)?;
    let mut sources = Vec::new();
    for layer in &composition.layers {
        let source = Source::open(&layer.image)?;
        let sb = superblock::read(&source).map_err(broken(&layer.image))?;
        sources.push((source, sb));
    }
    let layers = layers::open(composition, &sources)?;
    let profile = layers::profile(&layers)?;
    let mut contents = contents::Contents::new(&layers)?;
    let tree = merge::merge(&layers, composition.partial, &mut contents)?;
    let (map, packs) = contents.finish()?;
    let mut annotations = layers::annotations(&layers)?;
    annotations.extend(composition.annotations.clone());

    let file = ImageFile::new(output.file()?, &composition.output);
    let written = ImageWriter::new(file).finish(&tree, &map, &profile, &annotations)?;
    output.commit()?;
    Ok(ComposeReport::new(composition, &layers, &written, &tree, &map, packs, started.elapsed()))
}
