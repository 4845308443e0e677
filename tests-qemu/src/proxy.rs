// SPDX-License-Identifier: GPL-2.0
//! A proxy between a client and a registry: it delays requests and caps bandwidth ([`link`]), counts what passes ([`traffic`]),
//! and answers otherwise than the registry does ([`fault`]) where a plan says so ([`plan`]).
//!
//! Clients take it for the registry itself. A registry makes the addresses in its answers from the `Host` field of the request,
//! which passes as it is, so clients come back here.

mod fault;
mod link;
mod plan;
mod relay;
mod traffic;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::fault::Fault;
pub(crate) use self::link::Speed;
pub(crate) use self::plan::{Plan, Random, Rule};
pub(crate) use self::traffic::{Seen, Traffic};

use self::link::Link;
use crate::http::Server;

/// A client that was killed leaves a request open for as long as the line takes for what is on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy.
pub(crate) struct Proxy {
    server: Server,
    state: Arc<State>,
    /// Connections before the last [`Proxy::take`].
    counted: Mutex<u64>,
}

/// The state that its connections share.
struct State {
    /// Where the registry is.
    upstream: SocketAddr,
    link: Link,
    plan: Mutex<Plan>,
    traffic: Mutex<Traffic>,
    /// Requests that are being answered.
    open: AtomicU64,
}

impl State {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts one before the server of that address, without faults.
    pub(crate) fn start(upstream: SocketAddr, speed: Speed) -> Result<Self> {
        let state = Arc::new(State {
            upstream,
            link: Link::new(speed),
            plan: Mutex::new(Plan::default()),
            traffic: Mutex::new(Traffic::default()),
            open: AtomicU64::new(0),
        });
        let own = state.clone();
        let server = Server::start(move |stream| relay::serve(&own, stream))?;
        Ok(Self { server, state, counted: Mutex::new(0) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on this plan holds.
    pub(crate) fn follow(&self, plan: Plan) {
        *self.state.plan() = plan;
    }

    /// What passed since the last call. A client may have its last answer before it is counted.
    pub(crate) fn take(&self) -> Traffic {
        let begin = Instant::now();
        while self.state.open.load(Ordering::Acquire) > 0 && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut traffic = std::mem::take(&mut *self.state.traffic());
        let accepted = self.server.accepted();
        let before =
            std::mem::replace(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner), accepted);
        traffic.connections = accepted - before;
        traffic
    }
}

#[cfg(test)]
mod tests;
