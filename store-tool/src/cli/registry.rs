// SPDX-License-Identifier: GPL-2.0-or-later

//! The options of all verbs that reach a registry.

use std::path::PathBuf;

use clap::Args;

use crate::reference::Reference;
use crate::registry::{ClientCertificate, Options};

/// The options.
#[derive(Args, Debug)]
pub(super) struct RegistryArgs {
    /// Reach the registry by HTTP without TLS; one on this machine is reached so in any case if it does not speak TLS
    #[arg(long)]
    plain_http: bool,

    /// Trust the certificates in this file, too; repeatable. So are those in /etc/docker/certs.d/HOST:PORT/*.crt
    #[arg(long, value_name = "PEM")]
    ca: Vec<PathBuf>,

    /// Show this certificate to the registry
    #[arg(long, value_name = "PEM", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// The key of that certificate
    #[arg(long, value_name = "PEM", requires = "client_cert")]
    client_key: Option<PathBuf>,

    /// Credentials [default: $REGISTRY_AUTH_FILE, or where podman login and docker login put them]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Failures in a row after which a request is given up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
}

impl RegistryArgs {
    pub(super) fn into_options(self) -> Options {
        let Self { plain_http, ca, client_cert, client_key, authfile, tries } = self;
        let client = client_cert.zip(client_key).map(|(cert, key)| ClientCertificate { cert, key });
        Options { plain_http, ca, client, authfile, tries, ..Options::default() }
    }
}

/// Reads a reference of the command line.
pub(super) fn parse_reference(text: &str) -> Result<Reference, String> {
    Reference::parse(text)
}
