// SPDX-License-Identifier: GPL-2.0-or-later

//! `mkfs.tesserafs --sbom` and `tesserafs sbom`, as a user types them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkfs_tesserafs::config::SourcePath;
use mkfs_tesserafs::packs::SharedForm;
use serde_json::{json, Value};
use tempfile::TempDir;

#[path = "sbom/roots.rs"]
mod roots;
#[path = "sbom/rpm.rs"]
mod rpm;
mod support;

use roots::{alpine, debian, fedora, languages, write};
use support::{build_with, done, refused, run};

/// A folder with a tree.
fn folder(make: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("root")).expect("a folder");
    make(&folder.path().join("root"));
    folder
}

/// Builds an image of the tree, with a bill of materials or without.
fn image(folder: &Path, name: &str, sbom: bool) -> PathBuf {
    build_with(folder, |config| {
        config.image = folder.join(name);
        config.sbom = sbom;
    })
}

/// The document that an image has.
fn document(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&done(folder, &["sbom", name])).expect("JSON")
}

/// The document of a tree, which is the same in the annotations and from the tree, and valid.
fn document_of(folder: &Path) -> Value {
    image(folder, "with.tess", true);
    image(folder, "without.tess", false);
    let with = run(folder, &["sbom", "with.tess"]);
    let without = run(folder, &["sbom", "without.tess"]);
    assert!(with.status.success() && without.status.success());
    assert!(with.stderr.is_empty(), "{}", String::from_utf8_lossy(&with.stderr));
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(said.contains("without.tess has no bill of materials"), "{said}");
    assert_eq!(String::from_utf8_lossy(&with.stdout), String::from_utf8_lossy(&without.stdout));
    let document = serde_json::from_slice(&with.stdout).expect("JSON");
    let errors: Vec<String> = validator().iter_errors(&document).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    document
}

/// The schema of CycloneDX 1.5, with the two that it refers to.
fn validator() -> jsonschema::Validator {
    let schema = |text: &str| serde_json::from_str::<Value>(text).expect("a schema");
    let parts = jsonschema::Registry::new()
        .add(
            "http://cyclonedx.org/schema/spdx.schema.json",
            schema(include_str!("cyclonedx/spdx.schema.json")),
        )
        .and_then(|parts| {
            let signature = schema(include_str!("cyclonedx/jsf-0.82.schema.json"));
            parts.add("http://cyclonedx.org/schema/jsf-0.82.schema.json", signature)
        })
        .and_then(|parts| parts.prepare())
        .expect("schemas");
    let bom = schema(include_str!("cyclonedx/bom-1.5.schema.json"));
    jsonschema::options().with_registry(&parts).build(&bom).expect("a schema")
}

#[test]
fn the_schema_refuses_what_is_none() {
    let validator = validator();
    assert!(validator.is_valid(&json!({"bomFormat": "CycloneDX", "specVersion": "1.5"})));
    for wrong in [
        json!({"bomFormat": "CycloneDX"}),
        json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [{"name": "x"}]}),
        json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [
            {"type": "library", "name": "x", "licenses": [{"license": {"id": "no such licence"}}]}
        ]}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

/// The component with this package URL.
fn component<'d>(document: &'d Value, purl: &str) -> &'d Value {
    let all = document["components"].as_array().expect("components");
    let urls: Vec<&str> = all.iter().filter_map(|one| one["purl"].as_str()).collect();
    all.iter().find(|one| one["purl"] == purl).unwrap_or_else(|| panic!("{purl}: {urls:#?}"))
}

#[test]
fn packages_of_debian_are_in_the_document() {
    let folder = folder(debian);
    let document = document_of(folder.path());
    assert_eq!(document["components"].as_array().map(Vec::len), Some(3));
    let os = &document["components"][0];
    assert_eq!(
        (&os["type"], &os["name"], &os["version"]),
        (&json!("operating-system"), &json!("debian"), &json!("13"))
    );
    let one = component(&document, "pkg:deb/debian/one@1:1.0%2Bb~1?arch=amd64&distro=debian-13");
    assert_eq!(one["supplier"]["name"], "Somebody <a@b.example>");
    assert_eq!(one["evidence"]["occurrences"][0]["location"], "var/lib/dpkg/status");
    assert_eq!(one["externalReferences"][0]["url"], "https://one.example/");
    let two = component(&document, "pkg:deb/debian/two@2?arch=all&distro=debian-13");
    assert_eq!(two["properties"][0], json!({"name": "tesserafs:source", "value": "zwei (2)"}));
}

#[test]
fn packages_of_alpine_and_fedora_have_licences() {
    let of_alpine = folder(alpine);
    let document = document_of(of_alpine.path());
    let busybox = component(&document, "pkg:apk/alpine/busybox@1.37-r1?arch=x86_64&distro=alpine-3.22");
    assert_eq!(busybox["licenses"], json!([{"expression": "GPL-2.0-only"}]));
    let of_fedora = folder(fedora);
    let document = document_of(of_fedora.path());
    let tool = component(&document, "pkg:rpm/fedora/tool@1.0-3.fc44?arch=x86_64&distro=fedora-44&epoch=2");
    assert_eq!(tool["licenses"], json!([{"expression": "MIT AND BSD-3-Clause"}]));
    assert_eq!(tool["supplier"]["name"], "Fedora Project");
    let big = component(&document, "pkg:rpm/fedora/big@1-1?distro=fedora-44");
    assert_eq!(big["licenses"], json!([{"license": {"name": "Some licence of our own"}}]));
    // The system, and no key.
    assert_eq!(document["components"].as_array().map(Vec::len), Some(3));
}

#[test]
fn packages_of_languages_are_in_the_document() {
    let folder = folder(languages);
    let document = document_of(folder.path());
    component(&document, "pkg:pypi/some-thing@3.1");
    component(&document, "pkg:pypi/flat@2.0");
    let left = component(&document, "pkg:npm/%40scope/left@1.2.3");
    assert_eq!((&left["group"], &left["name"]), (&json!("@scope"), &json!("left")));
    let right = component(&document, "pkg:npm/right@1.0.0");
    assert_eq!(right["evidence"]["occurrences"].as_array().map(Vec::len), Some(2), "{right}");
    let serde = component(&document, "pkg:cargo/serde@1.0.0");
    assert_eq!(serde["hashes"][0]["alg"], "SHA-256");
    let libc = component(&document, "pkg:cargo/libc@0.2.1");
    assert_eq!(libc["evidence"]["occurrences"][0]["location"], "usr/local/bin/program");
    let said = String::from_utf8(run(folder.path(), &["sbom", "without.tess"]).stderr).expect("text");
    assert!(said.contains("srv/app/node_modules/broken/package.json is not read: as JSON: found"), "{said}");
}

#[test]
fn a_tree_without_packages_has_a_document_that_says_so() {
    let folder = folder(|root| write(root, "etc/os-release", "ID=example\n"));
    let document = document_of(folder.path());
    assert_eq!(document["components"].as_array().map(Vec::len), Some(1));
    let said = String::from_utf8(run(folder.path(), &["sbom", "without.tess"]).stderr).expect("text");
    assert!(said.contains("no package database that is known"), "{said}");
}

#[test]
fn directories_archives_and_packs_give_the_same_document() {
    let folder = folder(|root| {
        debian(root);
        languages(root);
        // A name more, which a database has; the first name is of nothing.
        fs::create_dir_all(root.join("srv/linked/node_modules/third")).expect("a directory");
        write(root, "aaa", r#"{"name": "third", "version": "3.0.0"}"#);
        fs::hard_link(root.join("aaa"), root.join("srv/linked/node_modules/third/package.json"))
            .expect("a link");
    });
    let folder = folder.path();
    let wanted = document_of(folder);
    component(&wanted, "pkg:npm/third@3.0.0");
    let tar = |order: &str| {
        let status = Command::new("tar")
            .current_dir(folder)
            .args([order, "-C", "root", "-cf", "root.tar", "."])
            .status()
            .expect("tar");
        assert!(status.success());
    };
    fs::create_dir(folder.join("packs")).expect("a folder");
    for order in ["--sort=name", "--sort=inode"] {
        tar(order);
        build_with(folder, |config| {
            config.image = folder.join("archive.tess");
            config.source = SourcePath::Tar(folder.join("root.tar"));
            config.sbom = true;
            config.threads = std::num::NonZeroUsize::new(3).expect("not 0");
        });
        assert_eq!(document(folder, "archive.tess"), wanted);
    }
    build_with(folder, |config| {
        config.image = folder.join("shared.tess");
        config.sbom = true;
        config.filter.hard_dereference = true;
        config.shared = Some(SharedForm { dir: folder.join("packs"), parents: Vec::new(), rebase: false });
    });
    assert_eq!(document(folder, "shared.tess"), wanted);
    // The packs are asked for where they are needed.
    let in_packs = ["sbom", "--check", "--packdir", "packs", "shared.tess"];
    assert_eq!(run(folder, &in_packs).status.code(), Some(1));
    assert!(refused(folder, 2, &["sbom", "--check", "shared.tess"]).contains("is not there"));
    // The other form has it, too, and a composed image has none.
    done(folder, &["unpack", "--packdir", "packs", "disk.tess", "shared.tess"]);
    assert_eq!(document(folder, "disk.tess"), wanted);
    done(folder, &["compose", "composed.tess", "shared.tess"]);
    let composed = run(folder, &["sbom", "--packdir", "packs", "composed.tess"]);
    let said = String::from_utf8_lossy(&composed.stderr);
    assert!(said.contains("composed.tess has no bill of materials"), "{said}");
}

#[test]
fn two_builds_are_the_same_bytes() {
    let one = folder(debian);
    let other = folder(|root| {
        // Other inodes in another order.
        write(root, "zzz", "");
        fs::remove_file(root.join("zzz")).expect("removed");
        debian(root);
    });
    let documents = [&one, &other].map(|folder| {
        image(folder.path(), "a.tess", true);
        done(folder.path(), &["sbom", "a.tess"])
    });
    assert_eq!(documents[0], documents[1]);
    // Threads make no difference to the image.
    let bytes = |threads| {
        let path = build_with(one.path(), |config| {
            config.sbom = true;
            config.threads = std::num::NonZeroUsize::new(threads).expect("not 0");
        });
        fs::read(path).expect("read")
    };
    assert!(bytes(1) == bytes(4));
}

#[test]
fn a_key_that_is_taken_is_an_error() {
    let folder = folder(debian);
    let config = |annotations: bool| mkfs_tesserafs::config::Config {
        image: folder.path().join("x.tess"),
        source: SourcePath::Directory(folder.path().join("root")),
        filter: Default::default(),
        profile: mkfs_tesserafs::config::default_profile(3),
        threads: std::num::NonZeroUsize::MIN,
        annotations: annotations.then(|| (b"sbom.cdx.json".to_vec(), b"{}".to_vec())).into_iter().collect(),
        sbom: true,
        signer: None,
        signed_data: None,
        shared: None,
        force: true,
        dry_run: false,
    };
    let build = |annotations| mkfs_tesserafs::build(&config(annotations), &mkfs_tesserafs::progress::Silent);
    let error = build(true).expect_err("two annotations of one key").to_string();
    assert!(error.contains("--annotate sbom.cdx.json: --sbom makes this annotation"), "{error}");
    assert!(!folder.path().join("x.tess").exists());
    let report = build(false).expect("an image").sbom.expect("a bill of materials");
    assert_eq!((report.packages, report.notes.len()), (2, 0));
}

/// The check of a tree as JSON, and its exit status.
fn check(folder: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    image(folder, "image.tess", false);
    let output = run(folder, &[&["sbom", "--check", "--json"], arguments, &["image.tess"]].concat());
    let json = serde_json::from_slice(&output.stdout);
    (json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))), output.status.code())
}

#[test]
fn a_tree_that_is_as_its_packages_say_has_no_difference() {
    for (name, make) in [("debian", debian as fn(&Path)), ("alpine", alpine), ("fedora", fedora)] {
        let folder = folder(make);
        let (json, status) = check(folder.path(), &[]);
        assert_eq!(status, Some(0), "{name}: {json:#}");
        assert_eq!(
            (&json["unowned"], &json["changed"], &json["missing"]),
            (&json!([]), &json!([]), &json!([]))
        );
        assert!(json["compared"].as_u64() >= Some(2), "{name}: {json:#}");
        assert_eq!(done(folder.path(), &["sbom", "--check", "--quiet", "image.tess"]), "");
    }
    let folder = folder(languages);
    let (json, status) = check(folder.path(), &["--ignore", "Cargo.lock", "--ignore", "broken"]);
    assert_eq!((status, &json["ignored"]), (Some(0), &json!(2)), "{json:#}");
    assert_eq!(json["compared"], 2);
}

#[test]
fn each_kind_of_difference_is_told() {
    let folder = folder(debian);
    let root = folder.path().join("root");
    write(&root, "usr/bin/one", "two\n");
    write(&root, "usr/bin/sh.distrib", "changed\n");
    write(&root, "etc/one.conf", "as I want it\n");
    write(&root, "usr/local/bin/mine", "");
    symlink("mine", root.join("usr/local/bin/link")).expect("a link");
    write(&root, "var/cache/x", "");
    fs::remove_file(root.join("usr/bin/uno")).expect("removed");
    let (json, status) = check(folder.path(), &[]);
    assert_eq!(status, Some(1));
    assert_eq!(json["unowned"], json!(["usr/local/bin/link", "usr/local/bin/mine"]));
    let changed: Vec<Value> = json["changed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| json!([one["path"], one["what"], one["config"]]))
        .collect();
    let wanted = [
        json!(["etc/one.conf", "bytes", true]),
        json!(["usr/bin/one", "bytes", false]),
        json!(["usr/bin/sh.distrib", "bytes", false]),
    ];
    assert_eq!(changed, wanted);
    assert_eq!(json["missing"], json!([{"package": "deb one 1:1.0+b~1", "paths": ["bin/uno"]}]));
    let runtime = json["runtime"].as_array().expect("a list");
    assert!(
        runtime.contains(&json!("var/cache/x")) && runtime.contains(&json!("usr/bin/awk")),
        "{runtime:?}"
    );
    let text = run(folder.path(), &["sbom", "--check", "image.tess"]);
    let text = String::from_utf8(text.stdout).expect("text");
    for line in [
        "unowned  usr/local/bin/mine\n",
        "changed  etc/one.conf  (bytes, configuration; deb one 1:1.0+b~1)\n",
        "missing  bin/uno  (deb one 1:1.0+b~1)\n",
        "2 packages, 20 files: 2 unowned, 3 changed, 1 missing of 1 packages\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let ignored =
        ["--ignore=/usr/local", "--ignore=one.conf", "--ignore", "bin/uno", "--ignore", "usr/bin/*"];
    let (json, status) = check(folder.path(), &ignored);
    assert_eq!((status, &json["ignored"]), (Some(0), &json!(9)), "{json:#}");
}

#[test]
fn targets_types_and_lists_of_others_are_compared() {
    let of_alpine = folder(alpine);
    let root = of_alpine.path().join("root");
    fs::remove_file(root.join("bin/sh")).expect("removed");
    symlink("elsewhere", root.join("bin/sh")).expect("a link");
    write(&root, "bin/busybox", "another\n");
    let (json, _) = check(of_alpine.path(), &[]);
    let changed = |json: &Value| -> Vec<(String, String)> {
        let all = json["changed"].as_array().expect("a list");
        all.iter()
            .map(|one| {
                (
                    one["path"].as_str().expect("a path").to_owned(),
                    one["what"].as_str().expect("a word").to_owned(),
                )
            })
            .collect()
    };
    let pair = |path: &str, what: &str| (path.to_owned(), what.to_owned());
    assert_eq!(changed(&json), [pair("bin/busybox", "bytes"), pair("bin/sh", "target")]);
    let of_fedora = folder(fedora);
    let root = of_fedora.path().join("root");
    fs::remove_file(root.join("usr/bin/other")).expect("removed");
    write(&root, "usr/bin/other", "a file\n");
    write(&root, "usr/bin/tool", "another\n");
    let (json, _) = check(of_fedora.path(), &[]);
    assert_eq!(changed(&json), [pair("usr/bin/other", "type"), pair("usr/bin/tool", "bytes")]);
    let folder = folder(languages);
    let root = folder.path().join("root");
    write(&root, "usr/lib/python3/site-packages/thing/__init__.py", "another\n");
    fs::remove_file(root.join("usr/bin/thing")).expect("removed");
    let (json, _) = check(folder.path(), &[]);
    assert_eq!(changed(&json), [pair("usr/lib/python3/site-packages/thing/__init__.py", "bytes")]);
    assert_eq!(json["missing"], json!([{"package": "pypi Some_Thing 3.1", "paths": ["usr/bin/thing"]}]));
    assert_eq!(json["unowned"], json!(["srv/app/Cargo.lock", "srv/app/node_modules/broken/package.json"]));
}

#[test]
fn a_broken_database_is_an_error_with_its_place() {
    let of_debian = folder(debian);
    let root = of_debian.path().join("root");
    write(&root, "var/lib/dpkg/status", "Package: x\nVersion: 1\nnonsense\n");
    image(of_debian.path(), "image.tess", false);
    for arguments in [&["sbom", "image.tess"][..], &["sbom", "--check", "image.tess"]] {
        let said = refused(of_debian.path(), 2, arguments);
        assert!(
            said.contains("image.tess: var/lib/dpkg/status: line 3: found 'nonsense', expected"),
            "{said}"
        );
    }
    let of_fedora = folder(fedora);
    let root = of_fedora.path().join("root");
    let path = root.join("usr/lib/sysimage/rpm/rpmdb.sqlite");
    let good = fs::read(&path).expect("read");
    let broken = |bytes: &[u8], wanted: &str| {
        fs::write(&path, bytes).expect("written");
        image(of_fedora.path(), "image.tess", false);
        let said = refused(of_fedora.path(), 2, &["sbom", "image.tess"]);
        assert!(said.contains("usr/lib/sysimage/rpm/rpmdb.sqlite") && said.contains(wanted), "{said}");
    };
    broken(b"nonsense", "as an SQLite database");
    broken(&good[..good.len() / 2], "found");
    fs::remove_file(&path).expect("removed");
    rpm::database(&path, &[vec![0, 0, 0, 9, 0, 0, 0, 9, 1]]);
    let bytes = fs::read(&path).expect("read");
    broken(&bytes, "package 1: found a header of 9 bytes");
    for sql in [
        "CREATE VIEW Packages AS SELECT 1 AS hnum, zeroblob(100) AS blob",
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(1 << 30)))",
        "CREATE TABLE Other (x)",
    ] {
        fs::remove_file(&path).expect("removed");
        rusqlite::Connection::open(&path).and_then(|database| database.execute_batch(sql)).expect(sql);
        let bytes = fs::read(&path).expect("read");
        broken(&bytes, "expected");
    }
    fs::write(&path, &good).expect("written");
    write(&root, "usr/lib/sysimage/rpm/rpmdb.sqlite-wal", "changes");
    image(of_fedora.path(), "image.tess", false);
    let said = refused(of_fedora.path(), 2, &["sbom", "--check", "image.tess"]);
    assert!(said.contains("found 7 bytes of changes beside the database"), "{said}");
}
