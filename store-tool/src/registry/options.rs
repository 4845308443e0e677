// SPDX-License-Identifier: GPL-2.0-or-later

//! The options of all requests.

use std::path::PathBuf;
use std::time::Duration;

use tesserafs_image::Cancel;

/// How a registry is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// By HTTP without TLS. A registry of this machine (localhost, 127.0.0.0/8, ::1) is reached so if it does not speak TLS.
    pub plain_http: bool,
    /// Certificates of authorities to trust, beside those of the system and those in `certs.d`.
    pub ca: Vec<PathBuf>,
    /// Shown to the registry and its mirrors, if they ask.
    pub client: Option<ClientCertificate>,
    /// Where credentials are; otherwise where podman and docker have them.
    pub authfile: Option<PathBuf>,
    /// Hosts that have the same repositories, `HOST[:PORT][/PREFIX]`, in the order in which they are asked.
    pub mirrors: Vec<String>,
    /// Failures in a row after which a request is given up.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each.
    pub first_wait: Duration,
    /// How long a connection may take, with TLS.
    pub connect: Duration,
    /// How long a server may send or take nothing.
    pub silence: Duration,
    /// Bytes of a chunk of an upload, if the registry wants no larger ones. A chunk that is lost is sent again.
    pub chunk: u64,
    /// Ends everything.
    pub cancel: Cancel,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: false,
            ca: Vec::new(),
            client: None,
            authfile: None,
            mirrors: Vec::new(),
            tries: 6,
            first_wait: Duration::from_millis(250),
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            chunk: 32 << 20,
            cancel: Cancel::default(),
        }
    }
}
