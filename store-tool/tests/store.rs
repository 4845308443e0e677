// SPDX-License-Identifier: GPL-2.0-or-later

//! The verbs of the store, as a user types them.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use support::store::{blob, digest, make, problems, pull, tree, two, Made};
use support::{build, done, error, noise, refused, run};
use tempfile::TempDir;
use tesserafs_store::store::Store;

const ONE: &str = "registry.example/app:1";
const TWO: &str = "registry.example/app:2";

/// A folder with two images in a store, which share a pack.
fn folder() -> (TempDir, Store, [Made; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let images = two(folder.path());
    let store = Store::create(&folder.path().join("store")).expect("a store");
    pull(&store, ONE, &images[0]).expect("an image");
    pull(&store, TWO, &images[1]).expect("an image");
    (folder, store, images)
}

fn in_store<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&arguments[..1], &["--store", "store"], &arguments[1..]].concat()
}

fn is_done(folder: &TempDir, arguments: &[&str]) -> String {
    done(folder.path(), &in_store(arguments))
}

fn is_refused(folder: &TempDir, status: i32, arguments: &[&str]) -> String {
    refused(folder.path(), status, &in_store(arguments))
}

fn parsed(output: &str) -> serde_json::Value {
    serde_json::from_str(output).expect("JSON")
}

/// The names of the blobs that there are.
fn blobs(store: &Store) -> Vec<String> {
    tree(&store.path().join("blobs"))
}

#[test]
fn images_are_listed_with_what_they_share() {
    let (folder, store, [one, two]) = folder();
    let table = is_done(&folder, &["images"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    let column = lines[0].find("IMAGE ID").expect("a header");
    for (line, (name, made)) in lines[1..].iter().zip([(ONE, &one), (TWO, &two)]) {
        assert!(line.starts_with(name), "{table}");
        assert_eq!(line[column..column + 12], made.artifact.image_id.to_string()[..12], "{table}");
    }
    let images = parsed(&is_done(&folder, &["images", "--json"]));
    let config = support::store::CONFIG.len() as u64;
    for (image, made) in images.as_array().expect("a list").iter().zip([&one, &two]) {
        let bytes: u64 = made.artifact.files().map(|blob| blob.len).sum::<u64>() + config;
        assert_eq!(image["bytes"], bytes);
        assert_eq!(image["shared_bytes"], one.artifact.packs[0].len + config);
        assert_eq!(image["image_id"], format!("sha256:{}", made.artifact.image_id));
        assert_eq!((&image["in_use"], image["mounts"].as_array().map(Vec::len)), (&false.into(), Some(0)));
    }
    drop(store);
    let said = refused(folder.path(), 1, &["images", "--store", "none"]);
    assert_eq!(said, "tesserafs: none: found no store, expected one, as `tesserafs pull` makes it\n");
}

#[test]
fn rm_takes_what_no_other_image_needs() {
    let (folder, store, [one, two]) = folder();
    assert_eq!(blobs(&store).len(), 4);
    let said = error(&run(folder.path(), &in_store(&["rm", TWO])));
    assert!(said.starts_with(&format!("tesserafs: {TWO}: removed\n")), "{said}");
    let mut expected =
        [one.artifact.image.digest, one.artifact.packs[0].digest].map(|digest| format!("sha256/{digest}"));
    expected.sort();
    assert_eq!(blobs(&store), expected);
    assert_eq!(problems(&store), []);
    let said = is_refused(&folder, 1, &["rm", TWO, ONE]);
    assert!(
        said.contains(&format!("{TWO}: no image in ")) && said.ends_with("1 of 2 names were not removed\n"),
        "{said}"
    );
    assert_eq!(tree(store.path()), ["lock"]);
    let _ = two;
}

#[test]
fn an_image_with_another_name_stays() {
    let (folder, store, [_, two]) = folder();
    pull(&store, "registry.example/app:latest", &two).expect("an image");
    is_done(&folder, &["rm", "-q", TWO, ONE]);
    // The first one's image file is gone, and the pack is needed.
    assert_eq!(blobs(&store).len(), 3);
    assert_eq!(problems(&store), []);
    // As docker shortens it.
    is_done(&folder, &["rm", "registry.example/app"]);
    assert_eq!(blobs(&store).len(), 0);
}

#[test]
fn gc_takes_what_no_name_leads_to() {
    let (folder, store, [one, _]) = folder();
    assert_eq!(is_done(&folder, &["gc"]), "0 B are free\n");
    fs::remove_file(store.path().join("refs/registry.example/app:2")).expect("a link");
    let left = store.path().join("images/sha256/.new-1-1");
    fs::write(&left, "half").expect("a file");
    fs::write(store.path().join("refs/.new-1-1"), "half").expect("a file");
    let planned = parsed(&is_done(&folder, &["gc", "--dry-run", "--json"]));
    assert_eq!((blobs(&store).len(), left.exists()), (4, true));
    let done = parsed(&is_done(&folder, &["gc", "--json"]));
    assert_eq!((&planned["removed"], &planned["bytes"]), (&done["removed"], &done["bytes"]));
    let kinds = |kind: &str| {
        let items = done["removed"].as_array().expect("a list");
        items.iter().filter(|item| item["kind"] == kind).count()
    };
    assert_eq!((kinds("blob"), kinds("document"), kinds("leftover")), (2, 1, 2), "{done}");
    assert_eq!((blobs(&store).len(), left.exists()), (2, false));
    assert_eq!(problems(&store), []);
    assert!(blob(&store, &one.artifact.image.digest).is_file());
}

#[test]
fn gc_removes_nothing_where_an_image_cannot_be_read() {
    let (folder, store, [one, two]) = folder();
    fs::remove_file(store.path().join("refs/registry.example/app:2")).expect("a link");
    let manifest = store.path().join("images/sha256").join(digest(&one.artifact.to_manifest()).to_string());
    fs::remove_file(&manifest).expect("a manifest");
    let before = tree(store.path());
    let said = is_refused(&folder, 1, &["gc"]);
    assert!(
        said.contains(&format!("not known what {ONE} needs"))
            && said.contains("found nothing, expected a manifest"),
        "{said}"
    );
    assert!(
        said.trim_end().ends_with(&format!("`tesserafs pull {ONE}` or `tesserafs rm {ONE}` first")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(tree(store.path()), before);
    is_done(&folder, &["rm", "-q", ONE]);
    // A link that is no name of an image might be one for somebody.
    std::os::unix::fs::symlink("../nowhere", store.path().join("refs/mine")).expect("a link");
    let said = is_refused(&folder, 1, &["gc"]);
    assert!(said.contains("refs/mine needs: found a name that no image can have; remove it first"), "{said}");
    fs::remove_file(store.path().join("refs/mine")).expect("a link");
    is_done(&folder, &["gc"]);
    assert_eq!(blobs(&store).len(), 0);
    let _ = two;
}

#[test]
fn what_was_begun_stays_for_a_day() {
    let (folder, store, [one, two]) = folder();
    is_done(&folder, &["rm", "-q", ONE, TWO]);
    let using = support::store::using(&store);
    let filling =
        using.begin_image(&two.artifact.image_id, &Default::default(), &mut || ()).expect("a directory");
    let pack = fs::read(two.packs.join(two.artifact.packs[0].digest.to_string())).expect("a pack");
    support::store::fill(&filling, &two.artifact.packs[0].digest, &pack).expect("a pack");
    filling.file(&two.artifact.packs[1].digest, two.artifact.packs[1].len).expect("a pack");
    drop(filling);
    drop(using);
    let said = is_done(&folder, &["gc"]);
    assert!(said.contains("it is not finished, and `tesserafs pull` can go on"), "{said}");
    // The complete one is a blob, and a link to it is where the other one is.
    assert_eq!((blobs(&store).len(), tree(&store.path().join("filling")).len()), (1, 2));
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
    let own = store.path().join("filling").join(two.artifact.image_id.to_string());
    for path in [
        own.join(two.artifact.packs[0].digest.to_string()),
        own.join(two.artifact.packs[1].digest.to_string()),
        own.clone(),
    ] {
        let file = fs::File::open(path).expect("a file");
        file.set_modified(yesterday).expect("a time");
    }
    let planned = parsed(&is_done(&folder, &["gc", "--dry-run", "--json"]));
    // A file with two names is counted once.
    assert_eq!(planned["bytes"], two.artifact.packs[0].len + two.artifact.packs[1].len, "{planned}");
    is_done(&folder, &["gc"]);
    assert_eq!(tree(store.path()), ["lock"]);
    assert!(!own.exists());
    let _ = one;
}

#[test]
fn gc_of_what_was_begun_can_be_asked_for() {
    let (folder, store, [_, two]) = folder();
    is_done(&folder, &["rm", "-q", ONE, TWO]);
    let using = support::store::using(&store);
    let filling =
        using.begin_image(&two.artifact.image_id, &Default::default(), &mut || ()).expect("a directory");
    filling.file(&two.artifact.packs[1].digest, two.artifact.packs[1].len).expect("a pack");
    drop(filling);
    drop(using);
    // By a clock that was wrong.
    let own = store.path().join("filling").join(two.artifact.image_id.to_string());
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_secs(25 * 60 * 60);
    fs::File::open(own).and_then(|dir| dir.set_modified(tomorrow)).expect("a time");
    is_done(&folder, &["gc"]);
    assert_ne!(tree(store.path()), ["lock"]);
    is_done(&folder, &["gc", "--unfinished"]);
    assert_eq!(tree(store.path()), ["lock"]);
}

#[test]
fn an_image_is_exported_as_one_file() {
    let (folder, store, [_, two]) = folder();
    is_done(&folder, &["export", TWO, "two-again.tess"]);
    let unpacked = done(folder.path(), &["unpack", "--packdir", "packs", "two-unpacked.tess", "two.tess"]);
    assert!(unpacked.contains("image ID"), "{unpacked}");
    let read = |name: &str| fs::read(folder.path().join(name)).expect("an image");
    assert!(read("two-again.tess") == read("two-unpacked.tess"));
    let output = run(folder.path(), &in_store(&["export", TWO, "-"]));
    assert!(output.status.success() && output.stdout == read("two-again.tess"));
    let said = is_refused(&folder, 1, &["export", TWO, "two-again.tess"]);
    assert!(said.ends_with("exists; --force replaces it\n"), "{said}");

    // One that came in one file is copied.
    let image = build(folder.path());
    let made =
        Made { artifact: support::store::artifact(&image), path: image, packs: folder.path().join("packs") };
    pull(&store, "registry.example/one-file:1", &made).expect("an image");
    is_done(&folder, &["export", "registry.example/one-file:1", "copy.tess"]);
    assert!(read("copy.tess") == fs::read(&made.path).expect("an image"));

    // Of a broken one nothing is left.
    let file = blob(&store, &made.artifact.image.digest);
    flip(&file, 4096 + 10);
    let said = is_refused(&folder, 1, &["export", "registry.example/one-file:1", "broken.tess"]);
    assert!(said.contains("found a file whose digest is"), "{said}");
    flip(&blob(&store, &two.artifact.packs[1].digest), 100);
    let said = is_refused(&folder, 1, &["export", TWO, "broken.tess"]);
    assert!(said.contains("chunk.digest") || said.contains("found"), "{said}");
    assert!(!folder.path().join("broken.tess").exists());
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("a mode");
}

#[test]
fn broken_files_are_found_and_fetched_again() {
    let (folder, store, [one, two]) = folder();
    let said = is_done(&folder, &["fsck"]);
    assert!(said.starts_with("2 images, 7 files, ") && said.ends_with(": 0 errors\n"), "{said}");
    let (shared, own) = (two.artifact.packs[0].digest, two.artifact.packs[1].digest);
    flip(&blob(&store, &own), 1000);
    let short = blob(&store, &one.artifact.image.digest);
    fs::set_permissions(&short, fs::Permissions::from_mode(0o644)).expect("a mode");
    fs::File::options().write(true).open(&short).expect("a file").set_len(100).expect("a length");
    fs::remove_file(blob(&store, &shared)).expect("a pack");
    let output: Output = run(folder.path(), &in_store(&["fsck"]));
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in [
        format!("error: {}: found a file whose digest is ", blob(&store, &own).display()),
        format!("error: {}: found a file whose digest is ", short.display()),
        "refs/registry.example/app:1: ".to_owned(),
        "refs/registry.example/app:2: found a pack that is neither complete nor begun".to_owned(),
    ] {
        assert!(said.contains(&expected), "{said} lacks {expected}");
    }
    assert!(said.ends_with(": 4 errors\n"), "{said}");
    let output = run(folder.path(), &in_store(&["fsck", "--remove"]));
    // Images lack files now.
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(blobs(&store).len(), 1);
    pull(&store, ONE, &one).expect("an image");
    pull(&store, TWO, &two).expect("an image");
    assert_eq!(problems(&store), []);
    let json = parsed(&is_done(&folder, &["fsck", "--json"]));
    assert_eq!((&json["images"], json["problems"].as_array().map(Vec::len)), (&2.into(), Some(0)), "{json}");
}

#[test]
fn a_broken_manifest_is_named() {
    let (folder, store, [one, _]) = folder();
    let manifest = store.path().join("images/sha256").join(digest(&one.artifact.to_manifest()).to_string());
    flip(&manifest, 20);
    let output = run(folder.path(), &in_store(&["images"]));
    assert_eq!(output.status.code(), Some(1));
    let (list, said) = (String::from_utf8_lossy(&output.stdout).into_owned(), error(&output));
    assert!(list.contains("broken") && list.lines().count() == 3, "{list}");
    assert!(said.contains(&format!("{ONE}: ")) && said.ends_with("1 of 2 images cannot be read\n"), "{said}");
    for verb in [["export", ONE, "x.tess"], ["mount", ONE, "."]] {
        let said = is_refused(&folder, 1, &verb);
        assert!(said.contains("found a file whose digest is") && said.lines().count() == 1, "{said}");
    }
    pull(&store, ONE, &one).expect("an image");
    assert_eq!(problems(&store), []);
}

#[test]
fn an_image_with_packs_that_are_not_complete_serves_and_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, more) = (noise(1, 300_000), noise(2, 120_000));
    let old = make(folder.path(), "old.tess", &[("base", &base), ("more", &more)], &[]);
    // Of the old pack this one needs a part.
    let new = make(folder.path(), "new.tess", &[("base", &base)], &[&old]);
    assert_eq!((old.artifact.packs.len(), &new.artifact.packs), (1, &old.artifact.packs));
    let store = Store::create(&folder.path().join("store")).expect("a store");
    let using = support::store::using(&store);
    let filling =
        using.begin_image(&new.artifact.image_id, &Default::default(), &mut || ()).expect("a directory");
    support::store::fill(&filling, &new.artifact.image.digest, &fs::read(&new.path).expect("an image"))
        .expect("an image");
    let pack = new.artifact.packs[0];
    let mut bytes = fs::read(new.packs.join(pack.digest.to_string())).expect("a pack");
    // Dead bytes are at the end: the chunks of the second file.
    let len = bytes.len();
    bytes[len - 10_000..].fill(0);
    let said = support::store::fill(&filling, &pack.digest, &bytes).expect_err("an incomplete pack");
    assert!(said.contains(&pack.digest.to_string()), "{said}");
    using.add_document(support::store::CONFIG).expect("a config");
    let manifest = using.add_document(&new.artifact.to_manifest()).expect("a manifest");
    using.set_name(&support::store::reference(ONE), &manifest).expect("a name");
    let own = filling.close(&[new.artifact.image.digest, pack.digest]).expect("packs");
    assert!(own.starts_with(store.path().join("filling")));
    drop(using);
    assert_eq!(problems(&store), []);
    let images = parsed(&is_done(&folder, &["images", "--json"]));
    assert_eq!(images[0]["incomplete_packs"], 1);
    is_done(&folder, &["gc", "--unfinished"]);
    is_done(&folder, &["export", "-q", ONE, "again.tess"]);
    done(folder.path(), &["unpack", "-q", "--packdir", "packs", "expected.tess", "new.tess"]);
    assert!(
        fs::read(folder.path().join("again.tess")).expect("an image")
            == fs::read(folder.path().join("expected.tess")).expect("an image")
    );
    // Its own chunks are compared.
    let path = own.join(pack.digest.to_string());
    let mut wrong = fs::read(&path).expect("a pack");
    wrong[50] ^= 1;
    fs::write(&path, &wrong).expect("a pack");
    let found = problems(&store);
    assert!(found.len() == 1 && found[0].what.contains("chunk"), "{found:?}");
    is_done(&folder, &["rm", "-q", ONE]);
    assert_eq!(tree(store.path()), ["lock"]);
}
