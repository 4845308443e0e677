// SPDX-License-Identifier: GPL-2.0-or-later

//! Uploads.

use std::io::Cursor;

use tesserafs_store::reference::Name;

use super::registry::{Access, Registry, Wrong};
use super::*;

/// More than two chunks of an upload.
const LEN: usize = (2 << 20) + 3;

fn uploaded(registry: &Registry, options: &Options, bytes: &[u8]) -> Result<Blob, Error> {
    let there = Blob { digest: sha256(bytes), len: bytes.len() as u64 };
    let mut told = 0;
    open(registry, options).upload(&there, &mut Cursor::new(bytes), &mut |had| {
        assert!(had >= told && had <= there.len);
        told = had;
    })?;
    assert_eq!(told, there.len);
    assert_eq!(registry.blob("team/app", &registry::digest(bytes)).as_deref(), Some(bytes));
    Ok(there)
}

#[test]
fn small_blobs_are_two_requests_and_large_ones_come_in_chunks() {
    let registry = Registry::new();
    for len in [0, 1, 1000, 1 << 20] {
        uploaded(&registry, &options(), &noise(len)).expect("an upload");
        assert_eq!(registry.seen().len(), 2, "{len}");
    }
    uploaded(&registry, &options(), &noise(LEN)).expect("an upload");
    let seen = registry.seen();
    let sent: Vec<_> = seen.iter().map(|seen| (&*seen.method, seen.body)).collect();
    let last = LEN as u64 - (2 << 20);
    assert_eq!(sent, [("POST", 0), ("PATCH", 1 << 20), ("PATCH", 1 << 20), ("PATCH", last), ("PUT", 0)]);
    assert_eq!(seen[2].range.as_deref(), Some("1048576-2097151"));
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
}

#[test]
fn an_upload_goes_on_where_the_registry_lost_it() {
    let bytes = noise(LEN);
    for (method, wrong) in [
        ("PATCH", Wrong::Deaf(300_000)),
        ("PATCH", Wrong::Deaf(0)),
        ("PATCH", Wrong::Closed),
        ("PATCH", Wrong::LoseChunk),
        ("PATCH", Wrong::Status(500, Vec::new(), String::new())),
        ("PATCH", Wrong::Status(429, Vec::new(), String::new())),
        ("PATCH", Wrong::Status(416, Vec::new(), String::new())),
        ("POST", Wrong::Status(502, Vec::new(), String::new())),
        ("PUT", Wrong::Closed),
        ("PUT", Wrong::Status(504, Vec::new(), String::new())),
    ] {
        let registry = Registry::new();
        registry.wrong_after(method, "/uploads/", usize::from(method == "PATCH"), 1, wrong.clone());
        uploaded(&registry, &options(), &bytes).unwrap_or_else(|error| panic!("{method} {wrong:?}: {error}"));
        let again: u64 = registry.seen().iter().map(|seen| seen.body).sum();
        let sent_twice = again.saturating_sub(LEN as u64);
        assert!(sent_twice <= 1 << 20, "{method} {wrong:?}: {sent_twice} bytes twice");
    }
}

#[test]
fn an_upload_that_is_forgotten_begins_again() {
    let bytes = noise(LEN);
    let registry = Registry::new();
    registry.wrong_after("PATCH", "/uploads/", 1, 1, Wrong::Status(404, Vec::new(), String::new()));
    uploaded(&registry, &options(), &bytes).expect("an upload");
    assert_eq!(registry.seen().iter().filter(|seen| seen.method == "POST").count(), 2);
    // A registry that always forgets is given up.
    registry.wrong("PATCH", "/uploads/", usize::MAX, Wrong::LoseChunk);
    let error = sentence(&uploaded(&registry, &options(), &bytes).expect_err("forgotten"));
    assert!(error.contains("found 0 bytes, expected 1048576 (4 times in a row)"), "{error}");
}

#[test]
fn a_registry_that_loses_what_it_had_does_not_get_it_for_ever() {
    let bytes = noise(LEN);
    let registry = Registry::new();
    // The first chunk is taken, the second one ends the session, each time.
    for _ in 0..10 {
        registry.wrong_after("PATCH", "/uploads/", 1, 1, Wrong::Status(404, Vec::new(), String::new()));
    }
    let error = sentence(&uploaded(&registry, &options(), &bytes).expect_err("lost"));
    assert!(error.contains("it lost what it had 4 times"), "{error}");
}

#[test]
fn a_chunk_that_is_not_wanted_is_not_sent() {
    let registry = Registry::new();
    registry.wrong("PATCH", "/uploads/", usize::MAX, Wrong::Status(413, Vec::new(), "<html>".into()));
    let error = sentence(&uploaded(&registry, &options(), &noise(LEN)).expect_err("too large"));
    assert!(error.contains("found status 413, expected 202"), "{error}");
    assert_eq!(registry.seen().iter().map(|seen| seen.body).sum::<u64>(), 0);
}

#[test]
fn a_registry_refuses_wrong_bytes_and_that_is_told() {
    let registry = Registry::new();
    let wrong = Blob { digest: sha256(b"other"), len: 5 };
    let repository = open(&registry, &options());
    let error = repository.upload(&wrong, &mut Cursor::new(b"bytes"), &mut |_| ()).expect_err("wrong");
    assert!(sentence(&error).contains("found status 400 (found sha256:"), "{error}");
    let longer = Blob { digest: sha256(b"bytes"), len: 6 };
    let error = repository.upload(&longer, &mut Cursor::new(b"bytes"), &mut |_| ()).expect_err("short");
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let digest = "sha256:0000\u{7f}".to_owned();
    registry.wrong("PUT", "/uploads/", 1, Wrong::Header("X", digest));
    registry.wrong(
        "PUT",
        "/uploads/",
        1,
        Wrong::Status(201, vec![("Docker-Content-Digest", "sha256:00".into())], String::new()),
    );
    uploaded(&registry, &options(), b"bytes").expect("an upload");
    let error = sentence(&uploaded(&registry, &options(), b"more bytes").expect_err("a lie"));
    assert!(error.contains("found the digest sha256:00, expected sha256:"), "{error}");
}

#[test]
fn a_token_can_end_in_the_middle_of_an_upload() {
    let bytes = noise(LEN);
    let registry = Registry::new();
    registry.access(Access::Token { user: None, uses: 2, expires_in: None });
    uploaded(&registry, &options(), &bytes).expect("an upload");
    let seen = registry.seen();
    assert!(seen.iter().filter(|seen| seen.target.starts_with("/token")).count() >= 2);
    assert!(seen
        .iter()
        .all(|seen| !seen.target.starts_with("/token") || seen.target.contains("pull%2Cpush")));
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let registry = Registry::new();
    let digest = registry.add_blob("team/base", b"bytes");
    let there = Blob { digest: sha256(b"bytes"), len: 5 };
    registry.access(Access::Token { user: None, uses: 100, expires_in: None });
    let repository = open(&registry, &options());
    assert!(repository.mount(&there.digest, "team/base").expect("an answer"));
    assert!(registry.blob("team/app", &digest).is_some());
    let targets = registry.targets();
    assert!(targets.iter().any(|target| target.contains("repository:team/base:pull")), "{targets:?}");
    // A mount of a blob that it lacks begins an upload, which is used.
    let other = Blob { digest: sha256(b"other"), len: 5 };
    assert!(!repository.mount(&other.digest, "team/base").expect("an answer"));
    repository.upload(&other, &mut Cursor::new(b"other"), &mut |_| ()).expect("an upload");
    assert_eq!(registry.seen().iter().filter(|seen| seen.method == "POST").count(), 1);
}

#[test]
fn a_manifest_gets_its_name() {
    let registry = Registry::new();
    let repository = open(&registry, &options());
    let name = Name::Tag("v1".into());
    registry.wrong("PUT", "/manifests/", 1, Wrong::Status(500, Vec::new(), String::new()));
    repository.put_manifest(&name, "application/x", b"{}").expect("a manifest");
    let found = repository.manifest(&name).expect("an answer").expect("a manifest");
    assert_eq!((&found.bytes[..], found.media_type.as_deref()), (&b"{}"[..], Some("application/x")));
    let said = r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#;
    registry.wrong("PUT", "/manifests/", 1, Wrong::Status(400, Vec::new(), said.into()));
    let error = sentence(&repository.put_manifest(&name, "application/x", b"{}").expect_err("refused"));
    assert!(error.contains("found status 400 (MANIFEST_INVALID), expected 201"), "{error}");
}
