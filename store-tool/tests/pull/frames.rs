// SPDX-License-Identifier: GPL-2.0-or-later

//! Image files whose frames no `push` makes, under right digests: each is refused in one sentence, or becomes the file; and nothing but
//! the file stays.

use std::fs;
use std::process::Command;
use std::sync::PoisonError;
use std::thread;

use mkfs_tesserafs::progress::Silent;
use tesserafs_store::artifact::{Artifact, Blob};
use tesserafs_store::store::Store;
use zstd_safe::CCtx;

use super::compressed::with_many_names;
use super::forged::bounded;
use super::hostile::Disk;
use super::images::two;
use super::mounts::{Mounted, ALONE};
use super::registry::Wrong;
use super::support::store::{blob, problems, tree};
use super::support::{error, noise, text, without_fallocate, TESSERAFS};
use super::{bytes, check, digest_of, exported, name_of, pull, Made, Place, REPOSITORY};

/// Bytes of the image in a frame.
const PART: usize = 1 << 20;

/// A frame of plain blocks with this header behind the magic number.
fn frame(header: &[u8], part: &[u8]) -> Vec<u8> {
    let mut frame = [&[0x28, 0xb5, 0x2f, 0xfd], header].concat();
    let blocks: Vec<_> = part.chunks(128 << 10).collect();
    for (number, block) in blocks.iter().enumerate() {
        let word = (block.len() as u32) << 3 | u32::from(number + 1 == blocks.len());
        frame.extend_from_slice(&word.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// Without content size, with a window of as many bytes as there can be.
fn wide(part: &[u8]) -> Vec<u8> {
    frame(&[0, 21 << 3], part)
}

/// Names these bytes in the manifest as the image file, compressed.
fn publish(place: &Place, image: &Made, frames: &[u8], tag: &str) -> Artifact {
    place.registry.add_blob(REPOSITORY, frames);
    let artifact = Artifact { compressed: Some(Blob::of(frames)), ..image.artifact.clone() };
    place.manifest(&artifact, tag);
    artifact
}

#[test]
fn frames_of_a_liar_are_refused_and_not_kept() {
    let place = Place::new();
    let image = place.image("one.tess", &[("a", 1, 300_000)], &[]);
    place.publish(&image, "raw");
    place.registry.remove_blob(REPOSITORY, &name_of(&image.artifact.image.digest));
    let file = fs::read(&image.path).expect("an image");
    let parts = || file.chunks(PART);
    let good: Vec<u8> = parts().flat_map(wide).collect();
    let size = |flag: u8, bytes: &[u8]| frame(&[&[flag], bytes].concat(), &file);
    let mut tiny = Vec::with_capacity(64);
    CCtx::create().compress2(&mut tiny, b"x").expect("a frame");
    let halves: Vec<u8> = file.chunks(file.len() / 2).flat_map(wide).collect();
    let none = "found no frame before byte 0";
    let lies: [(&str, Vec<u8>, &str); 12] = [
        ("nothing", Vec::new(), none),
        ("a skippable frame", [&b"\x50\x2a\x4d\x18\x04\0\0\0skip"[..], &good].concat(), none),
        ("a skippable frame of 4 GiB", [&b"\x50\x2a\x4d\x18\xff\xff\xff\xff"[..], &good].concat(), none),
        ("an empty frame", [&frame(&[0x20, 0], b""), &b"\x01\0\0"[..], &good].concat(), none),
        ("a dictionary", frame(&[1, 21 << 3, 7], &file), none),
        ("a window of 2^41 bytes", frame(&[0, 31 << 3], &file), none),
        ("a content of 2^62 bytes", size(0xe0, &(1_u64 << 62).to_le_bytes()), none),
        ("a content of 0 bytes", size(0xe0, &0_u64.to_le_bytes()), none),
        ("a wrong content size", size(0xa0, &(file.len() as u32 - 1).to_le_bytes()), none),
        ("an old format", [&b"\x27\xb5\x2f\xfd"[..], &good[4..]].concat(), none),
        ("two frames", halves, "found a frame of"),
        ("a byte in each frame", tiny.repeat(100_000), "found a frame of 1 bytes"),
    ];
    for (what, frames, why) in lies {
        publish(&place, &image, &frames, "lie");
        for _ in 0..2 {
            let output = bounded(&place, "lie");
            let said = error(&output);
            assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
            assert!(said.contains(why) && said.lines().count() == 1 && said.len() < 500, "{what}: {said}");
            let store = place.path().join("store");
            let left = [tree(&store.join("blobs/sha256")), tree(&store.join("refs"))].concat();
            assert_eq!(left, [""; 0], "{what}");
            let filling = tree(&store.join("filling"));
            assert!(
                filling.iter().all(|name| !name.contains(&digest_of(&frames)[7..])),
                "{what}: {filling:?}"
            );
        }
    }
    publish(&place, &image, &[&good, &good[..]].concat(), "lie");
    let said = error(&bounded(&place, "lie"));
    assert!(said.contains("the end of its last frame"), "{said}");
    let _ = fs::remove_dir_all(place.path().join("store"));
    publish(&place, &image, &good, "v1");
    let output = bounded(&place, "v1");
    assert!(output.status.success(), "{output:?}");
    place.check("v1", &image);
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
}

#[test]
fn a_blob_with_another_digest_is_not_kept() {
    let place = Place::new();
    let mut image = place.image("one.tess", &[("a", 1, 300_000)], &[]);
    let good = place.compress(&mut image);
    place.publish(&image, "v1");
    // Right frames, of another file.
    let other: Vec<u8> = vec![7; good.len() - 20];
    let mut wrong = wide(&other);
    wrong.resize(good.len(), 0);
    place.registry.lie(REPOSITORY, &digest_of(&good), &wrong);
    let said = place.try_pull("v1").expect_err("another blob");
    assert!(said.contains("has the digest"), "{said}");
    assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
    place.registry.lie(REPOSITORY, &digest_of(&good), &good);
    place.pull("v1");
    place.check("v1", &image);
}

#[test]
fn files_of_other_images_are_left_alone() {
    let place = Place::new();
    let [one, two] = two(&place);
    place.publish(&one, "one");
    place.publish(&two, "two");
    place.pull("one");
    let filling = place.path().join("store/filling");
    type Lie = fn(&mut Artifact, &Made);
    let lies: [(&str, Lie); 3] = [
        ("a pack", |lie, one| lie.compressed = Some(one.artifact.packs[0])),
        ("an image file", |lie, one| lie.compressed = Some(one.artifact.image)),
        ("the file itself", |lie, one| lie.image = one.artifact.image),
    ];
    for (what, lie) in lies {
        let mut artifact = two.artifact.clone();
        artifact.packs.clear();
        lie(&mut artifact, &one);
        place.manifest(&artifact, "lie");
        let said = place.try_pull("lie").expect_err(what);
        assert!(said.len() < 500, "{what}: {said}");
        assert_eq!(tree(&filling), [""; 0], "{what}: {said}");
        place.check("one", &one);
    }
    // The image itself comes.
    place.pull("two");
    place.check("two", &two);
    assert_eq!(tree(&filling), [""; 0]);
}

/// The same image by its file, and cut off, and then by frames: chunks come of no blob but that of the manifest.
#[test]
fn an_image_in_one_file_that_was_begun_by_its_chunks_goes_on_by_frames() {
    let place = Place::new();
    let all = [("a", 1, 900_000), ("b", 2, 900_000)];
    let parts = place.image("parts.tess", &all, &[]);
    place.publish(&parts, "parts");
    let place_of_one = super::unpacked(&parts);
    let path = parts.path.with_extension("one");
    let artifact = super::support::store::artifact(&path);
    assert!(artifact.packs.is_empty() && artifact.image == Blob::of(&place_of_one));
    place.registry.add_blob(REPOSITORY, &place_of_one);
    place.manifest(&artifact, "raw");
    let raw = name_of(&artifact.image.digest);
    place.registry.wrong_after("GET", &raw, 2, 100, Wrong::Status(404, Vec::new(), String::new()));
    place.try_pull("raw").expect_err("chunks do not come");
    assert!(!tree(&place.store().path().join("filling")).is_empty());
    place.registry.right();
    place.registry.remove_blob(REPOSITORY, &raw);
    let frames: Vec<u8> = place_of_one.chunks(PART).flat_map(wide).collect();
    place.registry.add_blob(REPOSITORY, &frames);
    place.manifest(&Artifact { compressed: Some(Blob::of(&frames)), ..artifact.clone() }, "frames");
    place.pull("frames");
    let store = place.store();
    assert!(fs::read(blob(&store, &artifact.image.digest)).expect("the image") == place_of_one);
    assert_eq!(problems(&store), []);
    assert_eq!(tree(&store.path().join("filling")), [""; 0]);
}

#[test]
fn programs_agree_about_an_image_in_either_form() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let mut image = place.image("one.tess", &[("a", 1, 300_000), ("b", 2, 100_000)], &[]);
    place.publish(&image, "raw");
    place.compress(&mut image);
    place.publish(&image, "frames");
    place.pull("frames");
    // The other form has the same files.
    place.asked();
    let report = place.pull("raw");
    assert_eq!(report.fetched_bytes, 0);
    assert!(place.asked().values().all(|asked| bytes(asked) < 1000));
    let store = place.path().join("store");
    let run = |arguments: &[&str]| {
        let (verb, rest) = arguments.split_first().expect("a verb");
        let output = Command::new(TESSERAFS)
            .args([verb, "--store", text(&store)])
            .args(rest)
            .output()
            .expect("tesserafs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let images = run(&["images"]);
    let size = |tag: &str| {
        let name = place.name(tag);
        let line = images.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{images}"));
        line.replace(&name, "").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(size("raw"), size("frames"));
    for _ in 0..2 {
        run(&["fsck"]);
        run(&["gc"]);
    }
    assert!(exported(&place, "frames") == super::unpacked(&image));
    run(&["rm", &place.name("raw")]);
    run(&["gc"]);
    place.check("frames", &image);

    if super::support::folder().is_some() {
        let mount = Mounted::new(&place, &place.name("frames"), &[]);
        assert!(mount.read("a").expect("a file") == noise(1, 300_000));
        assert!(mount.read("b").expect("a file") == noise(2, 100_000));
    }

    // The image is sent again as it came.
    let stored =
        place.store().image(&super::reference(&place.name("frames"))).expect("a store").expect("a name");
    let output = Command::new(TESSERAFS)
        .args(["push", "--plain-http", "--authfile", "/dev/null", "--quiet", "--packdir"])
        .arg(&stored.pack_dir)
        .arg(&stored.path)
        .arg(place.name("again"))
        .output()
        .expect("tesserafs");
    assert!(output.status.success(), "{output:?}");
    let found = place.registry.manifest(REPOSITORY, "again-tesserafs").expect("a manifest");
    let found = match tesserafs_store::artifact::Document::parse(&found) {
        Ok(tesserafs_store::artifact::Document::Image(found)) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!((found.image, found.compressed), (image.artifact.image, image.artifact.compressed));
}

/// Pulls of one blob by images that are none of each other's, beside processes that remove what has no name.
#[test]
fn pulls_of_one_blob_at_once_do_not_mix() {
    let place = Place::new();
    let [mut one, two] = two(&place);
    place.compress(&mut one);
    place.publish(&one, "one");
    let lie = Artifact { image_id: two.artifact.image_id, ..one.artifact.clone() };
    place.manifest(&lie, "lie");
    let store = place.path().join("store");
    let run = |arguments: &[&str]| Command::new(TESSERAFS).args(arguments).output().expect("tesserafs");
    for _ in 0..8 {
        thread::scope(|scope| {
            for tag in ["one", "lie", "one"] {
                let place = &place;
                scope.spawn(move || match (tag, place.try_pull(tag)) {
                    ("lie", pulled) => drop(pulled.expect_err("another image")),
                    (_, pulled) => drop(pulled.expect("an image")),
                });
            }
            let (store, run) = (text(&store), &run);
            scope.spawn(move || run(&["gc", "--store", store]));
        });
        place.check("one", &one);
        let filling = tree(&store.join("filling"));
        assert!(
            filling.iter().all(|name| !name.contains(&one.artifact.image_blob().digest.to_string())),
            "{filling:?}"
        );
        run(&["rm", "--store", text(&store), &place.name("one")]);
        run(&["gc", "--store", text(&store)]);
    }
    assert_eq!(problems(&place.store()), []);
}

/// A disk that has the room for a file of any length, as its filesystem cannot take it beforehand.
#[test]
fn a_manifest_with_a_huge_blob_takes_no_memory_for_its_length() {
    let place = Place::new();
    let [one, _] = two(&place);
    place.publish(&one, "one");
    let store = place.path().join("store");
    fs::create_dir(&store).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64T", "tmpfs"]).arg(&store).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine mounts no tmpfs of 64 TiB");
        return;
    }
    let huge = 1 << 45;
    let mut compressed = one.artifact.clone();
    compressed.compressed = Some(Blob { digest: one.artifact.packs[0].digest, len: huge });
    compressed.packs.clear();
    let mut raw = one.artifact.clone();
    raw.image.len = huge;
    let outputs = [compressed, raw].map(|artifact| {
        place.manifest(&artifact, "lie");
        without_fallocate(|| bounded(&place, "lie"))
    });
    let left = tree(&store.join("filling"));
    let _ = Command::new("umount").arg("-l").arg(&store).status();
    for output in outputs {
        let said = error(&output);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said.starts_with("tesserafs: ") && said.lines().count() == 1, "{said}");
        eprintln!("{said}");
    }
    assert_eq!(left, [""; 0]);
}

/// Cuts a pull off behind the first frame.
fn begun(place: &Place, frames: &[u8], tag: &str) {
    let name = digest_of(frames);
    place.registry.wrong("GET", &name, 1, Wrong::Cut(frames.len() * 3 / 4));
    place.registry.wrong("GET", &name, 100, Wrong::Status(404, Vec::new(), String::new()));
    place.try_pull(tag).expect_err("not all came");
    place.registry.right();
}

#[test]
fn bytes_that_are_there_and_wrong_come_again() {
    let place = Place::new();
    let mut image = with_many_names(&place);
    let good = place.compress(&mut image);
    place.publish(&image, "v1");
    let name = digest_of(&good);
    let kept = place.path().join("store/filling").join(image.artifact.image_id.to_string()).join(&name[7..]);
    let file = fs::read(&image.path).expect("an image");
    let first = zstd_safe::find_frame_compressed_size(&good).expect("a frame");
    let second = first + zstd_safe::find_frame_compressed_size(&good[first..]).expect("a frame");
    let swapped = [&good[first..second], &good[..first], &good[second..]].concat();
    let repeated = good[..first].repeat(good.len() / first + 1)[..good.len()].to_vec();
    for (what, bytes) in [
        ("zeros", vec![0; good.len()]),
        ("all frames, in another order", swapped),
        ("the first frame only", repeated),
    ] {
        begun(&place, &good, "v1");
        assert_eq!(fs::metadata(&kept).expect("what came").len(), good.len() as u64, "{what}");
        fs::write(&kept, bytes).expect("a file");
        place.pull("v1");
        place.check("v1", &image);
        assert_eq!(tree(&place.store().path().join("filling")), [""; 0], "{what}");
        fs::remove_dir_all(place.path().join("store")).expect("a store");
    }

    // The manifest names other frames meanwhile, and then the file itself.
    let frames: Vec<u8> = file.chunks(PART).flat_map(wide).collect();
    place.registry.add_blob(REPOSITORY, &file);
    for compressed in [Some(Blob::of(&frames)), None] {
        begun(&place, &good, "v1");
        assert!(kept.exists());
        place.registry.add_blob(REPOSITORY, &frames);
        place.manifest(&Artifact { compressed, ..image.artifact.clone() }, "v1");
        place.pull("v1");
        place.check("v1", &image);
        assert_eq!(tree(&place.store().path().join("filling")), [""; 0]);
        fs::remove_dir_all(place.path().join("store")).expect("a store");
        place.manifest(&image.artifact, "v1");
    }
}

#[test]
fn a_disk_with_room_for_the_file_alone_is_as_free_as_before() {
    let place = Place::new();
    let mut image = with_many_names(&place);
    let frames = place.compress(&mut image);
    place.publish(&image, "v1");
    let room = (image.artifact.image.len + frames.len() as u64 / 2) >> 10;
    let Some(disk) = Disk::new(&place, &format!("{room}k")) else { return };
    let mut request = place.request("v1");
    request.store = disk.0.join("store");
    for _ in 0..2 {
        let said = pull(&request, &Silent).expect_err("no room");
        // The configuration, which comes at the same time, may find the disk full first.
        assert!(said.contains("No space left"), "{said}");
        assert_eq!(tree(&request.store.join("filling")), [""; 0]);
    }
    // Where room is not taken beforehand, the disk is full when the file is made.
    let said = without_fallocate(|| pull(&request, &Silent)).expect_err("no room");
    assert!(said.contains("No space left"), "{said}");
    disk.remount("size=40m");
    pull(&request, &Silent).expect("room");
    let store = Store::open(&request.store).expect("a store").expect("a store");
    check(&store, &place.name("v1"), &image);
    assert_eq!(tree(&request.store.join("filling")), [""; 0]);
}
