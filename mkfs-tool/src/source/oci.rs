// SPDX-License-Identifier: GPL-2.0-or-later

//! A container image as the source of a tree (`FORMAT.md` 4.9).
//!
//! - `place` says which image is meant, `files` are those of its directory or archive, `select` finds it among them by its documents;
//! - here its layers are unpacked, one behind the other, into one unnamed file, and their digests compared (`digest`);
//! - from there on they are archives: [`tar`](super::tar) puts them one over the other.

mod digest;
mod files;
mod place;
mod select;

use std::collections::hash_map::{Entry, HashMap};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use tesserafs_format::limits::BLOCK_BYTES;

use self::digest::Digesting;
use self::files::Files;
pub(super) use self::files::Part;
pub use self::place::{OciImage, Platform};
use self::select::{Layer, Selected};
use super::tar::{unpack, TarSource};
use super::Filter;
use crate::encode::sha256;
use crate::error::{Error, Result};
use crate::image::Annotations;
use crate::progress::{step, Progress};

/// The annotation with the configuration of a container image: entry point, environment, user.
pub const CONFIG: &str = "org.opencontainers.image.config";
/// The annotation with its manifest.
pub const MANIFEST: &str = "org.opencontainers.image.manifest";

/// A container image, unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// All layers.
    file: File,
    /// Its place, in messages.
    path: PathBuf,
    layers: Vec<UnpackedLayer>,
    annotations: Annotations,
    /// The digest of its configuration, by which engines name it.
    id: String,
}

/// A layer, unpacked.
#[derive(Debug)]
pub(super) struct UnpackedLayer {
    /// Its name in messages.
    pub(super) path: PathBuf,
    /// Where its archive is.
    pub(super) bytes: Range<u64>,
    /// The chain ID of OCI in hexadecimal: it stands for this layer and all below it.
    chain_id: String,
}

impl Unpacked {
    /// Finds an image, and unpacks its layers into an unnamed file in `spool`.
    pub fn open(image: &OciImage, spool: &Path, progress: &dyn Progress) -> Result<Self> {
        let files = Files::open(&image.place, spool)?;
        let Selected { manifest, config, layers } = select::select(&files, image)?;
        let mut file = tempfile::tempfile_in(spool).map_err(Error::io("create a file in", spool))?;
        let mut unpacked = Vec::new();
        let mut chain_id = String::new();
        // Equal layers are unpacked once.
        let mut known: HashMap<(&str, &Digest), Range<u64>> = HashMap::new();
        for (number, layer) in (1..).zip(&layers) {
            let _step = step(progress, || format!("unpacking layer {number} of {}", layers.len()));
            let bytes = match known.entry((&layer.file, &layer.diff_id)) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert(unpack_layer(&files, layer, &mut file, spool)?).clone(),
            };
            chain_id = chain(&chain_id, &layer.diff_id);
            unpacked.push(UnpackedLayer {
                path: files.path.join(&layer.file),
                bytes,
                chain_id: hex(&chain_id).to_owned(),
            });
        }
        let id = sha256(&config).to_string();
        let documents = [(CONFIG, Some(config)), (MANIFEST, manifest)];
        let annotations = documents
            .into_iter()
            .filter_map(|(key, document)| Some((key.as_bytes().to_vec(), document?)))
            .collect();
        Ok(Self { file, path: files.path, layers: unpacked, annotations, id })
    }

    /// Its documents.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// The tree that the layers make.
    pub fn tree(&self, filter: Filter) -> Result<TarSource> {
        TarSource::of_layers(&self.file, &self.path, &self.layers, filter)
    }

    /// Hands out each layer as a tree with whiteouts, the lowest first, with its name: the chain ID, of the uppermost one that of the image.
    pub fn each_layer(
        &self,
        filter: &Filter,
        mut with: impl FnMut(&str, TarSource) -> Result<()>,
    ) -> Result<()> {
        let names = self.layers.iter().skip(1).map(|above| &above.chain_id);
        let mut names = self.layers.iter().map(|layer| &layer.chain_id).take(names.len()).chain([&self.id]);
        TarSource::each_layer(&self.file, &self.layers, filter, |source| {
            names.next().map_or(Ok(()), |name| with(name, source))
        })
    }

    /// How many layers it has.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }
}

/// Unpacks a layer behind the others, and says where it is.
fn unpack_layer(files: &Files, layer: &Layer, file: &mut File, spool: &Path) -> Result<Range<u64>> {
    let path = files.path.join(&layer.file);
    let part = files.get(&layer.file, "the manifest")?;
    let at = |error| Error::io("unpack a layer into", spool)(error);
    // Records of an archive are counted from a multiple of their size.
    let start = file.seek(SeekFrom::End(0)).map_err(at)?.next_multiple_of(BLOCK_BYTES);
    file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start))).map_err(at)?;
    let mut output = Digesting::new(&*file, &layer.diff_id, &path)?;
    match &layer.blob {
        None => unpack(part, &mut output, &path, spool)?,
        Some((digest, size)) => {
            if part.len() != *size {
                let reason = format!("has {} bytes, expected {size}", part.len());
                return Err(Error::unsupported(&path, reason));
            }
            let mut input = Digesting::new(part, digest, &path)?;
            let unpacked = unpack(&mut input, &mut output, &path, spool);
            // Damage is told as what it is, and not as what a decoder makes of it.
            io::copy(&mut input, &mut io::sink()).map_err(Error::io("read", &path))?;
            input.check(&path, "has the digest", digest)?;
            unpacked?;
        }
    }
    let end = start + output.passed();
    output.check(&path, "holds an archive with the digest", &layer.diff_id)?;
    Ok(start..end)
}

/// The chain ID of a layer over those below it.
fn chain(below: &str, diff_id: &Digest) -> String {
    if below.is_empty() {
        return diff_id.to_string();
    }
    format!("sha256:{}", sha256(format!("{below} {diff_id}").as_bytes()))
}

/// The digits of a digest.
fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}
