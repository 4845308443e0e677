// SPDX-License-Identifier: GPL-2.0
//! HTTP/1.1, as the test servers speak it: with programs on this machine, over plain connections.
//!
//! A library's server would mend what the proxy breaks on purpose: lengths that lie, bodies that end early. So heads are
//! read by a parser ([`head`]), bodies are copied piece by piece ([`body`]), and each connection has a thread ([`server`]).
//! On these stand a server of files and of answers that are made for each request ([`answer`]).

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod server;

pub(crate) use self::answer::{files, Answer};
pub(crate) use self::body::{Body, Framing};
pub(crate) use self::head::{Fields, Request, Response};
pub(crate) use self::server::Server;

#[cfg(test)]
pub(crate) mod client;
