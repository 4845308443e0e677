// SPDX-License-Identifier: GPL-2.0-or-later

//! Manifests and ranges of blobs, from servers that do wrong.

use std::time::{Duration, Instant};

use tesserafs_store::reference::Name;
use tesserafs_store::registry::{Answer, Options};

use super::registry::{Registry, Wrong};
use super::*;

const LEN: usize = 1 << 20;

/// A range in the middle, all of which is handed out and nothing else.
fn reads_a_part(registry: &Registry, options: &Options) -> Vec<registry::Seen> {
    let all = noise(LEN);
    let blob = blob(registry, &all);
    let repository = open(registry, options);
    let (answer, got) = read(&repository, &blob, 1000..900_000, &all).expect("a range");
    assert_eq!(answer, Answer::Part);
    assert!(got.iter().enumerate().all(|(at, got)| *got == (1000..900_000).contains(&at)));
    registry.seen()
}

fn fails(wrong: Wrong, said: &str) {
    let (registry, all) = (Registry::new(), noise(LEN));
    let blob = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", usize::MAX, wrong.clone());
    let repository = open(&registry, &options());
    let error = read(&repository, &blob, 1000..900_000, &all).expect_err(said);
    let error = sentence(&error);
    assert!(error.contains(said) && error.contains(&registry.host()), "{wrong:?}: {error}");
    assert!(registry.seen().len() <= 4, "tried too often");
}

#[test]
fn a_range_is_one_request() {
    let registry = Registry::new();
    let seen = reads_a_part(&registry, &options());
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].range.as_deref(), Some("bytes=1000-899999"));
    // The same connection serves the next one.
    let all = noise(LEN);
    let repository = open(&registry, &options());
    let blob = blob(&registry, &all);
    for at in 0..5 {
        read(&repository, &blob, at..at + 10, &all).expect("a range");
    }
    let (answer, got) = read(&repository, &blob, 0..LEN as u64, &all).expect("all");
    assert!(answer == Answer::Part && got.iter().all(|got| *got));
    read(&repository, &blob, 7..7, &all).expect("nothing");
    let seen = registry.seen();
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[5].range, None);
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
}

#[test]
fn a_cut_is_not_the_end() {
    let registry = Registry::new();
    registry.wrong("GET", "/blobs/", 3, Wrong::Cut(200_000));
    let seen = reads_a_part(&registry, &options());
    assert_eq!(seen.len(), 4);
    // Each goes on where the one before was cut.
    let ranges: Vec<_> = seen.iter().map(|seen| seen.range.clone().expect("a range")).collect();
    assert_eq!(ranges[..2], ["bytes=1000-899999", "bytes=201000-899999"]);
    assert_eq!(ranges[3], "bytes=601000-899999");
}

#[test]
fn a_cut_without_a_byte_in_between_is_the_end_after_some_tries() {
    fails(Wrong::Cut(0), "4 times in a row");
    fails(Wrong::Closed, "4 times in a row");
}

#[test]
fn what_passes_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let registry = Registry::new();
        registry.wrong("GET", "/blobs/", 2, Wrong::Status(status, Vec::new(), "{}".into()));
        assert_eq!(reads_a_part(&registry, &options()).len(), 3, "{status}");
    }
    let registry = Registry::new();
    registry.wrong("GET", "/blobs/", 1, Wrong::Silent(Duration::from_secs(12)));
    let begun = Instant::now();
    assert!(reads_a_part(&registry, &options()).len() >= 2);
    assert!(begun.elapsed() < Duration::from_secs(11), "it waited for what is silent");
}

#[test]
fn retry_after_is_heeded() {
    let registry = Registry::new();
    let wait = vec![("Retry-After", "1".to_owned())];
    registry.wrong("GET", "/blobs/", 1, Wrong::Status(429, wait, String::new()));
    let begun = Instant::now();
    assert_eq!(reads_a_part(&registry, &options()).len(), 2);
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let wait = vec![("Retry-After", "86400".to_owned())];
    fails(Wrong::Status(503, wait, String::new()), "asks to wait for 86400 seconds");
}

#[test]
fn a_server_without_ranges_is_read_once() {
    let (registry, all) = (Registry::new(), noise(LEN));
    let blob = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", 1, Wrong::Whole);
    let repository = open(&registry, &options());
    let (answer, got) = read(&repository, &blob, 1000..2000, &all).expect("all");
    assert_eq!(answer, Answer::Whole);
    assert!(got.iter().all(|got| *got));
    assert_eq!(registry.seen().len(), 1);

    // Part of the range came before a server that does not do ranges took over, and was cut itself.
    registry.wrong("GET", "/blobs/", 1, Wrong::Cut(300));
    registry.wrong("GET", "/blobs/", 1, Wrong::Whole);
    let (answer, got) = read(&repository, &blob, 1000..2000, &all).expect("all");
    assert!(answer == Answer::Whole && got.iter().all(|got| *got));
    assert_eq!(registry.seen().len(), 2);
}

#[test]
fn no_lie_about_ranges_and_lengths_is_believed() {
    for lie in [
        "bytes 0-899999/1048576",
        "bytes 1000-900000/1048576",
        "bytes 1000-899999/900000",
        "bytes 1001-899999/1048576",
        "bytes 1000-18446744073709551615/1048576",
        "bytes 2000-1000/1048576",
        "x[31m",
    ] {
        fails(Wrong::ContentRange(lie.into()), "Content-Range");
    }
    fails(Wrong::ContentLength("899001".into()), "Content-Length");
    fails(Wrong::ContentLength("1".into()), "Content-Length");
    fails(Wrong::Header("Content-Encoding", "gzip".into()), "encoded as gzip");
    fails(Wrong::Status(206, Vec::new(), "abc".into()), "Content-Range none");
    // A lie that ends is a failure that passed.
    let registry = Registry::new();
    registry.wrong("GET", "/blobs/", 2, Wrong::ContentRange("bytes 0-1/2".into()));
    assert_eq!(reads_a_part(&registry, &options()).len(), 3);
}

#[test]
fn a_server_may_send_less_than_it_was_asked_for() {
    let (registry, all) = (Registry::new(), noise(1000));
    let blob = blob(&registry, &all);
    let range = vec![("Content-Range", "bytes 100-149/1000".to_owned())];
    let body: String = "x".repeat(50);
    registry.wrong("GET", "/blobs/", 1, Wrong::Status(206, range, body));
    let mut got = Vec::new();
    let repository = open(&registry, &options());
    let read = repository.read(&blob, 100..300, &mut |answer, offset, bytes| {
        assert_eq!((answer, offset), (Answer::Part, 100 + got.len() as u64));
        got.extend_from_slice(bytes);
        Ok(())
    });
    read.expect("a range");
    assert!(got[..50] == [b'x'; 50] && got[50..] == all[150..300]);
    assert_eq!(registry.seen()[1].range.as_deref(), Some("bytes=150-299"));
}

#[test]
fn endless_bodies_end() {
    let (registry, all) = (Registry::new(), noise(1000));
    let whole = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", usize::MAX, Wrong::Endless);
    let repository = open(&registry, &options());
    read(&repository, &whole, 10..20, &all).expect("a range of what never ends");
    read(&repository, &whole, 0..1000, &all).expect("all of what never ends");
    registry.wrong("GET", "/manifests/", usize::MAX, Wrong::Endless);
    registry.add_manifest("team/app", "latest", "x", b"{}");
    let error = sentence(&repository.manifest(&Name::Tag("latest".into())).expect_err("endless"));
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn what_is_not_there_is_told() {
    let registry = Registry::new();
    let (all, repository) = (noise(10), open(&registry, &options()));
    let there = blob(&registry, &all);
    assert_eq!(repository.blob_len(&there.digest).expect("an answer"), Some(10));
    let missing = Blob { digest: sha256(b"missing"), len: 10 };
    assert_eq!(repository.blob_len(&missing.digest).expect("an answer"), None);
    assert!(sentence(&read(&repository, &missing, 0..10, &all).expect_err("missing")).contains("has no blob"));
    assert!(repository.manifest(&Name::Tag("x".into())).expect("an answer").is_none());
    let longer = Blob { len: 20, ..there };
    assert!(sentence(&read(&repository, &longer, 15..20, &all).expect_err("short")).contains("416"));
    assert!(
        sentence(&read(&repository, &longer, 0..20, &all).expect_err("short")).contains("Content-Length 10")
    );
    assert!(
        sentence(&read(&repository, &there, 0..11, &all).expect_err("outside")).contains("cannot be read")
    );
}

#[test]
fn a_manifest_has_the_digest_that_was_asked_for() {
    let registry = Registry::new();
    let repository = open(&registry, &options());
    let manifest = br#"{"schemaVersion":2}"#;
    registry.add_manifest("team/app", "v1", "application/x", manifest);
    let found = repository.manifest(&Name::Tag("v1".into())).expect("an answer").expect("a manifest");
    assert_eq!((&found.bytes[..], found.digest), (&manifest[..], sha256(manifest)));
    assert_eq!(found.media_type.as_deref(), Some("application/x"));
    registry.wrong("GET", "/manifests/sha256", 1, Wrong::Flip);
    let name = Name::Digest(found.digest);
    assert!(sentence(&repository.manifest(&name).expect_err("flipped")).contains("expected sha256:"));
    assert!(repository.manifest(&name).expect("an answer").is_some());

    let config = blob(&registry, b"{}");
    assert_eq!(repository.document(&config).expect("a document"), b"{}");
    // One that comes wrong is asked for again, and not for ever.
    registry.wrong("GET", "/blobs/", 1, Wrong::Flip);
    assert_eq!(repository.document(&config).expect("a document"), b"{}");
    registry.wrong("GET", "/blobs/", 100, Wrong::Flip);
    assert!(sentence(&repository.document(&config).expect_err("flipped")).contains("has the digest"));
}

#[test]
fn words_of_servers_are_plain() {
    let body = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m\nway"}]}"#;
    fails(Wrong::Status(403, Vec::new(), body.into()), "found status 403 (no\\033[31m\\012way)");
    fails(Wrong::Status(404, Vec::new(), "<html>".into()), "has no blob");
    fails(Wrong::Status(418, Vec::new(), "<html>".into()), "found status 418, expected 206 or 200");
}

#[test]
fn whoever_takes_can_end_it() {
    let (registry, all) = (Registry::new(), noise(LEN));
    let blob = blob(&registry, &all);
    let repository = open(&registry, &options());
    let mut taken = 0;
    let ended = repository.read(&blob, 0..LEN as u64, &mut |_, _, bytes| {
        taken += bytes.len();
        if taken > 300_000 {
            return Err(Error::Refused("enough".into()));
        }
        Ok(())
    });
    assert_eq!(sentence(&ended.expect_err("ended")), "enough");
    assert_eq!(registry.seen().len(), 1);
    let cancelled = options();
    cancelled.cancel.flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let repository = open(&registry, &cancelled);
    assert!(matches!(read(&repository, &blob, 0..10, &all), Err(Error::Cancelled)));
}

#[test]
fn mirrors_are_asked_first_and_fall_back() {
    let (host, good, dead) = (Registry::new(), Registry::new(), Registry::new());
    let all = noise(LEN);
    let there = blob(&host, &all);
    good.add_blob("prefix/team/app", &all);
    let dead_host = dead.host();
    drop(dead);
    let mirrors = vec![dead_host.clone(), format!("{}/prefix", good.host())];
    let repository = open(&host, &Options { mirrors: mirrors.clone(), ..options() });
    read(&repository, &there, 0..1000, &all).expect("from the mirror");
    assert!(host.seen().is_empty());
    assert_eq!(good.seen().len(), 1);

    // It is cut in the middle and goes away: the host has the rest.
    good.wrong("GET", "/blobs/", 1, Wrong::Cut(500_000));
    good.wrong("GET", "/blobs/", usize::MAX, Wrong::Status(500, Vec::new(), String::new()));
    let (answer, got) = read(&repository, &there, 0..LEN as u64, &all).expect("from both");
    assert!(answer == Answer::Part && got.iter().all(|got| *got));
    assert_eq!(host.seen()[0].range.as_deref(), Some("bytes=500000-1048575"));
    good.seen();

    // From then on it is not asked for some time; what a mirror lacks is not an error of it.
    read(&repository, &there, 0..10, &all).expect("from the host");
    assert!(good.seen().is_empty());
    let repository = open(&host, &Options { mirrors: vec![good.host()], ..options() });
    host.add_manifest("team/app", "v", "x", b"{}");
    assert!(repository.manifest(&Name::Tag("v".into())).expect("an answer").is_some());
    assert_eq!(repository.blob_len(&there.digest).expect("an answer"), Some(LEN as u64));
    assert_eq!(good.seen().len(), 2);
    repository.drop_mirrors();
    repository.blob_len(&there.digest).expect("an answer");
    assert!(good.seen().is_empty());

    // When nobody has it, all are named.
    host.wrong("GET", "/manifests/", usize::MAX, Wrong::Status(500, Vec::new(), String::new()));
    let repository = open(&host, &Options { mirrors: vec![dead_host.clone()], ..options() });
    let error = sentence(&repository.manifest(&Name::Tag("v".into())).expect_err("nobody"));
    assert!(error.contains(&host.host()) && error.contains(&dead_host), "{error}");
}

#[test]
fn loopback_needs_no_option_for_plain_http() {
    let (registry, all) = (Registry::new(), noise(10));
    let there = blob(&registry, &all);
    let repository = open(&registry, &Options { plain_http: false, ..options() });
    read(&repository, &there, 0..10, &all).expect("by plain HTTP");
}

#[test]
fn twenty_threads_read_one_repository() {
    let (registry, all) = (Registry::new(), noise(LEN));
    let there = blob(&registry, &all);
    registry.wrong("GET", "/blobs/", 15, Wrong::Cut(10_000));
    let repository = open(&registry, &Options { tries: 20, ..options() });
    std::thread::scope(|scope| {
        for thread in 0..20_u64 {
            let (repository, all, there) = (&repository, &all, &there);
            scope.spawn(move || {
                let start = thread * 50_000;
                let (_, got) = read(repository, there, start..start + 60_000, all).expect("a range");
                assert_eq!(got.iter().filter(|got| **got).count(), 60_000);
            });
        }
    });
}

#[test]
fn many_threads_keep_to_what_a_slow_registry_allows() {
    let (registry, all) = (Registry::new(), noise(1000));
    let there = blob(&registry, &all);
    registry.limit(20.0);
    let repository = open(&registry, &Options { first_wait: Duration::from_millis(250), ..options() });
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                (0..15).for_each(|at| drop(read(&repository, &there, at..at + 10, &all).expect("a range")))
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let seen = registry.seen();
    let refused = seen.iter().filter(|seen| seen.wrong).count();
    eprintln!("120 ranges at 20 a second: {seconds:.1} s, {refused} refusals");
    // 20 at once, and 100 in five seconds, is what can be.
    assert!(seconds < 20.0, "{seconds} s");
    assert!(refused < 80, "{refused} refusals");
}
