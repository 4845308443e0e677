// SPDX-License-Identifier: GPL-2.0-or-later

//! The credentials of requests.

use super::registry::{Access, Registry, Wrong};
use super::*;

fn token(uses: u64, user: Option<(&str, &str)>) -> Access {
    let user = user.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Access::Token { user, uses, expires_in: None }
}

fn tokens_asked(seen: &[registry::Seen]) -> usize {
    seen.iter().filter(|seen| seen.target.starts_with("/token")).count()
}

/// `me:secret` as files have it.
const ME: &str = r#"{"auth":"bWU6c2VjcmV0"}"#;

#[test]
fn a_token_is_got_once_and_again_when_it_ends() {
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    registry.access(token(5, None));
    let repository = open(&registry, &options());
    for _ in 0..12 {
        read(&repository, &there, 10..20, &all).expect("a range");
    }
    let seen = registry.seen();
    assert_eq!(tokens_asked(&seen), 3);
    // 12 ranges, three refusals and three tokens.
    assert_eq!(seen.len(), 18);
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
    let asked = seen.iter().find(|seen| seen.target.starts_with("/token")).expect("a token");
    assert!(
        asked.target.contains("service=a%20registry") && asked.target.contains("repository:team/app:pull")
    );
}

#[test]
fn a_token_that_says_when_it_ends_is_renewed_before() {
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    registry.access(Access::Token { user: None, uses: 100, expires_in: Some(1) });
    let repository = open(&registry, &options());
    read(&repository, &there, 10..20, &all).expect("a range");
    std::thread::sleep(Duration::from_millis(1000));
    read(&repository, &there, 10..20, &all).expect("a range");
    // Only the first request was refused.
    let seen = registry.seen();
    assert_eq!((tokens_asked(&seen), seen.len()), (2, 2 + 2 + 1));
}

#[test]
fn one_thread_renews_the_token_for_all() {
    let (registry, all) = (Registry::new(), noise(1000));
    let there = blob(&registry, &all);
    registry.access(token(1_000_000, None));
    let repository = open(&registry, &options());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| read(&repository, &there, 10..20, &all).expect("a range"));
        }
    });
    assert_eq!(tokens_asked(&registry.seen()), 1);
}

#[test]
fn a_password_goes_to_the_token_server_or_to_the_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    let login = with_login(folder.path(), &registry.host(), ME);

    registry.access(token(100, Some(("me", "secret"))));
    read(&open(&registry, &login), &there, 10..20, &all).expect("by a token");
    let seen = registry.seen();
    assert!(seen.iter().all(|seen| {
        let authorization = seen.authorization.as_deref().unwrap_or("Bearer");
        authorization.starts_with(if seen.target.starts_with("/token") { "Basic" } else { "Bearer" })
    }));

    registry.access(Access::Basic("me".into(), "secret".into()));
    let repository = open(&registry, &login);
    (0..3).for_each(|_| drop(read(&repository, &there, 10..20, &all).expect("by a password")));
    assert_eq!(registry.seen().len(), 4);

    let identity = with_login(folder.path(), &registry.host(), r#"{"identitytoken":"secret"}"#);
    registry.access(token(100, Some(("me", "secret"))));
    read(&open(&registry, &identity), &there, 10..20, &all).expect("by an identity token");
    assert!(registry.targets().contains(&"POST /token".to_owned()));
}

#[test]
fn whoever_is_refused_is_told_who_he_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    let wrong = with_login(folder.path(), &registry.host(), r#"{"username":"m\u001be","password":"wrong"}"#);
    for access in [Access::Basic("me".into(), "secret".into()), token(9, Some(("me", "secret")))] {
        registry.access(access);
        registry.seen();
        let error = sentence(&read(&open(&registry, &wrong), &there, 10..20, &all).expect_err("wrong"));
        assert!(
            error.contains("refuses the credentials of m\\033e from") && error.contains("auth.json"),
            "{error}"
        );
        assert!(!error.contains("wrong"), "{error}");
        let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err("nobody"));
        assert!(error.contains("there are none for") || error.contains("refuses anonymous"), "{error}");
        assert!(registry.seen().len() <= 6);
    }
    // A token that is refused as soon as it is given.
    registry.access(token(0, None));
    let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err("refused"));
    assert!(error.contains("wants credentials"), "{error}");
    assert!(registry.seen().len() <= 7);
}

#[test]
fn challenges_that_make_no_sense_are_errors() {
    for (challenge, said) in [
        ("Negotiate", "without a challenge"),
        ("Bearer realm=\"file:///etc/passwd\"", "no URL of HTTP"),
        ("Bearer realm=\"http://me:secret@127.0.0.1/\"", "no URL of HTTP"),
        ("Bearer realm=\"\"", "no URL of HTTP"),
    ] {
        let (registry, all) = (Registry::new(), noise(100));
        let there = blob(&registry, &all);
        let headers = vec![("WWW-Authenticate", challenge.to_owned())];
        registry.wrong("GET", "/blobs/", usize::MAX, Wrong::Status(401, headers, String::new()));
        let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err(said));
        assert!(error.contains(said) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_token_server_can_be_busy() {
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    registry.access(token(10, None));
    registry.wrong("GET", "/token", 1, Wrong::Status(503, Vec::new(), String::new()));
    registry.wrong("GET", "/token", 1, Wrong::Cut(3));
    read(&open(&registry, &options()), &there, 10..20, &all).expect("a range");
    registry.wrong(
        "GET",
        "/token",
        usize::MAX,
        Wrong::Status(200, Vec::new(), "{\"token\":\"a\\nb\"}".into()),
    );
    let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err("evil"));
    assert!(error.contains("the token is no text"), "{error}");
}
