// SPDX-License-Identifier: GPL-2.0-or-later

//! The API of a registry.

use base64::prelude::{Engine as _, BASE64_STANDARD};

use super::http::{Answer, Request};
use super::{digest, lock, Access, State, Wrong};

/// Answers a request, rightly but for what is said to be wrong.
pub(super) fn answer(state: &State, request: &Request, wrong: Option<&Wrong>) -> Answer {
    if let Some(Wrong::Status(status, headers, body)) = wrong {
        let mut answer = Answer::new(*status).body(body.clone());
        answer.headers.clone_from(headers);
        return answer;
    }
    if request.path() == "/token" {
        return token(state, request);
    }
    if let Some(answer) = refuse(state, request) {
        return answer;
    }
    let Some(path) = request.path().strip_prefix("/v2/") else { return Answer::new(404) };
    if path.is_empty() {
        return Answer::new(200).body("{}");
    }
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return manifest(state, request, repository, name);
    }
    if let Some((repository, rest)) = path.split_once("/blobs/uploads/") {
        return upload(state, request, repository, rest, wrong);
    }
    match path.split_once("/blobs/") {
        Some((repository, digest)) => blob(state, request, repository, digest, wrong),
        None => Answer::new(404),
    }
}

fn unknown(code: &str) -> Answer {
    Answer::new(404).body(format!(r#"{{"errors":[{{"code":"{code}","message":"it is unknown"}}]}}"#))
}

/// The answer to whoever is not let in.
fn refuse(state: &State, request: &Request) -> Option<Answer> {
    let given = request.header("authorization").unwrap_or_default();
    match lock(&state.access).clone() {
        Access::Open => None,
        Access::Basic(user, password) => {
            let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
            (given != expected)
                .then(|| Answer::new(401).header("WWW-Authenticate", "Basic realm=\"a registry\"").body("{}"))
        }
        Access::Token { uses, .. } => {
            let mut tokens = lock(&state.tokens);
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            let used = tokens.iter().filter(|used| *used == token).count() as u64;
            // It is in the list once when it is made.
            if used > 0 && used <= uses && may(token, request) {
                tokens.push(token.to_owned());
                return None;
            }
            let action = if matches!(&*request.method, "GET" | "HEAD") { "pull" } else { "pull,push" };
            let path = request.path().trim_start_matches("/v2/");
            let repository = path.split("/blobs/").next().and_then(|path| path.split("/manifests/").next());
            let scope = format!("repository:{}:{action}", repository.unwrap_or_default());
            let realm = format!("{}/token", lock(&state.url));
            let challenge = format!("Bearer realm=\"{realm}\",service=\"a registry\",scope=\"{scope}\"");
            Some(Answer::new(401).header("WWW-Authenticate", challenge).body("{}"))
        }
    }
}

/// Whether a token, which says its rights, is one for this request.
fn may(token: &str, request: &Request) -> bool {
    matches!(&*request.method, "GET" | "HEAD") || token.contains("push")
}

fn token(state: &State, request: &Request) -> Answer {
    let Access::Token { user, expires_in, .. } = lock(&state.access).clone() else { return Answer::new(404) };
    if let Some((user, password)) = user {
        let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let by_token =
            form.contains("grant_type=refresh_token") && form.contains(&format!("refresh_token={password}"));
        if request.header("authorization") != Some(&expected) && !by_token {
            return Answer::new(401);
        }
    }
    let rights = request.target.contains("push") || String::from_utf8_lossy(&request.body).contains("push");
    let token = format!("t{}-{}", state.number(), if rights { "push" } else { "pull" });
    lock(&state.tokens).push(token.clone());
    let expires = expires_in.map_or(String::new(), |seconds| format!(r#","expires_in":{seconds}"#));
    Answer::new(200).body(format!(r#"{{"token":"{token}"{expires}}}"#))
}

fn manifest(state: &State, request: &Request, repository: &str, name: &str) -> Answer {
    let key = format!("{repository}:{name}");
    let mut manifests = lock(&state.manifests);
    if request.method == "PUT" {
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        let made = digest(&request.body);
        for key in [key, format!("{repository}:{made}")] {
            manifests.insert(key, (media_type.clone(), request.body.clone()));
        }
        return Answer::new(201).header("Docker-Content-Digest", made);
    }
    match manifests.get(&key) {
        Some((media_type, bytes)) => {
            Answer::new(200).header("Content-Type", media_type.clone()).body(bytes.clone())
        }
        None => unknown("MANIFEST_UNKNOWN"),
    }
}

fn blob(state: &State, request: &Request, repository: &str, digest: &str, wrong: Option<&Wrong>) -> Answer {
    let Some(bytes) = lock(&state.blobs).get(&format!("{repository}@{digest}")).cloned() else {
        return unknown("BLOB_UNKNOWN");
    };
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range.filter(|_| !matches!(wrong, Some(Wrong::Whole))) else {
        return Answer::new(200).body(bytes);
    };
    let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
    if first >= bytes.len() || last < first {
        return Answer::new(416);
    }
    let last = last.min(bytes.len() - 1);
    let range = format!("bytes {first}-{last}/{}", bytes.len());
    Answer::new(206).header("Content-Range", range).body(&bytes[first..=last])
}

fn upload(
    state: &State,
    request: &Request,
    repository: &str,
    session: &str,
    wrong: Option<&Wrong>,
) -> Answer {
    let mut uploads = lock(&state.uploads);
    let location = |number: u64| format!("/v2/{repository}/blobs/uploads/{number}?_state=x");
    if request.method == "POST" {
        if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from")) {
            let mut blobs = lock(&state.blobs);
            if let Some(bytes) = blobs.get(&format!("{from}@{digest}")).cloned() {
                blobs.insert(format!("{repository}@{digest}"), bytes);
                return Answer::new(201);
            }
        }
        let number = state.number();
        uploads.insert(number, Vec::new());
        return Answer::new(202).header("Location", location(number)).header("Range", "0-0");
    }
    let number: u64 = session.parse().unwrap_or(u64::MAX);
    let Some(held) = uploads.get_mut(&number) else { return unknown("BLOB_UPLOAD_UNKNOWN") };
    if let Some(range) = request.header("content-range") {
        let first: usize = range.split('-').next().expect("a range").parse().expect("a number");
        if first != held.len() {
            return Answer::new(416);
        }
    }
    if !matches!(wrong, Some(Wrong::LoseChunk)) {
        held.extend_from_slice(&request.body);
    }
    let range = format!("0-{}", held.len().saturating_sub(1));
    match &*request.method {
        "GET" => Answer::new(204).header("Location", location(number)).header("Range", range),
        "PATCH" => Answer::new(202).header("Location", location(number)).header("Range", range),
        "PUT" => {
            let wanted = request.parameter("digest").expect("a digest");
            let found = digest(held);
            if wanted != found {
                let said = format!(r#"{{"errors":[{{"code":"DIGEST_INVALID","message":"found {found}"}}]}}"#);
                return Answer::new(400).body(said);
            }
            let bytes = uploads.remove(&number).unwrap_or_default();
            lock(&state.blobs).insert(format!("{repository}@{found}"), bytes);
            Answer::new(201).header("Docker-Content-Digest", found)
        }
        _ => Answer::new(405),
    }
}
