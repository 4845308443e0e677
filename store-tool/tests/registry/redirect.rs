// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs that lie elsewhere.

use super::registry::{Access, Registry, Wrong};
use super::*;

/// A registry that redirects blobs to another host, which has this one.
fn redirecting(all: &[u8]) -> (Registry, Registry, Blob) {
    let (registry, other) = (Registry::new(), Registry::new());
    let there = blob(&registry, all);
    let digest = other.add_blob("other", all);
    let location = format!("http://{}/v2/other/blobs/{digest}?signature=secret", other.host());
    registry.wrong(
        "GET",
        "/blobs/",
        usize::MAX,
        Wrong::Status(307, vec![("Location", location)], String::new()),
    );
    (registry, other, there)
}

#[test]
fn a_redirect_is_asked_for_once() {
    let all = noise(1000);
    let (registry, other, there) = redirecting(&all);
    let repository = open(&registry, &options());
    for at in 0..10 {
        read(&repository, &there, at..at + 10, &all).expect("a range");
    }
    assert_eq!(registry.seen().len(), 1);
    let seen = other.seen();
    assert_eq!(seen.len(), 10);
    assert_eq!(seen[3].range.as_deref(), Some("bytes=3-12"));
}

#[test]
fn no_secret_goes_to_another_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = noise(1000);
    let (registry, other, there) = redirecting(&all);
    let login = with_login(folder.path(), &registry.host(), r#"{"auth":"bWU6c2VjcmV0"}"#);
    // The rule comes before the check of who asks: a token is got for the manifest.
    registry.access(Access::Basic("me".into(), "secret".into()));
    registry.add_manifest("team/app", "v", "x", b"{}");
    let repository = open(&registry, &login);
    repository
        .manifest(&tesserafs_store::reference::Name::Tag("v".into()))
        .expect("an answer")
        .expect("a manifest");
    read(&repository, &there, 0..10, &all).expect("a range");
    assert!(registry.seen().last().is_some_and(|seen| seen.authorization.is_some()));
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
    // Nor does it ask another host for a password: its refusal is one.
    other.access(Access::Basic("me".into(), "secret".into()));
    let error = sentence(&read(&repository, &there, 0..10, &all).expect_err("refused"));
    assert!(error.contains("found status 401") && !error.contains("signature"), "{error}");
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn a_redirect_that_ended_is_asked_for_again() {
    let all = noise(1000);
    for status in [401, 403, 404, 410, 500] {
        let (registry, other, there) = redirecting(&all);
        let repository = open(&registry, &options());
        read(&repository, &there, 0..10, &all).expect("a range");
        other.wrong("GET", "/blobs/", 1, Wrong::Status(status, Vec::new(), String::new()));
        read(&repository, &there, 0..10, &all).expect("a range");
        assert_eq!(registry.seen().len(), 2, "{status}");
    }
}

#[test]
fn a_dead_or_slow_target_is_a_failure_that_can_pass() {
    let all = noise(1000);
    let dead = Registry::new().host();
    let registry = Registry::new();
    let there = blob(&registry, &all);
    let location = vec![("Location", format!("http://{dead}/x"))];
    registry.wrong("GET", "/blobs/", 2, Wrong::Status(302, location.clone(), String::new()));
    let repository = open(&registry, &options());
    read(&repository, &there, 0..10, &all).expect("at the third attempt");
    registry.wrong("GET", "/blobs/", usize::MAX, Wrong::Status(302, location, String::new()));
    let error = sentence(&read(&repository, &there, 0..10, &all).expect_err("dead"));
    assert!(error.contains(&dead), "{error}");

    let (registry, other, there) = redirecting(&all);
    other.wrong("GET", "/blobs/", 1, Wrong::Silent(Duration::from_secs(12)));
    read(&open(&registry, &options()), &there, 0..10, &all).expect("at the second attempt");
}

#[test]
fn redirects_that_lead_nowhere_are_errors() {
    for (location, said) in [
        ("/v2/team/app/blobs/again", "more than 5 redirects"),
        ("file:///etc/passwd", "no URL of HTTP"),
        ("https://127.0.0.1:1/x", "127.0.0.1:1"),
        ("", "Location"),
    ] {
        let (registry, all) = (Registry::new(), noise(100));
        let there = blob(&registry, &all);
        let headers = vec![("Location", location.to_owned())];
        registry.wrong("GET", "/blobs/", usize::MAX, Wrong::Status(302, headers, String::new()));
        let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err(said));
        assert!(error.contains(said), "{error}");
    }
    let (registry, all) = (Registry::new(), noise(100));
    let there = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", usize::MAX, Wrong::Status(302, Vec::new(), String::new()));
    let error = sentence(&read(&open(&registry, &options()), &there, 10..20, &all).expect_err("nowhere"));
    assert!(error.contains("without a Location"), "{error}");
}
