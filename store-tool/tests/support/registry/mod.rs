// SPDX-License-Identifier: GPL-2.0-or-later

//! A registry in this process, which does wrong when it is told to.
//!
//! It speaks the API of the OCI distribution specification over HTTP: manifests, blobs with ranges, uploads in chunks, mounts, tokens,
//! basic authorization. [`Registry::wrong`] makes it answer the next requests of a kind otherwise, [`Registry::seen`] tells which came.

#![allow(dead_code, reason = "each test uses some of it")]

mod api;
pub(crate) mod certificates;
mod http;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::SslAcceptor;

pub(crate) use self::http::Request;

/// The registry. It ends with the test.
pub(crate) struct Registry {
    address: SocketAddr,
    state: Arc<State>,
}

/// The contents of a registry, and the faults that it is told to have.
#[derive(Default)]
pub(crate) struct State {
    url: Mutex<String>,
    /// Blobs by `REPOSITORY@DIGEST`, manifests by `REPOSITORY:NAME`, with their types.
    pub(crate) blobs: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) manifests: Mutex<HashMap<String, (String, Vec<u8>)>>,
    uploads: Mutex<HashMap<u64, Vec<u8>>>,
    rules: Mutex<Vec<Rule>>,
    limit: Mutex<Option<Limit>>,
    seen: Mutex<Vec<Seen>>,
    access: Mutex<Access>,
    tokens: Mutex<Vec<String>>,
    number: AtomicU64,
    ended: AtomicBool,
}

/// The access to the registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Access {
    /// Anybody.
    #[default]
    Open,
    /// This name with this password.
    Basic(String, String),
    /// Clients that have a token of this registry's own token server, which asks for name and password if they are there. A token has that
    /// many uses.
    Token {
        /// Name and password.
        user: Option<(String, String)>,
        /// Requests that a token is good for.
        uses: u64,
        /// The validity that the token server tells.
        expires_in: Option<u64>,
    },
}

/// A request that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// Whether it was done wrong.
    pub(crate) wrong: bool,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// The number of the connection.
    pub(crate) connection: u64,
    /// Bytes of its body.
    pub(crate) body: u64,
}

/// Something that it does in place of what it should.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// Answers with this status, these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Sends so many bytes of the body, and closes the connection.
    Cut(usize),
    /// Closes the connection before it answers, but after it did what was asked.
    Closed,
    /// Takes so many bytes of the request's body, and closes the connection.
    Deaf(usize),
    /// Sends all of the blob.
    Whole,
    /// Says another range.
    ContentRange(String),
    /// Says another length.
    ContentLength(String),
    /// Sends bytes without an end.
    Endless,
    /// Says nothing for that long.
    Silent(Duration),
    /// Flips a bit of the body's first byte.
    Flip,
    /// Forgets the chunk that it was sent.
    LoseChunk,
    /// Sends this header, too.
    Header(&'static str, String),
}

/// A rate of requests that a registry allows.
struct Limit {
    /// Requests a second.
    rate: f64,
    tokens: f64,
    filled: Instant,
}

struct Rule {
    method: &'static str,
    /// The target contains it.
    part: String,
    skip: usize,
    times: usize,
    wrong: Wrong,
}

impl Registry {
    /// Begins to listen.
    pub(crate) fn new() -> Self {
        Self::serve(None)
    }

    /// The same, by TLS.
    pub(crate) fn with_tls(acceptor: SslAcceptor) -> Self {
        Self::serve(Some(acceptor))
    }

    fn serve(acceptor: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        *lock(&state.url) = format!("{scheme}://{address}");
        let served = state.clone();
        thread::spawn(move || {
            for (number, connection) in (0..).zip(listener.incoming()) {
                if served.ended.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(connection) = connection else { break };
                // A client that goes away is no failure of the test.
                let _ = connection.set_nodelay(true);
                let (served, acceptor) = (served.clone(), acceptor.clone());
                thread::spawn(move || match acceptor {
                    None => http::serve(&served, connection, number),
                    Some(acceptor) => {
                        if let Ok(connection) = acceptor.accept(connection) {
                            http::serve(&served, connection, number);
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    /// `HOST:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Puts a blob into a repository; its digest.
    pub(crate) fn add_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        lock(&self.state.blobs).insert(format!("{repository}@{digest}"), bytes.to_vec());
        digest
    }

    /// The bytes of a blob.
    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        lock(&self.state.blobs).get(&format!("{repository}@{digest}")).cloned()
    }

    /// Puts bytes under a digest that is not theirs.
    pub(crate) fn lie(&self, repository: &str, digest: &str, bytes: &[u8]) {
        lock(&self.state.blobs).insert(format!("{repository}@{digest}"), bytes.to_vec());
    }

    /// Forgets a blob.
    pub(crate) fn remove_blob(&self, repository: &str, digest: &str) {
        lock(&self.state.blobs).remove(&format!("{repository}@{digest}"));
    }

    /// Puts a manifest under a name and under its digest.
    pub(crate) fn add_manifest(&self, repository: &str, name: &str, media_type: &str, bytes: &[u8]) {
        let mut manifests = lock(&self.state.manifests);
        for name in [name, &digest(bytes)] {
            manifests.insert(format!("{repository}:{name}"), (media_type.to_owned(), bytes.to_vec()));
        }
    }

    /// The manifest of a name.
    pub(crate) fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        lock(&self.state.manifests).get(&format!("{repository}:{name}")).map(|(_, bytes)| bytes.clone())
    }

    /// From here on who is let in.
    pub(crate) fn access(&self, access: Access) {
        *lock(&self.state.access) = access;
    }

    /// Does wrong `times` times, with requests of this method whose target contains `part`.
    pub(crate) fn wrong(&self, method: &'static str, part: &str, times: usize, wrong: Wrong) {
        self.wrong_after(method, part, 0, times, wrong);
    }

    /// The same, but with the first `skip` of them rightly.
    pub(crate) fn wrong_after(
        &self,
        method: &'static str,
        part: &str,
        skip: usize,
        times: usize,
        wrong: Wrong,
    ) {
        lock(&self.state.rules).push(Rule { method, part: part.to_owned(), skip, times, wrong });
    }

    /// From here on answers 429 to requests beyond so many a second.
    pub(crate) fn limit(&self, rate: f64) {
        *lock(&self.state.limit) = Some(Limit { rate, tokens: rate, filled: Instant::now() });
    }

    /// From here on does nothing wrong.
    pub(crate) fn right(&self) {
        lock(&self.state.rules).clear();
    }

    /// The requests that came, from here on without these.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.state.seen))
    }

    /// Methods and targets of the requests that came, in order.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // The one that waits for a connection sees that it ended.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// The fault that a request is to meet.
    fn rule(&self, request: &Request) -> Option<Wrong> {
        if let Some(limit) = &mut *lock(&self.limit) {
            let passed = limit.filled.elapsed().as_secs_f64();
            limit.tokens = (limit.tokens + passed * limit.rate).min(limit.rate);
            limit.filled = Instant::now();
            if limit.tokens < 1.0 {
                return Some(Wrong::Status(429, Vec::new(), String::new()));
            }
            limit.tokens -= 1.0;
        }
        let mut rules = lock(&self.rules);
        let applies = |rule: &&mut Rule| {
            rule.times > 0 && rule.method == request.method && request.target.contains(&rule.part)
        };
        let rule = rules.iter_mut().find(applies)?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        Some(rule.wrong.clone())
    }

    /// A number that no other call gives.
    fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }
}

/// `sha256:HEX` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", tesserafs_image::hash::sha256(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panicked here")
}
