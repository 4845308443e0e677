// SPDX-License-Identifier: GPL-2.0
//! The registries of the tests, as a client of others meets them: what they refuse to it, others are tested with.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::container_layout;
use crate::proxy::{Proxy, Speed};
use crate::registry::{login, Access, Authority, Programs, Registry, Tls, Tokens};

/// A client, and what it is told.
struct Client<'a> {
    programs: &'a Programs,
    layout: &'a str,
}

impl Client<'_> {
    /// Whether an image can be pushed with these options of the destination.
    fn pushes(&self, to: SocketAddr, options: &str) -> bool {
        let script = format!("skopeo copy -q {options} {} docker://{to}/tests/servers:x", self.layout);
        self.programs.shell(&script).is_ok()
    }
}

pub(super) fn ask(programs: &Programs, scratch: &Path) -> Result<String> {
    let folder = scratch.join("servers");
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree).context("failed to create a folder")?;
    std::fs::write(tree.join("file"), "x".repeat(100_000)).context("failed to write a file")?;
    container_layout::make(&folder.join("layout"), &tree)?;
    let layout = format!("oci:{}/layout:{}", folder.display(), container_layout::NAME);
    let client = Client { programs, layout: &layout };
    let at = |name: &str| folder.join(name);

    let open = Registry::start(programs, &at("open"), None, Access::Open)?;
    ensure!(client.pushes(open.address(), "--dest-tls-verify=false"), "an open registry refuses an image");
    ensure!(!client.pushes(open.address(), ""), "an open registry speaks TLS");
    let proxy = Proxy::start(open.address(), Speed::default())?;
    ensure!(client.pushes(proxy.address(), "--dest-tls-verify=false"), "a proxy refuses an image");
    let traffic = proxy.take();
    ensure!(traffic.requests.len() > 2, "an image passes the proxy unseen: {traffic:?}");

    let authority = Authority::new(&folder, "authority")?;
    // Where skopeo looks for certificates.
    let certificates = at("certs");
    std::fs::create_dir(&certificates).context("failed to create a folder")?;
    let copy = |from: &Path, name: &str| {
        std::fs::copy(from, certificates.join(name))
            .map(drop)
            .with_context(|| format!("failed to copy {name}"))
    };
    copy(authority.certificate(), "ca.crt")?;
    let trusts = format!("--dest-cert-dir {}", certificates.display());
    let tls = Tls { authority: &authority, asks_clients: false };
    let password = Registry::start(programs, &at("password"), Some(tls), Access::Basic)?;
    let known = login(&at("auth.json"), &[password.address()])?;
    let knows = format!("--dest-authfile {}", known.display());
    ensure!(client.pushes(password.address(), &format!("{trusts} {knows}")), "a password is refused");
    ensure!(!client.pushes(password.address(), &trusts), "no password is asked for");
    ensure!(!client.pushes(password.address(), &knows), "an authority is trusted that nobody knows");

    let tls = Tls { authority: &authority, asks_clients: true };
    let asking = Registry::start(programs, &at("asking"), Some(tls), Access::Open)?;
    ensure!(!client.pushes(asking.address(), &trusts), "no certificate is asked for");
    let own = authority.certify(&folder, "client", false)?;
    copy(&own.certificate, "client.cert")?;
    copy(&own.key, "client.key")?;
    ensure!(client.pushes(asking.address(), &trusts), "a certificate is refused");

    let tokens = Tokens::start(&folder, 60, true)?;
    let by_token = Registry::start(programs, &at("tokens"), None, Access::Token(&tokens))?;
    let known = login(&at("auth-tokens.json"), &[by_token.address()])?;
    let knows = format!("--dest-tls-verify=false --dest-authfile {}", known.display());
    ensure!(client.pushes(by_token.address(), &knows), "a token is refused");
    ensure!(!client.pushes(by_token.address(), "--dest-tls-verify=false"), "no token is asked for");
    // A token that has expired when it is used.
    let late = Tokens::start(&folder, 0, true)?;
    let by_late = Registry::start(programs, &at("late"), None, Access::Token(&late))?;
    let known = login(&at("auth-late.json"), &[by_late.address()])?;
    let knows = format!("--dest-tls-verify=false --dest-authfile {}", known.display());
    ensure!(!client.pushes(by_late.address(), &knows), "a token of yesterday is taken");
    Ok(format!("{} requests for an image of one layer, {} tokens", traffic.requests.len(), tokens.issued()))
}
