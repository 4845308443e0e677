// SPDX-License-Identifier: GPL-2.0-or-later

//! The repository at one host, and what is known of it there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::{text, Error};
use ureq::http::{header, Method};

use super::auth::{challenge, is_refusal, Auth};
use super::call::{drain, read_all, text_of, unexpected, Call, Content, Response};
use super::fault::Fault;
use super::hosts::Hosts;
use super::options::Options;
use super::retry::retry;
use super::url::{self, is_loopback, Origin};
use super::Manifest;
use crate::artifact::DOCUMENT_MAX;
use crate::reference::{is_repository, Name, Reference};

/// The documents that are asked for.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
/// Redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// Blobs whose redirects are known: those of an image.
const TARGETS_MAX: usize = 1024;
/// How long a mirror that failed is not asked.
const ILL: Duration = Duration::from_secs(60);

/// The repository at one host.
#[derive(Debug)]
pub(super) struct Endpoint {
    hosts: Arc<Hosts>,
    /// Host and port, as they were given.
    host: String,
    repository: String,
    /// `https://HOST` or `http://HOST`, once it is known which.
    base: Mutex<Option<String>>,
    auth: Auth,
    /// Where blobs are redirected to.
    targets: Mutex<HashMap<Digest, String>>,
    /// Uploads that were begun instead of mounts.
    sessions: Mutex<HashMap<Digest, String>>,
    ill_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// The host of a reference.
    pub(super) fn origin(reference: &Reference, hosts: &Arc<Hosts>) -> Self {
        Self::new(reference.api_host(), &reference.host, &reference.repository, hosts)
    }

    /// A mirror, `HOST[:PORT][/PREFIX]`.
    pub(super) fn mirror(mirror: &str, reference: &Reference, hosts: &Arc<Hosts>) -> Result<Self, Error> {
        let (host, prefix) =
            mirror.split_once('/').map_or((mirror, None), |(host, prefix)| (host, Some(prefix)));
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let repository = match prefix {
            Some(prefix) => format!("{prefix}/{}", reference.repository),
            None => reference.repository.clone(),
        };
        // A host by the rules for references.
        let is_host = Reference::parse(&format!("{host}/a")).is_ok_and(|parsed| parsed.host == host);
        if !is_host || !is_repository(&repository) {
            let shown = text::escape(mirror.as_bytes());
            return Err(Error::Refused(format!("{shown} is no mirror, HOST[:PORT][/PREFIX]")));
        }
        Ok(Self::new(host, host, &repository, hosts))
    }

    fn new(api_host: &str, host: &str, repository: &str, hosts: &Arc<Hosts>) -> Self {
        Self {
            hosts: hosts.clone(),
            host: api_host.to_owned(),
            repository: repository.to_owned(),
            base: Mutex::default(),
            auth: Auth::new(host, repository),
            targets: Mutex::default(),
            sessions: Mutex::default(),
            ill_until: Mutex::default(),
        }
    }

    /// Its name in messages.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    pub(super) fn options(&self) -> &Options {
        &self.hosts.options
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Whether it did not fail lately.
    pub(super) fn is_well(&self) -> bool {
        let until = self.ill_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() >= until)
    }

    /// It failed: others are asked for some time.
    pub(super) fn fell_ill(&self) {
        *self.ill_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + ILL);
    }

    /// The URL of something in the repository: `manifests/NAME`, `blobs/DIGEST`, `blobs/uploads/`.
    pub(super) fn url(&self, path: &str) -> Result<String, Fault> {
        Ok(format!("{}/v2/{}/{path}", self.base()?, self.repository))
    }

    /// The beginning of all its URLs. A registry on this machine is asked once whether it speaks TLS.
    fn base(&self) -> Result<String, Fault> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let at = |scheme: &str| -> Result<String, Fault> {
            let url = format!("{scheme}://{}", self.host);
            let origin = Origin::of(&url).map_err(Fault::Last)?;
            self.hosts.is_registry(&origin);
            Ok(url)
        };
        let host = self.host.rsplit_once(':').map_or(&*self.host, |(host, _)| host);
        let found = if self.options().plain_http {
            at("http")?
        } else if !is_loopback(host) && !is_loopback(&self.host) {
            at("https")?
        } else {
            self.which_of(at("https")?, at("http")?)?
        };
        *base = Some(found.clone());
        Ok(found)
    }

    /// TLS, if the host speaks it.
    fn which_of(&self, tls: String, plain: String) -> Result<String, Fault> {
        let ask = |base: &str| Call::new(Method::GET, format!("{base}/v2/")).send(&self.hosts, None);
        let by_tls = match ask(&tls) {
            Err(fault @ (Fault::Passing(_) | Fault::Last(_))) => fault,
            Err(fault) => return Err(fault),
            Ok(answer) => {
                drain(answer);
                return Ok(tls);
            }
        };
        // A server that speaks TLS answers 400 to what is none.
        match ask(&plain) {
            Ok(answer) if answer.status().as_u16() != 400 => {
                drain(answer);
                Ok(plain)
            }
            _ => Err(by_tls),
        }
    }

    /// Sends a request, with what it takes to be let in where it goes to the registry itself.
    pub(super) fn send(&self, call: &mut Call<'_>) -> Result<Response, Fault> {
        let base = Origin::of(&self.base()?).map_err(Fault::Last)?;
        if Origin::of(&call.url).map_err(Fault::Last)? != base {
            return call.send(&self.hosts, None);
        }
        // Without a ticket, with one, and with one for what a challenge then asks for.
        for _ in 0..3 {
            let ticket = self.auth.ticket(&self.hosts, &base)?;
            let response = call.send(&self.hosts, ticket.header.as_deref())?;
            if !is_refusal(&response) {
                return Ok(response);
            }
            let challenge = challenge(&response);
            drain(response);
            self.auth.refused(&ticket, challenge, &self.hosts, &base, &call.url)?;
            if matches!(call.content, Content::Stream(..)) {
                // Its bytes are gone.
                return Err(Fault::Passing(format!(
                    "{}: found status 401, and have a new token",
                    url::shown(&call.url)
                )));
            }
        }
        Err(self.auth.denied_again(&call.url))
    }

    /// Asks, and follows redirects; the answer, and the URL that gave it.
    pub(super) fn follow(
        &self,
        method: &Method,
        url: String,
        headers: &[(header::HeaderName, String)],
    ) -> Result<(Response, String), Fault> {
        let mut url = url;
        for _ in 0..=REDIRECTS_MAX {
            let mut call = Call::new(method.clone(), url);
            call.headers = headers.to_vec();
            let response = self.send(&mut call)?;
            url = call.url;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, url));
            }
            url = self.location(&url, &response)?;
            drain(response);
        }
        Err(Fault::last(format!("{}: found more than {REDIRECTS_MAX} redirects", url::shown(&url))))
    }

    /// The URL that an answer names.
    pub(super) fn location(&self, url: &str, response: &Response) -> Result<String, Fault> {
        let location = text_of(response, &header::LOCATION).ok_or_else(|| {
            let status = response.status().as_u16();
            Fault::last(format!("{}: found status {status} without a Location", url::shown(url)))
        })?;
        let target = url::resolve(url, location).map_err(Fault::Last)?;
        if url.starts_with("https:") && !Origin::of(&target).map_err(Fault::Last)?.is_tls {
            let target = url::shown(&target);
            return Err(Fault::last(format!("{}: found a Location without TLS, {target}", url::shown(url))));
        }
        Ok(target)
    }

    /// A document; `None` where there is none of that name.
    pub(super) fn manifest(&self, name: &Name) -> Result<Option<Manifest>, Fault> {
        retry(self.options(), || {
            let url = self.url(&format!("manifests/{name}"))?;
            let (response, url) = self.follow(&Method::GET, url, &[(header::ACCEPT, ACCEPT.to_owned())])?;
            match response.status().as_u16() {
                200 => {
                    let media_type = text_of(&response, &header::CONTENT_TYPE).map(str::to_owned);
                    let bytes = read_all(&url, response, DOCUMENT_MAX)?;
                    Ok(Some(Manifest { digest: sha256(&bytes), bytes, media_type }))
                }
                404 => Ok(None),
                _ => Err(unexpected(&url, response, "200")),
            }
        })
    }

    /// The length of a blob; `None` where it is not there.
    pub(super) fn blob_len(&self, digest: &Digest) -> Result<Option<u64>, Fault> {
        retry(self.options(), || {
            let url = self.url(&format!("blobs/sha256:{digest}"))?;
            let (response, url) = self.follow(&Method::HEAD, url, &[])?;
            match response.status().as_u16() {
                200 => {
                    let len = text_of(&response, &header::CONTENT_LENGTH).and_then(|len| len.parse().ok());
                    len.map(Some).ok_or_else(|| {
                        Fault::last(format!(
                            "{}: found no Content-Length, expected the length of the blob",
                            url::shown(&url)
                        ))
                    })
                }
                404 => Ok(None),
                _ => Err(unexpected(&url, response, "200")),
            }
        })
    }

    /// Keeps an upload that was begun.
    pub(super) fn keep_session(&self, digest: &Digest, url: String) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, url);
    }

    /// The upload that was begun.
    pub(super) fn take_session(&self, digest: &Digest) -> Option<String> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(digest)
    }

    /// Where a blob was redirected to.
    pub(super) fn target(&self, digest: &Digest) -> Option<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Keeps where a blob is redirected to, or forgets it.
    pub(super) fn set_target(&self, digest: &Digest, target: Option<String>) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        match target {
            None => {
                targets.remove(digest);
            }
            Some(target) => {
                if targets.len() >= TARGETS_MAX {
                    targets.clear();
                }
                targets.insert(*digest, target);
            }
        }
    }
}
