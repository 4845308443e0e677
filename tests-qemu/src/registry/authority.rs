// SPDX-License-Identifier: GPL-2.0
//! Certificates of an authority that the tests make for themselves, by openssl.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// Longer than any test runs.
const DAYS: &str = "3650";

/// A key, and the certificate for it.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    /// PEM, private.
    pub(crate) key: PathBuf,
    /// PEM.
    pub(crate) certificate: PathBuf,
}

/// An authority that nobody knows but whom a test tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    own: Certified,
}

impl Certified {
    fn at(folder: &Path, name: &str) -> Self {
        Self {
            key: folder.join(format!("{name}.key.pem")),
            certificate: folder.join(format!("{name}.cert.pem")),
        }
    }
}

impl Authority {
    /// Makes its key.
    pub(crate) fn new(folder: &Path, name: &str) -> Result<Self> {
        let own = Certified::at(folder, name);
        let mut openssl = run::command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", DAYS]);
        openssl.args(["-subj", &format!("/CN=tesserafs test authority {name}")]);
        run::quiet(openssl.arg("-keyout").arg(&own.key).arg("-out").arg(&own.certificate))
            .with_context(|| format!("failed to make the authority {name}"))?;
        Ok(Self { own })
    }

    /// The certificate that clients are told to trust.
    pub(crate) fn certificate(&self) -> &Path {
        &self.own.certificate
    }

    /// The key that certificates are signed with.
    pub(crate) fn key(&self) -> &Path {
        &self.own.key
    }

    /// Certifies a new key: of a server on loopback, or of a client with that name.
    pub(crate) fn certify(&self, folder: &Path, name: &str, is_server: bool) -> Result<Certified> {
        let made = Certified::at(folder, name);
        let request = folder.join(format!("{name}.csr.pem"));
        let purpose = if is_server { "serverAuth" } else { "clientAuth" };
        let mut openssl = run::command("openssl");
        openssl.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-sha256"]);
        openssl.args(["-subj", &format!("/CN={name}"), "-addext", &format!("extendedKeyUsage={purpose}")]);
        if is_server {
            openssl.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
        }
        run::quiet(openssl.arg("-keyout").arg(&made.key).arg("-out").arg(&request))
            .with_context(|| format!("failed to make a key for {name}"))?;
        let mut openssl = run::command("openssl");
        openssl.args(["x509", "-req", "-sha256", "-days", DAYS, "-copy_extensions", "copyall"]);
        openssl.arg("-CA").arg(&self.own.certificate).arg("-CAkey").arg(&self.own.key);
        openssl.args(["-CAcreateserial", "-in"]).arg(&request).arg("-out").arg(&made.certificate);
        run::quiet(&mut openssl).with_context(|| format!("failed to certify {name}"))?;
        Ok(made)
    }
}
