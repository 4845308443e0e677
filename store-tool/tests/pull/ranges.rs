// SPDX-License-Identifier: GPL-2.0-or-later

//! The requests of a pull: ranges, by several connections, and the whole blob where a server knows no ranges.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mkfs_tesserafs::progress::{Progress, Silent};

use super::registry::{Registry, Wrong};
use super::support::noise;
use super::support::store::make;
use super::{bytes, exported, name_of, pull, unpacked, Made, Place, REPOSITORY};

/// A fault of a mirror, and a word for it.
type Kind = (&'static str, fn(&Registry, &Made));

/// Files of an image that is larger than one request.
const LARGE: [(&str, u64, usize); 4] =
    [("a", 1, 9_000_000), ("b", 2, 9_000_000), ("c", 3, 9_000_000), ("d", 4, 9_000_000)];

fn large(place: &Place) -> Made {
    let image = place.image("large.tess", &LARGE, &[]);
    place.publish(&image, "large");
    image
}

#[derive(Default)]
struct Count {
    found: AtomicU64,
    read: AtomicU64,
}

impl Progress for Count {
    fn found(&self, bytes: u64) {
        self.found.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Count {
    /// Bytes that were found; all of them were read.
    fn all(&self) -> u64 {
        let (found, read) = (self.found.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed));
        assert_eq!(found, read);
        found
    }
}

#[test]
fn several_connections_share_a_pack() {
    let place = Place::new();
    let image = large(&place);
    let pack = &image.artifact.packs[0];
    assert!(pack.len > 16 << 20);
    let count = Count::default();
    let report = pull(&place.request("large"), &count).expect("an image");
    place.check("large", &image);
    let seen = place.registry.seen();
    let connections: std::collections::HashSet<_> = seen.iter().map(|seen| seen.connection).collect();
    assert!((2..=8).contains(&connections.len()), "{connections:?}");
    let of_pack: Vec<_> = seen
        .iter()
        .filter(|seen| seen.target.contains(&name_of(&pack.digest)))
        .map(|seen| seen.range.clone().expect("a range"))
        .collect();
    assert_eq!(of_pack.len() as u64, pack.len.div_ceil(8 << 20), "{of_pack:?}");
    // Each byte once.
    assert_eq!(report.fetched_bytes, pack.len + image.artifact.image.len);
    assert_eq!(count.all(), report.fetched_bytes);
}

#[test]
fn an_answer_with_the_whole_blob_is_used_once() {
    let place = Place::new();
    let image = large(&place);
    let pack = &image.artifact.packs[0];
    for connections in [1, 6, 16] {
        let _ = std::fs::remove_dir_all(place.path().join("store"));
        place.registry.wrong("GET", "/blobs/", 1000, Wrong::Whole);
        let count = Count::default();
        let mut request = place.request("large");
        request.connections = NonZeroUsize::new(connections).expect("a number");
        place.asked();
        let report = pull(&request, &count).expect("an image");
        place.check("large", &image);
        assert_eq!(place.asked()[&name_of(&pack.digest)].len(), 1);
        assert_eq!(report.fetched_bytes, pack.len + image.artifact.image.len);
        assert_eq!(count.all(), report.fetched_bytes);
    }
    // Now and then one.
    std::fs::remove_dir_all(place.path().join("store")).expect("a store");
    place.registry.right();
    place.registry.wrong_after("GET", &name_of(&pack.digest), 1, 1, Wrong::Whole);
    let count = Count::default();
    let report = pull(&place.request("large"), &count).expect("an image");
    place.check("large", &image);
    assert!(report.fetched_bytes <= 2 * pack.len + image.artifact.image.len, "{report:?}");
    count.all();
}

#[test]
fn a_registry_may_ignore_ranges_now_and_then() {
    let place = Place::new();
    // Four packs, of each of which three files are wanted. The bytes between them are not worth fetching on any line.
    let names: Vec<_> =
        (0..4_u64).map(|pack| ["a", "b", "c", "d", "e"].map(|file| format!("{pack}{file}"))).collect();
    let files = |pack: usize| {
        names[pack].iter().zip(1..).map(move |(name, file)| {
            let len = if file % 2 == 1 { 50_000 } else { 600_000 };
            (name.as_str(), pack as u64 * 10 + file, len)
        })
    };
    let parents: Vec<_> = (0..4)
        .map(|pack| place.image(&format!("{pack}.tess"), &files(pack).collect::<Vec<_>>(), &[]))
        .collect();
    let wanted: Vec<_> = (0..4).flat_map(|pack| files(pack).step_by(2)).collect();
    let image = place.image("image.tess", &wanted, &parents.iter().collect::<Vec<_>>());
    let packs: Vec<_> = parents.iter().map(|parent| parent.artifact.packs[0]).collect();
    assert_eq!(image.artifact.packs.len(), 4);
    place.publish(&image, "image");
    // Of each pack the second answer is the whole pack, and those by ranges are late: they begin when no more is asked for.
    for pack in &packs {
        let late = Wrong::Silent(Duration::from_millis(150));
        place.registry.wrong("GET", &name_of(&pack.digest), 1, late.clone());
        place.registry.wrong("GET", &name_of(&pack.digest), 1, Wrong::Whole);
        place.registry.wrong("GET", &name_of(&pack.digest), 1000, late);
    }
    let mut request = place.request("image");
    request.connections = NonZeroUsize::new(2).expect("a number");
    let report = pull(&request, &Silent).expect("an image");
    assert_eq!(exported(&place, "image"), unpacked(&image));
    let all: u64 = image.artifact.files().map(|layer| layer.len).sum();
    assert!(report.fetched_bytes < 2 * all, "{report:?}");
}

#[test]
fn what_lies_between_chunks_is_fetched_where_it_is_small() {
    let place = Place::new();
    // Every second file is another image's alone. The first ones of these take less of the pack than the bytes that are not worth a request
    // on any line: noise that repeats, in a file that is too long for a group. The others take more than are worth it on any.
    let bytes_of = |seed: u64| match seed % 2 {
        1 => noise(seed, 100_000),
        _ if seed < 20 => noise(seed, 2000).repeat(50),
        _ => noise(seed, 900_000),
    };
    let contents: Vec<_> = (1..=40).map(|seed| (format!("f{seed:02}"), bytes_of(seed))).collect();
    let all: Vec<_> = contents.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let base = make(place.path(), "base.tess", &all, &[]);
    let half: Vec<_> = all.iter().copied().step_by(2).collect();
    let less = make(place.path(), "less.tess", &half, &[&base]);
    assert_eq!(less.artifact.packs[0], base.artifact.packs[0]);
    place.publish(&less, "less");
    let count = Count::default();
    let report = pull(&place.request("less"), &count).expect("an image");
    let asked = place.asked();
    let ranges = &asked[&name_of(&base.artifact.packs[0].digest)];
    // The files before the long gaps are one range, or two of them, and each behind one is one.
    assert!((10..=14).contains(&ranges.len()), "{ranges:?}");
    let mut sorted = ranges.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0].1 + (16 << 10) <= pair[1].0), "{sorted:?}");
    let others: u64 = less.artifact.files().skip(1).map(|layer| layer.len).sum();
    assert_eq!(bytes(ranges) + others, report.fetched_bytes);
    // Bytes between chunks are none of the progress.
    assert!(count.all() < report.fetched_bytes);
    assert_eq!(exported(&place, "less"), unpacked(&less));
}

#[test]
fn a_redirect_is_followed_once_for_each_blob() {
    let place = Place::new();
    let image = large(&place);
    let elsewhere = Registry::new();
    for blob in image.artifact.files() {
        let bytes = place.registry.blob(REPOSITORY, &name_of(&blob.digest)).expect("a blob");
        elsewhere.add_blob(REPOSITORY, &bytes);
        let target = format!("http://{}/v2/{REPOSITORY}/blobs/{}", elsewhere.host(), name_of(&blob.digest));
        let redirect = Wrong::Status(307, vec![("Location", target)], String::new());
        place.registry.wrong("GET", &name_of(&blob.digest), 1000, redirect);
    }
    place.pull("large");
    place.check("large", &image);
    let pack = name_of(&image.artifact.packs[0].digest);
    let asked = place.registry.targets().iter().filter(|target| target.contains(&pack)).count();
    assert_eq!(asked, 1);
    // A host that is gone: the registry is asked again, and says another one.
    std::fs::remove_dir_all(place.path().join("store")).expect("a store");
    elsewhere.wrong_after("GET", &pack, 2, 1000, Wrong::Status(403, Vec::new(), String::new()));
    place.registry.right();
    let target = format!("http://{}/v2/{REPOSITORY}/blobs/{pack}", elsewhere.host());
    place.registry.wrong("GET", &pack, 1, Wrong::Status(307, vec![("Location", target)], String::new()));
    place.pull("large");
    place.check("large", &image);
}

#[test]
fn bytes_that_no_chunk_has_may_come_wrong_once() {
    let place = Place::new();
    let files = [("a", 1, 300_000), ("b", 2, 6_000_000), ("c", 3, 6_000_000)];
    let base = place.image("base.tess", &files, &[]);
    // The pack begins with a file that the other image does not have.
    let less = place.image("less.tess", &files[1..], &[&base]);
    let pack = base.artifact.packs[0];
    assert_eq!(less.artifact.packs, [pack]);
    place.publish(&less, "less");
    let name = name_of(&pack.digest);
    let most = pack.len + 300_000 + less.artifact.image.len;

    place.registry.wrong("GET", &name, 1, Wrong::Flip);
    let count = Count::default();
    let report = pull(&place.request("less"), &count).expect("an image");
    place.check("less", &less);
    assert!(report.fetched_bytes > pack.len + less.artifact.image.len, "{report:?}");
    assert!(report.fetched_bytes < most, "{report:?}");
    count.all();

    // A mirror that always has them wrong.
    let mirror = Registry::new();
    for blob in less.artifact.files().chain([less.artifact.config]) {
        let bytes = place.registry.blob(REPOSITORY, &name_of(&blob.digest)).expect("a blob");
        mirror.add_blob(REPOSITORY, &bytes);
    }
    mirror.wrong("GET", &name, 1000, Wrong::Flip);
    std::fs::remove_dir_all(place.path().join("store")).expect("a store");
    let mut request = place.request("less");
    request.options.mirrors = vec![mirror.host()];
    let report = pull(&request, &Silent).expect("an image");
    place.check("less", &less);
    assert!(report.fetched_bytes < most, "{report:?}");
    assert!(mirror.targets().iter().any(|target| target.contains(&name)));

    // A registry that has no others.
    std::fs::remove_dir_all(place.path().join("store")).expect("a store");
    place.registry.wrong("GET", &name, 1000, Wrong::Flip);
    let error = place.try_pull("less").expect_err("other bytes");
    assert!(error.contains("the next pull begins it anew") && error.contains(&name), "{error}");
    assert!(place.store().blob(&pack.digest).expect("a store").is_none());
    place.registry.right();
    place.pull("less");
    place.check("less", &less);
}

#[test]
fn a_mirror_with_wrong_bytes_is_not_asked_again() {
    let place = Place::new();
    let image = large(&place);
    let kinds: [Kind; 5] = [
        ("pack", |mirror, image| {
            mirror.wrong("GET", &name_of(&image.artifact.packs[0].digest), 1000, Wrong::Flip)
        }),
        ("image", |mirror, image| {
            mirror.wrong("GET", &name_of(&image.artifact.image.digest), 1000, Wrong::Flip)
        }),
        ("configuration", |mirror, image| {
            mirror.wrong("GET", &name_of(&image.artifact.config.digest), 1000, Wrong::Flip)
        }),
        ("all", |mirror, _| mirror.wrong("GET", "/blobs/", 1000, Wrong::Flip)),
        ("nothing", |mirror, _| {
            mirror.wrong("GET", "/blobs/", 1000, Wrong::Status(404, Vec::new(), String::new()))
        }),
    ];
    for (what, spoil) in kinds {
        let mirror = Registry::new();
        for blob in image.artifact.files().chain([image.artifact.config]) {
            let bytes = place.registry.blob(REPOSITORY, &name_of(&blob.digest)).expect("a blob");
            mirror.add_blob(REPOSITORY, &bytes);
        }
        mirror.add_manifest(REPOSITORY, "large", super::MANIFEST, &image.artifact.to_manifest());
        spoil(&mirror, &image);
        let _ = std::fs::remove_dir_all(place.path().join("store"));
        let mut request = place.request("large");
        request.options.mirrors = vec![mirror.host()];
        request.options.tries = 2;
        pull(&request, &Silent).unwrap_or_else(|error| panic!("{what}: {error}"));
        place.check("large", &image);
        assert!(mirror.targets().len() < 20, "{what}");
    }
}
