// SPDX-License-Identifier: GPL-2.0-or-later

//! HTTP, as far as a registry needs it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;

use super::api::answer;
use super::{lock, Seen, State, Wrong};

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded as far as digests and names need it.
    pub(super) fn parameter(&self, key: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == key);
        found.map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
    }
}

/// Serves a connection to its end.
pub(super) fn serve(state: &State, connection: impl Read + Write, number: u64) {
    // A client that goes away is no failure of the test.
    let mut connection = BufReader::new(connection);
    while matches!(one(state, &mut connection, number), Ok(true)) {}
}

/// Serves one request; whether another one can follow.
fn one<C: Read + Write>(state: &State, input: &mut BufReader<C>, connection: u64) -> io::Result<bool> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        input.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(false);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    let len: usize = request.header("content-length").map_or(0, |len| len.parse().expect("a length"));
    let wrong = state.rule(&request);
    if let Some(Wrong::Deaf(taken)) = wrong {
        if request.header("expect").is_some() {
            input.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // Bytes that came before the connection broke are kept, as registries do.
        input.by_ref().take(taken as u64).read_to_end(&mut request.body)?;
        answer(state, &request, None);
        return Ok(false);
    }
    let refused = matches!(wrong, Some(Wrong::Status(..))) && request.header("expect").is_some();
    if request.header("expect").is_some() && !refused {
        input.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if !refused {
        request.body = vec![0; len];
        input.read_exact(&mut request.body)?;
    }
    lock(&state.seen).push(Seen {
        wrong: wrong.is_some(),
        method: request.method.clone(),
        target: request.target.clone(),
        range: request.header("range").or(request.header("content-range")).map(str::to_owned),
        authorization: request.header("authorization").map(str::to_owned),
        connection,
        body: request.body.len() as u64,
    });
    let mut answer = answer(state, &request, wrong.as_ref());
    let mut sent = answer.body.len();
    match &wrong {
        Some(Wrong::Closed) => return Ok(false),
        Some(Wrong::Silent(time)) => thread::sleep(*time),
        Some(Wrong::Cut(bytes)) => sent = sent.min(*bytes),
        Some(Wrong::Flip) => answer.body.iter_mut().take(1).for_each(|byte| *byte ^= 1),
        Some(Wrong::Header(name, value)) => answer.headers.push((name, value.clone())),
        Some(Wrong::ContentRange(range)) => {
            answer.headers.retain(|(name, _)| *name != "Content-Range");
            answer.headers.push(("Content-Range", range.clone()));
        }
        _ => (),
    }
    let len = match &wrong {
        Some(Wrong::ContentLength(len)) => Some(len.clone()),
        Some(Wrong::Endless) => None,
        _ if answer.headers.iter().any(|(name, _)| *name == "Content-Length") => None,
        _ => Some(answer.body.len().to_string()),
    };
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(len) = len.filter(|_| answer.status != 204) {
        head.push_str(&format!("Content-Length: {len}\r\n"));
    }
    input.get_mut().write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        input.get_mut().write_all(&answer.body[..sent])?;
    }
    if matches!(wrong, Some(Wrong::Endless)) {
        loop {
            input.get_mut().write_all(&[0; 1 << 16])?;
        }
    }
    Ok(sent == answer.body.len() && !refused && !matches!(wrong, Some(Wrong::ContentLength(_))))
}
