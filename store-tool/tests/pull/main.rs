// SPDX-License-Identifier: GPL-2.0-or-later

//! Images from a registry of the tests' own into stores.

#[path = "../../../format/tests/common/mod.rs"]
mod common;
#[path = "../support/registry/mod.rs"]
mod registry;
#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod compressed;
mod faults;
mod forged;
mod frames;
mod hostile;
mod images;
mod interrupt;
mod memory;

mod mounts;
mod packs_named;
mod program;
mod ranges;
mod resume;
mod terminal;
mod together;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use mkfs_tesserafs::bundle::{create, BundleRequest};
use mkfs_tesserafs::progress::{Progress, Silent};
use mkfs_tesserafs::source::oci::Platform;
use tempfile::TempDir;
use tesserafs_format::Digest;
use tesserafs_image::{Cancel, Error, Source};
use tesserafs_store::artifact::compressed::compress;
use tesserafs_store::artifact::{Artifact, Blob, Delta, Entry, Index};
use tesserafs_store::export::export;
use tesserafs_store::pull::report::Report;
use tesserafs_store::pull::{run, Request};
use tesserafs_store::registry::Options;
use tesserafs_store::store::Store;

use self::registry::Registry;
use self::support::noise;
use self::support::store::{make, problems, reference, Made, CONFIG};

const REPOSITORY: &str = "team/app";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A folder with images and stores, and a registry.
struct Place {
    folder: TempDir,
    registry: Registry,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), registry: Registry::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// An image of noise: each file has a seed and a length.
    fn image(&self, name: &str, files: &[(&str, u64, usize)], parents: &[&Made]) -> Made {
        let bytes: Vec<_> = files.iter().map(|(name, seed, len)| (*name, noise(*seed, *len))).collect();
        let files: Vec<_> = bytes.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
        make(self.path(), name, &files, parents)
    }

    /// Puts the image under a tag.
    fn publish(&self, made: &Made, tag: &str) {
        self.blobs(made);
        self.manifest(&made.artifact, tag);
    }

    fn blobs(&self, made: &Made) {
        self.registry.add_blob(REPOSITORY, CONFIG);
        self.registry.add_blob(REPOSITORY, &fs::read(&made.path).expect("an image"));
        for pack in &made.artifact.packs {
            self.registry.add_blob(REPOSITORY, &pack_of(made, pack));
        }
    }

    fn manifest(&self, artifact: &Artifact, tag: &str) {
        self.registry.add_manifest(REPOSITORY, tag, MANIFEST, &artifact.to_manifest());
    }

    /// Puts the image file compressed into the registry, and names it in the manifest, as `push` does; its bytes.
    fn compress(&self, made: &mut Made) -> Vec<u8> {
        let source = Source::open(&made.path).expect("an image");
        let path = self.path().join("compressed");
        let mut to = fs::File::create(&path).expect("a file");
        let (blob, image) =
            compress(&source, made.artifact.image.len, &mut to, &Cancel::default()).expect("frames");
        assert_eq!(image, made.artifact.image);
        made.artifact.compressed = Some(blob);
        let bytes = fs::read(path).expect("a file");
        self.registry.add_blob(REPOSITORY, &bytes);
        bytes
    }

    /// Puts the image under a tag, in an index.
    fn publish_index(&self, made: &Made, tag: &str) {
        self.publish(made, &format!("{tag}-tesserafs"));
        let entry = Entry::ours(Blob::of(&made.artifact.to_manifest()), &Platform::host());
        let index = Index { entries: vec![entry] };
        self.registry.add_manifest(REPOSITORY, tag, INDEX, &index.to_document());
    }

    /// Makes a bundle, and puts it where it is found; its blob.
    fn publish_bundle(&self, old: &Made, new: &Made, portable: bool) -> Blob {
        let bundle = self.bundle(old, new, portable);
        self.publish_delta(old, new, &bundle)
    }

    fn bundle(&self, old: &Made, new: &Made, portable: bool) -> Vec<u8> {
        let output = self.path().join("bundle");
        let request = BundleRequest {
            output: output.clone(),
            old: old.path.clone(),
            new: new.path.clone(),
            pack_dir: Some(new.packs.clone()),
            portable,
            level: 3,
            force: true,
        };
        create(&request, &Silent).expect("a bundle");
        fs::read(output).expect("a bundle")
    }

    fn publish_delta(&self, old: &Made, new: &Made, bytes: &[u8]) -> Blob {
        let bundle = Blob::of(bytes);
        self.registry.add_blob(REPOSITORY, bytes);
        self.publish_delta_blob(old, new, bundle);
        bundle
    }

    fn publish_delta_blob(&self, old: &Made, new: &Made, bundle: Blob) {
        let (from, to) = (old.artifact.image_id, new.artifact.image_id);
        let delta = Delta { from, to, bundle };
        self.registry.add_manifest(REPOSITORY, &Delta::tag(&from, &to), MANIFEST, &delta.to_manifest());
    }

    /// `HOST/team/app:TAG`, or with a digest.
    fn name(&self, tag: &str) -> String {
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        format!("{}/{REPOSITORY}{separator}{tag}", self.registry.host())
    }

    fn request(&self, tag: &str) -> Request {
        Request {
            reference: reference(&self.name(tag)),
            store: self.path().join("store"),
            platform: Platform::host(),
            signers: Vec::new(),
            deltas: true,
            connections: NonZeroUsize::new(6).expect("a number"),
            options: options(),
            lines: false,
        }
    }

    fn pull(&self, tag: &str) -> Report {
        self.try_pull(tag).unwrap_or_else(|error| panic!("{tag}: {error}"))
    }

    fn try_pull(&self, tag: &str) -> Result<Report, String> {
        pull(&self.request(tag), &Silent)
    }

    fn store(&self) -> Store {
        Store::open(&self.path().join("store")).expect("a store").expect("a store")
    }

    /// All of an image is in the store, under its name, and nothing else is wrong there.
    fn check(&self, tag: &str, made: &Made) {
        check(&self.store(), &self.name(tag), made);
    }

    /// Ranges of each blob that were asked for since this was asked.
    fn asked(&self) -> BTreeMap<String, Vec<(u64, u64)>> {
        let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for seen in self.registry.seen() {
            let Some((_, digest)) = seen.target.split_once("/blobs/") else { continue };
            let len = self.registry.blob(REPOSITORY, digest).map_or(0, |bytes| bytes.len() as u64);
            let range = seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let range = range.map_or((0, len), |(first, last)| {
                (first.parse().expect("a number"), last.parse::<u64>().expect("a number") + 1)
            });
            asked.entry(digest.to_owned()).or_default().push(range);
        }
        asked
    }
}

/// Bytes of ranges.
fn bytes(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(first, end)| end - first).sum()
}

fn name_of(digest: &Digest) -> String {
    format!("sha256:{digest}")
}

fn digest_of(bytes: &[u8]) -> String {
    name_of(&Blob::of(bytes).digest)
}

fn pack_of(made: &Made, pack: &Blob) -> Vec<u8> {
    fs::read(made.packs.join(pack.digest.to_string())).expect("a pack")
}

/// Options for servers that answer at once or never.
fn options() -> Options {
    Options {
        tries: 4,
        first_wait: Duration::from_millis(1),
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(1),
        authfile: Some("/dev/null".into()),
        plain_http: true,
        ..Options::default()
    }
}

/// A pull; an error is one sentence.
fn pull(request: &Request, progress: &dyn Progress) -> Result<Report, String> {
    run(request, progress).map_err(|error| sentence(&error))
}

/// One line without escape sequences, with its causes.
fn sentence(error: &Error) -> String {
    let mut said = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        said.push_str(&format!(": {cause}"));
    }
    assert!(tesserafs_image::text::is_plain(&said) && !said.contains('\n') && !said.is_empty(), "{said:?}");
    said
}

/// All of an image is in a store, under this name, and nothing there is wrong.
fn check(store: &Store, name: &str, made: &Made) {
    let image = store.image(&reference(name)).expect("an image").expect("a name");
    assert_eq!(fs::read(&image.path).expect("the image"), fs::read(&made.path).expect("the image"));
    for pack in &made.artifact.packs {
        let path = image.pack_dir.join(pack.digest.to_string());
        if image.pack_dir.ends_with("blobs/sha256") {
            assert!(fs::read(&path).expect("a pack") == pack_of(made, pack), "{}", path.display());
        }
    }
    let errors: Vec<_> = problems(store).into_iter().filter(|problem| problem.is_error).collect();
    assert_eq!(errors, []);
}

/// An image of the store, made one file.
fn exported(place: &Place, tag: &str) -> Vec<u8> {
    let new = place.path().join("exported.tess");
    let image = place.store().image(&reference(&place.name(tag))).expect("an image").expect("a name");
    export(&image, &new, true, &Silent).expect("a file");
    fs::read(new).expect("a file")
}

/// The same of the image that was pushed.
fn unpacked(made: &Made) -> Vec<u8> {
    let new = made.path.with_extension("one");
    let path = support::text;
    let arguments = ["unpack", "--force", "--packdir", path(&made.packs), path(&new), path(&made.path)];
    support::done(made.path.parent().expect("a folder"), &arguments);
    fs::read(new).expect("a file")
}
