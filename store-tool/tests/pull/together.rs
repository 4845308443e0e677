// SPDX-License-Identifier: GPL-2.0-or-later

//! Pulls at once.

use mkfs_tesserafs::progress::Silent;
use tesserafs_store::pull::report::Report;

use super::images::two;
use super::support::store::tree;
use super::{bytes, name_of, pull, Place};

/// Pulls these tags at once.
fn together(place: &Place, tags: &[&str]) -> Vec<Report> {
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            tags.iter().map(|tag| scope.spawn(move || pull(&place.request(tag), &Silent))).collect();
        pulls.into_iter().map(|pull| pull.join().expect("a thread").expect("an image")).collect()
    })
}

#[test]
fn twenty_pulls_of_one_image_fetch_each_byte_once() {
    let place = Place::new();
    let image = place.image("image.tess", &[("a", 1, 3_000_000)], &[]);
    place.publish_index(&image, "v1");
    let reports = together(&place, &["v1"; 20]);
    place.check("v1", &image);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
    let all: u64 = image.artifact.files().map(|layer| layer.len).sum();
    assert_eq!(reports.iter().map(|report| report.fetched_bytes).sum::<u64>(), all);
    let asked = place.asked();
    for blob in image.artifact.files().chain([image.artifact.config]) {
        assert_eq!(bytes(&asked[&name_of(&blob.digest)]), blob.len, "{asked:?}");
    }
}

#[test]
fn images_that_share_a_pack_can_come_at_once() {
    let place = Place::new();
    let images = two(&place);
    let [one, two] = &images;
    place.publish(one, "v1");
    place.publish(two, "v2");
    together(&place, &["v1", "v2", "v1", "v2", "v1", "v2"]);
    place.check("v1", one);
    place.check("v2", two);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
    // The pack that both need may come for each of them, as neither believes what the other one has until it is complete.
    let asked = place.asked();
    let shared = bytes(&asked[&name_of(&one.artifact.packs[0].digest)]);
    assert!(shared <= 2 * one.artifact.packs[0].len, "{asked:?}");
    assert_eq!(bytes(&asked[&name_of(&two.artifact.packs[1].digest)]), two.artifact.packs[1].len);
}
