// SPDX-License-Identifier: GPL-2.0-or-later

//! zstd frames that are ended early: `frame::shorten`, on any bytes, and on frames that libzstd makes of any bytes.
//!
//! Invariant: where a frame and the shortened one both decode, the shortened one gives the beginning of the
//! other's raw bytes; a frame made as FORMAT.md 5.4 says is shortened wherever a block ends; where nothing is
//! shortened nothing is changed. No panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_format::frame;
use tesserafs_format::limits::{CHUNK_RAW_MAX, FRAME_BLOCK};
use tesserafs_fuzz::input::Input;
use zstd_safe::{CCtx, CParameter, ParamSwitch};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (is_raw, wanted) = (input.u8() % 2 == 1, input.u32() % (CHUNK_RAW_MAX + 1));
    if is_raw {
        let raw = unfolded(input);
        let frame = compressed(&raw);
        let shortened = shorten(&frame, &raw, wanted);
        let ends_early =
            wanted > 0 && wanted.div_ceil(FRAME_BLOCK) < (raw.len() as u32).div_ceil(FRAME_BLOCK);
        let expected = ends_early.then_some(true);
        assert_eq!(shortened, expected, "{wanted} of {} bytes", raw.len());
        return;
    }
    let frame = input.0;
    assert!(frame::block_ends(frame).is_sorted() && frame::block_ends(frame).all(|end| end <= frame.len()));
    let mut raw = Vec::with_capacity(CHUNK_RAW_MAX as usize);
    if zstd_safe::decompress(&mut raw, frame).is_ok() {
        shorten(frame, &raw, wanted);
    }
    // Any bytes, as a frame with a raw length that is not theirs.
    let mut bytes = frame.to_vec();
    if frame::shorten(&mut bytes, wanted.saturating_mul(2), wanted).is_none() {
        assert!(bytes == frame, "changed and not shortened");
    }
});

/// Shortens `frame`, which decodes to `raw`: whether what is left decodes, if that was possible.
fn shorten(frame: &[u8], raw: &[u8], wanted: u32) -> Option<bool> {
    let mut bytes = frame.to_vec();
    let Some(beginning) = frame::shorten(&mut bytes, raw.len() as u32, wanted) else {
        assert!(bytes == frame, "changed and not shortened");
        return None;
    };
    assert!(beginning.raw_len >= wanted && (beginning.raw_len as usize) < raw.len());
    let mut decoded = Vec::with_capacity(beginning.raw_len as usize);
    // Blocks of other lengths than those of a chunk, which fsck refuses, give an error.
    let decodes = zstd_safe::decompress(&mut decoded, &bytes[..beginning.stored_len]).is_ok();
    assert!(!decodes || decoded == raw[..beginning.raw_len as usize], "another beginning");
    Some(decodes)
}

/// Up to 256 KiB: pieces of the input, each so many times.
fn unfolded(mut input: Input<'_>) -> Vec<u8> {
    const MOST: usize = 256 << 10;
    let mut raw = vec![0];
    while !input.is_empty() && raw.len() < MOST {
        let (times, len) = (usize::from(input.u16()), usize::from(input.u8()).min(input.0.len()));
        let (piece, rest) = input.0.split_at(len);
        input.0 = rest;
        let times = times.min((MOST - raw.len()) / len.max(1));
        (0..times).for_each(|_| raw.extend_from_slice(piece));
    }
    raw
}

/// A frame as FORMAT.md 5.4 has it.
fn compressed(raw: &[u8]) -> Vec<u8> {
    let mut compressor = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(3),
        CParameter::MaxBlockSize(FRAME_BLOCK),
        CParameter::UseBlockSplitter(ParamSwitch::Disable),
    ] {
        compressor.set_parameter(parameter).expect("a parameter");
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    compressor.compress2(&mut frame, raw).expect("compressed");
    frame
}
