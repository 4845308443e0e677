// SPDX-License-Identifier: GPL-2.0-or-later

//! The authorization that an endpoint asks for: a token of its token server, or a name and a password.
//!
//! All threads have one state. The thread that is refused first renews it, and the others, which wait for that, try again with the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::prelude::{Engine as _, BASE64_STANDARD};
use serde::Deserialize;
use tesserafs_image::text;
use ureq::http::{header, Method};

use super::call::{read_all, text_of, unexpected, Call, Content, Response};
use super::challenge::Challenge;
use super::credentials::{self, Credentials, Secret};
use super::fault::Fault;
use super::hosts::Hosts;
use super::url::{self, Origin};

/// The validity of a token that does not say it, by the specification of docker.
const VALIDITY: Duration = Duration::from_secs(60);
/// A token is renewed that long before it ends, or by a tenth of its validity.
const EARLY: Duration = Duration::from_secs(10);
/// Bytes of a token server's answer.
const ANSWER_MAX: u64 = 1 << 20;
/// Bytes of a token: servers and proxies have limits for headers.
const TOKEN_MAX: usize = 64 << 10;

/// The state of an endpoint.
#[derive(Debug)]
pub(super) struct Auth {
    /// The registry and the repository, by which credentials are found.
    host: String,
    repository: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The value of the header `Authorization`.
    header: Option<String>,
    /// How often that was renewed.
    generation: u64,
    /// The end of a token.
    until: Option<Instant>,
    /// How the token was got.
    challenge: Option<Challenge>,
    /// The rights that were asked for: actions of each resource.
    scopes: BTreeMap<String, BTreeSet<String>>,
    /// The credentials, once they were looked for.
    credentials: Option<Option<Credentials>>,
}

/// Without what is secret.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("generation", &self.generation).field("scopes", &self.scopes).finish()
    }
}

/// The parts of a request that are sent.
pub(super) struct Ticket {
    pub(super) header: Option<String>,
    generation: u64,
}

impl Auth {
    pub(super) fn new(host: &str, repository: &str) -> Self {
        Self { host: host.to_owned(), repository: repository.to_owned(), state: Mutex::default() }
    }

    /// The header for the next request. A token that ends is renewed before.
    pub(super) fn ticket(&self, hosts: &Hosts, base: &Origin) -> Result<Ticket, Fault> {
        let mut state = self.lock();
        if state.until.is_some_and(|until| until <= Instant::now()) {
            self.renew(&mut state, hosts, base)?;
        }
        Ok(Ticket { header: state.header.clone(), generation: state.generation })
    }

    /// A request with that ticket was answered with 401. When this returns, another attempt makes sense.
    pub(super) fn refused(
        &self,
        ticket: &Ticket,
        challenge: Option<Challenge>,
        hosts: &Hosts,
        base: &Origin,
        url: &str,
    ) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.generation != ticket.generation {
            return Ok(());
        }
        let challenge = challenge.ok_or_else(|| {
            let url = url::shown(url);
            Fault::last(format!(
                "{url}: found status 401 without a challenge that is known, expected Bearer or Basic"
            ))
        })?;
        let is_same = matches!((&challenge, &state.challenge), (Challenge::Basic, Some(Challenge::Basic)));
        if is_same && state.header.is_some() {
            return Err(self.denied(&state, url));
        }
        if let Challenge::Bearer { scope, .. } = &challenge {
            let all = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
            state.add_scopes(&all);
        }
        state.challenge = Some(challenge);
        self.renew(&mut state, hosts, base)
    }

    /// From here on tokens are asked for with these rights, too.
    pub(super) fn want(&self, scope: &str) {
        let mut state = self.lock();
        if state.add_scopes(scope) && matches!(state.challenge, Some(Challenge::Bearer { .. })) {
            // The next request renews it.
            state.until = Some(Instant::now());
        }
    }

    /// The error of a request that is refused with a new ticket.
    pub(super) fn denied_again(&self, url: &str) -> Fault {
        self.denied(&self.lock(), url)
    }

    fn denied(&self, state: &State, url: &str) -> Fault {
        let whose = match state.credentials.iter().flatten().next() {
            Some(found) => format!("refuses the credentials {}", found.shown()),
            None => {
                format!("wants credentials, and there are none for {} ({})", self.host, credentials::PLACES)
            }
        };
        Fault::last(format!("{}: the registry {whose}", url::shown(url)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, state: &mut State, hosts: &Hosts, base: &Origin) -> Result<(), Fault> {
        if state.credentials.is_none() {
            state.credentials = Some(credentials::find(&self.host, &self.repository, &hosts.options)?);
        }
        let known = state.credentials.clone().flatten();
        match state.challenge.clone() {
            None => return Ok(()),
            Some(Challenge::Basic) => {
                let Some(Credentials { user, secret: Secret::Password(password), .. }) = &known else {
                    let place = format!(
                        "{}://{}:{}/",
                        if base.is_tls { "https" } else { "http" },
                        base.host,
                        base.port
                    );
                    return Err(self.denied(state, &place));
                };
                state.header = Some(basic(user, password));
                state.until = None;
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                let (token, validity) =
                    fetch(hosts, base, &realm, service.as_deref(), &state.scopes, known.as_ref())?;
                state.header = Some(format!("Bearer {token}"));
                state.until = Some(Instant::now() + validity - (validity / 10).min(EARLY));
            }
        }
        state.generation += 1;
        Ok(())
    }
}

impl State {
    /// Whether there is something new in it.
    fn add_scopes(&mut self, all: &str) -> bool {
        let mut is_new = false;
        for scope in all.split_ascii_whitespace() {
            let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            let known = self.scopes.entry(resource.to_owned()).or_default();
            for action in actions.split(',').filter(|action| !action.is_empty()) {
                is_new |= known.insert(action.to_owned());
            }
        }
        is_new
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A token, and how long it is valid.
fn fetch(
    hosts: &Hosts,
    base: &Origin,
    realm: &str,
    service: Option<&str>,
    scopes: &BTreeMap<String, BTreeSet<String>>,
    credentials: Option<&Credentials>,
) -> Result<(String, Duration), Fault> {
    let at = Origin::of(realm).map_err(|why| Fault::last(format!("the realm of a challenge: {why}")))?;
    if base.is_tls && !at.is_tls {
        return Err(Fault::last(format!(
            "{}: the token server is not reached by TLS, and {} is",
            url::shown(realm),
            base.host
        )));
    }
    let scopes = scopes.iter().map(|(resource, actions)| {
        format!("{resource}:{}", actions.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    });
    let service = service.map(|service| ("service", service.to_owned()));
    let form;
    let (mut call, authorization) = match credentials {
        Some(Credentials { secret: Secret::IdentityToken(token), .. }) => {
            let scopes = scopes.collect::<Vec<_>>().join(" ");
            let fields = [
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "tesserafs".to_owned()),
                ("scope", scopes),
                ("refresh_token", token.clone()),
            ];
            let fields =
                fields.into_iter().chain(service).map(|(key, value)| format!("{key}={}", url::value(&value)));
            form = fields.collect::<Vec<_>>().join("&");
            let call = Call::new(Method::POST, realm)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .content(Content::Bytes(form.as_bytes()));
            (call, None)
        }
        other => {
            let parameters = service.into_iter().chain(scopes.map(|scope| ("scope", scope)));
            let url =
                parameters.fold(realm.to_owned(), |url, (key, value)| url::with_parameter(&url, key, &value));
            let authorization = other.and_then(|other| match &other.secret {
                Secret::Password(password) => Some(basic(&other.user, password)),
                Secret::IdentityToken(_) => None,
            });
            (Call::new(Method::GET, url), authorization)
        }
    };
    let response = call.send(hosts, authorization.as_deref())?;
    let url = call.url.clone();
    if matches!(response.status().as_u16(), 400 | 401 | 403) {
        let whose = credentials
            .map_or("anonymous requests".into(), |known| format!("the credentials {}", known.shown()));
        let status = response.status().as_u16();
        return Err(Fault::last(format!(
            "{}: the token server refuses {whose} (status {status})",
            url::shown(&url)
        )));
    }
    if !response.status().is_success() {
        return Err(unexpected(&url, response, "200"));
    }
    parse_token(&read_all(&url, response, ANSWER_MAX)?)
        .map_err(|why| Fault::last(format!("{}: {why}", url::shown(&url))))
}

fn parse_token(answer: &[u8]) -> Result<(String, Duration), String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u32>,
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("the answer is no token: {}", text::escape(error.to_string().as_bytes())))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or("the answer has no token")?;
    if token.len() > TOKEN_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token is no text of 64 KiB at most".into());
    }
    let validity = answer.expires_in.map_or(VALIDITY, |seconds| Duration::from_secs(seconds.into()));
    // A token serves one request at least; and an end that lies too far ahead has no time of this machine.
    Ok((token, validity.clamp(Duration::from_secs(1), Duration::from_secs(86_400))))
}

/// Whether an answer is a refusal that a new ticket can change.
pub(super) fn is_refusal(response: &Response) -> bool {
    response.status().as_u16() == 401
}

/// The challenge of such a refusal.
pub(super) fn challenge(response: &Response) -> Option<Challenge> {
    let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
    Challenge::choose(headers.filter_map(|value| value.to_str().ok()))
}

/// The digest that a registry says that it computed.
pub(super) fn said_digest(response: &Response) -> Option<&str> {
    text_of(response, &header::HeaderName::from_static("docker-content-digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_text_for_a_header() {
        assert_eq!(parse_token(br#"{"token":"a.b"}"#), Ok(("a.b".into(), VALIDITY)));
        assert_eq!(
            parse_token(br#"{"access_token":"c","expires_in":300,"x":1}"#),
            Ok(("c".into(), Duration::from_secs(300)))
        );
        for evil in [
            "",
            "{}",
            "[]",
            r#"{"token":""}"#,
            r#"{"token":"a\r\nX: y"}"#,
            r#"{"token":"a","expires_in":-1}"#,
        ] {
            assert!(parse_token(evil.as_bytes()).is_err(), "{evil}");
        }
    }

    #[test]
    fn rights_are_added_and_never_taken_away() {
        let mut state = State::default();
        assert!(state.add_scopes("repository:a/b:pull"));
        assert!(state.add_scopes("repository:a/b:push,pull repository:c:pull"));
        assert!(!state.add_scopes("repository:a/b:pull"));
        let all: Vec<_> =
            state.scopes.iter().map(|(resource, actions)| (resource.as_str(), actions.len())).collect();
        assert_eq!(all, [("repository:a/b", 2), ("repository:c", 1)]);
    }
}
