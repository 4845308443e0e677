// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs push`: an image to a registry.
//!
//! - `local`: the image here, verified before a byte of it is sent;
//! - `layout`: the ordinary image beside it;
//! - `blobs`: what the registry lacks of either;
//! - `delta`: the bundle from an older image;
//! - [`report`]: what was done.
//!
//! Documents go last, and the name that others look for is the last of them: a push that is cut off changes nothing that has a name.

mod blobs;
mod delta;
mod layout;
mod local;
pub mod report;

use std::path::PathBuf;

use mkfs_tesserafs::progress::Progress;
use mkfs_tesserafs::source::oci::{OciImage, Platform};
use oci_spec::image::MediaType;
use tesserafs_image::{Error, Source};

use self::blobs::{Blobs, Content};
use self::layout::Layout;
use self::local::Local;
use self::report::Report;
use crate::artifact::{config, Blob, Document, Entry, Index};
use crate::reference::{Name, Reference};
use crate::registry::{Options, Repository};

/// The end of the tag of the image alone, behind that of the index.
pub const TAG_SUFFIX: &str = "-tesserafs";

/// An image, and where it goes.
#[derive(Debug)]
pub struct Request {
    /// The image.
    pub image: PathBuf,
    /// The name that it gets; a tag.
    pub reference: Reference,
    /// Where its packs are; beside it unless this says otherwise.
    pub pack_dir: Option<PathBuf>,
    /// An ordinary image for the same index.
    pub with: Option<OciImage>,
    /// Whether the index keeps what it has for other platforms.
    pub add: bool,
    /// An older image, from which a bundle is made.
    pub delta_from: Option<PathBuf>,
    /// Repositories that may have blobs already.
    pub mount_from: Vec<String>,
    /// The platform of an image that does not say it.
    pub platform: Platform,
    /// How the registry is reached.
    pub options: Options,
    /// Whether each blob is told of in a line on standard error.
    pub lines: bool,
}

/// Brings an image to a registry.
pub fn run(request: &Request, progress: &dyn Progress) -> Result<Report, Error> {
    let Name::Tag(tag) = &request.reference.name else {
        let shown = &request.reference;
        return Err(Error::Refused(format!(
            "{shown}: an image is pushed to a tag, and gets its digest by that"
        )));
    };
    let alone = Name::tag(&format!("{tag}{TAG_SUFFIX}")).ok_or_else(|| {
        Error::Refused(format!(
            "{}: the tag is too long: {TAG_SUFFIX} has to fit behind it",
            request.reference
        ))
    })?;
    let source = Source::open(&request.image)?;
    let local = Local::open(&source, request.pack_dir.as_deref())?;
    let layout = request.with.as_ref().map(Layout::open).transpose()?;
    local.verify(&request.options.cancel)?;

    let (mut artifact, image) = local.artifact(&request.options.cancel)?;
    let (config, platform) = config::make(local.config()?.as_deref(), &artifact, &request.platform)
        .map_err(|why| Error::Refused(format!("{}: {why}", local.shown())))?;
    artifact.config = Blob::of(&config);

    let repository = Repository::open(&request.reference, &request.options)?;
    repository.will_write();
    let older = request.add.then(|| there(request, &repository)).transpose()?;
    let mut blobs = Blobs::new(&repository, request, progress);
    for (number, pack) in (1..).zip(&artifact.packs) {
        blobs.add(*pack, format!("pack {number}"), Content::File(local.pack_path(pack)));
    }
    blobs.add(artifact.image_blob(), "image".into(), image);
    blobs.add(artifact.config, "configuration".into(), Content::Bytes(config));
    for (blob, path) in layout.iter().flat_map(Layout::blobs) {
        blobs.add(blob, "plain".into(), Content::File(path));
    }
    let mut report = blobs.send()?;

    // Manifests are there before the index that names them.
    for manifest in layout.iter().flat_map(Layout::manifests) {
        repository.put_manifest(
            &Name::Digest(manifest.blob.digest),
            &manifest.media_type,
            &manifest.bytes,
        )?;
    }
    let manifest = artifact.to_manifest();
    put(&repository, &alone, MediaType::ImageManifest, &manifest)?;
    if let Some(old) = &request.delta_from {
        report.delta = Some(delta::push(request, old, &local, &repository, progress)?);
    }
    let mut index = Index { entries: layout.iter().flat_map(Layout::entries).cloned().collect() };
    index.entries.push(Entry::ours(Blob::of(&manifest), &platform).with_embedded(&manifest));
    if let Some(older) = older {
        index.keep(older);
    }
    let index = index.to_document();
    put(&repository, &request.reference.name, MediaType::ImageIndex, &index)?;
    Ok(report.named(request, &artifact, &alone, Blob::of(&manifest), Blob::of(&index)))
}

/// The index that has the name so far.
fn there(request: &Request, repository: &Repository) -> Result<Index, Error> {
    let Some(found) = repository.manifest(&request.reference.name)? else {
        return Ok(Index { entries: Vec::new() });
    };
    let refuse = |why: String| Error::Refused(format!("{}: {why}", request.reference));
    match Document::parse(&found.bytes).map_err(refuse)? {
        Document::Index(index) => Ok(index),
        _ => Err(refuse("the registry has no index of that name, to which an image could be added".into())),
    }
}

fn put(repository: &Repository, name: &Name, media_type: MediaType, bytes: &[u8]) -> Result<(), Error> {
    repository.put_manifest(name, media_type.as_ref(), bytes)
}
