// SPDX-License-Identifier: GPL-2.0-or-later

use std::os::unix::fs::PermissionsExt;

use super::*;

fn look(json: &str, host: &str, repository: &str) -> Result<Option<Credentials>, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("auth.json");
    fs::write(&path, json).expect("a file");
    let options = Options { authfile: Some(path), ..Options::default() };
    find(host, repository, &options)
}

fn user(json: &str, host: &str, repository: &str) -> Option<String> {
    look(json, host, repository).expect("a file of credentials").map(|found| found.user)
}

fn auth(pair: &str) -> String {
    base64::prelude::BASE64_STANDARD.encode(pair)
}

#[test]
fn the_most_specific_entry_counts() {
    let json = format!(
        r#"{{"auths":{{"r.example":{{"auth":"{}"}},"r.example/team":{{"auth":"{}"}},"r.example/team/app":{{"auth":"{}"}},
           "https://index.docker.io/v1/":{{"auth":"{}"}},"https://old.example/v2/":{{"username":"u","password":"p"}}}}}}"#,
        auth("host:a"),
        auth("team:b:c"),
        auth("app:d"),
        auth("hub:e")
    );
    assert_eq!(user(&json, "r.example", "other/app").as_deref(), Some("host"));
    assert_eq!(user(&json, "r.example", "team/other").as_deref(), Some("team"));
    assert_eq!(user(&json, "r.example", "team/app").as_deref(), Some("app"));
    assert_eq!(user(&json, "r.example", "teams").as_deref(), Some("host"));
    assert_eq!(user(&json, "docker.io", "library/debian").as_deref(), Some("hub"));
    assert_eq!(user(&json, "old.example", "a").as_deref(), Some("u"));
    assert_eq!(user(&json, "r.example:5000", "a"), None);
    // A password can have colons.
    let found = look(&json, "r.example", "team/x").expect("a file").expect("an entry");
    assert!(found.secret == Secret::Password("b:c".into()));
    assert!(!format!("{found:?}").contains("b:c"));
}

#[test]
fn a_token_is_no_password() {
    let json = r#"{"auths":{"r.example":{"auth":"","identitytoken":"t"}}}"#;
    assert!(
        look(json, "r.example", "a").expect("a file").expect("an entry").secret
            == Secret::IdentityToken("t".into())
    );
}

#[test]
fn broken_files_are_refused_without_their_secrets() {
    for json in [
        "[]",
        r#"{"auths":{"r":{"auth":"%%%secret"}}}"#,
        r#"{"auths":{"r":"secret"}}"#,
        r#"{"auths":"secret"}"#,
    ] {
        let error = look(json, "r", "a").expect_err(json).to_string();
        assert!(error.contains("auth.json") && !error.contains("secret"), "{error}");
    }
    let options = Options { authfile: Some("/nowhere/auth.json".into()), ..Options::default() };
    assert!(find("r", "a", &options).expect_err("no file").to_string().contains("/nowhere/auth.json"));
    assert_eq!(user("{}", "r", "a"), None);
    assert_eq!(user("", "r", "a"), None);
    assert_eq!(user(r#"{"auths":null,"credHelpers":null}"#, "r", "a"), None);
}

#[test]
fn helpers_are_asked_for_what_they_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = |name: &str, text: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\nread -r key\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    script("has", r#"echo '{"ServerURL":"'$key'","Username":"'$key'","Secret":"s"}'"#);
    script("token", r#"echo '{"Username":"<token>","Secret":"s"}'"#);
    script("none", "echo 'credentials not found in native keychain'; exit 1");
    script("broken", "echo secret; exit 2");
    script("words", "echo secret");
    // By their names alone they would have to be on the PATH of all tests: a name in the current folder's terms is none.
    let ask = |name: &str| {
        let program = folder.path().join(format!("docker-credential-{name}"));
        run(program.to_str().expect("a path"), "r.example", &Options::default())
    };
    let said = |name| ask(name).map_err(|_| ()).expect(name);
    assert_eq!(
        said("has"),
        (true, b"{\"ServerURL\":\"r.example\",\"Username\":\"r.example\",\"Secret\":\"s\"}\n".to_vec())
    );
    assert!(said("token").0 && !said("none").0 && !said("broken").0);
    assert!(ask("missing").is_err());

    let missing = r#"{"credHelpers":{"r.example":"no-such-helper"}}"#;
    let error = look(missing, "r.example", "a").expect_err("no helper").to_string();
    assert!(error.contains("docker-credential-no-such-helper") && error.contains("auth.json"), "{error}");
    let path = r#"{"credsStore":"../../evil"}"#;
    assert!(look(path, "r.example", "a").expect_err("a path").to_string().contains("no name of a program"));
    // The helper is for another registry.
    assert_eq!(user(missing, "s.example", "a"), None);
}
