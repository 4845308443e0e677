// SPDX-License-Identifier: GPL-2.0
//! The bodies of messages, and how their ends are known.

use std::io::{self, BufRead, Error, ErrorKind, Read, Write};

use super::{Fields, Request, Response};

/// How the receiver knows where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// In pieces, each with its length before it; an empty one is the last.
    Chunked,
    /// The connection ends.
    Close,
}

impl Framing {
    /// The body of a request.
    pub(crate) fn of_request(request: &Request) -> io::Result<Self> {
        Ok(Self::declared(&request.fields)?.unwrap_or(Self::Length(0)))
    }

    /// The body of the answer to a request of this method.
    pub(crate) fn of_response(response: &Response, method: &str) -> io::Result<Self> {
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return Ok(Self::Length(0));
        }
        Ok(Self::declared(&response.fields)?.unwrap_or(Self::Close))
    }

    fn declared(fields: &Fields) -> io::Result<Option<Self>> {
        if fields.has("Transfer-Encoding", "chunked") {
            return Ok(Some(Self::Chunked));
        }
        let number = |text: &str| {
            text.parse().map_err(|_| Error::new(ErrorKind::InvalidData, format!("a body of {text:?} bytes")))
        };
        fields.get("Content-Length").map(|text| number(text).map(Self::Length)).transpose()
    }
}

/// A body that is being read.
pub(crate) struct Body<'a> {
    from: &'a mut dyn BufRead,
    framing: Framing,
    /// The rest of the piece that is being read.
    piece: u64,
    is_done: bool,
}

impl<'a> Body<'a> {
    pub(crate) fn new(from: &'a mut dyn BufRead, framing: Framing) -> Self {
        let piece = if let Framing::Length(length) = framing { length } else { 0 };
        Self { from, framing, piece, is_done: framing == Framing::Length(0) }
    }

    /// Reads the length of the next piece.
    fn next_piece(&mut self) -> io::Result<()> {
        let bad = |line: &str| Error::new(ErrorKind::InvalidData, format!("a piece of {line:?} bytes"));
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        self.piece = u64::from_str_radix(digits, 16).map_err(|_| bad(&line))?;
        if self.piece == 0 {
            // Fields may follow.
            while !self.line()?.is_empty() {}
            self.is_done = true;
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if Read::take(&mut self.from, 1 << 10).read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Chunked && self.piece == 0 && !self.is_done {
            self.next_piece()?;
        }
        if self.is_done || into.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::Close {
            return self.from.read(into);
        }
        let most = usize::try_from(self.piece).unwrap_or(usize::MAX).min(into.len());
        let read = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.piece -= read as u64;
        if self.piece == 0 {
            match self.framing {
                Framing::Chunked => drop(self.line()?),
                _ => self.is_done = true,
            }
        }
        Ok(read)
    }
}

/// Sends a piece of a body.
pub(crate) fn send(to: &mut impl Write, framing: Framing, piece: &[u8]) -> io::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    if framing != Framing::Chunked {
        return to.write_all(piece);
    }
    write!(to, "{:x}\r\n", piece.len())?;
    to.write_all(piece)?;
    to.write_all(b"\r\n")
}

/// Sends what says that a body is complete.
pub(crate) fn end(to: &mut impl Write, framing: Framing) -> io::Result<()> {
    if framing == Framing::Chunked {
        to.write_all(b"0\r\n\r\n")?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8], framing: Framing) -> (io::Result<Vec<u8>>, Vec<u8>) {
        let mut body = Vec::new();
        let result = Body::new(&mut bytes, framing).read_to_end(&mut body).map(|_| body);
        (result, bytes.to_vec())
    }

    #[test]
    fn each_framing_ends_where_it_says() {
        let (body, rest) = read(b"abcdef", Framing::Length(4));
        assert_eq!((body.unwrap(), rest), (b"abcd".to_vec(), b"ef".to_vec()));
        let (body, rest) =
            read(b"2;x\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\nef", Framing::Chunked);
        assert_eq!((body.unwrap(), rest), (b"ab0123456789abcdef".to_vec(), b"ef".to_vec()));
        let (body, _) = read(b"all", Framing::Close);
        assert_eq!(body.unwrap(), b"all");
    }

    #[test]
    fn an_early_end_is_an_error() {
        for (bytes, framing) in [
            (&b"abc"[..], Framing::Length(4)),
            (b"5\r\nabc", Framing::Chunked),
            (b"3\r\nabc\r\n", Framing::Chunked),
            (b"x\r\nabc\r\n", Framing::Chunked),
        ] {
            assert!(read(bytes, framing).0.is_err(), "{framing:?}");
        }
    }

    #[test]
    fn pieces_are_sent_as_they_are_read() {
        let mut sent = Vec::new();
        for piece in [&b"ab"[..], b"", b"cde"] {
            send(&mut sent, Framing::Chunked, piece).unwrap();
        }
        end(&mut sent, Framing::Chunked).unwrap();
        let (body, rest) = read(&sent, Framing::Chunked);
        assert_eq!((body.unwrap(), rest), (b"abcde".to_vec(), Vec::new()));
    }
}
