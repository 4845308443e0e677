// SPDX-License-Identifier: GPL-2.0-or-later

//! The bundle from an older image.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher as _};
use std::io::Read;
use std::path::Path;

use mkfs_tesserafs::bundle::{create, BundleRequest};
use mkfs_tesserafs::progress::Progress;
use oci_spec::image::MediaType;
use tesserafs_image::hash::Hasher;
use tesserafs_image::superblock::read_head;
use tesserafs_image::{text, Broken, Error, Source};

use super::blobs::{Blobs, Content};
use super::local::Local;
use super::report::DeltaReport;
use super::Request;
use crate::artifact::{Blob, Delta, EMPTY};
use crate::chain;
use crate::reference::Name;
use crate::registry::Repository;

/// The level of zstd, as `tesserafs bundle` has it.
const LEVEL: i32 = 19;

/// Makes the bundle from an old image, and pushes it under the tag of the pair.
pub(super) fn push(
    request: &Request,
    old: &Path,
    new: &Local<'_>,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<DeltaReport, Error> {
    let source = Source::open(old)?;
    let from = read_head(&source).map_err(|error| match error {
        Broken::Rule(error) => Error::Refused(format!("{}: {error}", text::path(old))),
        Broken::Stop(error) => error,
    })?;
    let (from, to) = (from.id, new.id());
    if from == to {
        let (old, new) = (text::path(old), text::path(&request.image));
        return Err(Error::Refused(format!(
            "{old} and {new} are one image: there is no bundle between them"
        )));
    }
    // In the folder for such files, and without a name once it is complete.
    let random = RandomState::new().build_hasher().finish();
    let path = std::env::temp_dir().join(format!("tesserafs-{}-{random:016x}.bundle", std::process::id()));
    let made = create(
        &BundleRequest {
            output: path.clone(),
            old: old.to_owned(),
            new: request.image.clone(),
            pack_dir: request.pack_dir.clone(),
            portable: false,
            level: LEVEL,
            force: false,
        },
        &mkfs_tesserafs::progress::Silent,
    );
    made.map_err(|error| Error::Refused(chain(&error)))?;
    let failed = |source| Error::Io { what: format!("cannot read {}", text::path(&path)), source };
    let file = File::open(&path);
    fs::remove_file(&path).map_err(failed)?;
    let file = file.map_err(failed)?;

    let bundle = blob_of(&file).map_err(failed)?;
    let delta = Delta { from, to, bundle };
    let mut blobs = Blobs::new(repository, request, progress);
    blobs.add(bundle, "bundle".into(), Content::Open(file, path.clone()));
    blobs.add(Blob::of(EMPTY), "empty configuration".into(), Content::Bytes(EMPTY.to_vec()));
    blobs.send()?;
    let tag = Delta::tag(&from, &to);
    let name = Name::Tag(tag.clone());
    repository.put_manifest(&name, MediaType::ImageManifest.as_ref(), &delta.to_manifest())?;
    Ok(DeltaReport { from: format!("sha256:{from}"), tag, bytes: bundle.len })
}

fn blob_of(mut file: &File) -> std::io::Result<Blob> {
    let (mut hasher, mut len) = (Hasher::default(), 0);
    let mut buf = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buf)?;
        if read == 0 {
            return Ok(Blob { digest: hasher.finish(), len });
        }
        hasher.update(&buf[..read]);
        len += read as u64;
    }
}
