// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that do not belong into the store, and manifests that lie: nothing leaves the store, nothing waits, and each refusal is one sentence.

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::chown;
use rustix::fs::{mkfifoat, Mode, CWD};
use rustix::process::{Gid, Uid};
use support::store::{blob, digest, fill, problems, pull, reference, tree, two, using, Made, CONFIG};
use support::{as_user, done, error, noise, TESSERAFS};
use tempfile::TempDir;
use tesserafs_store::artifact::{Artifact, Blob};
use tesserafs_store::store::{Places, Slot, Store, Wanted};

const ONE: &str = "registry.example/app:1";
const TWO: &str = "registry.example/app:2";

fn folder() -> (TempDir, Store, [Made; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let images = two(folder.path());
    let store = Store::create(&folder.path().join("store")).expect("a store");
    pull(&store, ONE, &images[0]).expect("an image");
    (folder, store, images)
}

/// Runs a verb, which ends in a while, whatever it meets.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command
        .current_dir(folder)
        .args(["20", TESSERAFS, arguments[0], "--store", "store"])
        .args(&arguments[1..]);
    let output = command.output().expect("tesserafs");
    assert_ne!(output.status.code(), Some(124), "it waits: {arguments:?}");
    let said = error(&output);
    assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{said}");
    output
}

/// The error of a verb that does nothing: one line.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let said = error(&output);
    assert!(output.status.code() == Some(1) && said.lines().count() == 1, "{arguments:?}: {said}");
    said
}

/// Puts a manifest into the store, whatever it says, with a name.
fn put(store: &Store, name: &str, artifact: &Artifact) {
    let using = using(store);
    using.add_document(CONFIG).expect("a config");
    let manifest = using.add_document(&artifact.to_manifest()).expect("a manifest");
    using.set_name(&reference(name), &manifest).expect("a name");
}

#[test]
fn foreign_files_are_told_of_and_left_alone() {
    let (folder, store, [one, _]) = folder();
    let before = tree(store.path());
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("precious"), "bytes").expect("a file");
    let evil = "evil\u{1b}[2Jname";
    for dir in
        ["", "blobs", "blobs/sha256", "images", "images/sha256", "filling", "refs", "refs/registry.example"]
    {
        let dir = store.path().join(dir);
        fs::write(dir.join("stray"), "stray").expect("a file");
        fs::write(dir.join(evil), "stray").expect("a file");
        mkfifoat(CWD, dir.join("fifo"), Mode::from_raw_mode(0o644)).expect("a FIFO");
        fs::create_dir(dir.join("directory")).expect("a directory");
        fs::write(dir.join("directory/stray"), "stray").expect("a file");
        if !dir.ends_with("refs") && !dir.ends_with("registry.example") {
            symlink(&outside, dir.join("link")).expect("a symlink");
        }
    }
    // Names as files of the store have them.
    let hex = |digit: &str| digit.repeat(64);
    for dir in ["blobs/sha256", "images/sha256"] {
        mkfifoat(CWD, store.path().join(dir).join(hex("1")), Mode::from_raw_mode(0o644)).expect("a FIFO");
        fs::create_dir(store.path().join(dir).join(hex("2"))).expect("a directory");
        symlink(outside.join("precious"), store.path().join(dir).join(hex("3"))).expect("a symlink");
        fs::write(store.path().join(dir).join(hex("A")), "upper case").expect("a file");
    }
    fs::create_dir(store.path().join("filling").join(hex("4"))).expect("a directory");
    fs::write(store.path().join("filling").join(hex("6")), "stray").expect("a file");
    symlink(&outside, store.path().join("filling").join(hex("4")).join(hex("5"))).expect("a symlink");
    let all = tree(store.path());

    assert!(run(folder.path(), &["images"]).status.success());
    let output = run(folder.path(), &["fsck"]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(!said.contains('\u{1b}') && said.contains("evil\\033[2Jname"), "{said}");
    // FIFO, directory and link under the names of files, in two directories; the rest does no harm.
    assert_eq!((output.status.code(), said.matches("error: ").count()), (Some(1), 6), "{said}");
    for expected in
        ["found a FIFO, expected a regular file", "found a symlink, expected no file of that name"]
    {
        assert!(said.contains(expected), "{said}");
    }
    let kept = done(folder.path(), &["gc", "--store", "store"]);
    assert!(kept.contains("it is not finished"), "{kept}");
    assert_eq!(tree(store.path()), all);
    done(folder.path(), &["gc", "--unfinished", "--store", "store"]);
    let gone: Vec<_> = all.iter().filter(|path| !tree(store.path()).contains(path)).collect();
    assert_eq!(gone, [&format!("filling/{}/{}", hex("4"), hex("5"))]);
    assert_eq!(fs::read(outside.join("precious")).expect("a file"), b"bytes");
    assert!(before.iter().all(|path| tree(store.path()).contains(path)));
    assert!(blob(&store, &one.artifact.image.digest).is_file());
    // Something in the place of a file is removed if that is asked for: not the target of a link, and no directory.
    let output = run(folder.path(), &["fsck", "--remove"]);
    assert!(
        output.status.code() == Some(1)
            && String::from_utf8_lossy(&output.stdout).contains(", 4 files removed"),
        "{output:?}"
    );
    for digit in ["1", "2", "3"] {
        let there = store.path().join("blobs/sha256").join(hex(digit)).symlink_metadata().is_ok();
        assert_eq!(there, digit == "2", "{digit}");
    }
    assert!(outside.join("precious").exists());
}

#[test]
fn a_lock_that_is_no_file_keeps_nobody_waiting() {
    let (folder, store, _) = folder();
    let lock = store.path().join("lock");
    let outside = folder.path().join("outside");
    for kind in ["a FIFO", "a symlink", "a directory"] {
        fs::remove_file(&lock).expect("a file");
        match kind {
            "a FIFO" => mkfifoat(CWD, &lock, Mode::from_raw_mode(0o644)).expect("a FIFO"),
            "a symlink" => symlink(&outside, &lock).expect("a symlink"),
            _ => fs::create_dir(&lock).expect("a directory"),
        }
        for verb in [&["images"][..], &["gc"]] {
            let said = refused(folder.path(), verb);
            assert!(
                said.ends_with(&format!("store/lock: found {kind}, expected a regular file\n")),
                "{said}"
            );
        }
    }
    assert!(!outside.exists());
}

#[test]
fn manifests_that_lie_are_refused() {
    let (folder, store, [one, two]) = folder();
    let folder = folder.path();
    let good = &one.artifact;
    let refuses = |what: &str, artifact: &Artifact, expected: &str| {
        put(&store, TWO, artifact);
        for verb in [&["export", TWO, "out.tess"][..], &["mount", "--fuse", TWO, "root"]] {
            let said = refused(folder, verb);
            assert!(said.contains(expected), "{what}: {said}");
        }
        assert!(!folder.join("out.tess").exists(), "{what}");
        let output = run(folder, &["fsck"]);
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.code() == Some(1) && said.contains("refs/registry.example/app:2: "),
            "{what}: {said}"
        );
        // It is in nobody's way.
        assert!(run(folder, &["images"]).status.success(), "{what}");
        assert!(run(folder, &["gc"]).status.success(), "{what}");
        assert!(run(folder, &["rm", TWO]).status.success(), "{what}");
        assert_eq!(problems(&store), [], "{what}");
    };
    let pack = good.packs[0];
    refuses("another ID", &Artifact { image_id: two.artifact.image_id, ..good.clone() }, "expected");
    let longer = Blob { len: good.image.len + 1, ..good.image };
    refuses("a length", &Artifact { image: longer, ..good.clone() }, "bytes, expected");
    let image = Blob { digest: pack.digest, len: pack.len };
    refuses(
        "a pack for an image",
        &Artifact { image, packs: vec![good.image], ..good.clone() },
        "magic @ superblock byte 0",
    );
    let none = Blob { digest: digest(b"none"), len: 1 << 62 };
    refuses(
        "a pack that is not there",
        &Artifact { packs: vec![pack, none], ..good.clone() },
        "found no file of one of its packs",
    );

    // With fewer packs than the image names, or others, it cannot be mounted, as there is none of the right name.
    put(&store, TWO, &Artifact { packs: vec![], ..good.clone() });
    let said = refused(folder, &["export", TWO, "out.tess"]);
    assert!(
        said.contains("found pack 1 ") && said.contains("expected no pack 1, as the manifest says"),
        "{said}"
    );
}

#[test]
fn lengths_of_manifests_take_no_room_that_is_not_there() {
    let (_folder, store, [_, two]) = folder();
    let using = using(&store);
    let filling =
        using.begin_image(&two.artifact.image_id, &Default::default(), &mut || ()).expect("a directory");
    for len in [1 << 62, i64::MAX as u64, u64::MAX] {
        let error =
            filling.file(&digest(b"long"), len).map_err(|error| error.to_string()).expect_err("too long");
        assert!(error.starts_with(&format!("cannot take {len} bytes for ")), "{error}");
        assert_eq!(fs::read_dir(filling.path()).expect("a directory").count(), 0);
    }
    // Nothing at all has a digest as well.
    fill(&filling, &digest(b""), b"").expect("an empty file");
    assert_eq!(blob(&store, &digest(b"")).metadata().expect("a blob").len(), 0);
    // A file that has another digest than it is said to have is nobody's blob.
    let said = fill(&filling, &digest(b"right"), b"wrong").expect_err("another digest");
    assert!(said.ends_with(&format!("found {}", digest(b"wrong"))), "{said}");
    assert!(!blob(&store, &digest(b"right")).exists() && !blob(&store, &digest(b"wrong")).exists());
}

#[test]
fn a_hostile_image_hinders_no_other_one_that_names_its_pack() {
    let (_folder, store, [_, two]) = folder();
    let using = using(&store);
    let pack = &two.artifact.packs[1];
    let evil = using.begin_image(&digest(b"evil"), &Default::default(), &mut || ()).expect("a directory");
    let Slot::Unfinished(file) = evil.file(&pack.digest, pack.len).expect("a file") else {
        panic!("it is there")
    };
    file.write_at(0, &noise(5, 1000)).expect("bytes");
    pull(&store, TWO, &two).expect("an image");
    let bytes = fs::read(blob(&store, &pack.digest)).expect("a pack");
    // It goes on with a file of its own, and then is told that there is one.
    file.write_at(0, &noise(6, 1000)).expect("bytes");
    assert!(fs::read(blob(&store, &pack.digest)).expect("a pack") == bytes);
    assert!(matches!(evil.file(&pack.digest, pack.len), Ok(Slot::Complete(_))));
    file.write_at(0, &noise(7, 1000)).expect("bytes");
    assert!(fs::read(blob(&store, &pack.digest)).expect("a pack") == bytes);
    drop((file, evil));
    drop(using);
    assert_eq!(problems(&store), []);
}

#[test]
fn a_disk_that_takes_nothing_for_good_completes_no_file() {
    let (_folder, store, [_, two]) = folder();
    let before = tree(&store.path().join("blobs"));
    let error = support::without_disk(|| pull(&store, TWO, &two)).expect_err("a disk that fails");
    assert!(
        error.starts_with("cannot complete ") || error.starts_with("cannot force to the disk "),
        "{error}"
    );
    assert!(error.contains("Input/output error"), "{error}");
    assert_eq!(
        (tree(&store.path().join("blobs")), store.image(&reference(TWO)).expect("none").is_none()),
        (before, true)
    );
    pull(&store, TWO, &two).expect("an image");
    assert_eq!(problems(&store), []);
}

#[test]
fn bytes_that_the_disk_did_not_take_are_not_taken_from_memory() {
    let (_folder, store, [_, two]) = folder();
    let pack = two.artifact.packs[1];
    let bytes = fs::read(two.packs.join(pack.digest.to_string())).expect("a pack");
    let using = using(&store);
    let filling =
        using.begin_image(&two.artifact.image_id, &Default::default(), &mut || ()).expect("a directory");
    let error =
        support::without_disk(|| fill(&filling, &pack.digest, &bytes)).expect_err("a disk that fails");
    assert!(error.starts_with("cannot complete ") && error.contains("Input/output error"), "{error}");
    // The system tells of a loss once: the next run would find all bytes right, and the disk would have others.
    assert_eq!(tree(filling.path()), [""; 0]);
    fill(&filling, &pack.digest, &bytes).expect("a pack");
    assert!(store.blob(&pack.digest).expect("a store").is_some());
}

#[test]
fn users_have_stores_of_their_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let (folder, store, images) = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("a directory");
    chown(&home, Some(Uid::from_raw(1234)), Some(Gid::from_raw(1234))).expect("an owner");
    let of_root = store.path().to_owned();
    as_user(|| {
        // Nobody looks into root's.
        let refusal = Store::open(&of_root).map_err(|error| format!("{error:?}")).expect_err("root's store");
        assert!(refusal.contains("PermissionDenied"), "{refusal}");
        let verb = |verb: &[&str]| {
            let mut command = Command::new(TESSERAFS);
            command
                .current_dir("/")
                .args(verb)
                .env("XDG_DATA_HOME", &home)
                .env("HOME", "/none")
                .output()
                .expect("tesserafs")
        };
        let output = verb(&["images"]);
        let expected = format!(
            "tesserafs: {}/tesserafs: found no store, expected one, as `tesserafs pull` makes it\n",
            home.display()
        );
        assert_eq!(error(&output), expected);
        assert!(error(&verb(&["images", "--store", of_root.to_str().expect("text")]))
            .contains("Permission denied"));
        let own = Store::create(&home.join("tesserafs")).expect("a store");
        // A run that ended when a file was as good as complete: its owner may not write to it.
        let pack = &images[1].artifact.packs[1];
        {
            let using = using(&own);
            let id = &images[1].artifact.image_id;
            let filling = using.begin_image(id, &Default::default(), &mut || ()).expect("a directory");
            let Slot::Unfinished(file) = filling.file(&pack.digest, pack.len).expect("a file") else {
                panic!("it is there")
            };
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o444)).expect("a mode");
        }
        for (name, made) in [(ONE, &images[0]), (TWO, &images[1])] {
            pull(&own, name, made).expect("an image");
        }
        assert_eq!(problems(&own), []);
        let metadata = blob(&own, &pack.digest).metadata().expect("a pack");
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1234, 0o444));
        assert_eq!(fs::metadata(own.path()).expect("a store").mode() & 0o7777, 0o700);
        for arguments in [&["images"][..], &["fsck"], &["rm", TWO], &["gc"], &["export", ONE, "/dev/null"]] {
            let output = verb(arguments);
            let is_done = output.status.success()
                || (arguments[0] == "export" && error(&output).contains("no regular file"));
            assert!(is_done, "{arguments:?}: {output:?}");
        }
        assert!(!blob(&own, &pack.digest).exists());
        let wanted = Wanted { places: &Places::default(), unfinished: Duration::ZERO };
        assert_eq!(own.garbage(&wanted).expect("none").items.len(), 0);
    });
}

#[test]
fn names_from_the_command_line_are_references_or_usage_errors() {
    let (folder, store, _) = folder();
    let before = tree(store.path());
    for name in [
        "../../etc/passwd",
        "a/../../b:1",
        "/etc/passwd",
        "a:1/../..",
        "",
        "a\u{1b}[m:1",
        "A:1",
        "a.b/.new-1-1:1",
    ] {
        for verb in [&["rm", name][..], &["export", name, "out.tess"]] {
            let output = run(folder.path(), verb);
            assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        }
    }
    assert_eq!(tree(store.path()), before);
    // A part may be as long as a name of a file, and no longer.
    let long = format!("a.b/{}:{}", "c".repeat(200), "t".repeat(100));
    let said = refused(folder.path(), &["export", &long, "out.tess"]);
    assert!(said.contains("found a part of 301 bytes, expected 255 at most"), "{said}");
    let output = run(folder.path(), &["rm", &long]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        matches!(fs::metadata(folder.path().join("out.tess")), Err(error) if error.kind() == io::ErrorKind::NotFound)
    );
}
