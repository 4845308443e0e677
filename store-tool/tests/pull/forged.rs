// SPDX-License-Identifier: GPL-2.0-or-later

//! Images that no builder makes, all with right digests: the tables lie, and the manifest agrees with them. A pull refuses each in one
//! sentence, within a bound of memory, and keeps nothing of it; or the image is legal, and comes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mkfs_tesserafs::encode::zstd_version;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::raw::{RawPack, RawSuperBlock};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{ChunkIndex, Digest, Image, PackIndex};
use tesserafs_image::packs::{Decoder, Packs};
use tesserafs_image::superblock::read as read_superblock;
use tesserafs_image::{Source, VerifiedMetadata};
use tesserafs_store::artifact::{Artifact, Blob};
use zerocopy::FromBytes;

use super::common::{pattern, sha256, superblock, Draft, Piece};
use super::hostile::taken;
use super::images::two;
use super::support::store::{problems, tree, CONFIG};
use super::support::{error, without_fallocate, TESSERAFS};
use super::{reference, Made, Place, REPOSITORY};

/// KiB of address space that the program gets. Each of these images has 10 MiB at most, and some say to have a thousand times as much.
const MEMORY: u64 = 640 << 10;

/// Seconds of processor time that it gets.
const TIME: u64 = 60;

/// An image that is put together by hand.
pub(super) struct Forged {
    pub(super) draft: Draft,
    /// The bytes of the packs beside it.
    pub(super) packs: Vec<Vec<u8>>,
}

impl Forged {
    /// An image of one file, each of whose chunks is in a pack beside it.
    pub(super) fn new(chunks: &[&[u8]]) -> Self {
        let mut draft = Draft::empty();
        draft.profile.zstd_version = zstd_version().into();
        let pieces: Vec<_> = chunks.iter().map(|bytes| Piece::Data(bytes)).collect();
        let bytes = chunks.concat();
        let content = draft.content(&pieces, &bytes);
        draft.directory(1, 1, 2, 0);
        draft.dirent(b"file", 2, 1);
        draft.regular(content, bytes.len() as u64, 1, 0);
        Self::of(draft)
    }

    /// Moves all chunks to a pack beside the image.
    pub(super) fn of(mut draft: Draft) -> Self {
        let pack = std::mem::take(&mut draft.pack);
        draft.seal();
        draft.packs.push(record(&Blob::of(&pack)));
        for chunk in &mut draft.chunks {
            chunk.place = (chunk.place.get() | 1 << 48).into();
        }
        Self { draft, packs: vec![pack] }
    }

    /// The places of chunks in the first pack.
    fn at(&mut self, places: &[u64]) {
        for (chunk, place) in self.draft.chunks.iter_mut().zip(places) {
            chunk.place = (1 << 48 | place).into();
        }
    }

    /// The packs of its table.
    fn blobs(&self) -> Vec<Blob> {
        let blob = |pack: &RawPack| Blob { digest: Digest(pack.digest), len: pack.bytes.get() };
        self.draft.packs[1..].iter().map(blob).collect()
    }

    /// Puts it under a tag, by a manifest that says what the image does.
    pub(super) fn publish(&self, place: &Place, tag: &str) -> Artifact {
        let image = self.draft.image();
        let artifact = artifact(&image, self.blobs());
        self.publish_as(place, tag, &image, &artifact);
        artifact
    }

    fn publish_as(&self, place: &Place, tag: &str, image: &[u8], artifact: &Artifact) {
        place.registry.add_blob(REPOSITORY, CONFIG);
        place.registry.add_blob(REPOSITORY, image);
        for pack in &self.packs {
            place.registry.add_blob(REPOSITORY, pack);
        }
        place.manifest(artifact, tag);
    }
}

/// The manifest of an image.
fn artifact(image: &[u8], packs: Vec<Blob>) -> Artifact {
    let sb = RawSuperBlock::read_from_bytes(&image[..BLOCK_SIZE]).expect("a block");
    Artifact {
        image_id: Digest(sb.prefix_digest),
        tree_id: Digest(sb.tree_id),
        packs,
        image: Blob::of(image),
        compressed: None,
        config: Blob::of(CONFIG),
    }
}

/// The record of a pack beside the image.
pub(super) fn record(pack: &Blob) -> RawPack {
    RawPack { digest: pack.digest.0, bytes: pack.len.into(), kind: 1.into(), ..RawPack::default() }
}

/// The program, with a bound of memory and time.
pub(super) fn bounded(place: &Place, tag: &str) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY}; ulimit -t {TIME}; exec \"$0\" pull \"$@\"")])
        .arg(TESSERAFS)
        .args(["--plain-http", "--authfile", "/dev/null", "--tries", "2", "--quiet", "--store"])
        .arg(place.path().join("store"))
        .arg(place.name(tag))
        // Each thread would reserve some of the address space.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("a program")
}

/// A place whose store has an honest image, named `good`.
fn prepared() -> (Place, Made) {
    let place = Place::new();
    let [good, _] = two(&place);
    place.publish(&good, "good");
    place.pull("good");
    (place, good)
}

/// Files beside the store, with their bytes.
fn outside(place: &Place) -> HashMap<String, Digest> {
    let names = tree(place.path()).into_iter().filter(|name| !name.starts_with("store/"));
    names.map(|name| (name.clone(), super::support::store::digest(&read(&place.path().join(name))))).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file")
}

/// One line that has these words, and nothing of the image stays.
fn refused(place: &Place, good: &Made, what: &str, words: &[&str], run: impl FnOnce() -> Output) {
    let filling = place.path().join("store/filling");
    let before = (outside(place), taken(&filling));
    let output = run();
    let said = error(&output);
    assert_eq!(output.status.code(), Some(1), "{what}: {:?} {said}", output.status);
    assert!(said.starts_with("tesserafs: ") && said.lines().count() == 1, "{what}: {said}");
    assert!(said.len() < 800 && words.iter().any(|word| said.contains(word)), "{what}: {said}");
    assert!(outside(place) == before.0, "{what}");
    let store = place.store();
    assert!(store.image(&reference(&place.name("lie"))).expect("a store").is_none(), "{what}");
    place.check("good", good);
    // The image file at most, as its bytes are right.
    let kept = taken(&filling) - before.1;
    assert!(kept < 1 << 17, "{what}: {kept} bytes are kept");
}

/// The image comes, and its one file has these bytes.
fn comes(place: &Place, tag: &str, bytes: &[u8]) {
    let output = bounded(place, tag);
    assert!(output.status.success(), "{tag}: {output:?}");
    assert_eq!(problems(&place.store()), [], "{tag}");
    assert!(file(place, tag) == bytes, "{tag}");
}

/// The bytes of all chunks, which are those of its one file.
fn file(place: &Place, tag: &str) -> Vec<u8> {
    let stored = place.store().image(&reference(&place.name(tag))).expect("a store").expect("an image");
    let source = Source::open(&stored.path).expect("an image");
    let sb = read_superblock(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &sb);
    let image = Image::new(&sb, &metadata);
    let numbers = 0..u16::try_from(sb.layout.packs.records()).expect("a number");
    let packs: Vec<_> = numbers.map(|number| Some(image.pack(PackIndex(number)).expect("a pack"))).collect();
    let packs = Packs::open(&source, &packs, &stored.pack_dir).expect("packs");
    let (mut decoder, mut raw, mut bytes) = (Decoder::new().expect("a decoder"), Vec::new(), Vec::new());
    for number in 0..u32::try_from(sb.layout.chunks.records()).expect("a number") {
        let chunk = image.chunk(ChunkIndex(number)).expect("a chunk");
        packs.read(&chunk, &mut decoder, &mut raw).expect("a chunk");
        bytes.extend_from_slice(&raw);
    }
    bytes
}

/// A change to an honest image, and words of the refusal.
type Lie = (&'static str, &'static str, fn(&mut Forged));

const LIES: &[Lie] = &[
    ("chunks that overlap by a byte", "chunk 1 begins in the one before it", |f| f.at(&[0, 4999])),
    ("one place for two chunks", "chunk 1 begins in the one before it", |f| f.at(&[0, 0])),
    ("chunks that descend", "chunk 1 begins in the one before it", |f| f.at(&[6000, 0])),
    ("a chunk of the end and one byte", "chunk-range @ chunk 1: found 11001, expected 11000", |f| {
        f.at(&[0, 5001]);
    }),
    ("a chunk behind the end", "chunk-range @ chunk 1", |f| f.at(&[0, 11_000])),
    ("a chunk at 256 TiB", "chunk-range @ chunk 1: found 281474976716655, expected 11000", |f| {
        f.at(&[0, (1 << 48) - 1]);
    }),
    ("a chunk in pack 9", "pack-index @ chunk 1: found 9, expected 2", |f| {
        f.draft.chunks[1].place = (9 << 48).into();
    }),
    ("a chunk in pack 65535", "pack-index @ chunk 1: found 65535, expected 2", |f| {
        f.draft.chunks[1].place = u64::MAX.into();
    }),
    ("a chunk in pack 0, which is empty", "chunk-range @ chunk 0: found 5000, expected 0", |f| {
        f.draft.chunks[0].place = 0.into();
    }),
    ("no stored bytes", "chunk-stored-length @ chunk 0: found 0, expected 5000", |f| {
        f.draft.chunks[0].stored = 0.into();
    }),
    ("a frame of no bytes", "chunk-stored-length @ chunk 0: found 0, expected 5000", |f| {
        f.draft.chunks[0].stored = (1 << 24).into();
    }),
    ("no bytes", "chunk-raw-length @ chunk 0: found 0, expected 1048576", |f| {
        (f.draft.chunks[0].stored, f.draft.chunks[0].raw_len) = (0.into(), 0.into());
    }),
    ("a frame longer than its bytes", "chunk-stored-length @ chunk 0", |f| {
        f.draft.chunks[0].stored = (1 << 24 | 5001).into();
    }),
    ("stored bytes of 16 MiB", "chunk-raw-length @ chunk 0: found 16777215, expected 1048576", |f| {
        let len = (1 << 24) - 1;
        (f.draft.chunks[0].stored, f.draft.chunks[0].raw_len) = (len.into(), len.into());
    }),
    ("4 GiB of bytes", "chunk-raw-length @ chunk 0: found 4294967295", |f| {
        f.draft.chunks[0].raw_len = u32::MAX.into();
    }),
    ("an unknown codec", "chunk-codec @ chunk 0: found 9", |f| {
        f.draft.chunks[0].stored = (9 << 24 | 5000).into();
    }),
    ("the digest of other bytes", "chunk 1, at byte 5000, has the digest", |f| {
        f.draft.chunk_digests[1] = [3; 32];
    }),
    ("digests that changed places", "chunk 0, at byte 0, has the digest", |f| {
        f.draft.chunk_digests.reverse()
    }),
    ("an embedded pack that is a file", "pack-kind @ pack 0", |f| f.draft.packs[0].kind = 1.into()),
    ("a pack that is embedded", "pack-kind @ pack 1", |f| f.draft.packs[1].kind = 0.into()),
    ("reserved bytes", "pack-padding @ pack 1", |f| f.draft.packs[1].reserved[4] = 1.into()),
    ("bytes in an empty pack 0", "pack-bytes @ pack 0", |f| f.draft.packs[0].bytes = 1.into()),
    ("a pack of 2^63 bytes", "which no file has", |f| f.draft.packs[1].bytes = (1 << 63).into()),
    ("a pack of 2^64-1 bytes", "which no file has", |f| f.draft.packs[1].bytes = u64::MAX.into()),
    ("one pack twice", "twice", |f| f.draft.packs.push(f.draft.packs[1])),
    ("two packs that together are longer than a file", "longer than any file", |f| {
        for (digest, number) in [(7, 1), (8, 2)] {
            let pack = Blob { digest: Digest([digest; 32]), len: (1 << 63) - 1 };
            f.draft.packs.truncate(number);
            f.draft.packs.push(record(&pack));
        }
    }),
    ("1024 packs beside it", "the manifest has 1024 packs, expected 1023 at most", |f| {
        f.draft.packs.resize(1025, RawPack::default());
    }),
    ("65535 packs", "found more than 4194304 bytes", |f| f.draft.packs.resize(65_535, RawPack::default())),
];

#[test]
fn tables_that_lie_are_refused() {
    let (place, good) = prepared();
    let (one, two) = (pattern(5000, 1), pattern(6000, 2));
    let forged = || Forged::new(&[&one, &two]);
    for (what, words, lie) in LIES {
        let mut forged = forged();
        lie(&mut forged);
        forged.publish(&place, "lie");
        refused(&place, &good, what, &[words], || bounded(&place, "lie"));
    }
    forged().publish(&place, "lie");
    comes(&place, "lie", &[one, two].concat());
    let left = tree(&place.store().path().join("filling"));
    // Of those whose chunks did not come, the images, which are what they say.
    assert!(left.len() <= 5, "{left:?}");
}

/// The same of images in one file, whose chunks lie between the superblock and the tables.
#[test]
fn embedded_packs_that_lie_are_refused() {
    let (place, good) = prepared();
    type Lie = (&'static str, &'static str, fn(&mut Draft));
    let lies: [Lie; 6] = [
        ("chunks that overlap", "chunk 1 begins in the one before it", |draft| {
            draft.chunks[1].place = (draft.chunks[1].place.get() - 1).into();
        }),
        ("a chunk of the tables", "chunk-range @ chunk 0", |draft| {
            draft.chunks[0].place = (draft.pack.len() as u64 - 4999).into();
        }),
        ("a chunk far behind them", "chunk-range @ chunk 0", |draft| {
            draft.chunks[0].place = (1 << 47).into()
        }),
        ("a pack that ends in the tables", "pack-bytes @ pack 0", |draft| {
            draft.packs[0].bytes = (1 << 20).into();
        }),
        ("a pack of 2^64-1 bytes", "pack-bytes @ pack 0", |draft| draft.packs[0].bytes = u64::MAX.into()),
        ("a wrong digest", "chunk 2, at byte", |draft| draft.chunk_digests[2] = [1; 32]),
    ];
    let publish = |draft: &Draft| {
        let image = draft.image();
        place.registry.add_blob(REPOSITORY, CONFIG);
        place.registry.add_blob(REPOSITORY, &image);
        place.manifest(&artifact(&image, Vec::new()), "lie");
        image
    };
    for (what, words, lie) in lies {
        let mut draft = Draft::sample();
        lie(&mut draft);
        publish(&draft);
        refused(&place, &good, what, &[words], || bounded(&place, "lie"));
    }
    let image = publish(&Draft::sample());
    let output = bounded(&place, "lie");
    assert!(output.status.success(), "{output:?}");
    let stored = place.store().image(&reference(&place.name("lie"))).expect("a store").expect("an image");
    assert!(read(&stored.path) == image);
    assert_eq!(problems(&place.store()), []);
}

#[test]
fn tables_and_manifests_that_do_not_agree_are_refused() {
    let (place, good) = prepared();
    let (one, two) = (pattern(5000, 1), pattern(6000, 2));
    let forged = Forged::new(&[&one, &two]);
    let said = "as the manifest says";
    // A change to the image, after which the manifest is the honest one's but for the image.
    let lies: &[Lie] = &[
        ("a longer pack", said, |f| f.draft.packs[1].bytes = 11_001.into()),
        ("a shorter pack", "as the manifest says", |f| f.draft.packs[1].bytes = 10_999.into()),
        ("a pack of 2^60 bytes", said, |f| f.draft.packs[1].bytes = (1 << 60).into()),
        ("a pack of 2^63 bytes", "pack-bytes @ pack 1", |f| f.draft.packs[1].bytes = (1 << 63).into()),
        ("another pack", said, |f| f.draft.packs[1].digest = [1; 32]),
        ("one pack twice", said, |f| f.draft.packs.push(f.draft.packs[1])),
        ("1024 packs", said, |f| f.draft.packs.resize(1024, f.draft.packs[1])),
        ("65535 packs", "count @ superblock byte 128: found 65535, expected 1024", |f| {
            f.draft.packs.resize(65_535, f.draft.packs[1]);
        }),
        ("no pack beside it", "", |f| f.draft.packs.truncate(1)),
        ("no pack at all", "count @ superblock byte 128: found 0, expected 1", |f| f.draft.packs.clear()),
    ];
    for (what, words, lie) in lies {
        let mut other = Forged::new(&[&one, &two]);
        lie(&mut other);
        let image = other.draft.image();
        forged.publish_as(&place, "lie", &image, &artifact(&image, forged.blobs()));
        refused(&place, &good, what, &[words], || bounded(&place, "lie"));
    }
    forged.publish(&place, "lie");
    comes(&place, "lie", &[one, two].concat());
}

#[test]
fn lengths_beyond_the_disk_are_refused_before_anything_is_taken() {
    let (place, good) = prepared();
    let bytes = pattern(5000, 1);
    let no_room = &["No space left", "File too large"];
    let no_room_at_all = &["No space left"];
    let try_both = |what: &str| {
        refused(&place, &good, what, no_room, || bounded(&place, "lie"));
        // A filesystem that takes no room in advance would give a file of any length.
        refused(&place, &good, what, no_room_at_all, || without_fallocate(|| bounded(&place, "lie")));
    };
    // The chunk at the beginning, in the middle and at the end.
    for len in [1_u64 << 46, 1 << 48, 1 << 60, (1 << 62) + 1] {
        for at in [0, 1 << 45, len - 5000] {
            let mut forged = Forged::new(&[&bytes]);
            forged.draft.packs[1].bytes = len.into();
            forged.at(&[at & ((1 << 48) - 1)]);
            forged.publish(&place, "lie");
            try_both(&format!("a pack of {len} bytes, with a chunk at {at}"));
        }
    }
    // Tables that the image has not: a superblock, and as few bytes as there can be, or as many as it says.
    let forged = Forged::new(&[&bytes]);
    for chunks in [1 << 28, (1 << 32) - 2, (1 << 32) - 1, 1 << 63] {
        let mut image = forged.draft.image();
        let claimed = claim(&mut image, chunks);
        let mut artifact = artifact(&image, forged.blobs());
        forged.publish_as(&place, "lie", &image, &artifact);
        let what = format!("{chunks} chunks");
        let words = ["expected", "count @ superblock byte 136"];
        refused(&place, &good, &what, &words, || bounded(&place, "lie"));
        if let Some(claimed) = claimed.filter(|claimed| *claimed > 1 << 40) {
            artifact.image.len = claimed;
            forged.publish_as(&place, "lie", &image, &artifact);
            try_both(&what);
        }
    }
    // The embedded form, in which pack 0 is most of the image.
    let mut image = Draft::sample().image();
    superblock(&mut image, |sb| {
        let bytes = sb.image_bytes.get() - sb.tree_offset.get();
        (sb.tree_offset, sb.image_bytes) = ((1 << 60).into(), ((1 << 60) + bytes).into());
    });
    let mut artifact = artifact(&image, Vec::new());
    artifact.image.len =
        RawSuperBlock::read_from_bytes(&image[..BLOCK_SIZE]).expect("a block").image_bytes.get();
    forged.publish_as(&place, "lie", &image, &artifact);
    try_both("an embedded pack of 2^60 bytes");

    forged.publish(&place, "lie");
    comes(&place, "lie", &bytes);
}

/// Makes an image say that it has so many chunks; the length of such an image, if there can be one.
fn claim(image: &mut [u8], chunks: u64) -> Option<u64> {
    let mut len = None;
    superblock(image, |sb| {
        sb.map.chunks = chunks.into();
        if let Ok(layout) = Layout::new(BLOCK_BYTES, &sb.tree, &sb.map) {
            sb.image_bytes = layout.image_bytes.into();
            len = Some(layout.image_bytes);
        }
    });
    len
}

#[test]
fn strange_but_legal_images_come() {
    let (place, _) = prepared();
    // A chunk of a MiB, where the profile says 64 KiB, and one of a byte.
    let (large, small) = (pattern(1 << 20, 1), pattern(1, 2));
    Forged::new(&[&large, &small]).publish(&place, "large");
    comes(&place, "large", &[large, small].concat());

    // A pack of no bytes, and one of which the image needs nothing.
    let bytes = pattern(5000, 3);
    let mut forged = Forged::new(&[&bytes]);
    let unused = pattern(9000, 4);
    for pack in [&b""[..], &unused] {
        forged.draft.packs.push(record(&Blob::of(pack)));
        forged.packs.push(pack.to_vec());
    }
    forged.publish(&place, "unused");
    place.asked();
    comes(&place, "unused", &bytes);
    assert!(!place.asked().contains_key(&super::registry::digest(&unused)));

    // Chunks that overlap in a pack that is there already: nothing has to be fetched, and each read is compared.
    let whole = pattern(11_000, 5);
    let honest = Forged::new(&[&whole[..5000], &whole[5000..]]);
    honest.publish(&place, "honest");
    comes(&place, "honest", &whole);
    let parts = [&whole[..5000], &whole[2000..9000]];
    let mut overlapping = Forged::new(&parts);
    overlapping.draft.packs[1] = honest.draft.packs[1];
    overlapping.packs.clone_from(&honest.packs);
    overlapping.at(&[0, 2000]);
    overlapping.publish(&place, "overlapping");
    let output = bounded(&place, "overlapping");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(problems(&place.store()), []);
    assert!(file(&place, "overlapping") == parts.concat());
}

#[test]
fn an_image_of_1023_packs_comes_where_1024_files_can_be_open() {
    let (place, _) = prepared();
    let chunks: Vec<_> = (0..1023).map(|number| pattern(5000, number + 10)).collect();
    let mut forged = Forged::new(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    forged.draft.packs.truncate(1);
    for (number, bytes) in (1_u64..).zip(&chunks) {
        forged.draft.packs.push(record(&Blob::of(bytes)));
        forged.draft.chunks[number as usize - 1].place = (number << 48).into();
    }
    forged.packs.clone_from(&chunks);
    forged.publish(&place, "many");
    let output = Command::new("sh")
        .args(["-c", "ulimit -Sn 1024; exec \"$0\" pull \"$@\""])
        .arg(TESSERAFS)
        .args(["--plain-http", "--authfile", "/dev/null", "--quiet", "--store"])
        .arg(place.path().join("store"))
        .arg(place.name("many"))
        .output()
        .expect("a program");
    assert!(output.status.success(), "{output:?}");
    assert!(file(&place, "many") == chunks.concat());
}

/// The image claims that decoded chunks are those of another image of the store: encoded again, they have other digests.
#[test]
fn raw_digests_of_another_image_bring_none_of_its_bytes() {
    let (place, _) = prepared();
    let theirs: Vec<_> = (0..100).map(|number| pattern(5000, number + 1)).collect();
    let ours: Vec<_> = (0..100).map(|number| pattern(5000, number + 1001)).collect();
    let slices = |chunks: &[Vec<u8>]| Forged::new(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let other = slices(&theirs);
    other.publish(&place, "other");
    comes(&place, "other", &theirs.concat());
    let mut forged = slices(&ours);
    forged.draft.raw_digests.clone_from(&other.draft.raw_digests);
    let artifact = forged.publish(&place, "forged");
    let report = place.pull("forged");
    let all: u64 = artifact.files().map(|layer| layer.len).sum();
    assert_eq!((report.fetched_bytes, report.copied_bytes, report.encoded_bytes), (all, 0, 0));
    assert_eq!(problems(&place.store()), []);
    let pack = place.store().blob(&artifact.packs[0].digest).expect("a store").expect("a pack").path;
    assert!(read(&pack) == ours.concat());

    // And the stored digests, of a pack with other bytes: where the one image has them, they are copied, and are not those of the pack.
    let more: Vec<_> = (0..100).map(|number| pattern(5000, number + 2001)).collect();
    let mut forged = slices(&more);
    forged.draft.chunk_digests.clone_from(&other.draft.chunk_digests);
    forged.publish(&place, "lie");
    let said = place.try_pull("lie").expect_err("chunks of another pack");
    assert!(said.contains("begins it anew"), "{said}");
    assert_eq!(problems(&place.store()), []);
    slices(&more).publish(&place, "lie");
    comes(&place, "lie", &more.concat());
}

/// Each chunk of the one image could be each of the other.
#[test]
fn many_equal_chunks_in_two_images_are_no_product() {
    let (place, _) = prepared();
    let of = |seed: u64| {
        let mut draft = Draft::empty();
        draft.profile.zstd_version = zstd_version().into();
        draft.directory(1, 0, 2, 0);
        let first = pattern(100, seed);
        draft.plain_chunk(&first);
        // One byte, so often that the pairs would take 40 GB.
        for _ in 0..50_000 {
            draft.plain_chunk(&[7]);
        }
        Forged::of(draft)
    };
    of(1).publish(&place, "one");
    let artifact = of(2).publish(&place, "two");
    for tag in ["one", "two"] {
        let output = bounded(&place, tag);
        assert!(output.status.success(), "{tag}: {output:?}");
    }
    assert_eq!(problems(&place.store()), []);
    let pack = place.store().blob(&artifact.packs[0].digest).expect("a store").expect("a pack").path;
    assert_eq!(sha256(&read(&pack)), artifact.packs[0].digest.0);
}
