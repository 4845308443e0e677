// SPDX-License-Identifier: GPL-2.0-or-later

//! A registry that does wrong: either the right image comes, or one sentence; and the next pull goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mkfs_tesserafs::progress::Silent;

use super::images::two;
use super::registry::Wrong;
use super::support::store::{problems, tree};
use super::{bytes, name_of, pull, Made, Place};

/// Numbers that look like nothing, the same ones for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn wrong(&mut self) -> Wrong {
        let escape = || "\u{1b}[31mred\r\n".to_owned();
        match self.below(24) {
            0 => Wrong::Status(401, Vec::new(), escape()),
            1 => Wrong::Status(403, Vec::new(), escape()),
            2 => Wrong::Status(404, Vec::new(), escape()),
            3 => Wrong::Status(416, Vec::new(), escape()),
            4 => Wrong::Status(429, Vec::new(), escape()),
            5 => Wrong::Status(429, vec![("Retry-After", "1000".to_owned())], escape()),
            6 => Wrong::Status(
                500,
                Vec::new(),
                r#"{"errors":[{"code":"\u001b[31m","message":"\u001b]0;x\u0007"}]}"#.to_owned(),
            ),
            7 => Wrong::Status(503, vec![("Retry-After", "0".to_owned())], escape()),
            8 => Wrong::Status(307, vec![("Location", "http://127.0.0.1:1/dead".to_owned())], escape()),
            9 => Wrong::Status(302, vec![("Location", "\u{9b}31m:".to_owned())], escape()),
            10 => Wrong::Status(206, vec![("Content-Range", "bytes 0-3/4".to_owned())], "wron".to_owned()),
            11 => Wrong::Status(200, Vec::new(), "wrong".to_owned()),
            12 => Wrong::Cut(self.below(200_000) as usize),
            13 => Wrong::Cut(0),
            14 => Wrong::Closed,
            15 => Wrong::Whole,
            16 => Wrong::ContentRange(format!("bytes {}-{}/*", self.below(9), self.below(1 << 40))),
            17 => Wrong::ContentLength(self.below(1 << 50).to_string()),
            18 => Wrong::ContentLength("\u{1b}[2J".to_owned()),
            19 => Wrong::Endless,
            20 => Wrong::Silent(Duration::from_millis(350)),
            21 => Wrong::Header("Content-Encoding", "gzip".to_owned()),
            _ => Wrong::Flip,
        }
    }
}

/// Everything outside of the store.
fn outside(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = tree(folder).into_iter().filter(|name| !name.starts_with("store/"));
    files.map(|name| (name.clone(), fs::read(folder.join(&name)).expect("a file"))).collect()
}

/// Pulls both images with something wrong, and then without.
fn one_run(place: &Place, [one, two]: &[Made; 2], seed: u64) -> bool {
    let mut random = Random(seed);
    let _ = fs::remove_dir_all(place.path().join("store"));
    let kinds = [
        "/manifests/v1".to_owned(),
        "/manifests/v2-index".to_owned(),
        "/manifests/sha256:".to_owned(),
        "/manifests/".to_owned(),
        "/blobs/".to_owned(),
        name_of(&two.artifact.image_blob().digest),
        name_of(&two.artifact.config.digest),
        name_of(&two.artifact.packs[0].digest),
        name_of(&two.artifact.packs[1].digest),
    ];
    for _ in 0..=random.below(3) {
        let kind = &kinds[random.below(kinds.len() as u64) as usize];
        let times = [1, 1, 2, 1000][random.below(4) as usize];
        place.registry.wrong_after("GET", kind, random.below(3) as usize, times, random.wrong());
    }
    let mut came = true;
    for (tag, image) in [("v1", one), ("v2-index", two)] {
        let mut request = place.request(tag);
        request.options.silence = Duration::from_millis(250);
        request.options.tries = 3;
        match pull(&request, &Silent) {
            Ok(_) => place.check(tag, image),
            Err(error) => {
                came = false;
                assert!(error.len() < 1200, "seed {seed}: {error}");
            }
        }
    }
    place.registry.right();
    // Bytes that are there by now do not come again.
    let had = (|| {
        let store = tesserafs_store::store::Store::open(&place.path().join("store")).ok()??;
        assert!(problems(&store).iter().all(|problem| !problem.is_error), "seed {seed}");
        let all = two.artifact.files();
        Some(all.filter(|layer| store.blob(&layer.digest).expect("a store").is_some()).collect::<Vec<_>>())
    })();
    place.asked();
    for (tag, image) in [("v1", one), ("v2-index", two)] {
        let mut request = place.request(tag);
        request.options.silence = Duration::from_secs(20);
        pull(&request, &Silent).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        place.check(tag, image);
    }
    let asked = place.asked();
    for blob in had.into_iter().flatten() {
        assert!(!asked.contains_key(&name_of(&blob.digest)), "seed {seed}: {asked:?}");
    }
    for blob in two.artifact.files() {
        let again = asked.get(&name_of(&blob.digest)).map_or(0, |ranges| bytes(ranges));
        assert!(again <= blob.len, "seed {seed}: {asked:?}");
    }
    // Of a pull that failed for good only what was begun is left.
    came
}

#[test]
fn the_right_image_comes_or_one_sentence() {
    let runs = std::env::var("TESSERAFS_TEST_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(240);
    let threads = 4;
    let came: u64 = std::thread::scope(|scope| {
        let runs = (0..threads).map(|thread| {
            scope.spawn(move || {
                let place = Place::new();
                let mut images = two(&place);
                if thread % 2 == 1 {
                    images.iter_mut().for_each(|image| drop(place.compress(image)));
                }
                place.publish(&images[0], "v1");
                place.publish_index(&images[1], "v2-index");
                let before = outside(place.path());
                let seeds = (0..runs).filter(|seed| seed % threads == thread);
                let came = seeds.filter(|seed| one_run(&place, &images, *seed)).count() as u64;
                assert_eq!(outside(place.path()), before);
                came
            })
        });
        runs.collect::<Vec<_>>().into_iter().map(|run| run.join().expect("a run")).sum()
    });
    eprintln!("{came} of {runs} runs ended well at once");
    // The client tries again: many of them come to their end. And some cannot.
    assert!(came > runs / 4 && came < runs * 19 / 20, "{came} of {runs}");
}
