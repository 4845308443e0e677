// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs that the registry lacks.

use std::collections::HashSet;
use std::fs::File;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use mkfs_tesserafs::progress::Progress;
use tesserafs_format::Digest;
use tesserafs_image::{parallel, text, Error};

use super::report::Report;
use super::Request;
use crate::artifact::Blob;
use crate::registry::{Repository, Upload};
use crate::say;

/// Blobs that are sent at once.
const THREADS: usize = 4;

/// Where the bytes of a blob are.
pub(super) enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    Open(File, PathBuf),
}

struct Wanted {
    blob: Blob,
    what: String,
    content: Content,
}

/// All blobs of a push.
pub(super) struct Blobs<'a> {
    repository: &'a Repository,
    request: &'a Request,
    progress: &'a dyn Progress,
    wanted: Vec<Wanted>,
    known: HashSet<Digest>,
}

impl<'a> Blobs<'a> {
    pub(super) fn new(repository: &'a Repository, request: &'a Request, progress: &'a dyn Progress) -> Self {
        Self { repository, request, progress, wanted: Vec::new(), known: HashSet::new() }
    }

    /// One more, unless it is there already; `what` is its name for people.
    pub(super) fn add(&mut self, blob: Blob, what: String, content: Content) {
        if self.known.insert(blob.digest) {
            self.progress.found(blob.len);
            self.progress.files_found(1);
            self.wanted.push(Wanted { blob, what, content });
        }
    }

    /// Sends all that the registry lacks.
    pub(super) fn send(self) -> Result<Report, Error> {
        let (present, mounted, uploaded) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let cancel = &self.request.options.cancel;
        parallel::for_each(THREADS, self.wanted.len() as u64, cancel, |number| {
            let Some(wanted) = usize::try_from(number).ok().and_then(|number| self.wanted.get(number)) else {
                return Ok(());
            };
            let (count, done) = if self.has(&wanted.blob)? {
                self.progress.read(wanted.blob.len);
                (&present, "is there")
            } else if self.mount(&wanted.blob)? {
                self.progress.read(wanted.blob.len);
                (&mounted, "taken from another repository")
            } else {
                self.upload(wanted)?;
                (&uploaded, "uploaded")
            };
            count.fetch_add(wanted.blob.len, Ordering::Relaxed);
            self.progress.files_done(1);
            if self.request.lines {
                let Wanted { blob, what, .. } = wanted;
                say(&format!("{what} sha256:{} ({}): {done}", blob.digest, text::size(blob.len)));
            }
            Ok(())
        })?;
        Ok(Report::of_bytes(present.into_inner(), mounted.into_inner(), uploaded.into_inner()))
    }

    fn has(&self, blob: &Blob) -> Result<bool, Error> {
        match self.repository.blob_len(&blob.digest)? {
            None => Ok(false),
            Some(len) if len == blob.len => Ok(true),
            Some(len) => {
                let (reference, digest) = (&self.request.reference, blob.digest);
                Err(Error::Refused(format!(
                    "{reference}: the registry has {len} bytes of the blob sha256:{digest}, expected {}",
                    blob.len
                )))
            }
        }
    }

    fn mount(&self, blob: &Blob) -> Result<bool, Error> {
        for from in &self.request.mount_from {
            if self.repository.mount(&blob.digest, from)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn upload(&self, wanted: &Wanted) -> Result<(), Error> {
        let open = |path: &PathBuf| {
            File::open(path)
                .map_err(|source| Error::Io { what: format!("cannot open {}", text::path(path)), source })
        };
        let (mut file, mut bytes);
        let from: &mut dyn Upload = match &wanted.content {
            Content::Bytes(content) => {
                bytes = Cursor::new(content);
                &mut bytes
            }
            Content::File(path) => {
                file = open(path)?;
                &mut file
            }
            Content::Open(content, path) => {
                file = content.try_clone().map_err(|source| Error::Io {
                    what: format!("cannot open {}", text::path(path)),
                    source,
                })?;
                &mut file
            }
        };
        let mut told = 0;
        self.repository.upload(&wanted.blob, from, &mut |had| {
            self.progress.read(had - told);
            told = had;
        })
    }
}
