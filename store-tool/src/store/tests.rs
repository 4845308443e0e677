// SPDX-License-Identifier: GPL-2.0-or-later

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::Cancel;

use super::{Filling, Finished, Slot, Store, Unfinished, Using};
use crate::chain;
use crate::reference::Reference;

const ID: Digest = Digest([7; 32]);

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::create(&folder.path().join("store")).expect("a store");
    (folder, store)
}

fn using(store: &Store) -> Using<'_> {
    store.use_it(&Cancel::default(), &mut || panic!("somebody has the lock")).expect("the lock")
}

fn filling<'a>(using: &'a Using<'_>, id: &Digest) -> Filling<'a> {
    using.begin_image(id, &Cancel::default(), &mut || panic!("somebody fills it")).expect("a directory")
}

fn unfinished(filling: &Filling<'_>, digest: &Digest, len: u64) -> Unfinished {
    match filling.file(digest, len).expect("a file") {
        Slot::Unfinished(file) => file,
        Slot::Complete(path) => panic!("{} is complete", path.display()),
    }
}

fn complete(filling: &Filling<'_>, bytes: &[u8]) -> Digest {
    let digest = sha256(bytes);
    let file = unfinished(filling, &digest, bytes.len() as u64);
    file.write_at(0, bytes).expect("bytes");
    match filling.finish(file, &Cancel::default()).expect("a file") {
        Finished::Complete(_) => digest,
        Finished::Not { found, .. } => panic!("found {found}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("a name").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

#[test]
fn there_is_no_store_where_nobody_made_one() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(Store::open(folder.path()).expect("a directory").is_none());
    assert!(Store::open(&folder.path().join("none")).expect("nothing").is_none());
    let dir = folder.path().join("a/b");
    Store::create(&dir).expect("a store");
    assert_eq!(dir.metadata().expect("a store").mode() & 0o777, 0o700);
    assert!(Store::open(&dir).expect("a store").is_some());
    assert_eq!(names(&dir), ["blobs", "filling", "images", "lock", "refs"]);
}

#[test]
fn a_file_is_a_blob_when_its_bytes_have_its_digest() {
    let (_folder, store) = store();
    let using = using(&store);
    let filling = filling(&using, &ID);
    let digest = sha256(b"the bytes");
    let file = unfinished(&filling, &digest, 9);
    assert!(!file.is_kept());
    file.write_at(0, b"the").expect("bytes");
    let error =
        file.write_at(5, b"bytes").map_err(|error| chain(&error)).expect_err("a write beyond the end");
    assert!(error.ends_with("found 5 bytes for byte 5, expected no more than 9 in all"), "{error}");
    let Finished::Not { found, file } = filling.finish(file, &Cancel::default()).expect("a file") else {
        panic!("complete without its bytes")
    };
    assert_eq!((found, store.blob(&digest).expect("a store")), (sha256(b"the\0\0\0\0\0\0"), None));
    file.write_at(3, b" bytes").expect("bytes");
    let Finished::Complete(path) = filling.finish(file, &Cancel::default()).expect("a file") else {
        panic!("not complete")
    };
    assert_eq!(fs::read(&path).expect("a blob"), b"the bytes");
    let metadata = path.metadata().expect("a blob");
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o444, 2));
    assert!(matches!(filling.file(&digest, 9), Ok(Slot::Complete(_))));
    let error = filling.file(&digest, 10).map_err(|error| chain(&error)).expect_err("a wrong length");
    assert!(error.contains("found 9 bytes, expected 10, as the manifest says"), "{error}");
    let dir = filling.close(&[digest]).expect("packs");
    assert_eq!(
        (dir.as_path(), names(&store.path().join("filling")).len()),
        (path.parent().expect("a path"), 0)
    );
}

#[test]
fn bytes_of_an_earlier_run_are_there() {
    let (_folder, store) = store();
    let (digest, other) = (sha256(b"the bytes"), sha256(b"other"));
    let first = using(&store);
    let filling_of = filling(&first, &ID);
    unfinished(&filling_of, &digest, 9).write_at(0, b"the b").expect("bytes");
    // It ended when it had the mode of a complete file.
    let path = unfinished(&filling_of, &other, 5).path().to_owned();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).expect("a mode");
    // And when it had no length.
    let short = sha256(b"short");
    fs::write(filling_of.path().join(short.to_string()), b"sh").expect("a file");
    drop(filling_of);
    drop(first);
    let again = using(&store);
    let filling = filling(&again, &ID);
    let file = unfinished(&filling, &digest, 9);
    let mut bytes = [0; 9];
    file.read_at(0, &mut bytes).expect("bytes");
    assert_eq!((file.is_kept(), &bytes), (true, b"the b\0\0\0\0"));
    assert!(unfinished(&filling, &other, 5).is_kept());
    assert!(!unfinished(&filling, &short, 5).is_kept());
    // Another manifest says another length: one of them is wrong.
    assert!(!unfinished(&filling, &digest, 8).is_kept());
}

#[test]
fn a_run_that_begins_nothing_leaves_nothing() {
    let (_folder, store) = store();
    let using = using(&store);
    drop(filling(&using, &ID));
    assert_eq!(names(&store.path().join("filling")).len(), 0);
    let begun = filling(&using, &ID);
    unfinished(&begun, &sha256(b"bytes"), 5);
    drop(begun);
    assert_eq!(names(&store.path().join("filling")), [ID.to_string()]);
}

#[test]
fn two_images_fill_one_pack_each_for_itself() {
    let (_folder, store) = store();
    let using = using(&store);
    let (a, b) = (filling(&using, &ID), filling(&using, &Digest([8; 32])));
    let digest = sha256(b"right");
    let (of_a, of_b) = (unfinished(&a, &digest, 5), unfinished(&b, &digest, 5));
    of_a.write_at(0, b"wrong").expect("bytes");
    of_b.write_at(0, b"right").expect("bytes");
    assert!(matches!(b.finish(of_b, &Cancel::default()), Ok(Finished::Complete(_))));
    assert!(matches!(a.finish(of_a, &Cancel::default()), Ok(Finished::Not { .. })));
    // From now on it is there for both.
    assert!(matches!(a.file(&digest, 5), Ok(Slot::Complete(_))));
    assert_eq!(fs::read(a.path().join(digest.to_string())).expect("a link"), b"right");
    assert_eq!(
        store.blob(&digest).expect("a store").expect("a blob").path.metadata().expect("a blob").nlink(),
        3
    );
}

#[test]
fn the_slower_one_of_two_images_takes_the_blob_of_the_faster_one() {
    let (_folder, store) = store();
    let using = using(&store);
    let (a, b) = (filling(&using, &ID), filling(&using, &Digest([8; 32])));
    let digest = sha256(b"right");
    let slow = unfinished(&a, &digest, 5);
    slow.write_at(0, b"right").expect("bytes");
    assert_eq!(complete(&b, b"right"), digest);
    let Finished::Complete(path) = a.finish(slow, &Cancel::default()).expect("a blob") else {
        panic!("wrong bytes")
    };
    assert_eq!(path.metadata().expect("a blob").nlink(), 3);
}

#[test]
fn an_image_with_a_pack_that_is_not_complete_has_a_directory_of_its_own() {
    let (_folder, store) = store();
    let using = using(&store);
    let filling = filling(&using, &ID);
    let whole = complete(&filling, b"whole");
    let part = sha256(b"some of it");
    let file = unfinished(&filling, &part, 10);
    file.write_at(0, b"some").expect("bytes");
    filling.keep(file).expect("a file");
    // Another image has completed it, and this one has not asked for it.
    fs::remove_file(filling.path().join(whole.to_string())).expect("a link");
    assert_eq!(store.pack_dir(&ID, &[whole]).expect("a store"), Some(store.path().join("blobs/sha256")));
    let own = filling.close(&[whole, part]).expect("packs");
    assert_eq!(store.pack_dir(&ID, &[whole, part]).expect("a store"), Some(own.clone()));
    assert_eq!(store.pack_dir(&Digest([8; 32]), &[whole, part]).expect("a store"), None);
    assert_eq!(store.pack_dir(&ID, &[sha256(b"")]).expect("a store"), None);
    assert_eq!(fs::read(own.join(whole.to_string())).expect("a link"), b"whole");
}

#[test]
fn a_second_process_waits_for_the_first_and_finds_its_files() {
    let (_folder, store) = store();
    let first = using(&store);
    let filling_of = filling(&first, &ID);
    let digest = complete(&filling_of, b"bytes");
    let waits = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let using = using(&store);
            let filling = using
                .begin_image(&ID, &Cancel::default(), &mut || waits.store(true, Ordering::SeqCst))
                .expect("a directory");
            // The first one has removed the directory that this one has waited for.
            assert!(filling.path().is_dir());
            assert!(matches!(filling.file(&digest, 5), Ok(Slot::Complete(_))));
            filling.close(&[digest]).expect("packs");
        });
        while !waits.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        filling_of.close(&[digest]).expect("packs");
        second.join().expect("a thread");
    });
    assert_eq!(names(&store.path().join("filling")).len(), 0);
}

#[test]
fn whoever_removes_waits_for_those_who_use_the_store() {
    let (_folder, store) = store();
    let user = using(&store);
    let another = using(&store);
    assert!(store.try_collect(Duration::ZERO).expect("a lock").is_none());
    drop(user);
    let waits = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            store.collect(&Cancel::default(), &mut || waits.store(true, Ordering::SeqCst)).expect("the lock");
        });
        while !waits.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(another);
        collector.join().expect("a thread");
    });
    let collecting = store.try_collect(Duration::ZERO).expect("a lock").expect("the lock");
    assert!(store.try_collect(Duration::ZERO).expect("a lock").is_none());
    drop(collecting);
}

#[test]
fn an_interrupt_ends_a_wait() {
    let (_folder, store) = store();
    let _user = using(&store);
    let cancel = Cancel::default();
    let refused = store.collect(&cancel, &mut || cancel.flag().store(true, Ordering::SeqCst));
    assert!(matches!(refused, Err(tesserafs_image::Error::Cancelled)));
}

#[test]
fn a_document_is_what_its_digest_says() {
    let (_folder, store) = store();
    let using = using(&store);
    let digest = using.add_document(b"{}").expect("a document");
    assert_eq!(using.add_document(b"{}").expect("a document"), digest);
    assert_eq!(store.document(&digest).expect("a document"), Some(b"{}".to_vec()));
    assert_eq!(store.document(&sha256(b"none")).expect("none"), None);
    let path = store.path().join("images/sha256").join(digest.to_string());
    assert_eq!(path.metadata().expect("a document").mode() & 0o7777, 0o444);
    fs::remove_file(&path).expect("a document");
    fs::write(&path, "[]").expect("a file");
    let error = store.document(&digest).map_err(|error| chain(&error)).expect_err("another document");
    assert!(
        error.ends_with(&format!(
            "found a file whose digest is {}, expected the one in its name",
            sha256(b"[]")
        )),
        "{error}"
    );
    using.add_document(b"{}").expect("a document");
    assert_eq!(store.document(&digest).expect("a document"), Some(b"{}".to_vec()));
    assert_eq!(names(path.parent().expect("a path")).len(), 1);
    assert!(using.add_document(&vec![b' '; (4 << 20) + 1]).is_err());
}

#[test]
fn names_lead_to_manifests_and_to_nothing_else() {
    let (folder, store) = store();
    let using = using(&store);
    let (one, two) =
        (using.add_document(b"1").expect("a document"), using.add_document(b"2").expect("a document"));
    let hex = "0123456789abcdef".repeat(4);
    let odd = [
        "localhost:5000/a:latest".to_owned(),
        "localhost:5000/a/b:latest".to_owned(),
        "[::1]:5000/a/b__c/d---e:_.-".to_owned(),
        format!("quay.io/a/b@sha256:{hex}"),
        format!("quay.io/{}:{}", "a/".repeat(120) + "a", "t".repeat(128)),
    ];
    for name in &odd {
        using.set_name(&reference(name), &one).expect(name);
    }
    let mut listed: Vec<_> =
        store.names().expect("names").iter().map(|named| named.reference.to_string()).collect();
    listed.sort();
    let mut expected = odd.to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    using.set_name(&reference(&odd[0]), &two).expect("a name");
    assert_eq!(store.manifest_of(&reference(&odd[0])).expect("a name"), Some(two));
    assert_eq!(store.manifest_of(&reference("localhost:5000/none:1")).expect("none"), None);
    assert_eq!(fs::read(store.path().join("refs/localhost:5000/a:latest")).expect("a link"), b"2");

    let error = using.set_name(&reference(&odd[0]), &sha256(b"none")).map_err(|error| chain(&error));
    assert!(error.expect_err("no manifest").ends_with("is not in the store"));
    let long = format!("quay.io/{}:{}", "a".repeat(200), "t".repeat(128));
    let error = using.set_name(&reference(&long), &one).map_err(|error| chain(&error)).expect_err("too long");
    assert!(error.ends_with("found a part of 329 bytes, expected 255 at most"), "{error}");

    // Nothing is followed out of the store.
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    symlink(&outside, store.path().join("refs/evil.example")).expect("a symlink");
    let error = using
        .set_name(&reference("evil.example/a:1"), &one)
        .map_err(|error| chain(&error))
        .expect_err("a symlink");
    assert!(error.ends_with("refs/evil.example: found a symlink, expected a directory"), "{error}");
    symlink(folder.path().join("outside/1"), store.path().join("refs/localhost:5000/a:evil"))
        .expect("a symlink");
    let error = store.manifest_of(&reference("localhost:5000/a:evil")).map_err(|error| chain(&error));
    assert!(error
        .expect_err("a symlink")
        .ends_with("found a symlink, expected a link to a manifest in images/sha256"));
    assert_eq!(names(&outside).len(), 0);

    for name in &odd {
        assert!(using.remove_name(&reference(name)).expect(name), "{name}");
        assert!(!using.remove_name(&reference(name)).expect(name), "{name}");
    }
    let (left, foreign) = store.names_and_others().expect("names");
    assert_eq!((left, foreign.len()), (Vec::new(), 2), "{foreign:?}");
    assert_eq!(names(&store.path().join("refs")), ["evil.example", "localhost:5000"]);
}

#[test]
fn symlinks_in_the_way_are_refused() {
    for name in ["blobs", "blobs/sha256", "filling", "images/sha256", "refs"] {
        let (folder, store) = store();
        let (path, outside) = (store.path().join(name), folder.path().join("outside"));
        fs::rename(&path, &outside).expect("a directory");
        symlink(&outside, &path).expect("a symlink");
        let expected = format!("{}: found a symlink, expected a directory", path.display());
        for error in [Store::open(store.path()).err(), Store::create(store.path()).err()] {
            assert_eq!(error.map(|error| chain(&error)), Some(expected.clone()));
        }
    }
    let (folder, store) = store();
    let secret = folder.path().join("secret");
    fs::write(&secret, "the bytes").expect("a file");
    let digest = sha256(b"the bytes");
    symlink(&secret, store.path().join("blobs/sha256").join(digest.to_string())).expect("a symlink");
    let error = store.blob(&digest).map_err(|error| chain(&error)).expect_err("a symlink");
    assert!(error.ends_with("found a symlink, expected a regular file"), "{error}");
    // One that is in the place of a file to be filled is replaced, and what it leads to stays as it is.
    let other = sha256(b"others");
    let using = using(&store);
    let filling = filling(&using, &ID);
    symlink(&secret, filling.path().join(other.to_string())).expect("a symlink");
    unfinished(&filling, &other, 9).write_at(0, b"others").expect("bytes");
    assert_eq!(fs::read(&secret).expect("a file"), b"the bytes");
}
