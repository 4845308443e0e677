// SPDX-License-Identifier: GPL-2.0-or-later

//! Manifests with the ID of an image that is there, and has a part of a pack: the file of that pack is that image's, whatever the manifest
//! names it.

use std::fs;

use tesserafs_store::artifact::{Artifact, Blob, Delta};

use super::common::pattern;
use super::forged::{record, Forged};
use super::registry::Wrong;
use super::support::store::problems;
use super::{name_of, Made, Place, MANIFEST, REPOSITORY};

/// An image of the store that needs a part of a pack, and the pack.
fn prepared() -> (Place, Made) {
    let place = Place::new();
    let all = [("a", 1, 200_000), ("b", 2, 200_000), ("c", 3, 200_000), ("d", 4, 200_000)];
    let base = place.image("base.tess", &all, &[]);
    let less = place.image("less.tess", &all[..2], &[&base]);
    place.publish(&less, "less");
    place.pull("less");
    assert!(place.store().blob(&less.artifact.packs[0].digest).expect("a store").is_none());
    (place, less)
}

/// The bytes of the file in which the image has its part.
fn part(place: &Place, image: &Made) -> Vec<u8> {
    let filling = place.path().join("store/filling").join(image.artifact.image_id.to_string());
    fs::read(filling.join(image.artifact.packs[0].digest.to_string())).expect("a pack")
}

fn is_whole(place: &Place, image: &Made, before: &[u8], what: &str) {
    assert!(part(place, image) == before, "{what}");
    assert_eq!(problems(&place.store()), [], "{what}");
    place.check("less", image);
}

#[test]
fn no_pack_of_an_image_is_begun_anew_as_its_image_file() {
    let (place, less) = prepared();
    let before = part(&place, &less);
    let pack = less.artifact.packs[0];
    let other = Blob { len: less.artifact.image.len, ..Blob::of(b"other") };
    let lies: [(&str, Artifact); 3] = [
        ("the image file", Artifact { image: pack, packs: Vec::new(), ..less.artifact.clone() }),
        (
            "the image file, compressed",
            Artifact { compressed: Some(pack), packs: Vec::new(), image: other, ..less.artifact.clone() },
        ),
        (
            "the one that it becomes",
            Artifact { image: pack, compressed: Some(other), packs: Vec::new(), ..less.artifact.clone() },
        ),
    ];
    for (what, lie) in lies {
        place.manifest(&lie, "lie");
        let said = place.try_pull("lie").expect_err(what);
        assert!(said.contains("found a pack of the image") && said.len() < 500, "{what}: {said}");
        is_whole(&place, &less, &before, what);
    }
    // The file is right, and the packs are not.
    place.manifest(&Artifact { packs: Vec::new(), ..less.artifact.clone() }, "lie");
    let said = place.try_pull("lie").expect_err("no packs");
    assert!(said.contains("as the manifest says"), "{said}");
    is_whole(&place, &less, &before, "no packs");
    place.pull("less");
    is_whole(&place, &less, &before, "again");
}

#[test]
fn no_pack_of_an_image_is_begun_anew_as_a_bundle() {
    let (place, less) = prepared();
    let before = part(&place, &less);
    let old = place.image("old.tess", &[("z", 9, 50_000)], &[]);
    place.publish(&old, "lie");
    place.pull("lie");
    // The manifest names other packs than the image has, or the bundle would be one of its files.
    let image = Blob { len: 1 << 20, ..Blob::of(b"other") };
    place.manifest(&Artifact { image, packs: Vec::new(), ..less.artifact.clone() }, "lie");
    let (from, to) = (old.artifact.image_id, less.artifact.image_id);
    let delta = Delta { from, to, bundle: less.artifact.packs[0] };
    place.registry.add_manifest(REPOSITORY, &Delta::tag(&from, &to), MANIFEST, &delta.to_manifest());
    place.try_pull("lie").expect_err("no such image");
    assert!(place.registry.targets().iter().any(|target| target.contains(&Delta::tag(&from, &to))));
    is_whole(&place, &less, &before, "a bundle");
}

/// The pack table names a pack of which the image has no chunk: the file has to be there all the same.
#[test]
fn a_pack_without_chunks_stays_when_another_one_does_not_come() {
    let place = Place::new();
    let mut forged = Forged::new(&[&pattern(5000, 1)]);
    let unused = pattern(5000, 2);
    forged.draft.packs.push(record(&Blob::of(&unused)));
    forged.packs.push(unused);
    let artifact = forged.publish(&place, "v1");
    place.pull("v1");
    assert_eq!(problems(&place.store()), []);
    let store = place.path().join("store");
    let filling = store.join("filling").join(artifact.image_id.to_string());
    let [used, unused] = [0, 1].map(|pack| artifact.packs[pack].digest.to_string());
    assert!(filling.join(&unused).exists());
    // The disk loses the other one.
    for dir in [&filling, &store.join("blobs/sha256")] {
        fs::remove_file(dir.join(&used)).expect("a pack");
    }
    let name = name_of(&artifact.packs[0].digest);
    place.registry.wrong("GET", &name, 100, Wrong::Status(404, Vec::new(), String::new()));
    place.try_pull("v1").expect_err("no pack");
    assert!(filling.join(&unused).exists());
    place.registry.right();
    place.pull("v1");
    assert_eq!(problems(&place.store()), []);
}
