// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs compose`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::image::Annotations;

use super::made::{remove_on_signal, Made};
use crate::chain;

const COMPOSE_HELP: &str = "\
Examples:
  tesserafs compose app.tess debian.tess libraries.tess code.tess
  tesserafs compose app.tess debian.tess code.tess --at /opt/jdk jdk.tess
  tesserafs compose --partial layer.tess lower.tess upper.tess      a layer again: whiteouts stay

The tree is what overlayfs shows over mounts of the images, each one above those before it. No file is read: NEW
refers to the packs of the images, so all of them are in the shared form (tesserafs pack makes it) and were built
with the same options. FORMAT.md 5.8 has the rules.

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes one image of several, by their metadata alone
#[derive(Args, Debug)]
#[command(after_help = COMPOSE_HELP)]
pub(super) struct ComposeArgs {
    /// The image to make
    new: PathBuf,

    /// The images, the lowest first
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// Put the root of IMAGE at DIR, above all others; repeatable, in order
    #[arg(long, num_args = 2, value_names = ["DIR", "IMAGE"], action = clap::ArgAction::Append)]
    at: Vec<OsString>,

    /// Make a layer: whiteouts, and marks of opaque directories, stay
    #[arg(long)]
    partial: bool,

    /// Embed the bytes of a file under a key; repeatable. Those of the images are kept, of one key the uppermost
    #[arg(long, value_name = "KEY=FILE")]
    annotate: Vec<OsString>,

    #[command(flatten)]
    made: Made,
}

impl ComposeArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let at_root = self.images.into_iter().map(|image| LayerPath { image, at: Vec::new() });
        let mut layers: Vec<LayerPath> = at_root.collect();
        for pair in self.at.chunks_exact(2) {
            layers.push(LayerPath { image: PathBuf::from(&pair[1]), at: names(&pair[0])? });
        }
        let mut annotations = Annotations::new();
        for text in &self.annotate {
            let (key, value) = annotation(text)?;
            annotations.insert(key, value);
        }
        remove_on_signal()?;
        let (partial, force) = (self.partial, self.made.force);
        let composition = Composition { output: self.new, layers, partial, annotations, force };
        let report = compose(&composition).map_err(|error| chain(&error))?;
        self.made.report(&composition.output, || report.to_text(), || report.to_json())
    }
}

/// The names of a path from the root of an image.
fn names(path: &OsString) -> Result<Vec<Vec<u8>>, String> {
    let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    if names.iter().any(|name| name == b"..") {
        return Err(format!(
            "--at {}: found .., expected a path from the root",
            tesserafs_image::text::path(path.as_ref())
        ));
    }
    Ok(names)
}

/// The key of an annotation, and the bytes of its file.
fn annotation(text: &OsString) -> Result<(Vec<u8>, Vec<u8>), String> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=');
    let at =
        at.ok_or_else(|| format!("--annotate {}: no KEY=FILE", tesserafs_image::text::path(text.as_ref())))?;
    let path = Path::new(std::ffi::OsStr::from_bytes(&bytes[at + 1..]));
    let value = fs::read(path).map_err(|error| format!("{}: {error}", tesserafs_image::text::path(path)))?;
    Ok((bytes[..at].to_vec(), value))
}
