// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs pull`: an image from a registry into the store, with what the store lacks of it.
//!
//! Modules, in the order in which an image comes:
//!
//! - `find`: which manifest is meant;
//! - `delta`: a bundle by which an image of the store becomes this one, if there is one that is smaller than what is lacking;
//! - `image_file`: the image file, whose metadata says where every chunk is;
//! - `whole`: blobs that come at once, as both of these may;
//! - `chunks`: what is lacking of its packs; `local`: what other images of the store have of that;
//! - `fetch`: the rest, in `ranges`, by several connections, as the `line` wants it; `sink`: where the bytes go;
//! - [`report`]: what was done.
//!
//! # Trust
//!
//! The registry is not trusted, nor is the store. A blob counts when it has its digest, an image when its ID is that of its first 512
//! bytes, and a chunk when its digest is the one that the metadata has, which the image ID proves: each is compared before it is written
//! to its place. The name comes last, after the signature, where one is asked for.
//!
//! # Memory
//!
//! 128 bytes at most for each chunk of the image, 16 MiB of metadata, 2 MiB for each connection, and what a bundle takes:
//! 220 MB for an image of 100 GB in chunks of 64 KiB, without a bundle. Of the 128, 56 are a chunk's place and digest, twice while bytes are
//! found that no chunk has, and later some 50 by which it is looked for in other images. Measured: 255 MB for two million chunks.

mod chunks;
mod delta;
mod fetch;
mod find;
mod image_file;
mod line;
mod local;
mod ranges;
pub mod report;
mod sink;
mod whole;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use mkfs_tesserafs::progress::Progress;
use mkfs_tesserafs::source::oci::Platform;
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::signature::Certificate;
use tesserafs_image::{parallel, text, Error, Source};

use self::chunks::{Lacking, LackingFile};
use self::fetch::{Fetcher, Target};
use self::find::Found;
use self::local::Copied;
use self::report::Report;
use crate::artifact::Blob;
use crate::reference::Reference;
use crate::registry::{Options, Repository};
use crate::store::{check_image, Filling, Finished, Slot, Store, Unfinished, Using};
use crate::{head, say};

/// An image that is wanted.
#[derive(Debug)]
pub struct Request {
    /// Its name.
    pub reference: Reference,
    /// The store.
    pub store: PathBuf,
    /// The machine that it is for.
    pub platform: Platform,
    /// The signers one of whom has signed it; nobody in particular where there are none.
    pub signers: Vec<PathBuf>,
    /// Whether a bundle is taken where there is one.
    pub deltas: bool,
    /// Requests at once, at most.
    pub connections: NonZeroUsize,
    /// How the registry is reached.
    pub options: Options,
    /// Whether each blob is told of in a line on standard error.
    pub lines: bool,
}

/// Brings an image into the store.
pub fn run(request: &Request, progress: &dyn Progress) -> Result<Report, Error> {
    let started = Instant::now();
    let mut signers = Vec::new();
    for path in &request.signers {
        signers.extend(Certificate::read_pem(path)?);
    }
    let repository = Repository::open(&request.reference, &request.options)?;
    let found = find::find(request, &repository, Store::open(&request.store)?.as_ref())?;
    let store = Store::create(&request.store)?;
    let cancel = &request.options.cancel;
    let shown = text::path(store.path());
    let using = store
        .use_it(cancel, &mut || say(&format!("{shown}: another process removes files; waiting for it")))?;
    let id = found.artifact.image_id;
    let mut waits = || say(&format!("another process pulls the image {id}; waiting for it"));
    let filling = using.begin_image(&id, cancel, &mut waits)?;

    progress.files_found(found.artifact.files().count() as u64);
    let fetcher = Fetcher::new(&repository, request, progress);
    let pull = Pull { request, using: &using, filling: &filling, found: &found, fetcher, signers };
    let mut report = pull.files()?;

    let manifest = using.add_document(&found.manifest)?;
    using.set_name(&request.reference, &manifest)?;
    let files: Vec<Digest> = found.artifact.files().map(|blob| blob.digest).collect();
    filling.close(&files)?;
    report.name(request, &found, manifest, started);
    Ok(report)
}

/// An image that is being pulled.
struct Pull<'p> {
    request: &'p Request,
    using: &'p Using<'p>,
    filling: &'p Filling<'p>,
    found: &'p Found,
    fetcher: Fetcher<'p>,
    signers: Vec<Certificate>,
}

impl Pull<'_> {
    /// Brings all files of the image.
    fn files(&self) -> Result<Report, Error> {
        let artifact = &self.found.artifact;
        let mut report = Report::default();
        self.check_packs()?;
        let mut bundle = match self.request.deltas && self.is_new()? {
            true => delta::best(self)?,
            false => None,
        };
        // Smaller than the image file alone: no chunk has to be looked at to know that it is worth it.
        let of_image = if self.is_there(&artifact.image)? { 0 } else { artifact.image_blob().len };
        if let Some(bundle) = bundle.take_if(|bundle| bundle.bundle.len <= of_image) {
            report.delta = delta::take(self, &bundle)?;
        }
        let (image, of_image) = self.image_and_config()?;
        let sb = match check_image(artifact, &image) {
            Ok(head) => head.sb,
            Err(error) => {
                if self.is_there(&artifact.image)? {
                    self.filling.leave(&artifact.image.digest)?;
                }
                return Err(error);
            }
        };
        self.check_signer(&image)?;

        let mut lacking = Lacking::find(self, &image, &sb)?;
        let mut copied = match local::copy(self, &image, &sb, &lacking) {
            Ok(copied) => copied,
            Err(error) => {
                lacking.give_back(self)?;
                return Err(error);
            }
        };
        if let Some(bundle) = bundle.filter(|bundle| bundle.bundle.len < lacking.bytes()) {
            // It makes other files, so these are not written any more.
            drop(lacking);
            report.delta = delta::take(self, &bundle)?;
            lacking = Lacking::find(self, &image, &sb)?;
            if report.delta.is_some() {
                copied = Copied::default();
            }
        }
        (report.copied_bytes, report.encoded_bytes) = (copied.stored, copied.encoded);
        for (file, fetched) in self.packs(lacking)? {
            let line = format!("{} sha256:{} ({})", file.what, file.blob.digest, text::size(file.blob.len));
            let before = if file.blob == artifact.image { of_image } else { 0 };
            self.finish(file)?;
            if self.request.lines {
                say(&format!("{line}: fetched {}", text::size(fetched + before)));
            }
        }
        report.fetched_bytes = self.fetcher.fetched();
        report.requests = self.fetcher.requests();
        Ok(report)
    }

    /// Refuses a manifest that names a pack of this image, which the store has, as its image file: it would be overwritten.
    fn check_packs(&self) -> Result<(), Error> {
        let artifact = &self.found.artifact;
        for blob in [artifact.image].into_iter().chain(artifact.compressed) {
            if self.filling.has_pack(&blob.digest)? {
                let (shown, id, digest) = (self.fetcher.shown(), artifact.image_id, blob.digest);
                return Err(Error::Refused(format!(
                    "{shown}: found a pack of the image {id}, sha256:{digest}, in the place of its image file"
                )));
            }
        }
        Ok(())
    }

    /// Brings the image file, and the configuration at the same time. The number is that of bytes that came for the image file.
    fn image_and_config(&self) -> Result<(Source, u64), Error> {
        let artifact = &self.found.artifact;
        let before = self.fetcher.fetched();
        let slot = self.filling.file(&artifact.image.digest, artifact.image.len)?;
        let cancel = &self.request.options.cancel;
        let fetched = parallel::for_each(2, 2, cancel, |number| match (number, &slot) {
            (0, Slot::Unfinished(file)) => image_file::fetch(self, file),
            (0, Slot::Complete(_)) => Ok(()),
            _ => self.config(),
        });
        if let Err(error) = fetched {
            if let Slot::Unfinished(file) = slot {
                // Nothing tells that there is an image of that length: the room is not kept for it.
                if !image_file::is_begun(artifact, &file)? {
                    self.filling.discard(file)?;
                }
            }
            return Err(error);
        }
        let image = match &slot {
            Slot::Complete(path) => Source::open(path)?,
            Slot::Unfinished(file) => Source::open(file.path())?,
        };
        Ok((image, self.fetcher.fetched() - before))
    }

    /// Brings the configuration, which the store keeps: it is needed by no mount.
    fn config(&self) -> Result<(), Error> {
        let config = &self.found.artifact.config;
        // One that is broken comes again.
        if matches!(self.using.document(&config.digest), Ok(Some(bytes)) if bytes.len() as u64 == config.len)
        {
            return Ok(());
        }
        let bytes = self.fetcher.repository().document(config)?;
        self.using.add_document(&bytes).map(drop)
    }

    /// Brings what is lacking. The numbers are those of bytes that came for each file.
    fn packs(&self, lacking: Lacking) -> Result<Vec<(LackingFile, u64)>, Error> {
        let there = self.found.artifact.files().count() - lacking.files.len();
        self.fetcher.progress().files_done(there as u64);
        let files = lacking.files.iter();
        let targets: Vec<_> = files.map(Target::of_file).collect();
        let fetched = self.fetcher.fetch(&targets);
        let bytes: Vec<_> = targets.iter().map(Target::fetched).collect();
        drop(targets);
        if let Err(error) = fetched {
            lacking.give_back(self)?;
            return Err(error);
        }
        Ok(lacking.files.into_iter().zip(bytes).collect())
    }

    /// Whether something of the image may be lacking: the name is another image's, and some file is not there.
    fn is_new(&self) -> Result<bool, Error> {
        let manifest = sha256(&self.found.manifest);
        if self.using.manifest_of(&self.request.reference).is_ok_and(|named| named == Some(manifest)) {
            return Ok(false);
        }
        for blob in self.found.artifact.files() {
            if !self.is_there(&blob)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_there(&self, blob: &Blob) -> Result<bool, Error> {
        Ok(self.using.blob_of(&blob.digest, blob.len)?.is_some())
    }

    /// Refuses an image that none of the signers has signed, before its packs are fetched.
    fn check_signer(&self, image: &Source) -> Result<(), Error> {
        let wanted = head::Wanted { id: Some(self.found.artifact.image_id), signers: self.signers.clone() };
        head::read(image, &wanted).map(drop).map_err(|broken| match broken {
            tesserafs_image::Broken::Rule(rule) => {
                Error::Refused(format!("{}: {rule}", self.request.reference))
            }
            tesserafs_image::Broken::Stop(Error::Refused(why)) => {
                Error::Refused(format!("{}: {why}", self.request.reference))
            }
            tesserafs_image::Broken::Stop(error) => error,
        })
    }

    /// Makes a file a blob whose bytes are all there, or leaves it to this image, if some that the image does not need are not.
    fn finish(&self, file: LackingFile) -> Result<(), Error> {
        if !file.is_whole {
            return self.filling.keep(file.unfinished);
        }
        let LackingFile { blob, unfinished, pieces, .. } = file;
        let cancel = &self.request.options.cancel;
        let (found, file) = match self.filling.finish(unfinished, cancel)? {
            Finished::Complete(_) => return Ok(()),
            Finished::Not { found, file } => (found, file),
        };
        // Every chunk is right. Bytes that no chunk has may have come wrong once, and a mirror may have no others.
        if pieces.unproven().next().is_none() {
            return self.wrong(file, &blob.digest, &found);
        }
        self.fetcher.repository().drop_mirrors();
        whole::ranges(&self.fetcher, blob, &file, pieces.unproven())?;
        match self.filling.finish(file, cancel)? {
            Finished::Complete(_) => Ok(()),
            Finished::Not { found, file } => self.wrong(file, &blob.digest, &found),
        }
    }

    /// All chunks are right, and the rest is not: the next pull is to begin this file anew.
    fn wrong(&self, file: Unfinished, expected: &Digest, found: &Digest) -> Result<(), Error> {
        self.filling.discard(file)?;
        Err(Error::Refused(format!(
            "{}: the blob sha256:{expected} has the digest sha256:{found}: its registry has other bytes, and the next pull \
             begins it anew",
            self.request.reference
        )))
    }
}
