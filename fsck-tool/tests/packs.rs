// SPDX-License-Identifier: GPL-2.0-or-later

//! Images in the shared form, from the real builder: chunks of parents are used, all of them are clean, and they show the tree that an image in
//! one file shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mkfs_tesserafs::packs::PackReport;

mod shared;

use shared::{names, pattern, with_parents, Build, Folder};

#[test]
fn both_forms_have_the_same_tree() {
    let folder = Folder::new();
    let (one, _) = folder.build("one", &Build { in_one_file: true, ..Build::default() });
    let (shared, packs) = folder.build("shared", &Build::default());
    assert_eq!(one.tree_id, shared.tree_id);
    assert_ne!(one.image_id, shared.image_id);
    let [PackReport { bytes, live_bytes, new: true, .. }] = &packs.packs[..] else { panic!("{packs:?}") };
    // The pack has the bytes of pack 0.
    assert_eq!((*bytes, *live_bytes), (one.figures.stored_bytes, one.figures.stored_bytes));
    assert!(folder.image_len("shared") + bytes <= folder.image_len("one") + 4096);
    assert_eq!(folder.packs(), names(&packs));
}

#[test]
fn a_parent_has_all_but_what_changed() {
    let folder = Folder::new();
    let (first, first_packs) = folder.build("1", &Build::default());
    // Nothing changed: no pack is written.
    let (same, packs) = folder.build("same", &with_parents(&["1"]));
    assert_eq!((&same.image_id, packs.packs[0].new), (&first.image_id, false));
    assert_eq!(packs.parents[0].stored_bytes, first.figures.stored_bytes);

    folder.write("new", &pattern(200_000, 5));
    folder.write("many/100", b"changed");
    let (second, packs) = folder.build("2", &with_parents(&["1"]));
    let [base, new] = &packs.packs[..] else { panic!("{packs:?}") };
    assert!(!base.new && base.digest == first_packs.packs[0].digest && base.live_bytes < base.bytes);
    assert!(new.new && new.bytes == new.live_bytes && new.bytes < 500_000, "{new:?}");
    assert_eq!(packs.absorbed_bytes, 0);
    assert_eq!(folder.packs(), names(&packs));

    // The order of parents is of no consequence here, and neither are threads.
    let (again, _) = folder.build("again", &Build { threads: Some(5), ..with_parents(&["1"]) });
    assert_eq!(again.image_id, second.image_id);
    let (one, _) = folder.build("one", &Build { in_one_file: true, ..Build::default() });
    assert_eq!((&one.tree_id, one.figures.stored_bytes), (&second.tree_id, second.figures.stored_bytes));
}

#[test]
fn small_packs_are_absorbed_by_the_new_one() {
    let folder = Folder::new();
    folder.build("0", &Build::default());
    let (mut most, mut absorbed) = (0, 0);
    for night in 1..12_u64 {
        folder.write(&format!("new-{night}"), &pattern(100_000, 10 + night));
        let parent = (night - 1).to_string();
        let (_, packs) = folder.build(&night.to_string(), &with_parents(&[&parent]));
        most = most.max(packs.packs.len());
        absorbed += packs.absorbed_bytes;
    }
    assert!((2..=5).contains(&most) && absorbed > 0, "{most} packs, {absorbed} bytes absorbed");
    // Older images are whole all the same.
    for night in 0..12 {
        folder.check(&night.to_string());
    }
}

#[test]
fn a_new_base_names_no_pack_of_a_parent() {
    let folder = Folder::new();
    let (_, first) = folder.build("1", &Build::default());
    folder.write("text", b"");
    fs::remove_file(folder.at("tree/large")).expect("removed");
    let (report, packs) = folder.build("2", &Build { rebase: true, ..with_parents(&["1"]) });
    let [PackReport { bytes, new: true, digest, .. }] = &packs.packs[..] else { panic!("{packs:?}") };
    assert_eq!((*bytes, packs.absorbed_bytes), (report.figures.stored_bytes, *bytes));
    assert_ne!(*digest, first.packs[0].digest);
}

#[test]
fn several_parents_give_chunks_in_their_order() {
    let folder = Folder::new();
    folder.build("1", &Build::default());
    fs::rename(folder.at("tree/large"), folder.at("kept")).expect("renamed");
    folder.write("other", &pattern(2_000_000, 9));
    folder.build("2", &Build::default());
    fs::rename(folder.at("kept"), folder.at("tree/large")).expect("renamed");
    let (_, packs) = folder.build("3", &with_parents(&["1", "2"]));
    assert!(packs.packs.len() == 2 && packs.packs.iter().all(|pack| !pack.new), "{packs:?}");
    assert!(packs.parents.iter().all(|parent| parent.chunks > 0), "{packs:?}");
}

#[test]
fn chunks_of_another_encoding_are_not_used() {
    let folder = Folder::new();
    folder.build("1", &Build { level: Some(9), ..Build::default() });
    let (report, packs) = folder.build("2", &with_parents(&["1"]));
    let why = packs.parents[0].refused.as_deref().expect("a reason");
    assert!(why.contains("at level 9") && why.contains("at level 3"), "{why}");
    assert!(report.to_text().contains(&format!("nothing taken from {}", folder.at("1").display())));
    assert!(packs.packs.iter().all(|pack| pack.new));
}

#[test]
fn parents_and_packs_that_do_not_serve_are_named_and_nothing_is_left() {
    let folder = Folder::new();
    folder.build("one", &Build { in_one_file: true, ..Build::default() });
    let (_, packs) = folder.build("1", &Build::default());
    let pack = folder.at("packs").join(&packs.packs[0].digest);
    let bytes = fs::read(&pack).expect("read");
    folder.write("new", &pattern(4_000_000, 3));
    let fails = |parent: &str, expected: &[&str]| {
        let error = folder.try_build("2", &with_parents(&[parent])).expect_err(parent).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        assert!(!folder.at("2").exists());
    };
    fails("one", &["in one file", "tesserafs pack"]);
    fails("nothing", &["nothing"]);
    // This build would absorb the parent's pack.
    let mut broken = bytes.clone();
    broken[100] ^= 1;
    fs::write(&pack, &broken).expect("written");
    fails("1", &["at byte 0", "expected", &packs.packs[0].digest]);
    fs::write(&pack, &bytes[1..]).expect("written");
    fails("1", &["bytes", &packs.packs[0].digest]);
    fs::remove_file(&pack).expect("removed");
    fails("1", &["--packdir", &packs.packs[0].digest]);
    assert_eq!(folder.packs(), BTreeSet::new());
    fs::write(&pack, &bytes).expect("written");
    folder.check("1");

    // Where nothing is written, the IDs are the same.
    let (report, new) = {
        let report = folder.try_build("2", &Build { dry_run: true, ..with_parents(&["1"]) }).expect("built");
        (report.image_id, names(&report.shared.expect("packs")))
    };
    assert!(!folder.at("2").exists() && folder.packs().len() == 1);
    let (built, packs) = folder.build("2", &with_parents(&["1"]));
    assert_eq!((built.image_id, names(&packs)), (report, new));
    assert!(Path::new(&folder.at("2")).exists());
}
