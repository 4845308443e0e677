// SPDX-License-Identifier: GPL-2.0
//! A client's connection: requests go on to the registry one after the other, and answers come back.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fault::{Fault, Outgoing};
use super::{Seen, State};
use crate::http::{body, Body, Framing, Request, Response};

/// Bytes that pass at once: at 20 Mbit/s, 3 ms of the line.
const PIECE: usize = 8 << 10;

/// No answer of the registry takes longer to begin.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fields that are about one connection, not about the message.
const OF_CONNECTION: [&str; 5] = ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade"];

/// Serves a connection to its end.
pub(super) fn serve(state: &State, stream: TcpStream) -> io::Result<()> {
    let mut from = BufReader::with_capacity(PIECE, stream.try_clone()?);
    let mut client = stream;
    while let Some(request) = Request::read(&mut from)? {
        state.open.fetch_add(1, Ordering::Relaxed);
        let bytes = request.to_bytes().len();
        state.traffic().up += bytes as u64;
        state.link.delay();
        state.link.up(bytes);
        let fault = state.plan().next(&request);
        let mut seen = Seen {
            method: request.method.clone(),
            target: request.target.clone(),
            range: request.fields.get("Range").map(ToOwned::to_owned),
            is_authorized: request.fields.get("Authorization").is_some(),
            status: None,
            bytes: 0,
            fault,
        };
        let result = exchange(state, &request, &mut from, &mut client, &mut seen);
        state.traffic().requests.push(seen);
        state.open.fetch_sub(1, Ordering::Release);
        if !result? {
            break;
        }
    }
    Ok(())
}

/// One request, and its answer; whether the connection goes on.
fn exchange(
    state: &State,
    request: &Request,
    from: &mut BufReader<TcpStream>,
    client: &mut TcpStream,
    seen: &mut Seen,
) -> io::Result<bool> {
    let framing = Framing::of_request(request)?;
    if request.fields.has("Expect", "100-continue") {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let fault = seen.fault.clone();
    if fault == Some(Fault::Hang) {
        return Ok(false);
    }
    let is_last = request.fields.has("Connection", "close");
    if let Some(mut outgoing) = fault.as_ref().and_then(|fault| fault.answer(request)) {
        upload(state, &mut Body::new(from, framing), framing, &mut io::sink())?;
        outgoing.is_last |= is_last;
        return send(state, outgoing, &request.method, client, seen);
    }
    let mut onward = request.clone();
    if let Some(fault) = &fault {
        fault.request(&mut onward);
    }
    for name in OF_CONNECTION.into_iter().chain(["Expect"]) {
        onward.fields.remove(name);
    }
    // A connection for each request: on loopback it costs nothing, and an answer may end with it.
    onward.fields.set("Connection", "close");
    let mut upstream = TcpStream::connect(state.upstream)?;
    upstream.set_nodelay(true)?;
    upstream.set_read_timeout(Some(PATIENCE))?;
    upstream.write_all(&onward.to_bytes())?;
    if let Some(Fault::CutRequest(bytes)) = fault {
        // The registry takes the end of the connection for that of its client.
        let mut part = Body::new(from, framing).take(bytes);
        upload(state, &mut part, Framing::Close, &mut upstream)?;
        return Ok(false);
    }
    // A registry that refuses a body answers before the end of it.
    let is_taken = upload(state, &mut Body::new(from, framing), framing, &mut upstream).is_ok();
    let mut answer = BufReader::with_capacity(PIECE, upstream);
    let head = Response::read(&mut answer)?;
    let framing = Framing::of_response(&head, &request.method)?;
    let body = Box::new(Body::new(&mut answer, framing));
    let mut outgoing = Outgoing { head, framing, body, is_last: is_last || !is_taken };
    if let Some(fault) = &fault {
        fault.response(&mut outgoing);
    }
    send(state, outgoing, &request.method, client, seen)
}

/// Passes the body of a request on.
fn upload(state: &State, body: &mut impl Read, framing: Framing, to: &mut impl Write) -> io::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        let read = body.read(&mut piece)?;
        if read == 0 {
            return body::end(to, framing);
        }
        state.link.up(read);
        state.traffic().up += read as u64;
        body::send(to, framing, &piece[..read])?;
    }
}

/// Sends an answer to the client; whether the connection goes on.
fn send(
    state: &State,
    outgoing: Outgoing<'_>,
    method: &str,
    client: &mut TcpStream,
    seen: &mut Seen,
) -> io::Result<bool> {
    let Outgoing { mut head, framing, mut body, is_last } = outgoing;
    for name in OF_CONNECTION {
        head.fields.remove(name);
    }
    let is_last = is_last || framing == Framing::Close;
    // The registry's answer to HEAD says how long a body would be; one that is made here has that body.
    if method != "HEAD" || head.fields.get("Content-Length").is_none() && framing != Framing::Length(0) {
        match framing {
            Framing::Length(_) if head.status == 204 || head.status == 304 => {}
            Framing::Length(length) => head.fields.set("Content-Length", length.to_string()),
            Framing::Chunked => {
                head.fields.remove("Content-Length");
                head.fields.set("Transfer-Encoding", "chunked");
            }
            Framing::Close => {}
        }
    }
    if is_last {
        head.fields.set("Connection", "close");
    }
    seen.status = Some(head.status);
    let bytes = head.to_bytes();
    state.link.down(bytes.len());
    client.write_all(&bytes)?;
    state.traffic().down += bytes.len() as u64;
    if method == "HEAD" {
        return Ok(!is_last);
    }
    let mut piece = [0; PIECE];
    loop {
        let read = body.read(&mut piece)?;
        if read == 0 {
            break;
        }
        state.link.down(read);
        body::send(client, framing, &piece[..read])?;
        seen.bytes += read as u64;
        state.traffic().down += read as u64;
    }
    if !is_last || framing == Framing::Chunked {
        body::end(client, framing)?;
    }
    Ok(!is_last)
}
