// SPDX-License-Identifier: GPL-2.0-or-later

//! Updates by a bundle, if there is one that is worth it, and that can be applied.

use std::fs;

use mkfs_tesserafs::progress::Silent;
use tesserafs_store::artifact::{Blob, Delta};

use super::registry::Wrong;
use super::support::noise;
use super::support::store::{make, problems, tree};
use super::{bytes, exported, name_of, pull, unpacked, Made, Place, MANIFEST, REPOSITORY};

/// Something that is published in the place of a bundle, and a word for it.
type Case<'c> = (&'c str, Box<dyn Fn(&Place) + 'c>);

/// The bytes of a file with some of them changed, by far less than the chunks have that are new then.
fn changed() -> Vec<u8> {
    let mut bytes = noise(1, 600_000);
    for at in (0..bytes.len()).step_by(1000) {
        bytes[at] ^= 1;
    }
    bytes[..60_000].copy_from_slice(&noise(77, 60_000));
    bytes
}

/// An image, and the same one with that file changed: its bundle is larger than its image file, and smaller than its new pack.
fn pair(place: &Place) -> [Made; 2] {
    let (all, base) = (noise(1, 600_000), noise(2, 2_000_000));
    let old = make(place.path(), "old.tess", &[("a", &all), ("base", &base)], &[]);
    let new = make(place.path(), "new.tess", &[("a", &changed()), ("base", &base)], &[&old]);
    assert_eq!(new.artifact.packs.len(), 2);
    place.publish(&old, "old");
    place.publish(&new, "new");
    [old, new]
}

/// A bundle that was not used leaves nothing, and all is right.
fn by_chunks(place: &Place, new: &Made, what: &str) {
    let report = place.pull("new");
    assert!(report.delta.is_none(), "{what}: {report:?}");
    place.check("new", new);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0], "{what}");
}

#[test]
fn a_bundle_brings_what_is_lacking() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let bundle = place.publish_bundle(&old, &new, false);
    assert!(bundle.len < new.artifact.packs[1].len / 3, "{bundle:?}");
    assert!(bundle.len > new.artifact.image.len);
    place.pull("old");
    place.asked();
    let report = place.pull("new");
    place.check("new", &new);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
    let delta = report.delta.expect("a bundle");
    assert_eq!((delta.from, delta.bytes), (name_of(&old.artifact.image_id), bundle.len));
    // The image file comes first where the bundle is larger than that.
    let asked = place.asked();
    let packs = new.artifact.packs.iter().filter(|pack| asked.contains_key(&name_of(&pack.digest)));
    assert_eq!(packs.count(), 0, "{asked:?}");
    assert!(report.fetched_bytes <= bundle.len + new.artifact.image.len);

    // Not if nobody wants it.
    let mut request = place.request("new");
    request.store = place.path().join("another");
    request.reference = super::reference(&place.name("old"));
    pull(&request, &Silent).expect("an image");
    request.reference = super::reference(&place.name("new"));
    request.deltas = false;
    place.asked();
    pull(&request, &Silent).expect("an image");
    assert!(!place.asked().contains_key(&name_of(&bundle.digest)));
}

#[test]
fn a_bundle_smaller_than_the_image_file_comes_without_it() {
    let place = Place::new();
    // Many small files: much metadata.
    let names: Vec<_> = (0..3000).map(|number| format!("dir/file{number:05}")).collect();
    let mut all: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let old = make(place.path(), "old.tess", &all, &[]);
    all[7].1 = b"changed";
    let new = make(place.path(), "new.tess", &all, &[&old]);
    place.publish(&old, "old");
    place.publish(&new, "new");
    let bundle = place.publish_bundle(&old, &new, false);
    assert!(bundle.len < new.artifact.image.len / 4);
    place.pull("old");
    place.asked();
    let report = place.pull("new");
    place.check("new", &new);
    assert_eq!(report.fetched_bytes, bundle.len);
    assert_eq!(place.asked().keys().collect::<Vec<_>>(), [&name_of(&bundle.digest)]);
}

#[test]
fn a_bundle_larger_than_what_is_lacking_stays_there() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let mut large = place.bundle(&old, &new, true);
    large.resize(5_000_000, 0);
    let bundle = place.publish_delta(&old, &new, &large);
    place.pull("old");
    place.asked();
    by_chunks(&place, &new, "large");
    assert!(!place.asked().contains_key(&name_of(&bundle.digest)));
}

#[test]
fn what_other_images_have_counts_as_there() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let bundle = place.publish_bundle(&old, &new, false);
    // All chunks of the new image are in another pack of the store.
    let other = make(place.path(), "other.tess", &[("a", &changed()), ("b", &noise(9, 100_000))], &[]);
    place.publish(&other, "other");
    place.pull("old");
    place.pull("other");
    place.asked();
    by_chunks(&place, &new, "copies");
    assert!(!place.asked().contains_key(&name_of(&bundle.digest)));
}

#[test]
fn bundles_that_are_none_are_not_needed() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let good = place.bundle(&old, &new, false);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut libzstd = good.clone();
    libzstd[16] ^= 1;
    let digest = tesserafs_image::hash::sha256(&libzstd[..88]).0;
    libzstd[88..120].copy_from_slice(&digest);
    let tag = Delta::tag(&old.artifact.image_id, &new.artifact.image_id);
    let other = place.image("other.tess", &[("x", 3, 100_000)], &[]);
    let absent = Blob::of(b"absent");
    let cases: [Case<'_>; 9] = [
        (
            "flipped",
            Box::new(|place| {
                let _ = place.publish_delta(&old, &new, &flipped);
            }),
        ),
        (
            "cut",
            Box::new(|place| {
                let _ = place.publish_delta(&old, &new, &good[..good.len() - 50]);
            }),
        ),
        (
            "another libzstd",
            Box::new(|place| {
                let _ = place.publish_delta(&old, &new, &libzstd);
            }),
        ),
        (
            "zeros",
            Box::new(|place| {
                let _ = place.publish_delta(&old, &new, &[0; 9000]);
            }),
        ),
        ("absent", Box::new(|place| place.publish_delta_blob(&old, &new, absent))),
        ("an image", Box::new(|place| place.publish_delta_blob(&old, &new, new.artifact.image))),
        ("a pack", Box::new(|place| place.publish_delta_blob(&old, &new, new.artifact.packs[1]))),
        (
            "another pair",
            Box::new(|place| {
                let delta = Delta {
                    from: other.artifact.image_id,
                    to: new.artifact.image_id,
                    bundle: Blob::of(&good),
                };
                place.registry.add_blob(REPOSITORY, &good);
                place.registry.add_manifest(REPOSITORY, &tag, MANIFEST, &delta.to_manifest());
            }),
        ),
        (
            "no document",
            Box::new(|place| place.registry.add_manifest(REPOSITORY, &tag, MANIFEST, b"\x1b[31m{")),
        ),
    ];
    for (what, publish) in cases {
        publish(&place);
        let _ = fs::remove_dir_all(place.path().join("store"));
        place.pull("old");
        by_chunks(&place, &new, what);
    }
    // A registry that fails for it.
    for wrong in [
        Wrong::Status(403, Vec::new(), String::new()),
        Wrong::Status(500, Vec::new(), String::new()),
        Wrong::Closed,
        Wrong::ContentLength("x".to_owned()),
    ] {
        place.publish_delta(&old, &new, &good);
        fs::remove_dir_all(place.path().join("store")).expect("a store");
        place.pull("old");
        let what = format!("{wrong:?}");
        place.registry.wrong("GET", &tag, 100, wrong.clone());
        by_chunks(&place, &new, &what);
        place.registry.right();
        fs::remove_dir_all(place.path().join("store")).expect("a store");
        place.pull("old");
        place.registry.wrong("GET", &name_of(&Blob::of(&good).digest), 100, wrong);
        by_chunks(&place, &new, &what);
        place.registry.right();
    }
    // One bit that a line has flipped.
    fs::remove_dir_all(place.path().join("store")).expect("a store");
    place.pull("old");
    place.registry.wrong("GET", &name_of(&Blob::of(&good).digest), 1, Wrong::Flip);
    assert!(place.pull("new").delta.is_some());
    place.check("new", &new);
}

#[test]
fn an_old_image_whose_packs_are_not_complete_is_of_no_use() {
    let place = Place::new();
    let all: Vec<_> =
        ["a", "b", "c", "d"].into_iter().zip(1..).map(|(name, seed)| (name, seed, 200_000)).collect();
    let base = place.image("base.tess", &all, &[]);
    let old = place.image("old.tess", &all[..2], &[&base]);
    let new = place.image("new.tess", &[all[0], ("b", 77, 200_000)], &[&base]);
    place.publish(&old, "old");
    place.publish(&new, "new");
    let bundle = place.publish_bundle(&old, &new, false);
    place.pull("old");
    place.asked();
    let report = place.pull("new");
    assert!(report.delta.is_none());
    assert!(!place.asked().contains_key(&name_of(&bundle.digest)));
    assert_eq!(exported(&place, "new"), unpacked(&new));
    assert_eq!(problems(&place.store()), []);
}

#[test]
fn a_bundle_from_another_image_of_the_repository_is_found() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let unrelated = place.image("unrelated.tess", &[("x", 3, 100_000)], &[]);
    place.publish(&unrelated, "now");
    place.publish_bundle(&old, &new, false);
    place.pull("now");
    place.pull("old");
    place.publish(&new, "now");
    assert!(place.pull("now").delta.is_some());
    place.check("now", &new);
}

#[test]
fn the_latest_of_many_images_is_the_old_one() {
    let place = Place::new();
    let [old, new] = pair(&place);
    let others: Vec<_> = (0..6)
        .map(|number| place.image(&format!("other{number}.tess"), &[("other", 100 + number, 50_000)], &[]))
        .collect();
    for (number, other) in others.iter().enumerate() {
        place.publish(other, &format!("a{number}"));
        place.pull(&format!("a{number}"));
    }
    place.publish(&old, "z-old");
    place.pull("z-old");
    place.publish_bundle(&old, &new, false);
    let report = place.pull("new");
    place.check("new", &new);
    assert_eq!(report.delta.expect("a bundle").from, name_of(&old.artifact.image_id));
}

#[test]
fn a_bundle_that_was_cut_off_goes_on() {
    let place = Place::new();
    // No chunk of this file stays what it is, and hardly any of its bytes becomes another one.
    let mut changed = noise(1, 1_000_000);
    let old = make(place.path(), "old.tess", &[("a", &changed)], &[]);
    changed.iter_mut().step_by(10_000).for_each(|byte| *byte ^= 1);
    let others = [2, 3, 4].map(|seed| noise(seed, 6_000_000));
    let [b, c, d] = &others;
    let files: [(&str, &[u8]); 4] = [("a", &changed), ("b", b), ("c", c), ("d", d)];
    let new = make(place.path(), "new.tess", &files, &[&old]);
    place.publish(&old, "old");
    place.publish(&new, "new");
    // Smaller than chunks are.
    let bundle = place.publish_bundle(&old, &new, false);
    place.pull("old");
    let packs = new.artifact.packs.iter().map(|pack| pack.len).sum::<u64>();
    assert!(bundle.len < packs, "{} of {packs}", bundle.len);
    let name = name_of(&bundle.digest);
    let absent = || Wrong::Status(404, Vec::new(), String::new());
    place.registry.wrong_after("GET", &name, 1, 100, absent());
    for pack in &new.artifact.packs {
        place.registry.wrong("GET", &name_of(&pack.digest), 100, absent());
    }
    place.try_pull("new").expect_err("nothing comes");
    place.registry.right();
    place.asked();
    let report = place.pull("new");
    assert!(report.delta.is_some(), "{report:?}");
    place.check("new", &new);
    let again = bytes(&place.asked()[&name]);
    assert!(again < bundle.len * 6 / 10, "{again} of {}", bundle.len);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
}
