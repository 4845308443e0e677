// SPDX-License-Identifier: GPL-2.0-or-later

//! For any bytes: a verdict, soon, and no panic. Each flipped bit is found.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Error, Options, Report, Source};
use tesserafs_format::raw::{RawContentMap, RawExtent};

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{attach, pattern, sha256, superblock, Draft, DraftInode, Piece, HOLE};

fn check_bytes(image: &[u8], threads: usize) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("written");
    let source = Source::open(file.path()).expect("opened");
    check(&source, &Options { threads, ..Options::default() }, &Silent, &Cancel::default())
}

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit
    }
}

#[test]
fn each_flipped_bit_is_found() {
    let mut image = Draft::sample().image();
    attach(&mut image, &pattern(300, 5));
    let image_id = sha256(&image[..512]);
    let mut random = Random(1);
    let mut at = 0;
    while at < image.len() {
        let bit = 1 << random.below(8);
        image[at] ^= bit;
        let report = check_bytes(&image, 1);
        // The superblock's compat word and profile have many right values: only the image ID tells them apart.
        let is_free = (0x10..0x18).contains(&at) || (0xc0..0xe0).contains(&at);
        let is_other = sha256(&image[..512]) != image_id;
        assert!(!report.is_clean() || is_free && is_other, "byte {at}, bit {bit}");
        image[at] ^= bit;
        at += 1 + random.below(17);
    }
}

#[test]
fn records_of_random_bytes_end_in_a_verdict() {
    const INTERESTING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x10];
    let sample = Draft::sample();
    let mut random = Random(2);
    let mut dirty = 0;
    for round in 0..1000 {
        let image = sample.image_with(|metadata| {
            for _ in 0..=random.below(4) {
                let at = random.below(metadata.len() / 3);
                let value = INTERESTING[random.below(INTERESTING.len())];
                for byte in metadata.iter_mut().skip(at).take(1 << random.below(4)) {
                    *byte = value;
                }
            }
        });
        let start = Instant::now();
        let report = check_bytes(&image, 1 + round % 2);
        assert!(start.elapsed() < Duration::from_secs(10), "round {round}");
        assert!(report.error.is_none(), "round {round}: {:?}", report.error);
        dirty += usize::from(!report.is_clean());
    }
    assert!(dirty > 300, "{dirty}");
}

#[test]
fn superblocks_of_random_bytes_end_in_a_verdict() {
    let sample = Draft::sample().image();
    let mut random = Random(3);
    for round in 0..1000 {
        let mut image = sample.clone();
        for _ in 0..=random.below(3) {
            let at = 8 + random.below(0x250 - 8);
            image[at] = random.below(256) as u8;
        }
        image.truncate(image.len() - random.below(3) * 1000);
        let start = Instant::now();
        let _ = check_bytes(&image, 2);
        assert!(start.elapsed() < Duration::from_secs(10), "round {round}");
    }
}

#[test]
fn a_huge_sparse_file_is_checked_at_once() {
    // 2^63 - 1 bytes: a chunk, a hole, and a chunk that ends the file.
    let size = i64::MAX as u64;
    let (head, tail) = (pattern(5000, 1), pattern(100, 2));
    let hole = size - 5000 - 100;
    let end = (size - 100) / 4096 * 4096;
    assert_eq!((size - 100) % 4096 + 100, 4095, "the tail lies in the last block");
    let mut bytes = b"TESSRAFS-SPARSE\0".to_vec();
    bytes.extend(size.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(&head);
    bytes.extend(vec![0; 8192 - 5000]);
    bytes.extend(8192_u64.to_le_bytes());
    bytes.extend(end.to_le_bytes());
    bytes.extend(vec![0; (size - 100 - end) as usize]);
    bytes.extend(&tail);
    bytes.extend((size - end).to_le_bytes());

    let mut draft = Draft::empty();
    draft.directory(1, 1, 2, 0);
    draft.dirent(b"huge", 2, 1);
    let pieces = [Piece::Data(&head), Piece::Hole(hole), Piece::Data(&tail)];
    let digest = sha256(&bytes).map(|byte| !byte);
    let content = draft.content_of_digest(&pieces, digest);
    // Two blocks of the head, one of the tail.
    draft.content_blocks[content as usize] = 3;
    draft.regular(content, size, 1, 0);
    draft.seal();
    let start = Instant::now();
    let report = check_bytes(&draft.image(), 2);
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn holes_that_take_too_long_to_digest_are_not_digested() {
    // Nine files of 8 GiB in a few KiB: a minute of zeros, and with 16 bytes more for each next one weeks.
    let files = |count: u32, size: u64| {
        let mut draft = Draft::empty();
        draft.directory(1, count.into(), 2, 0);
        for n in 0..count {
            let head = pattern(4096, n.into());
            let pieces = [Piece::Data(&head), Piece::Hole(size - 4096)];
            let content = draft.content_of_digest(&pieces, sha256(&head));
            draft.regular(content, size, 1, 0);
            draft.dirent(format!("{n}").as_bytes(), n + 2, 1);
        }
        draft.seal();
        draft.image()
    };
    let image = files(9, 1 << 33);
    let start = Instant::now();
    let report = check_bytes(&image, 2);
    assert!(start.elapsed() < Duration::from_secs(10));
    let [finding] = &report.findings[..] else { panic!("{:#?}", report.findings) };
    assert_eq!(finding.rule, tesserafs_format::Rule::ContentHoles);
    let expected = (1 << 36) + 64 * image.len() as u64;
    assert_eq!(finding.expected, expected.into());
    assert_eq!(finding.found, (9 * ((1_u64 << 33) - 4096)).into());
    assert_eq!(report.exit_code().value(), 4);

    // A chunk that is broken is found all the same.
    let mut damaged = image;
    damaged[4096] ^= 1;
    assert_eq!(check_bytes(&damaged, 1).totals[&tesserafs_format::Rule::ChunkDigest], 1);

    // Fewer are digested: here they have not the digests that the image says.
    let report = check_bytes(&files(2, 1 << 20), 2);
    assert_eq!(report.totals[&tesserafs_format::Rule::ContentDigest], 2);
}

#[test]
fn an_image_of_any_other_length_is_found() {
    let mut image = Draft::sample().image();
    attach(&mut image, b"signature");
    for len in (0..image.len()).step_by(61).chain((0..image.len()).step_by(4096)).chain([image.len() - 1]) {
        let report = check_bytes(&image[..len], 1);
        // An error of reading too, where something goes on behind a table that is cut.
        assert_eq!(report.exit_code().value() & !8, 4, "{len}: {:?} {:?}", report.error, report.findings);
        assert!(!report.findings.is_empty(), "{len}");
    }
}

#[test]
fn a_superblock_with_any_byte_of_ones_is_found() {
    let image = Draft::sample().image();
    // All fields, and some of the zeros behind them.
    for at in (0..0x260).chain((0x260..4096).step_by(31)) {
        let mut broken = image.clone();
        broken[at] = 0xff;
        if broken == image {
            continue;
        }
        let report = check_bytes(&broken, 1);
        assert_eq!(report.exit_code().value(), 4, "byte {at}: {:?}", report.error);
        // The same, with the digest of the prefix made right: then it is the field itself.
        superblock(&mut broken, |_| ());
        let report = check_bytes(&broken, 1);
        assert!(report.error.is_none(), "byte {at}: {:?}", report.error);
    }
}

#[test]
fn directories_that_share_entries_end() {
    // 3000 directories, each of which says to have all entries.
    let mut draft = Draft::empty();
    let count = 3000_u32;
    let directory = |parent: u32| DraftInode {
        file_type: 2,
        size: u64::from(count).into(),
        parent: parent.into(),
        ..common::inode(2)
    };
    draft.inode(directory(1));
    for n in 0..count {
        draft.inode(directory(1));
        draft.dirent(format!("{n:05}").as_bytes(), n + 2, 2);
    }
    draft.seal();
    let start = Instant::now();
    let report = check_bytes(&draft.image(), 1);
    assert!(!report.is_clean());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn contents_that_share_extents_end() {
    let mut draft = Draft::empty();
    let count = 3000_u32;
    let bytes = pattern(4096, 1);
    let chunk = draft.plain_chunk(&bytes);
    draft.directory(1, count.into(), 2, 0);
    for n in 0..count {
        draft.dirent(format!("{n:05}").as_bytes(), n + 2, 1);
        draft.regular(n, 1 << 30, 1, 0);
        draft.contents.push(sha256(&n.to_le_bytes()));
        // Every other one has all extents.
        draft.content_map.push(RawContentMap { first_extent: (if n % 2 == 0 { 0 } else { count }).into() });
        draft.extents.push(RawExtent {
            file_offset: (u64::from(n) * 4096).into(),
            chunk: (if n % 2 == 0 { HOLE } else { chunk }).into(),
            chunk_offset: 0.into(),
        });
    }
    draft.seal();
    let start = Instant::now();
    let report = check_bytes(&draft.image(), 1);
    assert!(!report.is_clean());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_chunk_is_read_once_for_short_extents() {
    // Two chunks of 1 MiB, of whose bytes a content takes as few at a time as it may, from one and from the other.
    let raw = [pattern(1 << 20, 1), pattern(1 << 20, 2)];
    let mut draft = Draft::empty();
    let chunks = [draft.plain_chunk(&raw[0]), draft.plain_chunk(&raw[1])];
    let places: Vec<(usize, usize)> = (0..50_000).map(|n| (n % 2, n * 7)).collect();
    let bytes: Vec<u8> =
        places.iter().flat_map(|(chunk, at)| &raw[*chunk][*at..*at + 4096]).copied().collect();
    let part =
        |(chunk, at): &(usize, usize)| Piece::Part { chunk: chunks[*chunk], offset: *at as u32, len: 4096 };
    let content = draft.content(&places.iter().map(part).collect::<Vec<_>>(), &bytes);
    draft.directory(1, 1, 2, 0);
    draft.dirent(b"file", 2, 1);
    draft.regular(content, bytes.len() as u64, 1, 0);
    draft.seal();
    let image = draft.image();
    let start = Instant::now();
    let report = check_bytes(&image, 2);
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert!(start.elapsed() < Duration::from_secs(10));

    // Nor is one that has not its digest.
    let mut damaged = image;
    damaged[4096] ^= 1;
    let report = check_bytes(&damaged, 2);
    assert_eq!(report.totals[&tesserafs_format::Rule::ChunkDigest], 1);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn counts_cost_no_more_memory_than_the_file_has_bytes() {
    // The superblock is right about a sparse file of 2^40 bytes; its metadata is zeros, which no digest vouches for.
    let mut block = vec![0; 4096];
    block.copy_from_slice(&Draft::sample().image()[..4096]);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    superblock(&mut block, |sb| {
        sb.tree.inodes = 0xffff_fffe_u64.into();
        sb.tree.dirents = 0xffff_fffe_u64.into();
        let layout = tesserafs_format::superblock::Layout::new(sb.tree_offset.get(), &sb.tree, &sb.map)
            .expect("a layout");
        sb.image_bytes = layout.image_bytes.into();
    });
    file.write_all(&block).expect("written");
    let sb =
        tesserafs_format::SuperBlock::parse(block.as_slice().try_into().expect("a block")).expect("valid");
    // Not that long: nothing is allocated for what is not there.
    let source = Source::open(file.path()).expect("opened");
    let start = Instant::now();
    let report = check(&source, &Options::default(), &Silent, &Cancel::default());
    assert_eq!(report.exit_code().value(), 4);
    assert!(start.elapsed() < Duration::from_secs(1));
    // That long, and interrupted soon: it stops.
    if file.as_file().set_len(sb.file_bytes()).is_err() {
        return;
    }
    let source = Source::open(file.path()).expect("opened");
    let cancel = Cancel::default();
    let flag = cancel.flag().clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let report = check(&source, &Options::default(), &Silent, &cancel);
    assert!(matches!(report.error, Some(Error::Cancelled)), "{:?}", report.error);
    assert_eq!(report.exit_code().value() & 32, 32);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_file_that_changes_meanwhile_is_no_panic() {
    let image = Draft::sample().image();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&image).expect("written");
    let path = file.path().to_owned();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        let file = File::options().write(true).open(path).expect("opened");
        let mut random = Random(4);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let at = random.below(image.len());
            file.write_all_at(&[random.below(256) as u8], at as u64).expect("written");
            file.write_all_at(&image[at..=at], at as u64).expect("written");
        }
    });
    for _ in 0..200 {
        let source = Source::open(file.path()).expect("opened");
        let _ = check(&source, &Options { threads: 2, ..Options::default() }, &Silent, &Cancel::default());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("the writer");
}

#[test]
fn findings_without_end_are_counted() {
    // A hundred thousand inodes without a name, most of them without a link.
    let mut draft = Draft::empty();
    draft.directory(1, 0, 2, 0);
    draft.inodes.resize(100_000, DraftInode { file_type: 4, ..DraftInode::default() });
    draft.seal();
    let report = check_bytes(&draft.image(), 1);
    let rule = tesserafs_format::Rule::InodeNlink;
    assert_eq!(report.totals[&rule], 99_999);
    assert_eq!(report.findings.len(), fsck_tesserafs::finding::KEPT_PER_RULE);
    let mut text = Vec::new();
    report.write_text(&mut text, true).expect("written");
    assert!(String::from_utf8_lossy(&text).contains("inode-nlink: 99935 more like these"));
}
