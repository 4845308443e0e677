// SPDX-License-Identifier: GPL-2.0-or-later

//! Registries by TLS, with certificates of an authority that nobody else knows.

use tesserafs_store::registry::ClientCertificate;

use super::registry::certificates::{Authority, Kind};
use super::registry::{Access, Registry, Wrong};
use super::*;

/// An authority, its file, and options that trust it.
fn trusting(folder: &std::path::Path) -> (Authority, Options) {
    let authority = Authority::new();
    let ca = vec![authority.write(folder)];
    (authority, Options { ca, plain_http: false, ..options() })
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, trusting) = trusting(folder.path());
    let registry = Registry::with_tls(authority.acceptor(false));
    let all = noise(300_000);
    let there = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", 1, Wrong::Cut(100_000));
    read(&open(&registry, &trusting), &there, 10..290_000, &all).expect("by TLS");

    // Without a cut one connection serves all, the question whether it is TLS, too.
    registry.seen();
    let repository = open(&registry, &trusting);
    (0..5).for_each(|at| drop(read(&repository, &there, at..at + 10, &all).expect("by TLS")));
    let seen = registry.seen();
    assert!(seen.len() == 6 && seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");

    let error = sentence(
        &read(&open(&registry, &Options { plain_http: false, ..options() }), &there, 0..10, &all)
            .expect_err("not trusted"),
    );
    assert!(error.contains("is not trusted here"), "{error}");
    let other = tempfile::tempdir().expect("a folder");
    let others = Options { ca: vec![Authority::new().write(other.path())], plain_http: false, ..options() };
    let error =
        sentence(&read(&open(&registry, &others), &there, 0..10, &all).expect_err("another authority"));
    assert!(error.contains("is not trusted here"), "{error}");
    assert_eq!(registry.seen(), []);
}

#[test]
fn a_client_shows_its_certificate_to_the_registry_and_to_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, trusting) = trusting(folder.path());
    let registry = Registry::with_tls(authority.acceptor(true));
    let all = noise(1000);
    let there = blob(&registry, &all);
    for kind in [Kind::Rsa, Kind::Elliptic] {
        let (cert, key) = authority.issue(kind).write(folder.path());
        let showing = Options { client: Some(ClientCertificate { cert, key }), ..trusting.clone() };
        read(&open(&registry, &showing), &there, 0..10, &all)
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));

        let other = Registry::with_tls(authority.acceptor(true));
        let digest = other.add_blob("other", &all);
        let location = format!("https://{}/v2/other/blobs/{digest}", other.host());
        registry.wrong(
            "GET",
            "/blobs/",
            usize::MAX,
            Wrong::Status(307, vec![("Location", location)], String::new()),
        );
        let error = sentence(&read(&open(&registry, &showing), &there, 0..10, &all).expect_err("not shown"));
        assert!(error.contains(&other.host()) && is_about_certificates(&error), "{error}");
        registry.right();
    }
    let error = sentence(&read(&open(&registry, &trusting), &there, 0..10, &all).expect_err("none"));
    assert!(is_about_certificates(&error), "{error}");
}

/// The server says so and closes the connection: the client can see the one or the other.
fn is_about_certificates(error: &str) -> bool {
    error.contains("--client-cert") || error.contains("reset by peer") || error.contains("Broken pipe")
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, trusting) = trusting(folder.path());
    let registry = Registry::with_tls(authority.acceptor(false));
    let all = noise(10);
    let there = blob(&registry, &all);
    let junk = folder.path().join("junk");
    std::fs::write(&junk, "junk").expect("a file");
    let (cert, key) = authority.issue(Kind::Rsa).write(folder.path());
    let client = |cert: &std::path::Path, key: &std::path::Path| {
        Some(ClientCertificate { cert: cert.to_owned(), key: key.to_owned() })
    };
    let locked = folder.path().join("locked");
    let pem = authority.issue(Kind::Rsa).key;
    let pem = pem.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret");
    std::fs::write(&locked, pem.expect("PEM")).expect("a file");
    let missing = folder.path().join("missing");
    for (options, said) in [
        (Options { ca: vec![junk.clone()], ..trusting.clone() }, "junk has no certificates"),
        (Options { ca: vec![missing.clone()], ..trusting.clone() }, "missing"),
        (Options { client: client(&junk, &key), ..trusting.clone() }, "junk has no certificates"),
        (Options { client: client(&cert, &junk), ..trusting.clone() }, "junk has no key"),
        (
            Options { client: client(&cert, &locked), ..trusting.clone() },
            "locked has no key in PEM without a password",
        ),
    ] {
        let error = sentence(&read(&open(&registry, &options), &there, 0..10, &all).expect_err(said));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_began_with_tls_does_not_go_on_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, trusting) = trusting(folder.path());
    let (registry, plain) = (Registry::with_tls(authority.acceptor(false)), Registry::new());
    let all = noise(1000);
    let there = blob(&registry, &all);
    let location = format!("http://{}/v2/other/blobs/{}", plain.host(), plain.add_blob("other", &all));
    registry.wrong("GET", "/blobs/", 1, Wrong::Status(307, vec![("Location", location)], String::new()));
    let error = sentence(&read(&open(&registry, &trusting), &there, 0..10, &all).expect_err("without TLS"));
    assert!(error.contains("a Location without TLS"), "{error}");

    let challenge = format!("Bearer realm=\"http://{}/token\"", plain.host());
    plain.access(Access::Token { user: None, uses: 9, expires_in: None });
    registry.wrong(
        "GET",
        "/blobs/",
        1,
        Wrong::Status(401, vec![("WWW-Authenticate", challenge)], String::new()),
    );
    let error = sentence(&read(&open(&registry, &trusting), &there, 0..10, &all).expect_err("without TLS"));
    assert!(error.contains("the token server is not reached by TLS"), "{error}");
    assert_eq!(plain.seen(), []);

    // A token server of its own is reached by TLS.
    registry.access(Access::Token { user: None, uses: 9, expires_in: None });
    read(&open(&registry, &trusting), &there, 0..10, &all).expect("by a token");
}
