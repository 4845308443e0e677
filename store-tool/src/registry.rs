// SPDX-License-Identifier: GPL-2.0-or-later

//! One repository of a registry, read and written over HTTP by as many threads as like.
//!
//! It speaks the API of the OCI distribution specification. Nothing that a server says is believed but that it said it: of a
//! manifest, the digest is compared where one was asked for; of a blob, no byte outside of what was asked for is handed out, and
//! whoever takes the bytes verifies them.
//!
//! Modules, in the order in which a request meets them:
//!
//! - [`Options`]: what is asked of all requests;
//! - `endpoint`: the repository at its host or at a mirror, with what is known there: the token (`auth`, of `challenge` and
//!   `credentials`) and where blobs are redirected to;
//! - `hosts`: connections to a host, opened as `tls` and `proxy` say, as fast as its `bucket` allows;
//! - `call`: one request, and what its answer means: a result, or a `fault`, after which `retry` tries again or not;
//! - `read`: ranges of blobs; `write`: blobs and manifests that the registry lacks.
//!
//! # Failures
//!
//! A failure that can pass by itself (a connection that breaks, silence, 408, 429, 5xx) is tried again, later each time, [`Options::tries`]
//! times in a row without 64 KiB in between; `Retry-After` is heeded up to five minutes. Any other failure is an error at once: one
//! sentence with the URL (without its query, which can hold secrets), what was found and what was expected. All text of servers in
//! it is escaped.
//!
//! # Memory
//!
//! A connection has 256 KiB of buffers, and 16 to a host are kept; whoever reads a blob has 128 KiB. Documents have 4 MiB at most,
//! answers of token servers 1 MiB, and errors are read up to 16 KiB. Hosts and redirects that are remembered have limits, too. The
//! length of a blob does not matter.
//!
//! # Secrets
//!
//! Credentials and tokens go to the registry that they are for, and to the token server that it names, by TLS where the registry
//! itself is reached by TLS. They are never sent to where a blob is redirected.

mod auth;
mod bucket;
mod call;
mod challenge;
mod credentials;
mod endpoint;
mod fault;
mod hosts;
mod options;
mod proxy;
mod read;
mod retry;
mod tls;
mod url;
mod write;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::Error;

use self::endpoint::Endpoint;
use self::fault::Fault;
use self::hosts::Hosts;
pub use self::options::{ClientCertificate, Options};
use self::read::Reading;
pub use self::write::Upload;
use crate::artifact::{Blob, DOCUMENT_MAX};
use crate::reference::{Name, Reference};

/// A repository of a registry, with its mirrors.
#[derive(Debug)]
pub struct Repository {
    /// The mirrors, and the host itself, which is the last one.
    endpoints: Vec<Endpoint>,
    no_mirrors: AtomicBool,
}

/// A manifest or an index, as a registry gave it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The digest of these bytes.
    pub digest: Digest,
    /// The media type that the registry says it has; text from elsewhere.
    pub media_type: Option<String>,
}

/// How a server answers the request for a range of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// By the bytes of the range, and no others.
    Part,
    /// It ignores the range: all bytes of the blob are handed out, from 0, and perhaps some of them were before.
    Whole,
}

/// Takes bytes of a blob that begin at an offset of it, and hears of which answer they are. An error of it ends the reading, and is the
/// result of that.
pub type Take<'a> = dyn FnMut(Answer, u64, &[u8]) -> Result<(), Error> + 'a;

impl Repository {
    /// The repository of a reference. It connects to nothing.
    pub fn open(reference: &Reference, options: &Options) -> Result<Self, Error> {
        let hosts = Arc::new(Hosts::new(options)?);
        let mut endpoints = Vec::new();
        for mirror in &options.mirrors {
            endpoints.push(Endpoint::mirror(mirror, reference, &hosts)?);
        }
        endpoints.push(Endpoint::origin(reference, &hosts));
        Ok(Self { endpoints, no_mirrors: AtomicBool::new(false) })
    }

    /// From here on nothing is read from mirrors: one of them had wrong bytes.
    pub fn drop_mirrors(&self) {
        self.no_mirrors.store(true, Ordering::Relaxed);
    }

    /// The manifest of that name; `None` where the registry has none. If the name is a digest, it is the digest of the bytes.
    pub fn manifest(&self, name: &Name) -> Result<Option<Manifest>, Error> {
        self.first(|endpoint| {
            let found = endpoint.manifest(name)?;
            match (name, &found) {
                (Name::Digest(expected), Some(Manifest { digest, .. })) if digest != expected => {
                    let endpoint = endpoint.shown();
                    Err(Fault::last(format!(
                        "{endpoint}: found a manifest with the digest sha256:{digest}, expected {name}"
                    )))
                }
                _ => Ok(found),
            }
        })
    }

    /// The length of a blob; `None` where the registry does not have it.
    pub fn blob_len(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.first(|endpoint| endpoint.blob_len(digest))
    }

    /// Reads a blob of 4 MiB at most, such as a configuration, and compares its digest.
    pub fn document(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        let shown = || format!("{}: the blob sha256:{}", self.origin().shown(), blob.digest);
        if blob.len > DOCUMENT_MAX {
            let shown = shown();
            return Err(Error::Refused(format!(
                "{shown} has {} bytes, expected {DOCUMENT_MAX} at most",
                blob.len
            )));
        }
        // Proven to be 4 MiB at most. The bytes that are handed out lie in the blob.
        let mut bytes = vec![0; blob.len as usize];
        let mut found = blob.digest;
        // It may come wrong once, and a mirror may always have it wrong.
        for _ in 0..2 {
            self.read(blob, 0..blob.len, &mut |_, offset, part| {
                let offset = offset as usize;
                bytes[offset..offset + part.len()].copy_from_slice(part);
                Ok(())
            })?;
            found = sha256(&bytes);
            if found == blob.digest {
                return Ok(bytes);
            }
            self.drop_mirrors();
        }
        Err(Error::Refused(format!("{} has the digest sha256:{found}", shown())))
    }

    /// Reads a range of a blob, in ascending order, in parts of 128 KiB at most.
    ///
    /// A connection that breaks is not the end: reading goes on with the byte after the last one that came, at a mirror or the host.
    /// If a server ignores the range, all of the blob is handed out, from 0; bytes can then come twice. `take` sees no byte outside
    /// of `range`, or of `0..blob.len` in that case, whatever servers say. The bytes are those that a server sent: verify them.
    pub fn read(&self, blob: &Blob, range: Range<u64>, take: &mut Take<'_>) -> Result<(), Error> {
        if range.start > range.end || range.end > blob.len {
            return Err(Error::Refused(format!(
                "bytes {} to {} of the blob sha256:{}, which has {}, cannot be read",
                range.start, range.end, blob.digest, blob.len
            )));
        }
        let mut reading = Reading::new(*blob, range);
        self.first(|endpoint| endpoint.read(&mut reading, take))
    }

    /// The host itself.
    fn origin(&self) -> &Endpoint {
        self.endpoints.last().unwrap_or_else(|| unreachable!("a repository has a host"))
    }

    /// Asks the mirrors in turn, and then the host, until one has what is wanted.
    fn first<T: Missing>(&self, mut ask: impl FnMut(&Endpoint) -> Result<T, Fault>) -> Result<T, Error> {
        let mut mirrors_said = String::new();
        let (_, mirrors) =
            self.endpoints.split_last().unwrap_or_else(|| unreachable!("a repository has a host"));
        for mirror in
            mirrors.iter().filter(|mirror| !self.no_mirrors.load(Ordering::Relaxed) && mirror.is_well())
        {
            match ask(mirror) {
                Ok(answer) if !answer.is_missing() => return Ok(answer),
                Ok(_) => (),
                Err(Fault::Stop(error)) => return Err(error),
                Err(fault) => {
                    mirror.fell_ill();
                    mirrors_said.push_str(&format!("; mirror {}", fault.into_text()));
                }
            }
        }
        ask(self.origin()).map_err(|fault| match fault {
            Fault::Stop(error) => error,
            fault => Error::Refused(fault.into_text() + &mirrors_said),
        })
    }
}

/// Answers that can mean that a mirror does not have it.
trait Missing {
    fn is_missing(&self) -> bool;
}

impl<T> Missing for Option<T> {
    fn is_missing(&self) -> bool {
        self.is_none()
    }
}

impl Missing for () {
    fn is_missing(&self) -> bool {
        false
    }
}
