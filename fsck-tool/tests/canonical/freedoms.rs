// SPDX-License-Identifier: GPL-2.0-or-later

//! Images put together by hand: first as the specification says, then with one freedom taken each.

use fsck_tesserafs::canonical::Freedom;
use tesserafs_format::raw::RawPack;
use tesserafs_format::x86;
use zstd_safe::{CCtx, CParameter, ParamSwitch};

use super::common::{pattern, sha256, superblock, Draft, Piece};
use super::{compare, difference};

/// Where pack 0 begins.
const PACK: u64 = 4096;

/// One zstd frame as section 5.4 has it.
pub(super) fn frame(raw: &[u8], level: i32) -> Vec<u8> {
    let mut zstd = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::MaxBlockSize(32 << 10),
        CParameter::UseBlockSplitter(ParamSwitch::Disable),
    ] {
        zstd.set_parameter(parameter).expect("a parameter");
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    zstd.compress2(&mut frame, raw).expect("compressed");
    frame
}

/// An image without files, whose segments up to 64 KiB are not cut, and whose files above 4 KiB are not grouped.
pub(super) fn draft() -> Draft {
    let mut draft = Draft::empty();
    (draft.profile.chunk_min, draft.profile.chunk_avg) = (65_536.into(), 65_536.into());
    (draft.profile.small_max, draft.profile.group_size) = (4096.into(), 8192.into());
    draft.profile.zstd_version = zstd_safe::version_number().into();
    draft
}

/// Gives the contents of a draft, of which these are the sizes, names from `a` on, and finishes the image.
pub(super) fn files(mut draft: Draft, sizes: &[usize]) -> Vec<u8> {
    draft.directory(1, sizes.len() as u64, 2, 0);
    for (number, size) in (0_u32..).zip(sizes) {
        draft.regular(number, *size as u64, 1, 0);
        draft.dirent(&[b'a' + number as u8], number + 2, 1);
    }
    draft.seal();
    draft.image()
}

/// An image of one file of several pieces.
fn one(mut draft: Draft, pieces: &[Piece<'_>], bytes: &[u8]) -> Vec<u8> {
    draft.content(pieces, bytes);
    files(draft, &[bytes.len()])
}

/// An image of one file that is one chunk with these stored bytes.
fn stored(mut draft: Draft, raw: &[u8], codec: u8, stored: &[u8]) -> Vec<u8> {
    let chunk = draft.chunk(stored, codec, raw.len() as u32, sha256(raw));
    one(draft, &[Piece::Part { chunk, offset: 0, len: raw.len() as u64 }], raw)
}

fn text() -> Vec<u8> {
    (0..2000_u32).flat_map(|n| format!("line {} of {}\n", n * n % 977, n % 13).into_bytes()).collect()
}

fn code() -> Vec<u8> {
    let call = |n: u32| [&[0xe8][..], &(n * 40 % 5000).to_le_bytes(), &[n as u8; 11]].concat();
    (0..1500).flat_map(call).collect()
}

fn filtered(code: &[u8]) -> Vec<u8> {
    let mut code = code.to_vec();
    x86::encode(&mut code);
    code
}

fn assert_canonical(image: &[u8], what: &str) {
    let report = compare(image, 1);
    assert_eq!(report.canonical, Some(true), "{what}: {report:?}");
}

/// The freedom that was taken is told, with the region, the first byte and the file.
fn assert_taken(image: &[u8], freedom: Freedom, region: &str, byte: Option<u64>, path: &str) {
    let report = compare(image, 2);
    let finding = report.findings.first().unwrap_or_else(|| panic!("{freedom:?}: {report:?}"));
    let (found, at, offset) = difference(&report).expect("a difference");
    assert_eq!((found, at), (freedom, region), "{finding}");
    assert_eq!(byte.unwrap_or(offset), offset, "{finding}");
    assert_eq!(finding.place, tesserafs_format::Place::Byte(offset), "{finding}");
    assert_eq!(finding.path.as_deref().unwrap_or_default(), path.as_bytes(), "{finding}");
    assert_eq!((report.canonical, report.findings.len()), (Some(false), 1), "{report:?}");
    assert!(report.is_clean(), "it breaks no rule: {report:?}");
    assert_eq!(report.exit_code().value(), 64);
}

#[test]
fn where_a_file_is_cut() {
    let bytes = pattern(20_000, 1);
    assert_canonical(&one(draft(), &[Piece::Data(&bytes)], &bytes), "one chunk");
    let halves = [Piece::Data(&bytes[..10_000]), Piece::Data(&bytes[10_000..])];
    // Plain chunks, so that the pack is the same.
    assert_taken(&one(draft(), &halves, &bytes), Freedom::CutPoint, "map", None, "/a");

    // Frames are not: the first byte that differs is in the first of them.
    let text = text();
    let mut halves = draft();
    let (front, back) = text.split_at(9000);
    let mut part = |bytes: &[u8]| {
        let chunk = halves.chunk(&frame(bytes, 3), 1, bytes.len() as u32, sha256(bytes));
        Piece::Part { chunk, offset: 0, len: bytes.len() as u64 }
    };
    let pieces = [part(front), part(back)];
    let image = one(halves, &pieces, &text);
    assert_taken(&image, Freedom::CutPoint, "pack", None, "/a");
}

#[test]
fn which_zeros_are_a_hole() {
    let data = pattern(12_288, 2);
    let bytes = [&data[..8192], &[0; 8192], &data].concat();
    let hole = [Piece::Data(&data[..8192]), Piece::Hole(8192), Piece::Data(&data)];
    assert_canonical(&one(draft(), &hole, &bytes), "a hole of two blocks");
    assert_taken(&one(draft(), &[Piece::Data(&bytes)], &bytes), Freedom::Hole, "pack", None, "/a");
    // Shorter than a builder makes them.
    let mut long = draft();
    long.profile.hole_min = 16_384.into();
    assert_taken(&one(long, &hole, &bytes), Freedom::Hole, "pack", None, "/a");
    // A block of the zeros is stored, or half of one.
    for stored in [4096, 2048] {
        let (front, back) = bytes.split_at(8192 + stored);
        let back = &back[8192 - stored..];
        let pieces = [Piece::Data(front), Piece::Hole(8192 - stored as u64), Piece::Data(back)];
        assert_taken(&one(draft(), &pieces, &bytes), Freedom::Hole, "pack", None, "/a");
    }
    // Zeros that end in the middle of a block are no hole there.
    let odd = [&data[..8192], &[0; 10_000], &data[..4000]].concat();
    let mut rounded = draft();
    let back = &odd[16_384..];
    rounded.plain_chunk(&data[..8192]);
    rounded.chunk(&frame(back, 3), 1, back.len() as u32, sha256(back));
    let part = |chunk, len| Piece::Part { chunk, offset: 0, len };
    let pieces = [part(0, 8192), Piece::Hole(8192), part(1, back.len() as u64)];
    assert_canonical(&one(rounded, &pieces, &odd), "whole blocks only");
    let all = [Piece::Data(&data[..8192]), Piece::Hole(10_000), Piece::Data(&data[..4000])];
    assert_taken(&one(draft(), &all, &odd), Freedom::Hole, "pack", None, "/a");
}

#[test]
fn which_group_a_small_file_is_in_and_where() {
    let (a, b) = (pattern(1000, 3), pattern(700, 4));
    let grouped = |first: &[u8], second: &[u8], offsets: [u32; 2]| {
        let mut draft = draft();
        let chunk = draft.plain_chunk(&[first, second].concat());
        for (bytes, offset) in [(&a, offsets[0]), (&b, offsets[1])] {
            draft.content(&[Piece::Part { chunk, offset, len: bytes.len() as u64 }], bytes);
        }
        files(draft, &[a.len(), b.len()])
    };
    assert_canonical(&grouped(&a, &b, [0, 1000]), "a group");
    assert_taken(&grouped(&b, &a, [700, 0]), Freedom::Group, "pack", Some(PACK), "/a");
    let mut alone = draft();
    alone.content(&[Piece::Data(&a)], &a);
    alone.content(&[Piece::Data(&b)], &b);
    assert_taken(&files(alone, &[a.len(), b.len()]), Freedom::Group, "map", None, "/a");
}

#[test]
fn whether_the_same_bytes_are_stored_twice_in_part_or_in_another_order() {
    let (x, y) = (pattern(20_480, 5), pattern(9000, 6));
    // Its first segment is all of the other file.
    let other = [&x[..], &[0; 8192], &y].concat();
    let two = |again: bool| {
        let mut draft = draft();
        draft.content(&[Piece::Data(&x)], &x);
        let first = match again {
            true => Piece::Data(&x),
            false => Piece::Part { chunk: 0, offset: 0, len: x.len() as u64 },
        };
        draft.content(&[first, Piece::Hole(8192), Piece::Data(&y)], &other);
        files(draft, &[x.len(), other.len()])
    };
    assert_canonical(&two(false), "once");
    assert_taken(&two(true), Freedom::DuplicateChunk, "pack", Some(PACK + 20_480), "/b");

    let mut part = draft();
    part.content(&[Piece::Data(&x)], &x);
    part.content(&[Piece::Part { chunk: 0, offset: 4096, len: 8192 }], &x[4096..12_288]);
    let image = files(part, &[x.len(), 8192]);
    assert_taken(&image, Freedom::ChunkPart, "pack", Some(PACK + 20_480), "/b");

    let mut swapped = draft();
    let (second, first) = (swapped.plain_chunk(&y), swapped.plain_chunk(&x));
    swapped.content(&[Piece::Part { chunk: first, offset: 0, len: x.len() as u64 }], &x);
    swapped.content(&[Piece::Part { chunk: second, offset: 0, len: y.len() as u64 }], &y);
    let image = files(swapped, &[x.len(), y.len()]);
    assert_taken(&image, Freedom::ChunkOrder, "pack", Some(PACK), "/b");
}

#[test]
fn how_a_chunk_is_stored() {
    let (text, code) = (text(), code());
    assert_canonical(&stored(draft(), &text, 1, &frame(&text, 3)), "a frame");
    assert_canonical(&stored(draft(), &code, 2, &frame(&filtered(&code), 3)), "a filtered one");
    assert_taken(&stored(draft(), &text, 0, &text), Freedom::Plain, "pack", Some(PACK), "/a");
    let unfiltered = stored(draft(), &code, 1, &frame(&code, 3));
    assert_taken(&unfiltered, Freedom::Filter, "pack", None, "/a");
    let needless = stored(draft(), &text, 2, &frame(&filtered(&text), 3));
    assert_taken(
        &needless,
        Freedom::Filter,
        if frame(&filtered(&text), 3) == frame(&text, 3) { "map" } else { "pack" },
        None,
        "/a",
    );
}

#[test]
fn a_frame_of_another_level_is_told_with_the_level_and_the_library() {
    let text = text();
    let image = stored(draft(), &text, 1, &frame(&text, 12));
    assert_taken(&image, Freedom::Frame, "pack", None, "/a");
    let own = zstd_safe::version_string();
    let detail = compare(&image, 1).findings[0].detail.clone().expect("a detail");
    let level = (1..=12).find(|level| frame(&text, *level) == frame(&text, 12)).expect("a level");
    assert!(detail.contains(&format!("it is the frame of level {level}")), "{detail}");
    assert!(detail.contains(&format!("this program has {own}, the profile says {own}")), "{detail}");

    // The profile says another one.
    let mut image = stored(draft(), &text, 1, &frame(&text, 3));
    superblock(&mut image, |sb| sb.profile.level = 12.into());
    assert_taken(&image, Freedom::Frame, "pack", None, "/a");
    superblock(&mut image, |sb| sb.profile.zstd_version = 10_401.into());
    let detail = compare(&image, 1).findings[0].detail.clone().expect("a detail");
    assert!(detail.contains(&format!("this program has {own}, the profile says 1.4.1")), "{detail}");
}

#[test]
fn what_another_version_of_the_library_makes_is_not_known() {
    let text = text();
    let mut image = stored(draft(), &text, 1, &frame(&text, 3));
    superblock(&mut image, |sb| sb.profile.zstd_version = 10_401.into());
    let report = compare(&image, 1);
    assert_eq!((report.canonical, report.exit_code().value()), (None, 8), "{report:?}");
    let error = report.error.expect("an error").to_string();
    assert!(error.contains("1.4.1") && error.contains(zstd_safe::version_string()), "{error}");
}

#[test]
fn bytes_that_no_freedom_explains() {
    let bytes = pattern(20_000, 1);
    let mut image = one(draft(), &[Piece::Data(&bytes)], &bytes);
    // Features that a reader may ignore, and that no builder says.
    superblock(&mut image, |sb| sb.compat = 1.into());
    assert_taken(&image, Freedom::Other, "superblock", Some(0x10), "");
}

#[test]
fn a_chunk_in_a_pack() {
    // A frame of these is shorter.
    let bytes = vec![7; 6000];
    let mut draft = draft();
    draft.content(&[Piece::Data(&bytes)], &bytes);
    let pack = std::mem::take(&mut draft.pack);
    draft.packs.push(RawPack {
        digest: sha256(&pack),
        bytes: (pack.len() as u64).into(),
        kind: 1.into(),
        ..RawPack::default()
    });
    draft.chunks[0].place = (1 << 48).into();
    let image = files(draft, &[bytes.len()]);
    let dir = tempfile::tempdir().expect("a directory");
    let name = tesserafs_format::Digest(sha256(&pack)).to_string();
    std::fs::write(dir.path().join(name), &pack).expect("written");
    let path = dir.path().join("image");
    std::fs::write(&path, &image).expect("written");
    let source = fsck_tesserafs::Source::open(&path).expect("opened");
    let options = fsck_tesserafs::Options { canonical: true, ..Default::default() };
    let report = fsck_tesserafs::check(
        &source,
        &options,
        &fsck_tesserafs::progress::Silent,
        &fsck_tesserafs::parallel::Cancel::default(),
    );
    let place = difference(&report).map(|(freedom, region, _)| (freedom, region));
    assert_eq!(place, Some((Freedom::Plain, "map")), "{report:?}");
}
