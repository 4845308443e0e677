// SPDX-License-Identifier: GPL-2.0
//! The verdict on every broken image, by the format crate and by fsck.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Source};
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use mkfs_tesserafs::convert::{storage_order, Tables};
use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{Chunk, Pack, PackIndex, PackKind};
use tesserafs_guest::plan::Mutants;
use tesserafs_image::diff::{diff, needs};
use tesserafs_image::unchecked::Unchecked;
use tesserafs_image::{sbom, superblock, VerifiedMetadata};

use super::parts::{digest, Parts};
use super::reader;
use super::*;
use crate::sign::{self, Signer};
use crate::tools::Tools;

/// Steps that a walk of an image of a few dozen files takes at most, whatever it says.
const STEPS_MAX: u64 = 200_000;

/// How long fsck may take for an image of a few dozen files.
const LIMIT: Duration = Duration::from_secs(20);

/// The good image, unless this user cannot make it.
fn good() -> Option<Parts> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make whiteouts and trusted xattrs");
        return None;
    }
    let tools = Tools::of_tests().unwrap();
    Some(Parts::read(&good::scratch(&tools).unwrap()).unwrap())
}

/// The report of fsck; it is interrupted, and the test fails, if it does not end.
fn fsck(image: &[u8], path: &Path, options: &Options) -> Report {
    std::fs::write(path, image).unwrap();
    let source = Source::open(path).unwrap();
    let (cancel, (done, wait)) = (Cancel::default(), mpsc::channel::<()>());
    std::thread::scope(|scope| {
        let flag = cancel.flag().clone();
        scope.spawn(move || {
            if wait.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let report = check(&source, options, &Silent, &cancel);
        drop(done);
        assert!(!cancel.is_set(), "fsck did not end within {LIMIT:?}");
        report
    })
}

fn options() -> Options {
    Options { threads: 1, ..Options::default() }
}

/// The verdicts of both on an image, if they are not the expected ones.
fn disagreement(case: &Case, image: &[u8], path: &Path, options: &Options) -> Option<String> {
    let reading = reader::read(image);
    let report = fsck(image, path, options);
    let found: Vec<&str> = report.totals.keys().map(|rule| rule.name()).collect();
    let by_fsck = match case.fsck {
        Some(rule) => report.totals.contains_key(&rule),
        None => report.totals.is_empty(),
    };
    let sane = reading.wrong.is_empty() && reading.steps < STEPS_MAX;
    if case.kernel.is_verdict_of(&reading) && by_fsck && sane {
        return None;
    }
    let met: Vec<String> =
        reading.failures.iter().map(|failure| format!("{:?} {}", failure.at, failure.error)).collect();
    let refusal = reading.refusal.map(|refusal| format!("{refusal:?}"));
    Some(format!(
        "{}: {:?} {:?}\n  reader: {refusal:?} {met:#?} {:?}\n  fsck: {found:?} {:?}",
        case.name,
        case.kernel,
        case.fsck.map(|rule| rule.name()),
        reading.wrong,
        report.error
    ))
}

#[test]
fn each_rule_gets_its_verdict() {
    let Some(good) = good() else { return };
    let folder = crate::trees::in_memory().unwrap();
    let cases = rules::all();
    let names: HashSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two rules have one name");
    assert!(cases.len() >= 150, "only {} rules", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let image = match case.image(&good, None) {
            Ok(image) => image,
            Err(error) => {
                failures.push(format!("{}: {error:#}", case.name));
                continue;
            }
        };
        failures.extend(disagreement(case, &image, &folder.path().join("image"), &options()));
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    check_memory();
}

/// Rules that no record can break: they were proven before, or are about something outside of the image;
/// one that takes more than 64 GiB of zeros, which no guest reads in the time that it has; and one that
/// fsck looks at only where it is asked to, and no kernel.
const OUT_OF_REACH: [Rule; 6] = [
    Rule::InodeNumber,
    Rule::ContentIndex,
    Rule::ImageId,
    Rule::Signature,
    Rule::ContentHoles,
    Rule::Canonical,
];

#[test]
fn every_rule_of_the_format_is_broken_by_one() {
    let mut broken: HashSet<Rule> = HashSet::new();
    for case in rules::all() {
        broken.extend(case.fsck);
        match case.kernel {
            Kernel::Refuses(rule) | Kernel::Fails(_, rule) => drop(broken.insert(rule)),
            Kernel::LacksPack | Kernel::Reads => (),
        }
    }
    for rule in Rule::ALL {
        assert_eq!(broken.contains(rule), !OUT_OF_REACH.contains(rule), "{}", rule.name());
    }
}

/// The rules that the specification says the kernel never finds broken.
fn whole_image() -> Vec<&'static str> {
    let spec = include_str!("../../../format/FORMAT.md");
    let (_, list) = spec.split_once("it never finds broken:").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    list.split(',').map(|name| name.trim().trim_matches('`')).collect()
}

#[test]
fn the_kernel_finds_what_the_specification_says() {
    let list = whole_image();
    let mut by_kernel: HashSet<Rule> = HashSet::new();
    for case in rules::all() {
        if let Kernel::Refuses(rule) | Kernel::Fails(_, rule) = case.kernel {
            by_kernel.insert(rule);
        }
    }
    for rule in Rule::ALL.iter().filter(|rule| !OUT_OF_REACH.contains(rule)) {
        assert_eq!(by_kernel.contains(rule), !list.contains(&rule.name()), "{}", rule.name());
    }
    let is_known = |name: &&str| Rule::ALL.iter().any(|rule| rule.name() == *name);
    assert!(list.iter().all(is_known), "{list:?}");
}

/// KiB that all of these tests may have in memory at once: the image is small, whatever it says of itself.
const MEMORY_MAX: u64 = 256 << 10;

/// Looks at the most that this process ever had in memory.
fn check_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
    let peak: u64 = peak.trim().parse().unwrap();
    assert!(peak < MEMORY_MAX, "{peak} KiB in memory");
}

/// Signed, by a key that fsck is told to trust.
#[test]
fn a_signature_makes_no_broken_image_good() {
    let Some(good) = good() else { return };
    let folder = crate::trees::in_memory().unwrap();
    let signer = Signer::scratch(folder.path(), "signer").unwrap();
    let sign = |prefix: &[u8]| sign::over(&signer, prefix);
    let trusted = fsck_tesserafs::check_signature::Certificate::read_pem(&signer.certificate).unwrap();
    let options = Options { trusted, ..options() };
    let (mut image, layout) = good.lay_out().unwrap();
    digest(&mut image, &layout).unwrap();
    sign_with(&mut image, Some(&sign)).unwrap();
    let path = folder.path().join("image");
    let report = fsck(&image, &path, &options);
    assert!(report.is_clean() && report.signature_is_trusted == Some(true), "{:?}", report.findings);
    let mut failures = Vec::new();
    for case in rules::all() {
        let image = case.image(&good, Some(&sign)).unwrap();
        failures.extend(disagreement(&case, &image, &path, &options));
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_is_taken_apart_and_put_together_is_the_same() {
    let Some(good) = good() else { return };
    let (mut image, layout) = good.lay_out().unwrap();
    digest(&mut image, &layout).unwrap();
    let folder = crate::trees::in_memory().unwrap();
    let report = fsck(&image, &folder.path().join("image"), &options());
    assert!(report.is_clean(), "{:?} {:?}", report.findings, report.error);
    let reading = reader::read(&image);
    assert!(reading.refusal.is_none() && reading.failures.is_empty() && reading.wrong.is_empty());
    assert_eq!((reading.inodes, reading.lost_names), (good.inodes.len(), 0));
}

/// No reader panics, hangs, or reads bytes that were never written; and fsck sees everything that the kernel
/// stumbles over.
#[test]
fn ten_thousand_mutants_harm_nobody() {
    // As many as a guest gets.
    let (seed, count) = (1_000_000, 10_000);
    let Some(good) = good() else { return };
    let folder = crate::trees::in_memory().unwrap();
    let (path, good_path) = (folder.path().join("image"), folder.path().join("good"));
    let (mut whole, layout) = good.lay_out().unwrap();
    digest(&mut whole, &layout).unwrap();
    std::fs::write(&good_path, whole).unwrap();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    random::mutants(&good, seed, count, None, |mutant| {
        let reading = reader::read(&mutant.image);
        let name = &mutant.name;
        assert!(reading.wrong.is_empty(), "{name}: {:?}", reading.wrong);
        assert!(reading.steps < STEPS_MAX, "{name}: {} steps", reading.steps);
        let options = quick(&mutant.image);
        let report = fsck(&mutant.image, &path, &options);
        assert!(report.error.is_none(), "{name}: {:?}", report.error);
        let is_met = reading.refusal.is_some() || !reading.failures.is_empty();
        let is_data = |failure: &reader::Failure| matches!(failure.at, At::Data | At::Beginning | At::Across);
        let is_skipped =
            options.metadata_only && reading.refusal.is_none() && reading.failures.iter().all(is_data);
        let is_seen = !report.totals.is_empty() || is_skipped;
        assert!(!is_met || is_seen, "{name}: {:?}", reading.failures);
        // Of a frame both say the same.
        for rule in [Rule::ChunkDecode, Rule::ChunkBlocks] {
            let is_met = reading.failures.iter().any(|failure| failure.error.rule == rule);
            let is_seen = report.totals.contains_key(&rule) || options.metadata_only;
            assert!(!is_met || is_seen, "{name}: {}, and fsck says {:?}", rule.name(), report.totals.keys());
        }
        others(&good_path, &path);
        let kind = match (reading.refusal.is_some(), is_met, report.totals.is_empty()) {
            (true, ..) => "refused",
            (_, true, _) => "fails",
            (.., false) => "fsck only",
            _ => "valid",
        };
        *kinds.entry(kind).or_default() += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(kinds.values().sum::<usize>(), count);
    // No kind is left out: else the numbers are badly chosen.
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    check_memory();
}

/// Lets those look at a broken image who look at images that nobody has checked; whatever they say of it.
fn others(good: &Path, broken: &Path) {
    let sources = [good, broken].map(|path| Source::open(path).unwrap());
    let Ok(broken) = superblock::read(&sources[1]) else { return };
    let good = superblock::read(&sources[0]).unwrap();
    let (good, broken) =
        (VerifiedMetadata::new(&sources[0], &good), VerifiedMetadata::new(&sources[1], &broken));
    let (a, b) = (Unchecked::new(&good), Unchecked::new(&broken));
    let _ = diff(&a, &b, &[]);
    let _ = needs(&a, &b);
    if let Ok(tables) = Tables::read(&b.image) {
        storage_order(&tables, &broken.superblock().profile);
    }
    let _ = sbom::stored(&broken);
    if let Ok(tree) = sbom::ImageTree::open(&broken, Path::new("")) {
        let _ = sbom::inventory(tree.names(), &tree);
        let _ = sbom::check::check(&tree, None, 1, &Cancel::default());
    }
}

/// Directories that contain a directory above them end a walk with an error that names the image, whichever of two it is.
#[test]
fn nobody_walks_in_a_circle() {
    let Some(good) = good() else { return };
    let folder = crate::trees::in_memory().unwrap();
    let (path, good_path) = (folder.path().join("circle"), folder.path().join("good"));
    let (mut whole, layout) = good.lay_out().unwrap();
    digest(&mut whole, &layout).unwrap();
    std::fs::write(&good_path, &whole).unwrap();
    let is_circle = |case: &Case| case.name.contains("-contains-");
    let circles: Vec<Case> = rules::all().into_iter().filter(is_circle).collect();
    assert_eq!(circles.len(), 6);
    for case in circles {
        std::fs::write(&path, case.image(&good, None).unwrap()).unwrap();
        for (a, b) in [(&good_path, &path), (&path, &good_path)] {
            let sources = [a, b].map(|path| Source::open(path).unwrap());
            let sbs = [&sources[0], &sources[1]].map(|source| superblock::read(source).unwrap());
            let (a, b) =
                (VerifiedMetadata::new(&sources[0], &sbs[0]), VerifiedMetadata::new(&sources[1], &sbs[1]));
            let error = diff(&Unchecked::new(&a), &Unchecked::new(&b), &[]).expect_err(case.name);
            assert!(error.to_string().contains("/circle: "), "{}: {error}", case.name);
        }
    }
}

/// The good image in the shared form: pack 0 is empty, and its bytes are another pack.
fn in_packs(mut good: Parts) -> Parts {
    let pack = std::mem::take(&mut good.pack);
    let record = |index, kind, bytes: &[u8]| {
        let digest = tesserafs_format::Digest(super::parts::sha256(bytes));
        Pack { index: PackIndex(index), kind, digest, bytes: bytes.len() as u64 }.to_raw()
    };
    good.packs = vec![record(0, PackKind::Embedded, &[]), record(1, PackKind::File, &pack)];
    for chunk in &mut good.chunks {
        chunk.place = Chunk::place(PackIndex(1), chunk.offset()).unwrap().into();
    }
    good
}

/// Broken images below and above a good one: they are composed, or refused, in a time that is bounded, and nothing is left of what is refused.
#[test]
fn mutants_are_composed_or_refused() {
    let (seed, count) = (3_000_000, 1000);
    let Some(good) = good() else { return };
    let good = in_packs(good);
    let folder = crate::trees::in_memory().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (mut whole, layout) = good.lay_out().unwrap();
    digest(&mut whole, &layout).unwrap();
    std::fs::write(at("good"), whole).unwrap();
    let layer = |name: &str| LayerPath { image: at(name), at: Vec::new() };
    let mut composed = [0, 0];
    random::mutants(&good, seed, count, None, |mutant| {
        std::fs::write(at("mutant"), &mutant.image).unwrap();
        for (is_upper, layers) in [["mutant", "good"], ["good", "mutant"]].into_iter().enumerate() {
            let composition = Composition {
                output: at("new"),
                layers: layers.map(layer).into(),
                partial: is_upper == 1,
                annotations: Default::default(),
                force: false,
            };
            let (result, new) = (compose(&composition), at("new"));
            assert_eq!(result.is_ok(), new.exists(), "{}: {:?}", mutant.name, result.err());
            if result.is_ok() {
                composed[is_upper] += 1;
                std::fs::remove_file(new).unwrap();
            }
        }
        Ok(())
    })
    .unwrap();
    // Some break nothing that is looked at, and most something.
    assert!(composed.iter().all(|composed| (1..count).contains(composed)), "{composed:?}");
    check_memory();
}

/// fsck hashes the zeros of holes of up to 8 GiB, as the format wants it: that is left out here.
fn quick(image: &[u8]) -> Options {
    let long = (1 << 28)..=PLAIN_DIGEST_MAX;
    let is_long = Parts::sizes(image).is_ok_and(|sizes| sizes.iter().any(|size| long.contains(size)));
    Options { metadata_only: is_long, ..options() }
}

#[test]
fn mutants_are_made_again_from_their_number() {
    let Some(good) = good() else { return };
    let collect = || {
        let mut all = Vec::new();
        random::mutants(&good, 77, 50, None, |mutant| {
            all.push((mutant.name, parts::sha256(&mutant.image)));
            Ok(())
        })
        .unwrap();
        all
    };
    let first = collect();
    assert_eq!(first, collect());
    assert_eq!(first.iter().map(|(_, digest)| digest).collect::<HashSet<_>>().len(), 50);
}

#[test]
fn the_guest_gets_what_was_made() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = crate::trees::in_memory().unwrap();
    let tools = Tools::of_tests().unwrap();
    let signer = Signer::scratch(folder.path(), "signer").unwrap();
    pack::stage(&tools, folder.path(), &|prefix| sign::over(&signer, prefix), 1, 100).unwrap();
    let staged = Mutants::load(&folder.path().join(pack::MUTANTS)).unwrap();
    let good = std::fs::read(folder.path().join(&staged.image)).unwrap();
    assert_eq!(staged.list.len(), rules::all().len() + 100);
    for mutant in &staged.list {
        let mut image = good.clone();
        image.resize(mutant.length as usize, 0);
        for patch in &mutant.patches {
            image[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        let expected = pack::expected(&reader::read(&image));
        assert_eq!(expected, mutant.expected, "{}", mutant.name);
    }
    let bytes: usize =
        staged.list.iter().flat_map(|mutant| &mutant.patches).map(|patch| patch.bytes.len()).sum();
    assert!(bytes < staged.list.len() * 8000, "{bytes} bytes of patches");
}

#[test]
fn patches_make_the_mutant_of_the_good_image() {
    let good: Vec<u8> = (0..100).collect();
    let mut broken = good.clone();
    (broken[3], broken[9], broken[60]) = (0xff, 0xff, 0xff);
    for len in [100, 50, 120] {
        broken.resize(len, 7);
        let patches = pack::patches(&good, &broken).unwrap();
        let mut made = good.clone();
        made.resize(len, 0);
        for patch in &patches {
            made[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert_eq!(made, broken);
    }
    assert_eq!(pack::patches(&good, &good).unwrap(), []);
}

/// Odd and valid, and in no form that a builder gives the superblock or a chunk.
const NOT_CANONICAL: [&str; 10] = [
    "compat-all-bits",
    "frame-by-hand",
    "frame-window-of-1-mib",
    "frame-window-too-short",
    "frame-window-of-2-gib",
    "frame-dictionary-none",
    "frame-checksum",
    "codec-x86-of-what-is-no-code",
    "codec-plain-of-text",
    "block-of-libzstd",
];

/// An oddity that is valid is canonical in the tree, and not in the superblock or the form of a chunk.
#[test]
fn fsck_tells_which_odd_images_no_builder_makes() {
    let Some(good) = good() else { return };
    let folder = crate::trees::in_memory().unwrap();
    let path = folder.path().join("image");
    let options = Options { canonical: true, ..options() };
    let canonical = |image: &[u8]| fsck(image, &path, &options).canonical;
    let unchanged = Case { name: "", kernel: Kernel::Reads, fsck: None, breaks: Break::Records(|_| Ok(())) };
    assert_eq!(canonical(&unchanged.image(&good, None).unwrap()), Some(true));
    for case in rules::all().iter().filter(|case| case.fsck.is_none()) {
        let expected = match case.name {
            // Beside the image there is no pack.
            "pack-external" => continue,
            // Nobody knows what that version makes.
            "profile-zstd-version-max" => None,
            name => Some(!NOT_CANONICAL.contains(&name)),
        };
        assert_eq!(canonical(&case.image(&good, None).unwrap()), expected, "{}", case.name);
    }
}
