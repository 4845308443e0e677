// SPDX-License-Identifier: GPL-2.0-or-later

//! Credentials, where podman and docker keep them.
//!
//! The crate docker_credential reads the same files, but not podman's entries for a repository (`HOST/NAMESPACE`), takes a helper that
//! knows nothing for an error, names no file in its errors, and waits for a helper without an end.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value};
use tesserafs_image::{text, Error};

use super::options::Options;

/// The places, for messages.
pub(super) const PLACES: &str = "podman login or docker login makes them";

/// How long a helper may think: it can ask its user.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// How long its output may stay open when it has ended.
const PIPE_TIME: Duration = Duration::from_secs(2);
/// Bytes of a file or of a helper's answer.
const FILE_MAX: u64 = 4 << 20;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// The name; empty with a token.
    pub(super) user: String,
    /// The proof of it.
    pub(super) secret: Secret,
    /// The file or the helper that had it.
    pub(super) source: String,
}

/// The proof of a name.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// A password.
    Password(String),
    /// A token that a token server gives others for.
    IdentityToken(String),
}

impl Credentials {
    /// Whose they are and from where, without the secret.
    pub(super) fn shown(&self) -> String {
        let whose = if self.user.is_empty() {
            String::new()
        } else {
            format!("of {} ", text::escape(self.user.as_bytes()))
        };
        format!("{whose}from {}", self.source)
    }
}

/// Without what is secret.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Finds the credentials for a repository of a registry. The first file that has some counts.
pub(super) fn find(host: &str, repository: &str, options: &Options) -> Result<Option<Credentials>, Error> {
    if let Some(path) = &options.authfile {
        return Search { host, repository, path, options }.in_file(true);
    }
    if let Some(path) = env::var_os("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty()) {
        return Search { host, repository, path: Path::new(&path), options }.in_file(true);
    }
    for path in places() {
        if let Some(found) = (Search { host, repository, path: &path, options }).in_file(false)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files, in the order in which podman looks into them.
fn places() -> Vec<PathBuf> {
    let folder = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("HOME");
    let run = folder("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| format!("/run/containers/{}", rustix::process::getuid().as_raw()).into());
    let config = folder("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = folder("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    // Without a session podman has it in a folder of the user below.
    let run = if env::var_os("XDG_RUNTIME_DIR").is_some() {
        run.join("containers/auth.json")
    } else {
        run.join("auth.json")
    };
    [
        Some(run),
        config.map(|config| config.join("containers/auth.json")),
        docker.map(|docker| docker.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: Option<Map<String, Value>>,
    creds_store: Option<String>,
    cred_helpers: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// A search for one repository in one file.
struct Search<'a> {
    host: &'a str,
    repository: &'a str,
    path: &'a Path,
    options: &'a Options,
}

impl Search<'_> {
    fn in_file(&self, must_exist: bool) -> Result<Option<Credentials>, Error> {
        let path = text::path(self.path);
        let mut bytes = Vec::new();
        let read = fs::File::open(self.path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
        match read {
            Err(error)
                if !must_exist
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(Error::Io { what: format!("cannot read {path}"), source }),
            // /dev/null: none at all.
            Ok(0) => return Ok(None),
            Ok(_) => (),
        }
        // The file can hold passwords: its bytes are not shown, only the place of the mistake.
        let refuse = |error: serde_json::Error| {
            Error::Refused(format!("{path} is no file of credentials: wrong at line {}", error.line()))
        };
        let file: Map<String, Value> = serde_json::from_slice(&bytes).map_err(refuse)?;
        let file: File = serde_json::from_value(file.into()).map_err(refuse)?;
        if let Some((key, helper)) = self.helper(&file) {
            return self.ask(&helper, &key);
        }
        if let Some(found) = self.entry(&file, &path)? {
            return Ok(Some(found));
        }
        match file.creds_store.filter(|store| !store.is_empty()) {
            // Docker Hub has the key that it always had.
            Some(store) if self.host == "docker.io" => self.ask(&store, "https://index.docker.io/v1/"),
            Some(store) => self.ask(&store, self.host),
            None => Ok(None),
        }
    }

    /// The names that a registry and a repository have in files, the most specific first.
    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut repository = self.repository;
        while !repository.is_empty() {
            keys.push(format!("{}/{repository}", self.host));
            repository = repository.rsplit_once('/').map_or("", |(above, _)| above);
        }
        keys.push(self.host.to_owned());
        if self.host == "docker.io" {
            keys.extend(["index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
        }
        keys
    }

    fn helper(&self, file: &File) -> Option<(String, String)> {
        let helpers = file.cred_helpers.as_ref()?;
        let of_key = |key: String| {
            let helper = helpers.get(&key).and_then(Value::as_str).filter(|helper| !helper.is_empty())?;
            Some((key.clone(), helper.to_owned()))
        };
        self.keys().into_iter().find_map(of_key)
    }

    fn entry(&self, file: &File, path: &str) -> Result<Option<Credentials>, Error> {
        let Some(auths) = &file.auths else { return Ok(None) };
        let named = |key: &str| auths.iter().find(|(known, _)| *known == key || plain(known) == key);
        for (key, value) in self.keys().iter().filter_map(|key| named(key)) {
            let refuse = || {
                Error::Refused(format!(
                    "{path}: the entry {} is not one of credentials",
                    text::escape(key.as_bytes())
                ))
            };
            let entry: Entry = serde_json::from_value(value.clone()).map_err(|_| refuse())?;
            let source = path.to_owned();
            let filled = |field: Option<String>| field.filter(|field| !field.is_empty());
            if let Some(token) = filled(entry.identitytoken) {
                return Ok(Some(Credentials {
                    user: String::new(),
                    secret: Secret::IdentityToken(token),
                    source,
                }));
            }
            let pair = match (filled(entry.auth), filled(entry.username), entry.password) {
                (Some(auth), ..) => Some(decode(&auth).ok_or_else(refuse)?),
                (None, Some(user), Some(password)) => Some((user, password)),
                // An empty entry says that a store has it.
                _ => None,
            };
            if let Some((user, password)) = pair {
                return Ok(Some(Credentials { user, secret: Secret::Password(password), source }));
            }
        }
        Ok(None)
    }

    /// Asks a helper.
    fn ask(&self, helper: &str, key: &str) -> Result<Option<Credentials>, Error> {
        let name = format!("docker-credential-{helper}");
        let source = format!("the helper {}", text::escape(name.as_bytes()));
        let refuse =
            |why: &str| Error::Refused(format!("{source}, which {} names, {why}", text::path(self.path)));
        if helper.contains('/') {
            return Err(refuse("is no name of a program"));
        }
        let (success, said) = run(&name, key, self.options).map_err(|why| match why {
            Failed::Cancelled => Error::Cancelled,
            Failed::Said(why) => refuse(&why),
        })?;
        if !success {
            // The words of all helpers, by their library.
            let nothing = String::from_utf8_lossy(&said).contains("credentials not found");
            return if nothing { Ok(None) } else { Err(refuse("failed")) };
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            username: String,
            secret: String,
        }
        let Answer { username, secret } =
            serde_json::from_slice(&said).map_err(|_| refuse("gave no credentials"))?;
        Ok(Some(if username == "<token>" {
            Credentials { user: String::new(), secret: Secret::IdentityToken(secret), source }
        } else {
            Credentials { user: username, secret: Secret::Password(secret), source }
        }))
    }
}

enum Failed {
    Cancelled,
    Said(String),
}

/// Runs a helper: the key goes in, what it answers comes back, and whether it succeeded.
fn run(name: &str, key: &str, options: &Options) -> Result<(bool, Vec<u8>), Failed> {
    let failed = |error: io::Error| Failed::Said(format!("cannot be run: {error}"));
    let mut child = Command::new(name)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // A helper that does not read it says so by its status.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(key.as_bytes()));
    let output = child.stdout.take();
    let (send, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let read = output.map_or(Ok(0), |output| output.take(FILE_MAX).read_to_end(&mut said));
        // Nobody waits any more for what comes too late.
        let _ = send.send(read.map(|_| said));
    });
    let until = Instant::now() + HELPER_TIME;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        let cancelled = options.cancel.is_set();
        if cancelled || Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            let why = format!("said nothing for {} seconds", HELPER_TIME.as_secs());
            return Err(if cancelled { Failed::Cancelled } else { Failed::Said(why) });
        }
        thread::sleep(Duration::from_millis(5));
    };
    // A process that a helper leaves behind can have its end of the pipe.
    let said = answer.recv_timeout(PIPE_TIME).map_err(|_| Failed::Said("did not close its output".into()))?;
    let said = said.map_err(failed)?;
    Ok((status.success(), said))
}

/// A key as docker wrote it once: with a scheme, and the path of an old version of the API.
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// Name and password of `auth`.
fn decode(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(auth).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests;
