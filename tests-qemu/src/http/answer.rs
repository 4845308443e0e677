// SPDX-License-Identifier: GPL-2.0
//! Servers whose answers are made for each request: of files, or of what a test says.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use anyhow::Result;

use super::{body, Body, Framing, Request, Response, Server};

/// An answer.
pub(crate) struct Answer {
    pub(crate) head: Response,
    length: u64,
    body: Box<dyn Read + Send>,
}

impl Answer {
    /// Of these bytes.
    pub(crate) fn bytes(status: u16, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { head: Response::new(status), length: bytes.len() as u64, body: Box::new(Cursor::new(bytes)) }
    }

    /// With one more field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.head.fields.set(name, value);
        self
    }

    /// Head, length and body.
    pub(crate) fn into_parts(self) -> (Response, u64, Box<dyn Read + Send>) {
        (self.head, self.length, self.body)
    }

    /// Of a file, or of the part that the request asks for.
    pub(crate) fn file(request: &Request, mut file: impl Read + Seek + Send + 'static) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let Some(wanted) = request.fields.get("Range") else {
            file.seek(SeekFrom::Start(0))?;
            return Ok(Self { head: Response::new(200), length, body: Box::new(file) });
        };
        let Some((start, end)) = range(wanted, length) else {
            return Ok(Self::bytes(416, "").with("Content-Range", format!("bytes */{length}")));
        };
        file.seek(SeekFrom::Start(start))?;
        let part =
            Self { head: Response::new(206), length: end - start, body: Box::new(file.take(end - start)) };
        Ok(part.with("Content-Range", format!("bytes {start}-{}/{length}", end - 1)))
    }
}

/// Start and end of the single range that a request wants of so many bytes; none where it has none of them.
fn range(wanted: &str, length: u64) -> Option<(u64, u64)> {
    let (start, last) = wanted.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (start.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(start), Some(last)) => (start, last.checked_add(1)?.min(length)),
        (Some(start), None) if last.is_empty() => (start, length),
        (None, Some(tail)) if start.is_empty() => (length.saturating_sub(tail), length),
        _ => return None,
    };
    (start < end).then_some((start, end))
}

/// A server of these answers, for clients whose requests have no bodies of interest.
pub(crate) fn server(respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Server> {
    Server::start(move |stream| serve(stream, &respond))
}

/// A server of the files below a folder.
pub(crate) fn files(folder: PathBuf) -> Result<Server> {
    server(move |request| {
        let path = request.path().trim_start_matches('/');
        if path.split('/').any(|name| name == "..") {
            return Answer::bytes(404, "");
        }
        let file = File::open(folder.join(path)).and_then(|file| Answer::file(request, file));
        file.unwrap_or_else(|error| Answer::bytes(404, error.to_string()))
    })
}

fn serve(stream: TcpStream, respond: &impl Fn(&Request) -> Answer) -> io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    while let Some(request) = Request::read(&mut from)? {
        io::copy(&mut Body::new(&mut from, Framing::of_request(&request)?), &mut io::sink())?;
        let (mut head, length, body) = respond(&request).into_parts();
        head.fields.set("Content-Length", length.to_string());
        to.write_all(&head.to_bytes())?;
        if request.method != "HEAD" {
            io::copy(&mut body.take(length), &mut to)?;
        }
        body::end(&mut to, Framing::Length(length))?;
        if request.fields.has("Connection", "close") {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::client::get;
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        let ranges = [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-99", Some((2, 10))),
            ("bytes=9-", Some((9, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=10-12", None),
            ("bytes=3-2", None),
            ("bytes=x", None),
        ];
        for (text, expected) in ranges {
            assert_eq!(range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn files_are_served_whole_and_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "0123456789").unwrap();
        let server = files(folder.path().to_owned()).unwrap();
        let at = server.address();
        let whole = get(at, "/file", None).unwrap();
        assert_eq!((whole.head.status, &whole.body[..]), (200, &b"0123456789"[..]));
        let part = get(at, "/file", Some("bytes=2-4")).unwrap();
        assert_eq!((part.head.status, &part.body[..]), (206, &b"234"[..]));
        assert_eq!(part.head.fields.get("content-range"), Some("bytes 2-4/10"));
        assert_eq!(get(at, "/other", None).unwrap().head.status, 404);
        assert_eq!(get(at, "/../etc/passwd", None).unwrap().head.status, 404);
        assert_eq!(server.accepted(), 4);
    }
}
