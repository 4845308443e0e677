// SPDX-License-Identifier: GPL-2.0-or-later

//! Registries and images that lie, and stores without room: one sentence, and nothing of it stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkfs_tesserafs::progress::Silent;
use tesserafs_format::Digest;
use tesserafs_store::artifact::{Artifact, Blob};
use tesserafs_store::store::Store;

use super::images::two;
use super::support::store::{problems, tree};
use super::{check, name_of, pull, Made, Place, REPOSITORY};

/// Bytes that the files below a directory take on the disk.
pub(super) fn taken(dir: &Path) -> u64 {
    tree(dir).iter().map(|name| dir.join(name).symlink_metadata().expect("a file").blocks() * 512).sum()
}

/// A word for a lie of a manifest, and the lie.
type Lie = (&'static str, fn(&mut Artifact, &Made));

#[test]
fn manifests_that_lie_are_refused() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "one");
    place.publish(&two, "two");
    place.pull("one");
    let good = &two.artifact;
    let lies: [Lie; 15] = [
        ("another image ID", |lie, one| lie.image_id = one.artifact.image_id),
        ("no image's ID", |lie, _| lie.image_id = Digest([1; 32])),
        ("a pack less", |lie, _| lie.packs.truncate(1)),
        ("a pack more", |lie, _| lie.packs.push(lie.config)),
        ("packs in another order", |lie, _| lie.packs.reverse()),
        ("a longer pack", |lie, _| lie.packs[1].len += 1),
        ("a shorter pack", |lie, _| lie.packs[1].len -= 1),
        ("a huge pack", |lie, _| lie.packs[1].len = 1 << 60),
        ("another pack", |lie, one| lie.packs[1] = one.artifact.image),
        ("a longer image", |lie, _| lie.image.len += 4096),
        ("a shorter image", |lie, _| lie.image.len -= 4096),
        ("a huge image", |lie, _| lie.image.len = 1 << 60),
        ("another image file", |lie, one| lie.image = one.artifact.image),
        ("a pack for an image", |lie, _| lie.image = lie.packs[1]),
        ("a longer configuration", |lie, _| lie.config.len += 1),
    ];
    for (what, lie) in lies {
        let mut artifact = good.clone();
        lie(&mut artifact, &one);
        place.manifest(&artifact, "lie");
        let error = place.try_pull("lie").expect_err(what);
        assert!(error.len() < 800, "{what}: {error}");
        place.check("one", &one);
        assert!(taken(&place.store().path().join("filling")) < 1 << 20, "{what}: {error}");
    }
    place.pull("two");
    place.check("two", &two);
}

#[test]
fn blobs_of_other_images_are_not_taken() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "one");
    let bytes = |made: &Made, blob: &Blob| match blob.digest == made.artifact.image.digest {
        true => fs::read(&made.path).expect("an image"),
        false => super::pack_of(made, blob),
    };
    let layers: Vec<_> = two.artifact.files().collect();
    for blob in layers.iter().filter(|blob| blob.digest != one.artifact.packs[0].digest) {
        for other in [one.artifact.image, one.artifact.packs[0]] {
            // Files that came rightly before do not come again.
            let _ = fs::remove_dir_all(place.path().join("store"));
            place.pull("one");
            place.publish(&two, "two");
            let mut wrong = bytes(&one, &other);
            wrong.resize(blob.len as usize, 7);
            place.registry.lie(REPOSITORY, &name_of(&blob.digest), &wrong);
            let error = place.try_pull("two").expect_err("another blob");
            assert!(error.contains(&blob.digest.to_string()) || error.contains("expected"), "{error}");
            assert!(place.store().image(&super::reference(&place.name("two"))).expect("a store").is_none());
            place.check("one", &one);
        }
    }
    // One byte of a chunk.
    place.publish(&two, "two");
    let pack = two.artifact.packs[1];
    let mut wrong = bytes(&two, &pack);
    wrong[1000] ^= 1;
    place.registry.lie(REPOSITORY, &name_of(&pack.digest), &wrong);
    let error = place.try_pull("two").expect_err("a wrong byte");
    assert!(error.contains("chunk") && error.contains(&pack.digest.to_string()), "{error}");
    place.publish(&two, "two");
    place.pull("two");
    place.check("two", &two);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
}

#[test]
fn an_image_file_with_any_byte_wrong_is_refused() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish(&one, "one");
    let good = fs::read(&one.path).expect("an image");
    let name = name_of(&one.artifact.image.digest);
    let places = (0..good.len()).step_by(good.len() / 97);
    for at in places.chain([8, 0x20, 0x40, 0x80, 0x200, 0x210, 0x220, 0x300]) {
        let mut wrong = good.clone();
        wrong[at] ^= 0x80;
        // Files that came rightly before do not come again.
        let _ = fs::remove_dir_all(place.path().join("store"));
        place.registry.lie(REPOSITORY, &name, &wrong);
        let error = place.try_pull("one").expect_err("a wrong byte");
        assert!(error.len() < 800, "{at}: {error}");
        let store = place.store();
        assert!(store.image(&super::reference(&place.name("one"))).expect("a store").is_none(), "{at}");
    }
    place.registry.lie(REPOSITORY, &name, &good);
    place.pull("one");
    place.check("one", &one);
}

/// A filesystem of its own.
pub(super) struct Disk(pub(super) PathBuf);

impl Disk {
    /// `None` where this machine mounts none.
    pub(super) fn new(place: &Place, size: &str) -> Option<Self> {
        let dir = place.path().join("disk");
        fs::create_dir(&dir).expect("a folder");
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: this machine mounts no tmpfs");
            return None;
        }
        Some(Self(dir))
    }

    pub(super) fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(done.expect("mount").success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_pull_and_nothing_else() {
    let place = Place::new();
    let small = place.image("small.tess", &[("a", 1, 300_000)], &[]);
    let large = place.image("large.tess", &[("a", 2, 1_500_000), ("b", 3, 3_000_000)], &[]);
    place.publish(&small, "small");
    place.publish(&large, "large");
    let Some(disk) = Disk::new(&place, "1500k") else { return };
    let ask = |tag: &str| {
        let mut request = place.request(tag);
        request.store = disk.0.join("store");
        pull(&request, &Silent)
    };
    ask("small").expect("there is room");
    let store = Store::open(&disk.0.join("store")).expect("a store").expect("a store");
    for _ in 0..2 {
        let error = ask("large").expect_err("no room");
        assert!(error.contains("No space left"), "{error}");
        check(&store, &place.name("small"), &small);
        // All but the image file is free again.
        let kept = taken(&store.path().join("filling"));
        assert!(kept <= large.artifact.image.len.next_multiple_of(4096), "{kept}");
    }
    disk.remount("size=20m");
    ask("large").expect("room");
    check(&store, &place.name("large"), &large);

    disk.remount("ro");
    let error = ask("large").expect_err("a store that cannot be written");
    assert!(error.contains("Read-only file system"), "{error}");
    check(&store, &place.name("large"), &large);
    assert_eq!(problems(&store), []);
}
