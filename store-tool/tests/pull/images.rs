// SPDX-License-Identifier: GPL-2.0-or-later

//! Images come as they were pushed, and what is there does not come again.

use std::fs;

use mkfs_tesserafs::progress::Silent;
use tesserafs_format::Digest;
use tesserafs_store::reference::Reference;

use super::registry::Access;
use super::support::store::{make, problems, reference, tree, CONFIG};
use super::support::{self, build_with, done, noise, signer};
use super::{exported, name_of, pull, unpacked, Place, INDEX, REPOSITORY};

/// An image of two packs, and the one that its first pack comes from.
pub(super) fn two(place: &Place) -> [super::Made; 2] {
    let one = place.image("one.tess", &[("base", 1, 300_000)], &[]);
    let two = place.image("two.tess", &[("base", 1, 300_000), ("more", 2, 120_000)], &[&one]);
    assert_eq!((one.artifact.packs.len(), two.artifact.packs.len()), (1, 2));
    [one, two]
}

#[test]
fn an_image_comes_once() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish_index(&one, "v1");
    let report = place.pull("v1");
    place.check("v1", &one);
    let all: u64 = one.artifact.files().map(|layer| layer.len).sum();
    assert_eq!((report.bytes, report.fetched_bytes, report.requests), (all, all, 2));
    assert_eq!((report.copied_bytes, report.encoded_bytes, report.delta.is_none()), (0, 0, true));
    assert_eq!(report.image_id, name_of(&one.artifact.image_id));
    // Index, manifest, image, configuration, pack.
    let targets = place.registry.targets();
    assert_eq!(targets.len(), 5, "{targets:?}");
    let before = tree(place.store().path());

    let again = place.pull("v1");
    assert_eq!((again.fetched_bytes, again.requests), (0, 0));
    let targets = place.registry.targets();
    assert_eq!(targets, [format!("GET /v2/{REPOSITORY}/manifests/v1")]);
    assert_eq!(tree(place.store().path()), before);

    // By the digest of the manifest nobody is asked.
    let digest = report.manifest;
    assert_eq!(place.pull(&digest).fetched_bytes, 0);
    assert_eq!(place.registry.targets(), [""; 0]);
    place.check(&digest, &one);
}

#[test]
fn by_a_digest_comes_what_has_it() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish_index(&one, "v1");
    let digest = |tag: &str| super::registry::digest(&place.registry.manifest(REPOSITORY, tag).expect("one"));
    let (index, manifest) = (digest("v1"), digest("v1-tesserafs"));
    place.pull(&index);
    place.check(&index, &one);
    place.pull(&manifest);
    place.check(&manifest, &one);
    // A registry that has other bytes under it.
    let other = name_of(&Digest([7; 32]));
    place.registry.add_manifest(REPOSITORY, &other, super::MANIFEST, &two.artifact.to_manifest());
    let error = place.try_pull(&other).expect_err("another manifest");
    assert!(error.contains("found a manifest with the digest") && error.contains(&other), "{error}");
    let unknown = place.try_pull("nowhere").expect_err("no manifest");
    assert!(unknown.contains("the registry has no manifest nowhere"), "{unknown}");
}

#[test]
fn the_next_image_is_what_is_new() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "v1");
    place.publish(&two, "v2");
    place.pull("v1");
    place.asked();
    let report = place.pull("v2");
    place.check("v2", &two);
    let asked = place.asked();
    assert!(!asked.contains_key(&name_of(&one.artifact.packs[0].digest)), "{asked:?}");
    assert_eq!(report.fetched_bytes, two.artifact.packs[1].len + two.artifact.image.len);
    // Under one name: what was there stays until it is collected.
    place.publish(&two, "v1");
    assert_eq!(place.pull("v1").fetched_bytes, 0);
    place.check("v1", &two);
}

#[test]
fn what_other_images_have_is_copied_or_encoded() {
    let place = Place::new();
    let bytes = noise(1, 500_000);
    let first = make(place.path(), "first.tess", &[("a", &bytes)], &[]);
    place.publish(&first, "first");
    // The same chunks in another pack, beside new ones.
    let more = noise(5, 90_000);
    let second = make(place.path(), "second.tess", &[("a", &bytes), ("b", &more)], &[]);
    assert_ne!(first.artifact.packs, second.artifact.packs);
    place.publish(&second, "second");
    place.pull("first");
    place.asked();
    let report = place.pull("second");
    place.check("second", &second);
    let pack = &second.artifact.packs[0];
    assert!(report.copied_bytes > pack.len / 2, "{report:?}");
    assert!(report.fetched_bytes < pack.len / 3 + second.artifact.image.len, "{report:?}");

    // The same raw bytes, compressed otherwise.
    let root = place.path().join("root");
    fs::remove_dir_all(&root).expect("a folder");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("a"), &bytes).expect("a file");
    let path = place.path().join("third.tess");
    build_with(place.path(), |config| {
        config.image.clone_from(&path);
        config.profile = mkfs_tesserafs::config::default_profile(9);
        config.shared = Some(mkfs_tesserafs::packs::SharedForm {
            dir: first.packs.clone(),
            parents: vec![],
            rebase: false,
        });
    });
    let artifact = support::store::artifact(&path);
    let third = super::Made { path, packs: first.packs.clone(), artifact };
    place.publish(&third, "third");
    let report = place.pull("third");
    place.check("third", &third);
    assert_eq!(report.fetched_bytes, third.artifact.image.len, "{report:?}");
    assert!(report.encoded_bytes > 0, "{report:?}");
}

#[test]
fn an_image_in_one_file_is_one_blob() {
    let place = Place::new();
    let build = |name: &str, seed: u64| {
        let root = place.path().join("root");
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("a"), noise(1, 300_000)).expect("a file");
        fs::write(root.join("b"), noise(seed, 100_000)).expect("a file");
        let path = place.path().join(name);
        build_with(place.path(), |config| config.image.clone_from(&path));
        let artifact = support::store::artifact(&path);
        super::Made { packs: place.path().to_owned(), path, artifact }
    };
    let (one, two) = (build("one.tess", 2), build("two.tess", 3));
    assert!(one.artifact.packs.is_empty());
    place.publish(&one, "v1");
    place.publish(&two, "v2");
    let report = place.pull("v1");
    assert_eq!(report.fetched_bytes, one.artifact.image.len);
    place.check("v1", &one);
    let report = place.pull("v2");
    place.check("v2", &two);
    assert!(report.fetched_bytes < two.artifact.image.len / 2, "{report:?}");
    assert!(report.copied_bytes > 0, "{report:?}");
}

#[test]
fn a_pack_of_which_an_image_needs_little_stays_its_own_until_another_one_needs_all() {
    let place = Place::new();
    let all: Vec<_> =
        ["a", "b", "c", "d"].into_iter().zip(1..).map(|(name, seed)| (name, seed, 200_000)).collect();
    let base = place.image("base.tess", &all, &[]);
    let less = place.image("less.tess", &all[..2], &[&base]);
    assert_eq!(less.artifact.packs, base.artifact.packs);
    place.publish(&less, "less");
    place.publish(&base, "base");
    let report = place.pull("less");
    let pack = &base.artifact.packs[0];
    assert!(report.fetched_bytes < pack.len * 6 / 10, "{report:?}");
    // Nor does the rest of it take room.
    let taken = super::hostile::taken(&place.store().path().join("filling"));
    assert!(
        taken < (pack.len * 7 / 10) + less.artifact.image.len.next_multiple_of(4096),
        "{taken} of {}",
        pack.len
    );
    assert_eq!(problems(&place.store()), []);
    assert!(place.store().blob(&pack.digest).expect("a store").is_none());
    assert_eq!(exported(&place, "less"), unpacked(&less));
    // Again nothing comes.
    assert_eq!(place.pull("less").fetched_bytes, 0);
    assert_eq!(exported(&place, "less"), unpacked(&less));

    let report = place.pull("base");
    place.check("base", &base);
    assert!(report.copied_bytes > pack.len * 4 / 10, "{report:?}");
    assert!(report.fetched_bytes < pack.len * 6 / 10 + base.artifact.image.len, "{report:?}");
    assert_eq!(exported(&place, "less"), unpacked(&less));
    // Its own copy goes when it is asked for again.
    assert_eq!(place.pull("less").fetched_bytes, 0);
    place.check("less", &less);
    let left = tree(&place.store().path().join("filling"));
    assert_eq!(left, [""; 0]);
}

#[test]
fn the_signer_is_asked_for_before_a_pack_comes() {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    let (signed_by, _) = (signer(folder.path()), signer(&other));
    fs::create_dir_all(place.path().join("root")).expect("a folder");
    fs::write(place.path().join("root/a"), noise(1, 300_000)).expect("a file");
    let packs = place.path().join("packs");
    fs::create_dir(&packs).expect("a folder");
    let build = |name: &str, signer| {
        let path = place.path().join(name);
        build_with(place.path(), |config| {
            config.image.clone_from(&path);
            config.signer = signer;
            config.shared = Some(mkfs_tesserafs::packs::SharedForm {
                dir: packs.clone(),
                parents: Vec::new(),
                rebase: false,
            });
        });
        let artifact = support::store::artifact(&path);
        super::Made { path, packs: packs.clone(), artifact }
    };
    let (signed, plain) = (build("signed.tess", Some(signed_by)), build("plain.tess", None));
    place.publish(&signed, "signed");
    place.publish(&plain, "plain");
    let ask = |tag: &str, cert: &std::path::Path| {
        let mut request = place.request(tag);
        request.signers = vec![cert.join("signer.pem")];
        pull(&request, &Silent)
    };
    let pack = name_of(&signed.artifact.packs[0].digest);
    for (tag, cert, said) in [
        ("signed", &*other, "expected a signature by a trusted key"),
        ("plain", folder.path(), "found no signature"),
    ] {
        let error = ask(tag, cert).expect_err("refused");
        assert!(error.contains(said) && error.contains(&place.name(tag)), "{error}");
        assert!(!place.asked().contains_key(&pack));
        assert!(place.store().image(&super::reference(&place.name(tag))).expect("a store").is_none());
    }
    ask("signed", folder.path()).expect("the right signer");
    place.check("signed", &signed);
    // In the store already, and refused all the same.
    ask("signed", &other).expect_err("refused");
    assert!(ask("signed", &folder.path().join("nowhere")).expect_err("no file").contains("nowhere"));
}

#[test]
fn a_manifest_that_stands_in_the_index_is_not_asked_for() {
    use mkfs_tesserafs::source::oci::Platform;
    use tesserafs_store::artifact::{Blob, Entry, Index};

    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "one");
    let (manifest, other) = (one.artifact.to_manifest(), two.artifact.to_manifest());
    let entry = Entry::ours(Blob::of(&manifest), &Platform::host());
    // Nothing but the manifest itself is believed: neither another one, nor a part of it, nor what is no base64.
    let of = |data: &[u8]| Index { entries: vec![entry.clone().with_embedded(data)] }.to_document();
    let right = String::from_utf8(of(&manifest)).expect("text");
    let bent = right.replace("\"org.tesserafs.manifest\":\"", "\"org.tesserafs.manifest\":\"?").into_bytes();
    let none = Index { entries: vec![entry.clone()] }.to_document();
    for (index, asked) in [
        (right.into_bytes(), 0),
        (none, 1),
        (of(&other), 1),
        (of(&manifest[..manifest.len() - 1]), 1),
        (of(b""), 1),
        (bent, 1),
        // A long one is left out.
        (of(&vec![b' '; 16385]), 1),
    ] {
        place.registry.add_manifest(REPOSITORY, "all", INDEX, &index);
        let _ = std::fs::remove_dir_all(place.path().join("store"));
        place.registry.seen();
        place.pull("all");
        let by_digest =
            place.registry.targets().iter().filter(|target| target.contains("manifests/sha256:")).count();
        assert_eq!(by_digest, asked, "{}", String::from_utf8_lossy(&index));
        place.check("all", &one);
    }
}

#[test]
fn the_platform_is_chosen_and_ordinary_images_are_not_taken() {
    use mkfs_tesserafs::source::oci::Platform;
    use tesserafs_store::artifact::{Blob, Entry, Index};

    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "one");
    place.publish(&two, "two");
    let plain = br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":5}]}"#;
    place.registry.add_manifest(REPOSITORY, "plain", super::MANIFEST, plain);
    let platform = |name: &str| -> Platform { name.parse().expect("a platform") };
    let manifest = |made: &super::Made| Blob::of(&made.artifact.to_manifest());
    let entries = vec![
        Entry::plain(Blob::of(plain), super::MANIFEST, &platform("linux/amd64")),
        Entry::ours(manifest(&one), &platform("linux/s390x")),
        Entry::ours(manifest(&two), &platform("linux/arm64")),
    ];
    let index = Index { entries: entries.clone() }.to_document();
    place.registry.add_manifest(REPOSITORY, "all", INDEX, &index);
    let ask = |tag: &str, name: &str| {
        let mut request = place.request(tag);
        request.platform = platform(name);
        pull(&request, &Silent)
    };
    ask("all", "linux/s390x").expect("an image");
    place.check("all", &one);
    ask("all", "linux/arm64").expect("an image");
    place.check("all", &two);
    let error = ask("all", "linux/riscv64").expect_err("none");
    assert!(error.contains("--platform names another one") && error.contains("linux/arm64"), "{error}");

    let index = Index { entries: entries[..1].to_vec() }.to_document();
    place.registry.add_manifest(REPOSITORY, "others", INDEX, &index);
    for tag in ["others", "plain"] {
        let error = ask(tag, "linux/amd64").expect_err("ordinary");
        assert!(error.contains("ordinary image") && error.contains("mkfs.tesserafs --oci"), "{error}");
    }
}

#[test]
fn a_token_can_end_at_any_request() {
    let place = Place::new();
    let [one, two] = two(&place);
    for uses in [1, 2, 3] {
        place.publish_index(&one, "v1");
        place.publish_index(&two, "v2");
        place.registry.access(Access::Token { user: None, uses, expires_in: Some(60) });
        let _ = fs::remove_dir_all(place.path().join("store"));
        place.pull("v1");
        place.pull("v2");
        place.check("v1", &one);
        place.check("v2", &two);
    }
}

#[test]
fn documents_that_are_broken_come_again() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish_index(&one, "v1");
    let report = place.pull("v1");
    for digest in [&report.manifest, &name_of(&one.artifact.config.digest)] {
        let path = place.store().path().join("images/sha256").join(&digest[7..]);
        fs::remove_file(&path).expect("a document");
        fs::write(&path, "{}").expect("a document");
        assert_eq!(place.pull("v1").fetched_bytes, 0);
        place.check("v1", &one);
    }
    assert_eq!(
        fs::read(place.store().path().join(format!("images/sha256/{}", one.artifact.config.digest)))
            .expect("a file"),
        CONFIG
    );
    assert!(Reference::parse(&place.name("v1")).is_ok());
}

#[test]
fn a_mirror_is_asked_first() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish_index(&one, "v1");
    let mirror = place.registry.host();
    // Nobody listens there.
    let name = "127.0.0.1:1/team/app:v1";
    let said = done(
        place.path(),
        &["pull", "-q", "--plain-http", "--tries", "1", "--store", "store", "--mirror", &mirror, name],
    );
    assert_eq!(said, "");
    let stored = place.store().image(&reference(name)).expect("a store").expect("an image");
    assert_eq!(fs::read(stored.path).expect("an image"), fs::read(&one.path).expect("an image"));
}
