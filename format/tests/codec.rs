// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The parts of a codec beside zstd: the x86 filter, and frames that are ended early, on frames of the real
//! libzstd.

use proptest::prelude::*;
use tesserafs_format::limits::FRAME_BLOCK;
use tesserafs_format::{frame, x86};
use zstd_safe::{CCtx, CParameter, ParamSwitch};

const BLOCK: usize = FRAME_BLOCK as usize;

/// The filter of FORMAT.md 5.5, to the letter; the number of near calls that are not 0.
fn spec_filter(bytes: &mut [u8], sign: i64) -> usize {
    let (mut i, mut calls) = (0, 0);
    while i + 8 <= bytes.len() {
        if bytes[i] != 0xe8 && bytes[i] != 0xe9 {
            i += 1;
            continue;
        }
        i += 5;
        let v = i64::from(u32::from_le_bytes(bytes[i - 4..i].try_into().expect("four bytes")));
        if !((1 << 24)..(1 << 32) - (1 << 24)).contains(&v) {
            calls += usize::from(v != 0);
            let mut v = (v + sign * i as i64).rem_euclid(1 << 25);
            if v >= 1 << 24 {
                v += (1 << 32) - (1 << 25);
            }
            bytes[i - 4..i].copy_from_slice(&(v as u32).to_le_bytes());
        }
    }
    calls
}

/// Bytes in which calls are frequent, and stand close together.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0xe8), Just(0xe9), Just(0), Just(0xff), any::<u8>()];
    proptest::collection::vec(byte, 0..400)
}

proptest! {
    #[test]
    fn the_filter_is_that_of_the_specification(raw in code()) {
        let (mut found, mut expected) = (raw.clone(), raw.clone());
        let calls = x86::encode(&mut found);
        prop_assert_eq!(calls, spec_filter(&mut expected, 1));
        prop_assert_eq!(&found, &expected);
        let worthwhile = x86::is_worthwhile(calls, raw.len());
        prop_assert_eq!(worthwhile, calls * 128 >= raw.len());
        prop_assert!(x86::may_be_worthwhile(&raw) || !worthwhile);
        x86::decode(&mut found);
        prop_assert_eq!(&found, &raw);
        spec_filter(&mut expected, -1);
        prop_assert_eq!(&expected, &raw);
    }

    #[test]
    fn opcodes_are_counted_whatever_their_number(opcodes in 0_usize..2000, others in 0_usize..100_000) {
        let raw = [vec![0xe8; opcodes / 2], vec![0xe7; others], vec![0xe9; opcodes - opcodes / 2]].concat();
        prop_assert_eq!(x86::may_be_worthwhile(&raw), opcodes * 128 >= raw.len());
    }

    #[test]
    fn a_beginning_of_filtered_bytes_decodes_but_for_its_end(raw in code(), len in 0_usize..400) {
        let mut filtered = raw.clone();
        x86::encode(&mut filtered);
        filtered.truncate(len);
        x86::decode(&mut filtered);
        let sure = filtered.len().saturating_sub(x86::UNSURE as usize);
        prop_assert_eq!(&filtered[..sure], &raw[..sure]);
    }

    #[test]
    fn no_bytes_are_a_frame_that_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), wanted: u32, head: bool) {
        if head && bytes.len() >= 5 {
            bytes[..5].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x60]);
        }
        let before = bytes.clone();
        prop_assert!(frame::block_ends(&bytes).all(|end| end <= before.len()));
        if frame::shorten(&mut bytes, wanted.saturating_mul(2), wanted).is_none() {
            prop_assert_eq!(bytes, before);
        }
    }
}

/// Text, numbers, and a run of one byte: blocks of all types.
fn raw(len: usize) -> Vec<u8> {
    let mut raw: Vec<u8> =
        (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[i % 3]).collect();
    for (number, block) in raw.chunks_mut(BLOCK).enumerate() {
        match number % 3 {
            0 => block.iter_mut().enumerate().for_each(|(i, byte)| *byte = b"from a directory "[i * i % 17]),
            1 => block.fill(7),
            _ => (),
        }
    }
    raw
}

/// A frame as FORMAT.md 5.4 has it.
fn frame_of(raw: &[u8], level: i32) -> Vec<u8> {
    let mut compressor = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::MaxBlockSize(FRAME_BLOCK),
        CParameter::UseBlockSplitter(ParamSwitch::Disable),
    ] {
        compressor.set_parameter(parameter).expect("a parameter");
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    compressor.compress2(&mut frame, raw).expect("compressed");
    frame
}

#[test]
fn a_frame_that_is_ended_early_decodes_to_the_beginning() {
    for level in [1, 3, 9, 15, 19, 22] {
        for len in [BLOCK + 1, 65_791, 65_792, 100_000, 256 << 10, (256 << 10) + 5] {
            let raw = raw(len);
            let frame = frame_of(&raw, level);
            assert_eq!(frame::block_ends(&frame).count(), len.div_ceil(BLOCK), "level {level}, {len} bytes");
            assert_eq!(frame::block_ends(&frame).last(), Some(frame.len()));
            for wanted in [1, 4096, BLOCK, BLOCK + 1, len - 1, len] {
                let mut short = frame.clone();
                let ended = frame::shorten(&mut short, len as u32, wanted as u32);
                let expected = wanted.next_multiple_of(BLOCK);
                if expected >= len {
                    assert_eq!(ended, None);
                    assert_eq!(short, frame);
                    continue;
                }
                let ended = ended.expect("blocks behind those that are wanted");
                assert_eq!(ended.raw_len as usize, expected);
                let mut found = vec![0; expected];
                let n = zstd_safe::decompress(found.as_mut_slice(), &short[..ended.stored_len]);
                assert_eq!(n, Ok(expected), "level {level}, {len} bytes, {wanted} wanted");
                assert_eq!(found, raw[..expected]);
            }
        }
    }
}

#[test]
fn frames_that_no_chunk_has_are_left_alone() {
    let raw = raw(100_000);
    let mut compressor = CCtx::create();
    compressor.set_parameter(CParameter::ChecksumFlag(true)).expect("a parameter");
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    compressor.compress2(&mut frame, &raw).expect("compressed");
    let before = frame.clone();
    assert_eq!(frame::shorten(&mut frame, 100_000, 1), None);
    assert_eq!(frame, before);
    assert_eq!(frame::block_ends(&frame).count(), 0);
    // Nor are those that say another length than the chunk's.
    assert_eq!(frame::shorten(&mut frame_of(&raw, 3), 100_001, 1), None);
    let mut cut = frame_of(&raw, 3);
    cut.truncate(30);
    assert_eq!(frame::shorten(&mut cut, 100_000, 1), None);
}
