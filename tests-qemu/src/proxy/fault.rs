// SPDX-License-Identifier: GPL-2.0
//! Answers that are not the registry's.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::http::{Answer, Framing, Request, Response};

/// The faults of a request or of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends before the answer.
    Hang,
    /// The connection ends after so many bytes of the request's body, which the registry has then.
    CutRequest(u64),
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// The body is so many bytes at most, and its length is said to be that.
    Truncate(u64),
    /// A bit is wrong in the byte at this offset of the body.
    Flip(u64),
    /// All of the body, with 200, whatever part was asked for.
    Whole,
    /// A status, with `Retry-After` in seconds if given.
    Status(u16, Option<u32>),
    /// To the same path of another server, be it alive or not.
    Redirect(SocketAddr),
    /// A body that does not end.
    Endless,
    /// A length that is so much larger, or smaller, than the body.
    WrongLength(i64),
    /// A part that is said to begin so much later.
    WrongRange(u64),
    /// The answer to another path.
    Other(String),
    /// Nothing comes for this time in the middle of the body.
    Stall(Duration),
    /// This answer: status, media type, body.
    Answer(u16, String, Vec<u8>),
    /// These bytes, or the part of them that is asked for.
    File(Arc<[u8]>),
}

/// An answer on its way to the client.
pub(super) struct Outgoing<'a> {
    pub(super) head: Response,
    pub(super) framing: Framing,
    pub(super) body: Box<dyn Read + 'a>,
    /// The connection ends after it.
    pub(super) is_last: bool,
}

impl Outgoing<'_> {
    fn bytes(head: Response, bytes: Vec<u8>) -> Outgoing<'static> {
        let framing = Framing::Length(bytes.len() as u64);
        Outgoing { head, framing, body: Box::new(io::Cursor::new(bytes)), is_last: false }
    }
}

impl Fault {
    /// Changes the request that goes on to the registry.
    pub(super) fn request(&self, request: &mut Request) {
        match self {
            Self::Whole => request.fields.remove("Range"),
            Self::Other(target) => target.clone_into(&mut request.target),
            _ => {}
        }
    }

    /// The answer where the registry is not asked.
    pub(super) fn answer(&self, request: &Request) -> Option<Outgoing<'static>> {
        let text = |status: u16| {
            let code = if status == 401 { "UNAUTHORIZED" } else { "UNKNOWN" };
            let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"by the proxy\"}}]}}\n");
            let mut head = Response::new(status);
            head.fields.set("Content-Type", "application/json");
            Outgoing::bytes(head, body.into_bytes())
        };
        Some(match self {
            Self::Status(status, retry) => {
                let mut outgoing = text(*status);
                if let Some(seconds) = retry {
                    outgoing.head.fields.set("Retry-After", seconds.to_string());
                }
                outgoing
            }
            Self::Redirect(server) => {
                let mut outgoing = text(307);
                outgoing.head.fields.set("Location", format!("http://{server}{}", request.target));
                outgoing
            }
            Self::Answer(status, media_type, body) => {
                let mut head = Response::new(*status);
                head.fields.set("Content-Type", media_type);
                Outgoing::bytes(head, body.clone())
            }
            Self::File(bytes) => {
                let (head, length, body) =
                    Answer::file(request, io::Cursor::new(bytes.clone())).ok()?.into_parts();
                Outgoing { head, framing: Framing::Length(length), body, is_last: false }
            }
            _ => return None,
        })
    }

    /// Changes the answer of the registry.
    pub(super) fn response(&self, outgoing: &mut Outgoing<'_>) {
        let body = std::mem::replace(&mut outgoing.body, Box::new(io::empty()));
        match self {
            Self::Cut(bytes) => {
                outgoing.body = Box::new(body.take(*bytes));
                outgoing.is_last = true;
            }
            Self::Truncate(most) => {
                if let Framing::Length(length) = &mut outgoing.framing {
                    *length = (*length).min(*most);
                }
                outgoing.body = Box::new(body.take(*most));
            }
            Self::Flip(at) => outgoing.body = Box::new(Flipped { body, left: Some(*at) }),
            Self::Endless => {
                outgoing.head.fields.remove("Content-Range");
                outgoing.head.status = 200;
                outgoing.framing = Framing::Chunked;
                outgoing.body = Box::new(body.chain(io::repeat(0)));
            }
            Self::WrongLength(more) => {
                if let Framing::Length(length) = &mut outgoing.framing {
                    *length = length.saturating_add_signed(*more);
                }
                outgoing.body = body;
                outgoing.is_last = true;
            }
            Self::WrongRange(later) => {
                if let Some(range) =
                    outgoing.head.fields.get("Content-Range").and_then(|range| shifted(range, *later))
                {
                    outgoing.head.fields.set("Content-Range", range);
                }
                outgoing.body = body;
            }
            Self::Stall(time) => outgoing.body = Box::new(Stalled { body, bytes: 0, time: Some(*time) }),
            _ => outgoing.body = body,
        }
    }
}

/// A `Content-Range` whose part begins, and ends, so much later.
fn shifted(range: &str, later: u64) -> Option<String> {
    let (part, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let [first, last] = [first.parse::<u64>().ok()?, last.parse::<u64>().ok()?];
    Some(format!("bytes {}-{}/{whole}", first + later, last + later))
}

/// A body with a bit that is wrong.
struct Flipped<'a> {
    body: Box<dyn Read + 'a>,
    /// Bytes before the one that has it, until that has passed.
    left: Option<u64>,
}

impl Read for Flipped<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(into)?;
        if let Some(left) = self.left {
            match usize::try_from(left).ok().filter(|place| *place < read) {
                Some(place) => {
                    into[place] ^= 0x10;
                    self.left = None;
                }
                None => self.left = Some(left - read as u64),
            }
        }
        Ok(read)
    }
}

/// Where in a body it falls silent.
const STALL_AT: u64 = 1000;

/// A body that falls silent for a time.
struct Stalled<'a> {
    body: Box<dyn Read + 'a>,
    bytes: u64,
    time: Option<Duration>,
}

impl Read for Stalled<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let before = STALL_AT.saturating_sub(self.bytes);
        if before == 0 {
            if let Some(time) = self.time.take() {
                std::thread::sleep(time);
            }
            return self.body.read(into);
        }
        let most = into.len().min(usize::try_from(before).unwrap_or(usize::MAX));
        let read = self.body.read(&mut into[..most])?;
        self.bytes += read as u64;
        Ok(read)
    }
}
