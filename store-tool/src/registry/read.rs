// SPDX-License-Identifier: GPL-2.0-or-later

//! Ranges of blobs.

use std::io::Read;
use std::ops::Range;

use tesserafs_image::text;
use ureq::http::{header, Method};

use super::call::{text_of, unexpected, Response};
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::retry::Patience;
use super::url::shown;
use super::{Answer, Take};
use crate::artifact::Blob;

/// Bytes that are handed out at once.
const BUFFER: usize = 128 << 10;

/// Bytes that are worth the failures before them: a server that breaks each connection after a few would never be given up.
const PROGRESS: u64 = 64 << 10;

/// A range that is being read, wherever from.
#[derive(Debug)]
pub(super) struct Reading {
    blob: Blob,
    range: Range<u64>,
    /// The next byte to hand out.
    at: u64,
    /// All of the blob is read, because a server ignored the range.
    whole: bool,
}

impl Reading {
    pub(super) fn new(blob: Blob, range: Range<u64>) -> Self {
        Self { blob, at: range.start, range, whole: false }
    }

    fn answer(&self) -> Answer {
        if self.whole {
            Answer::Whole
        } else {
            Answer::Part
        }
    }

    fn end(&self) -> u64 {
        if self.whole {
            self.blob.len
        } else {
            self.range.end
        }
    }

    /// The bytes that are still wanted.
    fn wanted(&self) -> Range<u64> {
        self.at..self.end()
    }

    /// A server sends all of the blob: bytes of its answer that are of no use.
    fn begin_whole(&mut self) -> u64 {
        if self.whole || self.range == (0..self.blob.len) {
            return self.at;
        }
        self.whole = true;
        self.at = 0;
        0
    }
}

impl Endpoint {
    /// Reads what is still wanted. It can fail after some of it.
    pub(super) fn read(&self, reading: &mut Reading, take: &mut Take<'_>) -> Result<(), Fault> {
        let mut patience = Patience::new(self.options());
        let mut came = 0;
        while !reading.wanted().is_empty() {
            self.options().cancel.check()?;
            let (at, whole) = (reading.at, reading.whole);
            let done = self.read_once(reading, take);
            came += if reading.whole == whole { reading.at - at } else { 0 };
            if came >= PROGRESS {
                patience.progress();
                came = 0;
            }
            if let Err(fault) = done {
                patience.wait(fault)?;
            }
        }
        Ok(())
    }

    /// One request. If it is no failure, something came of it.
    fn read_once(&self, reading: &mut Reading, take: &mut Take<'_>) -> Result<(), Fault> {
        let digest = reading.blob.digest;
        let wanted = reading.wanted();
        let headers: Vec<_> = (wanted != (0..reading.blob.len))
            .then(|| (header::RANGE, format!("bytes={}-{}", wanted.start, wanted.end - 1)))
            .into_iter()
            .collect();
        let (response, url) = match self.target(&digest) {
            None => self.ask_registry(reading, &headers)?,
            Some(target) => {
                let answer = self.follow(&Method::GET, target, &headers);
                // The target can end: a signature is valid for some time, a host for longer.
                let ended = match &answer {
                    Ok((response, _)) => !matches!(response.status().as_u16(), 200 | 206 | 429),
                    Err(fault) => !matches!(fault, Fault::Busy { .. } | Fault::Stop(_)),
                };
                if ended {
                    self.set_target(&digest, None);
                    self.ask_registry(reading, &headers)?
                } else {
                    answer?
                }
            }
        };
        let done = self.take_answer(reading, response, &url, take);
        if done.is_err() {
            self.set_target(&digest, None);
        }
        done
    }

    /// Asks the registry itself, and keeps where it redirects to.
    fn ask_registry(
        &self,
        reading: &Reading,
        headers: &[(header::HeaderName, String)],
    ) -> Result<(Response, String), Fault> {
        let digest = reading.blob.digest;
        let registry = self.url(&format!("blobs/sha256:{digest}"))?;
        let (response, url) = self.follow(&Method::GET, registry.clone(), headers)?;
        if url != registry && response.status().is_success() {
            self.set_target(&digest, Some(url.clone()));
        }
        Ok((response, url))
    }

    fn take_answer(
        &self,
        reading: &mut Reading,
        response: Response,
        url: &str,
        take: &mut Take<'_>,
    ) -> Result<(), Fault> {
        let Blob { digest, len } = reading.blob;
        let wanted = reading.wanted();
        if let Some(encoding) =
            text_of(&response, &header::CONTENT_ENCODING).filter(|name| *name != "identity")
        {
            let found = text::escape(encoding.as_bytes());
            return Err(Fault::last(format!(
                "{}: found bytes encoded as {found}, expected them as they are",
                shown(url)
            )));
        }
        let said = text_of(&response, &header::CONTENT_LENGTH).and_then(|len| len.parse::<u64>().ok());
        let lies = |what: &str, found: &str, expected: String| {
            let found = text::escape(found.as_bytes());
            Fault::Passing(format!("{}: found {what} {found}, expected {expected}", shown(url)))
        };
        let (skip, count) = match response.status().as_u16() {
            206 => {
                let range = text_of(&response, &header::CONTENT_RANGE).unwrap_or("none");
                let sent = content_range(range, len)
                    .filter(|sent| sent.start == wanted.start && sent.end <= wanted.end);
                let sent = sent.ok_or_else(|| {
                    lies("Content-Range", range, format!("bytes {}-{}/{len}", wanted.start, wanted.end - 1))
                })?;
                (0, sent.end - sent.start)
            }
            200 => {
                let skip = reading.begin_whole();
                (skip, len - skip)
            }
            404 => {
                return Err(Fault::last(format!("{}: the registry has no blob sha256:{digest}", shown(url))))
            }
            416 => {
                let end = wanted.end;
                return Err(Fault::last(format!(
                    "{}: found status 416, expected {end} bytes at least",
                    shown(url)
                )));
            }
            _ => return Err(unexpected(url, response, "206 or 200")),
        };
        if let Some(said) = said.filter(|said| *said != skip + count) {
            return Err(lies("Content-Length", &said.to_string(), (skip + count).to_string()));
        }
        self.pass_on(reading, response, url, (skip, count, said.is_some()), take)
    }

    /// Hands out `count` bytes of the body behind `skip` others.
    fn pass_on(
        &self,
        reading: &mut Reading,
        mut response: Response,
        url: &str,
        (skip, count, ends): (u64, u64, bool),
        take: &mut Take<'_>,
    ) -> Result<(), Fault> {
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER.min(usize::try_from(skip + count).unwrap_or(BUFFER))];
        let mut passed = 0;
        while passed < skip + count {
            self.options().cancel.check()?;
            let left = if passed < skip { skip - passed } else { skip + count - passed };
            let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match body.read(&mut buffer[..part]) {
                Ok(0) => Err("the connection was closed".to_owned()),
                Ok(read) => Ok(read),
                Err(error) => Err(text::escape(error.to_string().as_bytes())),
            };
            let read = read.map_err(|why| {
                Fault::Passing(format!("{}: {why} after {passed} of {} bytes", shown(url), skip + count))
            })?;
            if passed >= skip {
                take(reading.answer(), reading.at, &buffer[..read])?;
                reading.at += read as u64;
            }
            passed += read as u64;
        }
        if ends {
            // The end, which makes the connection free for the next request.
            let _ = body.read(&mut [0]);
        }
        Ok(())
    }
}

/// The range that `bytes A-B/LEN` says, of a blob of that length, or of `*`. It is not empty.
fn content_range(value: &str, len: u64) -> Option<Range<u64>> {
    let (range, all) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    if all != "*" && number(all)? != len {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
    (first < end && end <= len).then_some(first..end)
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_lies_in_the_blob() {
        assert_eq!(content_range("bytes 0-9/10", 10), Some(0..10));
        assert_eq!(content_range("bytes 3-3/*", 10), Some(3..4));
        for lie in [
            "",
            "none",
            "bytes",
            "bytes 0-9",
            "bytes 0-10/10",
            "bytes 5-4/10",
            "bytes 0-9/11",
            "bytes 0-9/9",
            "bytes */10",
            "bytes -1-3/10",
            "bytes +1-3/10",
            "bytes 0-18446744073709551615/10",
            "items 0-9/10",
            "bytes 0-9/",
            "bytes 0-/10",
        ] {
            assert_eq!(content_range(lie, 10), None, "{lie}");
        }
    }
}
