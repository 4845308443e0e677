// SPDX-License-Identifier: GPL-2.0-or-later

//! Hosts: connections that are used again, and the rate of requests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tesserafs_image::Error;
use ureq::Agent;

use super::bucket::Bucket;
use super::options::Options;
use super::url::Origin;
use super::{proxy, tls};

/// Connections to a host that are kept: as many as threads that read.
const IDLE_MAX: usize = 16;
/// Hosts that are known at once. A hostile registry could redirect each request to another one.
const HOSTS_MAX: usize = 64;
/// Bytes of buffers of a connection, each way.
const BUFFER: usize = 128 << 10;

/// All hosts that requests went to.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) options: Options,
    known: Mutex<HashMap<Origin, Arc<Host>>>,
    /// The registry and its mirrors, without their schemes.
    registries: Mutex<HashSet<(String, u16)>>,
}

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) agent: Agent,
    pub(super) bucket: Bucket,
}

impl Hosts {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        if options.tries == 0 {
            return Err(Error::Refused("a request is tried once at least".into()));
        }
        Ok(Self { options: options.clone(), known: Mutex::default(), registries: Mutex::default() })
    }

    /// From here on the client's certificate is shown to this host.
    pub(super) fn is_registry(&self, origin: &Origin) {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.insert((origin.host.clone(), origin.port));
    }

    /// The host of a URL.
    pub(super) fn get(&self, origin: &Origin) -> Result<Arc<Host>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(origin) {
            return Ok(host.clone());
        }
        if known.len() >= HOSTS_MAX {
            known.clear();
        }
        let host = Arc::new(self.connectable(origin)?);
        known.insert(origin.clone(), host.clone());
        Ok(host)
    }

    fn connectable(&self, origin: &Origin) -> Result<Host, Error> {
        let registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_registry = registries.contains(&(origin.host.clone(), origin.port));
        let Options { connect, silence, .. } = self.options;
        let mut config = Agent::config_builder()
            // Statuses and redirects are decided here, by what they mean for a registry.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::for_origin(origin)?)
            .user_agent(concat!("tesserafs/", env!("CARGO_PKG_VERSION")))
            // Bytes are wanted as they are stored.
            .accept_encoding("identity")
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(silence))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(IDLE_MAX)
            .max_idle_connections_per_host(IDLE_MAX)
            .max_idle_age(Duration::from_secs(20));
        if origin.is_tls {
            config = config.tls_config(tls::config(&self.options, origin, is_registry)?);
        }
        Ok(Host { agent: config.build().into(), bucket: Bucket::new() })
    }
}
