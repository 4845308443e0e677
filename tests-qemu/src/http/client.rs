// SPDX-License-Identifier: GPL-2.0
//! A client for the tests of the servers: it sends one request, and keeps what it got of a broken answer.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Body, Fields, Framing, Request, Response};

/// An answer, as far as it came.
pub(crate) struct Got {
    pub(crate) head: Response,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended where the head said.
    pub(crate) end: io::Result<()>,
}

/// Gets a path, or a part of it.
pub(crate) fn get(server: SocketAddr, target: &str, range: Option<&str>) -> io::Result<Got> {
    let mut fields = Fields::default();
    if let Some(range) = range {
        fields.set("Range", range);
    }
    send(server, "GET", target, fields, &[])
}

/// Sends a request with a body; of the answer no more than a MiB is read.
pub(crate) fn send(
    server: SocketAddr,
    method: &str,
    target: &str,
    mut fields: Fields,
    body: &[u8],
) -> io::Result<Got> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    fields.set("Host", server.to_string());
    fields.set("Content-Length", body.len().to_string());
    let request = Request { method: method.to_owned(), target: target.to_owned(), fields };
    stream.write_all(&request.to_bytes())?;
    stream.write_all(body)?;
    let mut from = BufReader::new(stream);
    let head = Response::read(&mut from)?;
    let framing = Framing::of_response(&head, method)?;
    let mut body = Vec::new();
    let end = Body::new(&mut from, framing).take(1 << 20).read_to_end(&mut body).map(drop);
    Ok(Got { head, body, end })
}
