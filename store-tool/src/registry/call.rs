// SPDX-License-Identifier: GPL-2.0-or-later

//! One request, and what its answer means.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use tesserafs_image::text;
use ureq::http::{header, HeaderName, Method, Request, StatusCode};
use ureq::{Body, SendBody};

use super::fault::Fault;
use super::hosts::Hosts;
use super::retry::retry_after;
use super::url::{shown, Origin};

/// Bytes of an error's body that are looked at, and letters of it that are shown.
const SAID_MAX: u64 = 16 << 10;
const SHOWN_MAX: usize = 300;

/// An answer, whatever its status.
pub(super) type Response = ureq::http::Response<Body>;

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) content: Content<'a>,
    /// How long the server may be silent, if that is not the usual time.
    pub(super) silence: Option<Duration>,
}

/// The body of a request.
pub(super) enum Content<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// Bytes that are read while they are sent, once.
    Stream(&'a mut dyn Read, u64),
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), content: Content::Nothing, silence: None }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn content(mut self, content: Content<'a>) -> Self {
        self.content = content;
        self
    }

    /// Sends it, with the header `Authorization` where one is given.
    pub(super) fn send(&mut self, hosts: &Hosts, authorization: Option<&str>) -> Result<Response, Fault> {
        let origin = Origin::of(&self.url).map_err(Fault::Last)?;
        let host = hosts.get(&origin)?;
        host.bucket.take(&hosts.options.cancel)?;
        let mut request = Request::builder().method(self.method.clone()).uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Content::Stream(_, len) = &self.content {
            request = request.header(header::CONTENT_LENGTH, *len);
        }
        let body = match &mut self.content {
            // A method that has a body has an empty one: some servers want a length.
            Content::Nothing if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) => {
                Sent::Bytes(&[])
            }
            Content::Nothing => Sent::Nothing,
            Content::Bytes(bytes) => Sent::Bytes(bytes),
            Content::Stream(reader, _) => Sent::Stream(SendBody::from_reader(*reader)),
        };
        let request =
            request.body(()).map_err(|error| Fault::last(format!("{}: {error}", shown(&self.url))))?;
        let (parts, ()) = request.into_parts();
        let silence = self.silence.unwrap_or(hosts.options.silence);
        let agent = &host.agent;
        let sent = match body {
            Sent::Nothing => {
                let request = Request::from_parts(parts, ());
                agent.run(agent.configure_request(request).timeout_per_read(Some(silence)).build())
            }
            Sent::Bytes(bytes) => {
                let request = Request::from_parts(parts, bytes);
                agent.run(agent.configure_request(request).timeout_per_read(Some(silence)).build())
            }
            Sent::Stream(stream) => {
                let request = Request::from_parts(parts, stream);
                agent.run(agent.configure_request(request).timeout_per_read(Some(silence)).build())
            }
        };
        let response = sent.map_err(|error| Fault::transport(&shown(&self.url), &error))?;
        if is_busy(&response) {
            host.bucket.busy(wait(&response));
        } else {
            host.bucket.answered();
        }
        Ok(response)
    }
}

enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Stream(SendBody<'a>),
}

/// Whether the server wants fewer requests.
fn is_busy(response: &Response) -> bool {
    let status = response.status();
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::SERVICE_UNAVAILABLE && response.headers().contains_key(header::RETRY_AFTER)
}

fn wait(response: &Response) -> Option<Duration> {
    text_of(response, &header::RETRY_AFTER).and_then(retry_after)
}

/// A header, if it is there and is text.
pub(super) fn text_of<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// The fault that an answer with an unexpected status stands for.
pub(super) fn unexpected(url: &str, mut response: Response, expected: &str) -> Fault {
    let status = response.status();
    let (busy, wait) = (is_busy(&response), wait(&response));
    let said = said(&mut response);
    let why = format!("{}: found status {}{said}, expected {expected}", shown(url), status.as_u16());
    match status.as_u16() {
        _ if busy => Fault::Busy { why, wait },
        408 | 425 | 500 | 502 | 503 | 504 | 507 | 520..=529 => Fault::Passing(why),
        _ => Fault::Last(why),
    }
}

/// The server's own words about it, in parentheses.
fn said(response: &mut Response) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    // Whatever came of it.
    let _ = response.body_mut().as_reader().take(SAID_MAX).read_to_end(&mut bytes);
    let Ok(Errors { errors }) = serde_json::from_slice(&bytes) else { return String::new() };
    let Some(first) = errors.into_iter().next() else { return String::new() };
    let words = if first.message.is_empty() { first.code } else { first.message };
    let words: String = words.chars().take(SHOWN_MAX).collect();
    if words.is_empty() {
        words
    } else {
        format!(" ({})", text::escape(words.as_bytes()))
    }
}

/// Reads a short body to its end, though nobody wants it: its connection is free for the next request then.
pub(super) fn drain(mut response: Response) {
    let len = text_of(&response, &header::CONTENT_LENGTH).and_then(|len| len.parse::<u64>().ok());
    if len.is_some_and(|len| len <= SAID_MAX) {
        let _ = response.body_mut().as_reader().take(SAID_MAX + 1).read_to_end(&mut Vec::new());
    }
}

/// Reads a body of `max` bytes at most.
pub(super) fn read_all(url: &str, mut response: Response, max: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let read = response.body_mut().as_reader().take(max + 1).read_to_end(&mut bytes);
    read.map_err(|error| {
        Fault::Passing(format!("{}: {}", shown(url), text::escape(error.to_string().as_bytes())))
    })?;
    if bytes.len() as u64 > max {
        return Err(Fault::last(format!(
            "{}: found more than {max} bytes, expected so many at most",
            shown(url)
        )));
    }
    Ok(bytes)
}
