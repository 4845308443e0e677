// SPDX-License-Identifier: GPL-2.0-or-later

//! The program: what it prints, and how it ends.

use std::process::{Command, Output};

use serde_json::Value;

use super::images::two;
use super::registry::{Registry, Wrong};
use super::support::{error, TESSERAFS};
use super::{name_of, Place, REPOSITORY};

fn tesserafs(place: &Place, arguments: &[&str]) -> Output {
    Command::new(TESSERAFS)
        .current_dir(place.path())
        .env("REGISTRY_AUTH_FILE", "/dev/null")
        .args(["pull", "--store", "store", "--plain-http", "--tries", "2"])
        .args(arguments)
        .output()
        .expect("tesserafs")
}

#[test]
fn a_report_is_text_or_json_or_nothing() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish_index(&one, "v1");
    place.publish(&two, "v2");
    let output = tesserafs(&place, &["--json", &place.name("v1")]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["image_id"], name_of(&one.artifact.image_id));
    assert_eq!(report["reference"], place.name("v1"));

    let output = tesserafs(&place, &[&place.name("v2")]);
    let (said, lines) = (String::from_utf8_lossy(&output.stdout).into_owned(), error(&output));
    assert!(said.contains("fetched by 2 requests") && said.contains(&place.name("v2")), "{said}");
    // A line for each file that came.
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("tesserafs: image sha256:") && lines.contains("pack 2 of 2 sha256:"), "{lines}");

    let output = tesserafs(&place, &["--quiet", &place.name("v2")]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    place.check("v1", &one);
    place.check("v2", &two);
}

#[test]
fn a_failure_is_one_line_and_a_status() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish(&one, "v1");
    let said = r#"{"errors":[{"code":"X","message":"\u001b[31mred\n\u202e"}]}"#;
    place.registry.wrong("GET", "/manifests/", 1000, Wrong::Status(403, Vec::new(), said.to_owned()));
    let output = tesserafs(&place, &[&place.name("v1")]);
    let line = error(&output);
    assert_eq!((output.status.code(), line.lines().count(), output.stdout.len()), (Some(1), 1, 0), "{line}");
    assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}') && line.contains("red"), "{line}");
    assert!(!place.path().join("store").exists());
    for arguments in [&["--connections", "17", "a/b"][..], &["--platform", "x", "a/b"], &["A"], &[]] {
        assert_eq!(tesserafs(&place, arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_mirror_is_asked_first() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish(&one, "v1");
    let mirror = Registry::new();
    for blob in one.artifact.files().chain([one.artifact.config]) {
        let bytes = place.registry.blob(REPOSITORY, &name_of(&blob.digest)).expect("a blob");
        mirror.add_blob(&format!("cache/{REPOSITORY}"), &bytes);
    }
    let output = tesserafs(&place, &["--mirror", &format!("{}/cache", mirror.host()), &place.name("v1")]);
    assert!(output.status.success(), "{output:?}");
    place.check("v1", &one);
    let pack = name_of(&one.artifact.packs[0].digest);
    assert!(mirror.targets().iter().any(|target| target.contains(&pack)));
    assert!(!place.asked().contains_key(&pack));
}
