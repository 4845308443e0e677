// SPDX-License-Identifier: GPL-2.0
//! A server of tokens: a registry sends clients there, and believes what this server has signed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{json, Value};

use super::{Authority, PASSWORD, USER};
use crate::http::{answer, Answer, Request, Server};
use crate::run;

/// The registry, as tokens name it.
const SERVICE: &str = "registry.of.tests";
/// The server, as tokens name it.
const ISSUER: &str = "tokens.of.tests";

/// By so many seconds longer than it says a token is good for docker-registry, whose clock may be slow.
const LEEWAY: u64 = 60;

/// The server.
#[derive(Debug)]
pub(crate) struct Tokens {
    server: Server,
    authority: Authority,
    issued: Arc<AtomicU64>,
}

/// The maker of tokens.
struct Issuer {
    folder: PathBuf,
    authority: Authority,
    /// The certificate, as tokens carry it.
    der: String,
    /// Seconds for which the registry takes a token.
    lifetime: u64,
    /// Whether clients are told of that.
    is_told: bool,
    issued: Arc<AtomicU64>,
}

impl Tokens {
    /// Starts one that keeps its key in `folder`. Where clients are told nothing of the lifetime, they learn it from the
    /// registry, which refuses the token.
    pub(crate) fn start(folder: &Path, lifetime: u64, is_told: bool) -> Result<Self> {
        let authority = Authority::new(folder, "tokens")?;
        let pem = std::fs::read_to_string(authority.certificate()).context("failed to read a certificate")?;
        let der = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let issued = Arc::new(AtomicU64::new(0));
        let issuer = Issuer {
            folder: folder.to_owned(),
            authority: authority.clone(),
            der,
            lifetime,
            is_told,
            issued: issued.clone(),
        };
        let server = answer::server(move |request| issuer.answer(request))?;
        Ok(Self { server, authority, issued })
    }

    /// The configuration of a registry for this server.
    pub(super) fn config(&self) -> Value {
        json!({
            "realm": format!("http://{}/token", self.server.address()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.authority.certificate(),
        })
    }

    /// Tokens that were given out.
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }
}

impl Issuer {
    fn answer(&self, request: &Request) -> Answer {
        if request.method != "GET" || request.path() != "/token" {
            return Answer::bytes(404, "");
        }
        let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
        if request.fields.get("Authorization") != Some(expected.as_str()) {
            return Answer::bytes(401, "").with("WWW-Authenticate", "Basic realm=\"tokens\"");
        }
        let scopes: Vec<String> = request.query("scope").map(unescaped).collect();
        let access: Vec<Value> = scopes.iter().filter_map(|scope| access(scope)).collect();
        match self.token(access) {
            Ok(token) => {
                self.issued.fetch_add(1, Ordering::Relaxed);
                let mut body = json!({ "token": token });
                if self.is_told {
                    body["expires_in"] = self.lifetime.into();
                }
                Answer::bytes(200, body.to_string()).with("Content-Type", "application/json")
            }
            Err(error) => Answer::bytes(500, format!("{error:#}")),
        }
    }

    fn token(&self, access: Vec<Value>) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_secs();
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "access": access,
            "iat": now - LEEWAY, "nbf": now - LEEWAY, "exp": now + self.lifetime - LEEWAY,
        });
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [self.der] });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(&text)?);
        Ok(format!("{text}.{signature}"))
    }

    fn sign(&self, text: &str) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new_in(&self.folder).context("failed to make a scratch file")?;
        std::fs::write(file.path(), text).context("failed to write what is to be signed")?;
        let mut openssl = run::command("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(self.authority.key()).arg(file.path());
        let output = run::output(&mut openssl)?;
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }
}

/// The rights that a scope asks for: `repository:NAME:pull,push`.
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
}

/// A value of a query, with the characters that clients escape in scopes.
fn unescaped(value: &str) -> String {
    let escaped = [("%3A", ":"), ("%3a", ":"), ("%2F", "/"), ("%2f", "/"), ("%2C", ","), ("%2c", ",")];
    escaped.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{client, Fields};

    #[test]
    fn scopes_are_what_clients_send() {
        let wanted = json!({ "type": "repository", "name": "a/b", "actions": ["pull", "push"] });
        assert_eq!(access(&unescaped("repository%3Aa%2Fb%3Apull%2Cpush")), Some(wanted));
        assert_eq!(access("registry"), None);
    }

    #[test]
    fn a_token_is_given_for_the_password_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::start(folder.path(), 5, true).unwrap();
        let ask = |password: &str| {
            let mut fields = Fields::default();
            fields.set(
                "Authorization",
                format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{password}"))),
            );
            let target = "/token?service=x&scope=repository:a:pull";
            client::send(tokens.server.address(), "GET", target, fields, &[]).unwrap()
        };
        assert_eq!(ask("other").head.status, 401);
        let given = ask(PASSWORD);
        let said: Value = serde_json::from_slice(&given.body).unwrap();
        assert_eq!((given.head.status, said["expires_in"].as_u64(), tokens.issued()), (200, Some(5), 1));
        let token = said["token"].as_str().unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let claims: Value =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims["access"][0]["name"], "a");
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 256);
    }
}
