// SPDX-License-Identifier: GPL-2.0
//! Debian's docker-registry on loopback, as people run it: open, or over TLS and for users who give a password, a token
//! ([`tokens`]) or a certificate ([`authority`]). It runs in a root of its own, with the clients that images are copied by
//! ([`programs`]): the package starts a service where it is installed, which no test should do to a machine.

mod authority;
mod programs;
mod tokens;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD};
use serde_json::{json, Value};

pub(crate) use self::authority::Authority;
pub(crate) use self::programs::Programs;
pub(crate) use self::tokens::Tokens;

use crate::run;

/// The user whom registries and token servers know.
pub(crate) const USER: &str = "tester";
/// The password of that user, which says nothing to anybody else.
pub(crate) const PASSWORD: &str = "only for tests: no: secret";

/// The access to a registry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access<'a> {
    /// Anybody.
    Open,
    /// [`USER`], who sends [`PASSWORD`] with each request.
    Basic,
    /// Clients that have a token of this server.
    Token(&'a Tokens),
}

/// The certificates that a registry has and wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tls<'a> {
    /// The authority that certifies the registry.
    pub(crate) authority: &'a Authority,
    /// Whether clients need a certificate of that authority, too.
    pub(crate) asks_clients: bool,
}

/// A registry that runs.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
}

/// How long a registry may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The text in its log before the address that it listens at.
const LISTENS: &str = "listening on ";

impl Registry {
    /// Starts one that keeps its blobs and its log in `folder`, which `programs` see.
    pub(crate) fn start(
        programs: &Programs,
        folder: &Path,
        tls: Option<Tls<'_>>,
        access: Access<'_>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": folder.join("blobs") },
                "delete": { "enabled": true },
                "maintenance": { "uploadpurging": { "enabled": false } },
            },
            "http": { "addr": "127.0.0.1:0" },
        });
        if let Some(tls) = tls {
            config["http"]["tls"] = certificates(folder, tls)?;
        }
        match access {
            Access::Open => {}
            Access::Basic => {
                let path = folder.join("htpasswd");
                let line = programs.shell(&format!("htpasswd -Bbn {USER} {PASSWORD:?}"))?;
                std::fs::write(&path, line).context("failed to write a list of passwords")?;
                config["auth"] = json!({ "htpasswd": { "realm": "tests", "path": path } });
            }
            Access::Token(tokens) => config["auth"] = json!({ "token": tokens.config() }),
        }
        // JSON is YAML.
        let path = folder.join("config.yml");
        std::fs::write(&path, config.to_string()).context("failed to write a configuration")?;
        let log = folder.join("log");
        let file = File::create(&log).context("failed to create a log")?;
        let mut command = programs.command("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null());
        command.stderr(file.try_clone().context("failed to share a log")?).stdout(file);
        let child = command.spawn().context("failed to start docker-registry")?;
        // From here on it ends with this value.
        let mut registry = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        registry.address = registry.wait(&log)?;
        Ok(registry)
    }

    /// Waits until it listens.
    fn wait(&mut self, log: &Path) -> Result<SocketAddr> {
        let begin = Instant::now();
        loop {
            let text = std::fs::read_to_string(log).context("failed to read the log of docker-registry")?;
            if let Some(address) = address_in(&text) {
                return Ok(address);
            }
            let end = self.child.try_wait().context("failed to wait for docker-registry")?;
            if end.is_some() || begin.elapsed() > PATIENCE {
                bail!("docker-registry does not listen: {}", run::tail(&text));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The certificate of a registry, and whom else it trusts.
fn certificates(folder: &Path, tls: Tls<'_>) -> Result<Value> {
    let own = tls.authority.certify(folder, "127.0.0.1", true)?;
    let mut config = json!({ "certificate": own.certificate, "key": own.key });
    if tls.asks_clients {
        config["clientcas"] = json!([tls.authority.certificate()]);
    }
    Ok(config)
}

/// The address that a log says a registry listens at.
fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(LISTENS)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c))?;
    rest.get(..end)?.parse().ok()
}

/// Writes what a client takes the user's password for some registries from, as podman and docker write it.
pub(crate) fn login(path: &Path, registries: &[SocketAddr]) -> Result<PathBuf> {
    let auth = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let auths: serde_json::Map<String, Value> =
        registries.iter().map(|address| (address.to_string(), json!({ "auth": auth }))).collect();
    std::fs::write(path, json!({ "auths": auths }).to_string()).context("failed to write a password")?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_log() {
        let log = "time=\"x\" level=info msg=\"redis not configured\"\nmsg=\"listening on 127.0.0.1:4321, tls\" go.version=1\n";
        assert_eq!(address_in(log), Some(SocketAddr::from(([127, 0, 0, 1], 4321))));
        // A line that is being written.
        assert_eq!(address_in("msg=\"listening on 127.0.0.1:43"), None);
        assert_eq!(address_in("redis"), None);
    }
}
