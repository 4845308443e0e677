// SPDX-License-Identifier: GPL-2.0-or-later

//! Image files that come compressed, as `push` sends those of images in packs.

use std::fs;

use tesserafs_store::artifact::Artifact;

use super::registry::Wrong;
use super::support::noise;
use super::support::store::{blob, tree};
use super::{bytes, name_of, Made, Place, REPOSITORY};

/// An image whose file is some megabytes, which compress badly.
pub(super) fn with_many_names(place: &Place) -> Made {
    let name = |seed: u64| noise(seed, 60).iter().map(|byte| format!("{byte:03}")).collect::<String>();
    let names: Vec<_> = (0..9000).map(|seed| format!("{}/{}", seed % 90, name(seed))).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    super::make(place.path(), "names.tess", &files, &[])
}

#[test]
fn it_becomes_the_file_and_nothing_else_stays() {
    let place = Place::new();
    let mut image = with_many_names(&place);
    let compressed = place.compress(&mut image);
    assert!(image.artifact.image.len > 2 << 20 && compressed.len() > 600_000, "{}", compressed.len());
    place.publish(&image, "v1");
    place.pull("v1");
    place.check("v1", &image);
    let asked = place.asked();
    assert_eq!(bytes(&asked[&super::digest_of(&compressed)]), compressed.len() as u64);
    assert!(!asked.contains_key(&name_of(&image.artifact.image.digest)));
    let store = place.store();
    assert!(!blob(&store, &image.artifact.image_blob().digest).exists());
    assert_eq!(tree(&store.path().join("filling")), [""; 0]);
    assert!(
        fs::read(blob(&store, &image.artifact.image.digest)).expect("the image")
            == fs::read(&image.path).expect("the image")
    );
}

#[test]
fn one_that_was_cut_off_goes_on_behind_its_last_good_frame() {
    let place = Place::new();
    let mut image = with_many_names(&place);
    let compressed = place.compress(&mut image);
    place.publish(&image, "v1");
    let name = super::digest_of(&compressed);
    let cut = compressed.len() * 3 / 4;
    for method in [Wrong::Cut(cut), Wrong::Flip] {
        let _ = fs::remove_dir_all(place.path().join("store"));
        let is_cut = matches!(method, Wrong::Cut(_));
        place.registry.wrong("GET", &name, 1, method);
        if is_cut {
            place.registry.wrong("GET", &name, 100, Wrong::Status(404, Vec::new(), String::new()));
            place.try_pull("v1").expect_err("not all came");
            place.registry.right();
        }
        place.asked();
        place.pull("v1");
        place.check("v1", &image);
        let again = bytes(&place.asked()[&name]);
        let most = if is_cut { compressed.len() * 4 / 5 } else { compressed.len() * 2 };
        assert!(again as usize <= most && again > 0, "{again} of {}", compressed.len());
    }
}

#[test]
fn any_wrong_byte_is_refused() {
    let place = Place::new();
    let mut image = place.image("one.tess", &[("a", 1, 300_000)], &[]);
    let good = place.compress(&mut image);
    place.publish(&image, "v1");
    let name = super::digest_of(&good);
    for at in (0..good.len()).step_by(good.len() / 50 + 1) {
        let mut wrong = good.clone();
        wrong[at] ^= 0x10;
        place.registry.lie(REPOSITORY, &name, &wrong);
        let error = place.try_pull("v1").expect_err("a wrong byte");
        assert!(error.contains(&name) && error.len() < 500, "{at}: {error}");
        assert_eq!(tree(&place.path().join("store/blobs/sha256")), [""; 0], "{at}");
    }
    place.registry.lie(REPOSITORY, &name, &good);
    place.pull("v1");
    place.check("v1", &image);
}

#[test]
fn lies_about_the_file_are_refused() {
    let place = Place::new();
    let mut one = place.image("one.tess", &[("a", 1, 300_000)], &[]);
    let mut two = place.image("two.tess", &[("a", 1, 300_000), ("b", 2, 100_000)], &[&one]);
    for image in [&mut one, &mut two] {
        place.compress(image);
    }
    place.publish(&one, "one");
    place.publish(&two, "two");
    type Lie = (&'static str, &'static str, fn(&mut Artifact, &Made));
    let lies: [Lie; 8] = [
        ("longer", "expected one of", |lie, _| lie.image.len += 4096),
        ("shorter", "found a frame of", |lie, _| lie.image.len -= 4096),
        ("short", "expected 4096 at least", |lie, _| lie.image.len = 4095),
        ("huge", "cannot take 1152921504606846976 bytes", |lie, _| lie.image.len = 1 << 60),
        ("another digest", "has the digest", |lie, one| lie.image.digest = one.artifact.image_blob().digest),
        ("another image", "blocks that are not those", |lie, one| {
            (lie.compressed, lie.image) = (one.artifact.compressed, one.artifact.image);
        }),
        ("a pack", "expected one of", |lie, one| lie.compressed = Some(one.artifact.packs[0])),
        ("the configuration", "found no frame", |lie, _| lie.compressed = Some(lie.config)),
    ];
    for (what, why, lie) in lies {
        let mut artifact = two.artifact.clone();
        lie(&mut artifact, &one);
        if what == "a pack" {
            // No blob comes twice.
            artifact.packs.clear();
        }
        place.manifest(&artifact, "lie");
        let error = place.try_pull("lie").expect_err(what);
        assert!(error.contains(why) && error.len() < 600, "{what}: {error}");
        let files = tree(&place.path().join("store/blobs/sha256"));
        assert!(files.len() <= 2, "{what}: {files:?}");
        place.registry.right();
    }
    place.pull("two");
    place.check("two", &two);
}
