// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs and manifests that the registry lacks.
//!
//! A blob is uploaded in a session, in chunks. After anything that went wrong the registry says how much of it it has, and the upload
//! goes on from there; if it has forgotten the session, from the beginning.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use tesserafs_format::Digest;
use tesserafs_image::{text, Error};
use ureq::http::{header, HeaderName, Method};

use super::auth::said_digest;
use super::call::{text_of, unexpected, Call, Content, Response};
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::retry::{retry, Patience};
use super::url::{shown, with_parameter};
use super::Repository;
use crate::artifact::Blob;
use crate::reference::Name;

/// A blob of so many bytes is sent in one request, with the one that ends the session.
const SMALL: u64 = 1 << 20;
/// How long a registry may be silent when a session ends: some hash all of the blob then, or move it.
const END: Duration = Duration::from_secs(600);

/// The smallest chunk that a registry takes, but for the last one.
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The largest that is believed to be asked for.
const CHUNK_MIN_MAX: u64 = 1 << 30;

/// Bytes to upload: read from where the registry wants them.
pub trait Upload: Read + Seek {}

impl<T: Read + Seek> Upload for T {}

impl Repository {
    /// From here on tokens are asked for that let write. It saves a refusal.
    pub fn will_write(&self) {
        let origin = self.origin();
        origin.auth().want(&format!("repository:{}:pull,push", origin.repository()));
    }

    /// Uploads a blob. `told` gets how many bytes of it the registry has, now and then.
    pub fn upload(
        &self,
        blob: &Blob,
        bytes: &mut dyn Upload,
        told: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        self.will_write();
        let endpoint = self.origin();
        let session = Session {
            endpoint,
            blob: *blob,
            bytes,
            url: None,
            offset: 0,
            is_sure: true,
            chunk: 1,
            losses: 0,
        };
        session.run(told).map_err(into_error)
    }

    /// Lets the registry take a blob from another repository that it has, named without the host. `false` if it does not, in which case
    /// the blob is to be uploaded.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        self.will_write();
        let endpoint = self.origin();
        endpoint.auth().want(&format!("repository:{from}:pull"));
        let mounted = retry(endpoint.options(), || {
            let url = endpoint.url(&format!("blobs/uploads/?mount=sha256:{digest}"))?;
            let mut call = Call::new(Method::POST, with_parameter(&url, "from", from));
            let response = endpoint.send(&mut call)?;
            match response.status().as_u16() {
                201 => Ok(true),
                // It began an upload instead.
                202 => {
                    endpoint.keep_session(digest, endpoint.location(&call.url, &response)?);
                    Ok(false)
                }
                // There are registries that do not know it, or that have no such repository.
                400 | 404 | 405 => Ok(false),
                _ => Err(unexpected(&call.url, response, "201 or 202")),
            }
        });
        mounted.map_err(into_error)
    }

    /// Gives a document a name.
    pub fn put_manifest(&self, name: &Name, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.will_write();
        let endpoint = self.origin();
        let put = retry(endpoint.options(), || {
            let mut call = Call::new(Method::PUT, endpoint.url(&format!("manifests/{name}"))?)
                .header(header::CONTENT_TYPE, media_type)
                .content(Content::Bytes(bytes));
            let response = endpoint.send(&mut call)?;
            match response.status().as_u16() {
                200..=202 => check_digest(&call.url, &response, &Blob::of(bytes).digest),
                _ => Err(unexpected(&call.url, response, "201")),
            }
        });
        put.map_err(into_error)
    }
}

fn into_error(fault: Fault) -> Error {
    match fault {
        Fault::Stop(error) => error,
        fault => Error::Refused(fault.into_text()),
    }
}

/// Compares the digest that a registry says that it computed, if it says one.
fn check_digest(url: &str, response: &Response, expected: &Digest) -> Result<(), Fault> {
    match said_digest(response) {
        Some(said) if said != format!("sha256:{expected}") => {
            let said = text::escape(said.as_bytes());
            Err(Fault::last(format!("{}: found the digest {said}, expected sha256:{expected}", shown(url))))
        }
        _ => Ok(()),
    }
}

/// An upload.
struct Session<'a> {
    endpoint: &'a Endpoint,
    blob: Blob,
    bytes: &'a mut dyn Upload,
    /// Where it goes on, once the registry said so.
    url: Option<String>,
    /// Bytes that the registry has.
    offset: u64,
    /// Whether it has so many: not after a failure.
    is_sure: bool,
    chunk: u64,
    /// How often it lost bytes that it had.
    losses: u32,
}

impl Session<'_> {
    fn run(mut self, told: &mut dyn FnMut(u64)) -> Result<(), Fault> {
        let mut patience = Patience::new(self.endpoint.options());
        let mut most = 0;
        loop {
            self.endpoint.options().cancel.check()?;
            let before = self.offset;
            match self.step() {
                Ok(true) => {
                    told(self.blob.len);
                    return Ok(());
                }
                Ok(false) => (),
                Err(fault) => {
                    self.is_sure = false;
                    patience.wait(fault)?;
                }
            }
            if self.is_sure && self.offset > before {
                patience.progress();
            }
            if self.offset > most {
                most = self.offset;
                told(most);
            }
        }
    }

    /// The next request; whether the blob is there.
    fn step(&mut self) -> Result<bool, Fault> {
        let Some(url) = self.url.clone() else {
            return self.begin().map(|()| false);
        };
        if !self.is_sure {
            return self.ask(&url);
        }
        if self.offset < self.blob.len && !(self.offset == 0 && self.blob.len <= SMALL) {
            return self.send_chunk(&url).map(|()| false);
        }
        self.end(&url).map(|()| true)
    }

    /// Begins a session, or takes up one that was begun instead of a mount.
    fn begin(&mut self) -> Result<(), Fault> {
        (self.offset, self.is_sure) = (0, true);
        self.chunk = self.endpoint.options().chunk.max(1);
        if let Some(url) = self.endpoint.take_session(&self.blob.digest) {
            self.url = Some(url);
            return Ok(());
        }
        let mut call = Call::new(Method::POST, self.endpoint.url("blobs/uploads/")?);
        let response = self.endpoint.send(&mut call)?;
        if response.status().as_u16() != 202 {
            return Err(unexpected(&call.url, response, "202"));
        }
        let asked = text_of(&response, &CHUNK_MIN).and_then(|value| value.parse().ok()).unwrap_or(0);
        if asked > CHUNK_MIN_MAX {
            return Err(Fault::last(format!(
                "{}: wants chunks of {asked} bytes, expected 1 GiB at most",
                shown(&call.url)
            )));
        }
        self.chunk = self.chunk.max(asked);
        self.url = Some(self.endpoint.location(&call.url, &response)?);
        Ok(())
    }

    /// The registry has less than it said before. It does not get the same bytes for ever.
    fn lost(&mut self, why: String) -> Fault {
        self.losses += 1;
        if self.losses >= self.endpoint.options().tries {
            return Fault::Last(format!("{why}; it lost what it had {} times", self.losses));
        }
        Fault::Passing(why)
    }

    /// Forgets the session.
    fn begin_again(&mut self, why: String) -> Fault {
        (self.url, self.offset) = (None, 0);
        self.lost(why)
    }

    /// Asks how much the registry has; whether it has all of the blob, since the request that ended the session succeeded after all.
    fn ask(&mut self, url: &str) -> Result<bool, Fault> {
        let mut call = Call::new(Method::GET, url);
        let response = self.endpoint.send(&mut call)?;
        match response.status().as_u16() {
            200 | 204 => {
                let had = had(&response);
                self.url = Some(self.next(url, &response)?);
                match had.filter(|had| *had <= self.blob.len) {
                    Some(had) => {
                        let before = std::mem::replace(&mut self.offset, had);
                        self.is_sure = true;
                        if had < before {
                            return Err(
                                self.lost(format!("{}: found {had} bytes, expected {before}", shown(url)))
                            );
                        }
                        Ok(false)
                    }
                    None => Err(self.begin_again(format!("{}: found no Range, expected 0-N", shown(url)))),
                }
            }
            429 => Err(unexpected(url, response, "204")),
            status if status >= 500 && status != 501 => Err(unexpected(url, response, "204")),
            401 | 403 => Err(unexpected(url, response, "204")),
            status => {
                if self.endpoint.blob_len(&self.blob.digest)? == Some(self.blob.len) {
                    return Ok(true);
                }
                Err(self
                    .begin_again(format!("{}: found status {status}, and the upload is gone", shown(url))))
            }
        }
    }

    /// Sends the next chunk.
    fn send_chunk(&mut self, url: &str) -> Result<(), Fault> {
        let end = self.blob.len.min(self.offset + self.chunk);
        let range = format!("{}-{}", self.offset, end - 1);
        let (response, url) = self.send(Method::PATCH, url.to_owned(), end, Some(range))?;
        match response.status().as_u16() {
            200..=202 | 204 => {
                self.url = Some(self.next(&url, &response)?);
                // A registry that has less than it was sent goes on from there.
                let had = had(&response).unwrap_or(end);
                if had > end {
                    return Err(
                        self.begin_again(format!("{}: found {had} bytes, expected {end}", shown(&url)))
                    );
                }
                let before = std::mem::replace(&mut self.offset, had);
                if had == end {
                    return Ok(());
                }
                let why = format!("{}: found {had} bytes, expected {end}", shown(&url));
                Err(if had < before { self.lost(why) } else { Fault::Passing(why) })
            }
            // The registry has another number of bytes than was thought.
            416 => Err(Fault::Passing(format!("{}: found status 416, expected 202", shown(&url)))),
            404 => {
                Err(self.begin_again(format!("{}: found status 404, and the upload is gone", shown(&url))))
            }
            _ => Err(unexpected(&url, response, "202")),
        }
    }

    /// Ends the session, with all of the blob where that is small.
    fn end(&mut self, url: &str) -> Result<(), Fault> {
        let url = with_parameter(url, "digest", &format!("sha256:{}", self.blob.digest));
        let (response, url) = self.send(Method::PUT, url, self.blob.len, None)?;
        match response.status().as_u16() {
            200..=204 => check_digest(&url, &response, &self.blob.digest),
            404 | 416 => Err(Fault::Passing(format!(
                "{}: found status {}, expected 201",
                shown(&url),
                response.status().as_u16()
            ))),
            _ => Err(unexpected(&url, response, "201")),
        }
    }

    /// Sends the bytes up to `end`.
    fn send(
        &mut self,
        method: Method,
        url: String,
        end: u64,
        range: Option<String>,
    ) -> Result<(Response, String), Fault> {
        let len = end - self.offset;
        let mut part = Part { bytes: self.bytes, left: len, failed: None };
        let begun = part.bytes.seek(SeekFrom::Start(self.offset));
        begun.map_err(|source| Fault::Stop(Error::Io { what: "cannot read the blob".into(), source }))?;
        let mut call = Call::new(method, url).header(header::CONTENT_TYPE, "application/octet-stream");
        call.silence = (end == self.blob.len).then_some(END);
        if let Some(range) = range {
            call = call.header(header::CONTENT_RANGE, range);
        }
        if len > 0 {
            call = call.header(header::EXPECT, "100-continue").content(Content::Stream(&mut part, len));
        }
        let answer = self.endpoint.send(&mut call);
        let url = call.url;
        match part.failed {
            Some(source) => Err(Fault::Stop(Error::Io { what: "cannot read the blob".into(), source })),
            None => Ok((answer?, url)),
        }
    }

    /// Where the upload goes on.
    fn next(&self, url: &str, response: &Response) -> Result<String, Fault> {
        if response.headers().contains_key(header::LOCATION) {
            self.endpoint.location(url, response)
        } else {
            Ok(url.to_owned())
        }
    }
}

/// The bytes that a registry has, by the Range of its answer. One byte looks as none does: it is taken for none.
fn had(response: &Response) -> Option<u64> {
    let range = text_of(response, &header::RANGE)?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    if last == 0 {
        Some(0)
    } else {
        last.checked_add(1)
    }
}

/// A part of a blob, and why it could not be read.
struct Part<'a> {
    bytes: &'a mut dyn Upload,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Part<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let max = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match self.bytes.read(&mut buf[..max]) {
            Ok(0) if max > 0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter")),
            other => other,
        };
        match read {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}
