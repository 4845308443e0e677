// SPDX-License-Identifier: GPL-2.0-or-later

//! Registries as the environment describes them: credentials, helpers, certificates and proxies, as the program finds them.

#[path = "support/registry/mod.rs"]
mod registry;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use self::registry::certificates::{Authority, Kind};
use self::registry::{Access, Registry};
use self::support::{build_with, TESSERAFS};

/// `me:secret` as files have it.
const ME: &str = r#"{"auth":"bWU6c2VjcmV0"}"#;

/// A folder with an image, and a registry that wants a password.
fn place() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("root")).expect("a directory");
    build_with(folder.path(), |_| ());
    let registry = Registry::new();
    registry.access(Access::Basic("me".into(), "secret".into()));
    (folder, registry)
}

/// A push with nothing of the environment but this.
fn push(folder: &Path, reference: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(TESSERAFS)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().copied())
        .args(["push", "--quiet", "--tries", "2", "image.tess", reference])
        .output()
        .expect("tesserafs")
}

fn works(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fails(output: &Output, said: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains(said) && error.lines().count() == 1, "{error}");
}

#[test]
fn credentials_are_where_podman_and_docker_have_them() {
    let (folder, registry) = place();
    let reference = format!("{}/a:1", registry.host());
    let auths = format!(r#"{{"auths":{{"{}":{ME}}}}}"#, registry.host());
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    for (file, key, dir) in [
        ("auth.json", "REGISTRY_AUTH_FILE", "auth.json"),
        ("run/containers/auth.json", "XDG_RUNTIME_DIR", "run"),
        ("config/containers/auth.json", "XDG_CONFIG_HOME", "config"),
        ("home/.config/containers/auth.json", "HOME", "home"),
        ("home2/.docker/config.json", "HOME", "home2"),
        ("docker/config.json", "DOCKER_CONFIG", "docker"),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a directory");
        fs::write(&path, &auths).expect("a file");
        works(&push(folder.path(), &reference, &[(key, &text(&folder.path().join(dir)))]));
    }
    fails(&push(folder.path(), &reference, &[]), "there are none for");
    fails(
        &push(folder.path(), &reference, &[("REGISTRY_AUTH_FILE", "/nowhere/auth.json")]),
        "/nowhere/auth.json",
    );
    // The first file that has some for this registry counts, and not the first file.
    let run = text(&folder.path().join("run"));
    fs::write(folder.path().join("run/containers/auth.json"), r#"{"auths":{"other":{}}}"#).expect("a file");
    works(&push(
        folder.path(),
        &reference,
        &[("XDG_RUNTIME_DIR", &run), ("HOME", &text(&folder.path().join("home2")))],
    ));
}

#[test]
fn helpers_are_on_the_path() {
    let (folder, registry) = place();
    let reference = format!("{}/a:1", registry.host());
    let helper = |name: &str, script: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\nread -r key\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    let host = registry.host();
    helper(
        "good",
        &format!(r#"[ "$1 $key" = "get {host}" ] && echo '{{"Username":"me","Secret":"secret"}}'"#),
    );
    helper("empty", "echo credentials not found in native keychain; exit 1");
    helper("broken", "echo secret; exit 1");
    helper("words", "echo secret");
    helper("lingers", "/bin/sleep 30 & echo secret");
    let auth = folder.path().join("auth.json");
    let path = folder.path().to_str().expect("a path");
    let environment = [("PATH", path), ("REGISTRY_AUTH_FILE", auth.to_str().expect("a path"))];
    let with = |json: String| {
        fs::write(&auth, json).expect("a file");
        push(folder.path(), &reference, &environment)
    };
    works(&with(r#"{"credsStore":"good"}"#.into()));
    works(&with(format!(r#"{{"auths":{{"{host}":{{}}}},"credsStore":"good"}}"#)));
    works(&with(format!(r#"{{"credHelpers":{{"{host}":"good"}},"credsStore":"broken"}}"#)));
    fails(&with(r#"{"credsStore":"empty"}"#.into()), "there are none for");
    for (name, said) in [
        ("broken", "failed"),
        ("words", "gave no credentials"),
        ("lingers", "did not close its output"),
        ("missing", "cannot be run"),
    ] {
        let output = with(format!(r#"{{"credsStore":"{name}"}}"#));
        fails(&output, said);
        fails(&output, &format!("docker-credential-{name}"));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
    }
}

#[test]
fn certificates_are_in_the_folder_of_the_host() {
    let (folder, _) = place();
    let authority = Authority::new();
    let registry = Registry::with_tls(authority.acceptor(true));
    let reference = format!("{}/a:1", registry.host());
    let certs = folder.path().join("config/containers/certs.d").join(registry.host());
    let config = folder.path().join("config");
    let environment =
        [("XDG_CONFIG_HOME", config.to_str().expect("a path")), ("REGISTRY_AUTH_FILE", "/dev/null")];
    fails(&push(folder.path(), &reference, &environment), "is not trusted here");
    fs::create_dir_all(&certs).expect("a directory");
    authority.write(&certs);
    let (_, key) = authority.issue(Kind::Elliptic).write(&certs);
    works(&push(folder.path(), &reference, &environment));
    fs::remove_file(key).expect("a key");
    fails(&push(folder.path(), &reference, &environment), "client.cert has no key beside it");
}

/// A proxy that connects to one place, whatever it is asked for; what it was asked for.
fn proxy(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut input = BufReader::new(client.try_clone().expect("a socket"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && input.read_line(&mut head).is_ok_and(|read| read > 0) {}
            seen.lock().expect("a lock").push(head.clone());
            let server = TcpStream::connect(&to).expect("a registry");
            let (mut up, mut client) = (server.try_clone().expect("a socket"), client);
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("an answer");
            let mut down = server;
            thread::spawn(move || std::io::copy(&mut input, &mut up));
            thread::spawn(move || std::io::copy(&mut down, &mut client));
        }
    });
    (address, asked)
}

#[test]
fn proxies_are_those_of_the_environment() {
    let (folder, registry) = place();
    registry.access(Access::Open);
    let (address, asked) = proxy(registry.host());
    let url = format!("http://me:secret@{address}");
    let output = Command::new(TESSERAFS)
        .current_dir(folder.path())
        .env_clear()
        .env("HTTP_PROXY", &url)
        .env("REGISTRY_AUTH_FILE", "/dev/null")
        .args(["push", "--quiet", "--plain-http", "image.tess", "registry.invalid/a:1"])
        .output()
        .expect("tesserafs");
    works(&output);
    assert!(registry.manifest("a", "1").is_some());
    let asked = asked.lock().expect("a lock");
    assert!(asked.iter().all(|head| head.starts_with("CONNECT registry.invalid:80 ")), "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|head| head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6c2vjcmv0")),
        "{asked:?}"
    );
    drop(asked);

    // This machine is reached without one.
    works(&push(
        folder.path(),
        &format!("{}/a:2", registry.host()),
        &[
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
            ("REGISTRY_AUTH_FILE", "/dev/null"),
        ],
    ));
    let output = push(
        folder.path(),
        "registry.invalid/a:1",
        &[("HTTPS_PROXY", "http://127.0.0.1:1"), ("REGISTRY_AUTH_FILE", "/dev/null")],
    );
    fails(&output, "registry.invalid");
}
