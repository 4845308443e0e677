// SPDX-License-Identifier: GPL-2.0
//! The heads of messages: first lines and fields.

use std::io::{self, BufRead, Error, ErrorKind};

/// More bytes than the head of any test has.
const HEAD_MAX: usize = 64 << 10;

/// More fields than any test has.
const FIELDS_MAX: usize = 100;

/// The fields of a head, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field of this name, in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the value of a field has this word, in any case.
    pub(crate) fn has(&self, name: &str, word: &str) -> bool {
        self.get(name).is_some_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
    }

    /// Makes a field have this value alone.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), value.into()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn take(parsed: &[httparse::Header<'_>]) -> io::Result<Self> {
        let field = |header: &httparse::Header<'_>| {
            let value = std::str::from_utf8(header.value).map_err(|_| bad("a field that is not text"))?;
            Ok((header.name.to_owned(), value.to_owned()))
        };
        parsed.iter().map(field).collect::<io::Result<_>>().map(Self)
    }

    fn write(&self, out: &mut String) {
        for (name, value) in &self.0 {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
    }
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) fields: Fields,
}

impl Request {
    /// The next head of a connection; none at its end.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(bytes) = read_head(from)? else { return Ok(None) };
        let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&bytes).map_err(|error| bad(&error.to_string()))?;
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(bad("a head that is cut"));
        };
        Ok(Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Fields::take(parsed.headers)?,
        }))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        self.fields.write(&mut out);
        out.into_bytes()
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Values of the query, of which none has an escaped character that the tests look at.
    pub(crate) fn query<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r str> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, fields: Fields::default() }
    }

    /// The head of the answer to a request; interim ones are passed over.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Self> {
        loop {
            let bytes = read_head(from)?.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
            let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut parsed = httparse::Response::new(&mut headers);
            parsed.parse(&bytes).map_err(|error| bad(&error.to_string()))?;
            let status = parsed.code.ok_or_else(|| bad("an answer without a status"))?;
            if status >= 200 {
                return Ok(Self { status, fields: Fields::take(parsed.headers)? });
            }
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        self.fields.write(&mut out);
        out.into_bytes()
    }
}

/// The words for a status that people read in logs.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500..=599 => "Server Error",
        _ => "Status",
    }
}

/// The bytes of a head, up to and with the empty line; none at the end of the connection.
fn read_head(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    // A client that tries TLS first would wait for an answer, and this for the end of a line.
    if from.fill_buf()?.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
        return Err(bad("this is not HTTP"));
    }
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if io::Read::take(&mut *from, HEAD_MAX as u64).read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        if head.len() > HEAD_MAX {
            return Err(bad("a head without an end"));
        }
        let line = head.get(before..).unwrap_or_default();
        if line == b"\r\n" || line == b"\n" {
            return Ok(Some(head));
        }
    }
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_written() {
        let text = "GET /a/b?scope=x&scope=y&z=1 HTTP/1.1\r\nHost: h\r\nrange: bytes=1-2\r\n\r\nrest";
        let mut from = text.as_bytes();
        let request = Request::read(&mut from).unwrap().unwrap();
        assert_eq!((request.path(), request.fields.get("Range")), ("/a/b", Some("bytes=1-2")));
        assert_eq!(request.query("scope").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(request.query("s").count(), 0);
        assert_eq!(request.to_bytes(), text.as_bytes()[..text.len() - 4]);
        assert_eq!(from, b"rest");
        assert_eq!(Request::read(&mut &b""[..]).unwrap(), None);
        assert!(Request::read(&mut &b"GET / HT"[..]).is_err());
        assert!(Request::read(&mut &b"\x16\x03\x01"[..]).is_err());
        let endless = vec![b'A'; HEAD_MAX * 2];
        assert!(Request::read(&mut &endless[..]).is_err());
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nConnection: Close, x\r\n\r\n";
        let response = Response::read(&mut text.as_bytes()).unwrap();
        assert_eq!(response.status, 404);
        assert!(response.fields.has("connection", "close") && !response.fields.has("connection", "clos"));
        assert!(text.ends_with(std::str::from_utf8(&response.to_bytes()).unwrap()));
    }
}
