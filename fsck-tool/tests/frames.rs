// SPDX-License-Identifier: GPL-2.0-or-later

//! Frames that no builder makes (`FORMAT.md` 5.4): which of them fsck finds, and that a reader of a beginning reads the others right.

use std::io::Write;

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Source};
use tesserafs_format::{frame, Rule};
use zstd_safe::{CCtx, CParameter};

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{pattern, sha256, Draft, Piece};

/// A block that repeats a byte.
#[derive(Clone, Copy)]
struct Block {
    byte: u8,
    len: u32,
}

/// A frame of such blocks, the last of which says so: the descriptor, the window byte or none, the content size.
fn by_hand(descriptor: u8, window: Option<u8>, blocks: &[Block]) -> Vec<u8> {
    let size: u32 = blocks.iter().map(|block| block.len).sum();
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
    frame.extend(window);
    frame.extend(size.to_le_bytes());
    for (n, block) in blocks.iter().enumerate() {
        let is_last = u32::from(n + 1 == blocks.len());
        frame.extend(&(block.len << 3 | 1 << 1 | is_last).to_le_bytes()[..3]);
        frame.push(block.byte);
    }
    frame
}

/// Blocks of so many KiB, of different bytes.
fn blocks(kib: &[u32]) -> Vec<Block> {
    (b'a'..).zip(kib).map(|(byte, kib)| Block { byte, len: kib << 10 }).collect()
}

/// No window of its own, and a content size of four bytes.
const PLAIN: u8 = 0xa0;
/// The same with a window byte.
const WINDOW: u8 = 0x80;
/// A window of 1 MiB.
const MIB: Option<u8> = Some(10 << 3);

/// The bytes that `frame` decodes to; `None` where it does not.
fn decode(frame: &[u8]) -> Option<Vec<u8>> {
    let mut raw = vec![0; 1 << 20];
    let len = zstd_safe::decompress(&mut raw[..], frame).ok()?;
    raw.truncate(len);
    Some(raw)
}

/// The rules that fsck finds broken in an image of a file whose only chunk is that frame.
fn found(frame: &[u8], raw: &[u8]) -> Vec<Rule> {
    let mut draft = Draft::empty();
    let len = raw.len() as u32;
    let chunk = draft.chunk(frame, 1, len, sha256(raw));
    let content = draft.content(&[Piece::Part { chunk, offset: 0, len: len.into() }], raw);
    draft.directory(1, 1, 2, 0);
    draft.dirent(b"f", 2, 1);
    draft.regular(content, len.into(), 1, 0);
    draft.seal();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&draft.image()).expect("written");
    let source = Source::open(file.path()).expect("opened");
    let options = Options { threads: 1, ..Options::default() };
    let report = check(&source, &options, &Silent, &Cancel::default());
    assert!(report.error.is_none(), "{:?}", report.error);
    report.totals.into_keys().collect()
}

/// Whether a reader of each beginning gets the bytes that are there.
fn beginnings_are_right(frame: &[u8], raw: &[u8]) -> bool {
    let len = raw.len() as u32;
    (1..=len).step_by(4096).all(|wanted| {
        let mut shortened = frame.to_vec();
        let Some(beginning) = frame::shorten(&mut shortened, len, wanted) else { return true };
        assert!(beginning.raw_len >= wanted);
        decode(&shortened[..beginning.stored_len]).is_some_and(|found| {
            found.len() == beginning.raw_len as usize && found == raw[..beginning.raw_len as usize]
        })
    })
}

#[test]
fn blocks_are_looked_at_where_a_reader_of_a_beginning_relies_on_them() {
    let blocks_16 = blocks(&[16; 8]);
    let encoded = |parameters: &[CParameter]| {
        let mut encoder = CCtx::create();
        for parameter in parameters {
            encoder.set_parameter(*parameter).expect("a parameter");
        }
        let text = pattern(50_000, 1).repeat(4);
        let mut frame = Vec::with_capacity(1 << 20);
        encoder.compress2(&mut frame, &text).expect("compressed");
        frame
    };
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    let cases: Vec<(&str, Vec<u8>, &[Rule])> = vec![
        ("as a builder's", by_hand(PLAIN, None, &blocks(&[32, 32, 32, 7])), &[]),
        ("of one block", by_hand(PLAIN, None, &blocks(&[128])), &[]),
        ("whose last block is longer", by_hand(PLAIN, None, &blocks(&[32, 32, 100])), &[]),
        ("whose last block is empty, behind a whole one", by_hand(PLAIN, None, &blocks(&[32, 32, 0])), &[]),
        ("of 16 KiB", by_hand(PLAIN, None, &blocks_16), &[Rule::ChunkBlocks]),
        ("of 64 KiB", by_hand(PLAIN, None, &blocks(&[64, 64, 1])), &[Rule::ChunkBlocks]),
        ("of 16 and 48 KiB", by_hand(PLAIN, None, &blocks(&[16, 48, 1])), &[Rule::ChunkBlocks]),
        ("of 64 KiB, with a window", by_hand(WINDOW, MIB, &blocks(&[64, 64, 1])), &[]),
        ("of 16 KiB, with a window", by_hand(WINDOW, MIB, &blocks_16), &[]),
        ("of 16 KiB, with a window too short for the chunk", by_hand(WINDOW, Some(6 << 3), &blocks_16), &[]),
        ("with a checksum", encoded(&[CParameter::ChecksumFlag(true)]), &[]),
        (
            "with a checksum and blocks of 32 KiB",
            encoded(&[CParameter::ChecksumFlag(true), CParameter::MaxBlockSize(32 << 10)]),
            &[],
        ),
        ("of libzstd alone", encoded(&[]), &[Rule::ChunkBlocks]),
        ("without a content size", encoded(&[CParameter::ContentSizeFlag(false)]), &[Rule::ChunkFrame]),
        (
            "of 16 KiB, and bytes behind",
            [&by_hand(PLAIN, None, &blocks_16)[..], &skippable].concat(),
            &[Rule::ChunkBlocks],
        ),
        (
            "of 16 KiB, with a window, and bytes behind",
            [&by_hand(WINDOW, MIB, &blocks_16)[..], &skippable].concat(),
            &[Rule::ChunkFrame],
        ),
    ];
    for (what, frame, rules) in cases {
        let raw = decode(&frame).unwrap_or_else(|| panic!("{what}: does not decode"));
        assert!(frame.len() < raw.len());
        assert_eq!(found(&frame, &raw), rules, "{what}");
        // Of what fsck finds right a reader must not get other bytes.
        let is_right = beginnings_are_right(&frame, &raw);
        assert!(is_right || rules.contains(&Rule::ChunkBlocks), "{what}");
    }
}
