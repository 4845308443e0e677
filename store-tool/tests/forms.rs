// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs pack` and `tesserafs unpack`, as a user types them.

use std::fs;

use tempfile::TempDir;

mod support;

use support::{build, done, refused, run};

/// A folder with an image in one file.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in [("one", vec![1; 100_000]), ("two", vec![2; 10]), ("three", b"three\n".repeat(9000))]
    {
        let path = folder.path().join("root").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect(name);
    }
    build(folder.path());
    folder
}

#[test]
fn there_and_back_again() {
    let folder = folder();
    let folder = folder.path();
    fs::create_dir(folder.join("packs")).expect("a folder");
    let said = done(folder, &["pack", "--packdir", "packs", "shared.tess", "image.tess"]);
    assert!(said.contains("in packs") && said.contains("tree ID   sha256:"), "{said}");
    let said = done(folder, &["unpack", "--packdir", "packs", "again.tess", "shared.tess"]);
    assert!(!said.contains("signed"), "{said}");
    assert!(
        fs::read(folder.join("again.tess")).expect("read")
            == fs::read(folder.join("image.tess")).expect("read")
    );

    // Packs are beside the image where nothing else is said; and a pipe takes an image.
    for pack in folder.join("packs").read_dir().expect("packs") {
        let pack = pack.expect("a pack");
        fs::copy(pack.path(), folder.join(pack.file_name())).expect("copied");
    }
    let output = run(folder, &["unpack", "-", "shared.tess"]);
    assert!(output.status.success() && output.stdout == fs::read(folder.join("image.tess")).expect("read"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("image ID"));
    let json = done(folder, &["unpack", "--json", "--force", "again.tess", "shared.tess"]);
    assert!(json.contains("\"signature_dropped\": false") && json.contains("\"chunks\": "), "{json}");
    assert_eq!(done(folder, &["unpack", "-qf", "again.tess", "shared.tess"]), "");
}

#[test]
fn what_is_refused_is_named() {
    let folder = folder();
    let folder = folder.path();
    let said = refused(folder, 1, &["unpack", "new.tess", "image.tess"]);
    assert!(said.starts_with("tesserafs: image.tess: is an image in one file already"), "{said}");
    let said = refused(folder, 1, &["pack", "--packdir", "packs", "new.tess", "image.tess"]);
    assert!(said.contains("packs: is no directory"), "{said}");
    fs::create_dir(folder.join("packs")).expect("a folder");
    let said = refused(folder, 1, &["pack", "--packdir", "packs", "image.tess", "image.tess"]);
    assert!(said.contains("--force"), "{said}");
    let parent = ["pack", "--packdir", "packs", "--parent", "image.tess", "new.tess", "image.tess"];
    let said = refused(folder, 1, &parent);
    assert!(said.contains("tesserafs pack"), "{said}");
    done(folder, &["pack", "-q", "--packdir", "packs", "shared.tess", "image.tess"]);
    let said = refused(folder, 1, &["unpack", "new.tess", "shared.tess"]);
    assert!(said.contains("pack 1 is not there"), "{said}");
    refused(folder, 2, &["pack", "new.tess", "image.tess"]);
    assert!(!folder.join("new.tess").exists());
    assert_eq!(folder.join("packs").read_dir().expect("packs").count(), 1);
}
