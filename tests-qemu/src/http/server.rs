// SPDX-License-Identifier: GPL-2.0
//! A thread for each connection; all end with the server.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// A server on a port of loopback that nobody else has.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stops: AtomicBool,
    accepted: AtomicU64,
}

impl Server {
    /// Starts it; `serve` has a connection for as long as it lasts.
    pub(crate) fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to listen on loopback")?;
        let address = listener.local_addr().context("a listener without an address")?;
        let shared = Arc::new(Shared::default());
        let (own, serve) = (shared.clone(), Arc::new(serve));
        let thread = std::thread::spawn(move || accept(&listener, &own, &serve));
        Ok(Self { address, shared, thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections until now.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

/// A connection, and the thread that serves it.
type Connection = (TcpStream, JoinHandle<()>);

fn accept(
    listener: &TcpListener,
    shared: &Shared,
    serve: &Arc<impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static>,
) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let accepted = listener.accept();
        if shared.stops.load(Ordering::Relaxed) {
            break;
        }
        let Ok((stream, _)) = accepted else {
            // Too many open files, perhaps: some will be closed.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        // Small answers would wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let Ok(own) = stream.try_clone() else { continue };
        let serve = serve.clone();
        // A failure of a connection is its client's to notice: the tests cut connections on purpose.
        let thread = std::thread::spawn(move || {
            let end = stream.try_clone();
            let _ = serve(stream);
            // The accepting thread has this connection, too: dropping it here closes nothing.
            if let Ok(end) = end {
                let _ = end.shutdown(Shutdown::Both);
            }
        });
        connections.retain(|(_, thread)| !thread.is_finished());
        connections.push((own, thread));
    }
    for (stream, _) in &connections {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for (_, thread) in connections {
        let _ = thread.join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
