// SPDX-License-Identifier: GPL-2.0
//! The stored bytes of a chunk: frames that are broken, lie, or are odd. Their digests are right.

use anyhow::Result;
use tesserafs_format::Rule;
use zstd_safe::{CCtx, CParameter};

use super::super::frames::{skippable, Block, Frame};
use super::super::good::{LETTER, TEXT};
use super::super::parts::Parts;
use super::super::reader::At::{Beginning, Data};
use super::super::Case;
use super::{canonical, fails, valid};

/// Bytes of `/text`, which is one chunk.
const LEN: u32 = TEXT as u32;

/// Raw bytes in a block of a chunk.
const BLOCK: u32 = 32 << 10;

/// Stores a frame for `/text`.
fn frame(p: &mut Parts, bytes: &[u8]) -> Result<()> {
    let chunk = p.chunk_of("text")?;
    anyhow::ensure!(p.chunks[chunk].raw_len.get() == LEN, "/text is not one chunk");
    p.store(chunk, 1, bytes)
}

/// Stores the frame of a chunk, changed.
fn changed(p: &mut Parts, change: fn(&mut Frame)) -> Result<()> {
    let mut made = Frame::new(LEN, Frame::repeated(LETTER, LEN, BLOCK));
    change(&mut made);
    frame(p, &made.bytes())
}

/// Stores the frame that libzstd makes of the bytes of `/text` with these parameters.
fn encoded(p: &mut Parts, parameters: &[CParameter]) -> Result<()> {
    let mut encoder = CCtx::create();
    for parameter in parameters {
        encoder.set_parameter(*parameter).map_err(|_| anyhow::anyhow!("no {parameter:?}"))?;
    }
    let mut bytes = Vec::with_capacity(TEXT);
    encoder.compress2(&mut bytes, &vec![LETTER; TEXT]).map_err(|_| anyhow::anyhow!("not compressed"))?;
    frame(p, &bytes)
}

/// The stored bytes of `/text` as mkfs made them, changed.
fn stored(p: &mut Parts, change: fn(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = p.stored(p.clone().chunk_of("text")?)?.to_vec();
    change(&mut bytes);
    frame(p, &bytes)
}

#[rustfmt::skip]
pub(super) fn cases() -> Vec<Case> {
    let broken = |name, change| fails(name, Data, Rule::ChunkDecode, change);
    vec![
        valid("frame-by-hand", |p| changed(p, |_| ())),
        broken("frame-truncated", |p| stored(p, |bytes| { bytes.pop(); })),
        broken("frame-one-byte", |p| frame(p, &[0x28])),
        broken("frame-magic-only", |p| frame(p, &[0x28, 0xb5, 0x2f, 0xfd])),
        broken("frame-header-only", |p| changed(p, |frame| frame.blocks.clear())),
        broken("frame-magic-wrong", |p| stored(p, |bytes| bytes[0] ^= 1)),
        broken("frame-magic-of-version-0.7", |p| stored(p, |bytes| bytes[0] = 0x27)),
        broken("frame-zeros", |p| stored(p, |bytes| bytes.fill(0))),
        broken("frame-ones", |p| stored(p, |bytes| bytes.fill(0xff))),
        broken("frame-longer-by-zeros", |p| stored(p, |bytes| bytes.extend([0; 4]))),
        broken("frame-reserved-bit", |p| changed(p, |frame| frame.reserved = true)),
        broken("frame-without-last-block", |p| changed(p, |frame| frame.ends = false)),
        // Two frames decode to what one should; only the first is a chunk's.
        canonical("frame-twice-empty", Rule::ChunkFrame, |p| stored(p, |bytes| bytes.extend(Frame::new(0, vec![Block::Raw(Vec::new())]).bytes()))),
        canonical("frame-then-skippable", Rule::ChunkFrame, |p| stored(p, |bytes| bytes.extend(skippable(9)))),
        canonical("frame-behind-skippable", Rule::ChunkFrame, |p| stored(p, |bytes| { bytes.splice(..0, skippable(9)); })),
        broken("frame-skippable-only", |p| frame(p, &skippable(100))),
        broken("frame-skippable-longer-than-stored", |p| { let mut bytes = skippable(4); bytes[4..8].fill(0xff); frame(p, &bytes) }),
        canonical("frames-of-half-each", Rule::ChunkFrame, |p| {
            let half = Frame::new(LEN / 2, Frame::repeated(LETTER, LEN / 2, LEN / 2)).bytes();
            frame(p, &[half.clone(), half].concat())
        }),
        // Content size.
        broken("frame-size-zero", |p| changed(p, |frame| frame.size = Some(0))),
        broken("frame-size-one-less", |p| changed(p, |frame| frame.size = Some(LEN - 1))),
        broken("frame-size-one-more", |p| changed(p, |frame| frame.size = Some(LEN + 1))),
        broken("frame-size-max", |p| changed(p, |frame| frame.size = Some(u32::MAX))),
        // A chunk says its size in its record: a reader that decodes all of it needs no other.
        canonical("frame-size-absent", Rule::ChunkFrame, |p| changed(p, |frame| (frame.size, frame.window) = (None, Some(10 << 3)))),
        // Windows.
        valid("frame-window-of-1-mib", |p| changed(p, |frame| frame.window = Some(10 << 3))),
        valid("frame-window-too-short", |p| encoded(p, &[CParameter::WindowLog(10)])),
        broken("frame-window-max", |p| changed(p, |frame| frame.window = Some(0xff))),
        valid("frame-window-of-2-gib", |p| changed(p, |frame| frame.window = Some(21 << 3))),
        broken("frame-dictionary", |p| changed(p, |frame| frame.dictionary = Some(7))),
        valid("frame-dictionary-none", |p| changed(p, |frame| frame.dictionary = Some(0))),
        // Readers accept a checksum, and need none: the digest is better.
        valid("frame-checksum", |p| encoded(p, &[CParameter::ChecksumFlag(true)])),
        broken("frame-checksum-wrong", |p| changed(p, |frame| frame.checksum = Some(0))),
        broken("frame-checksum-missing", |p| { let mut frame_ = Frame::new(LEN, Frame::repeated(LETTER, LEN, BLOCK)); frame_.checksum = Some(0); let bytes = frame_.bytes(); frame(p, &bytes[..bytes.len() - 2]) }),
        // Blocks.
        broken("blocks-reserved", |p| changed(p, |frame| frame.blocks[1] = Block::Reserved)),
        broken("blocks-compressed-empty", |p| changed(p, |frame| frame.blocks[1] = Block::Compressed(Vec::new()))),
        broken("blocks-compressed-zeros", |p| changed(p, |frame| frame.blocks[1] = Block::Compressed(vec![0; 20]))),
        broken("blocks-compressed-ones", |p| changed(p, |frame| frame.blocks[1] = Block::Compressed(vec![0xff; 200]))),
        broken("blocks-compressed-treeless", |p| changed(p, |frame| frame.blocks[0] = Block::Compressed(vec![0x33, 0, 0, 0, 0, 0, 0]))),
        broken("blocks-compressed-repeat-mode", |p| changed(p, |frame| frame.blocks[0] = Block::Compressed(vec![0, 1, 0xfc, 0, 0]))),
        broken("blocks-of-128-kib-and-more", |p| changed(p, |frame| frame.blocks[0] = Block::Repeat(LETTER, (128 << 10) + 1))),
        broken("blocks-of-2-mib", |p| changed(p, |frame| frame.blocks = vec![Block::Repeat(LETTER, (1 << 21) - 1)])),
        broken("blocks-too-few", |p| changed(p, |frame| { frame.blocks.pop(); })),
        broken("blocks-too-many", |p| changed(p, |frame| frame.blocks.push(Block::Repeat(LETTER, 1)))),
        broken("blocks-too-many-by-far", |p| changed(p, |frame| frame.blocks = Frame::repeated(LETTER, 20_000 * BLOCK, BLOCK))),
        broken("blocks-empty-for-ever", |p| changed(p, |frame| frame.blocks = vec![Block::Repeat(LETTER, 0); 20_000])),
        broken("blocks-nothing", |p| changed(p, |frame| frame.blocks = vec![Block::Raw(Vec::new())])),
        // 2 GiB of one letter in 64 KiB of stored bytes.
        broken("bomb", |p| changed(p, |frame| (frame.size, frame.blocks) = (Some(1 << 31), Frame::repeated(LETTER, 1 << 31, 128 << 10)))),
        broken("bomb-that-says-nothing", |p| changed(p, |frame| (frame.size, frame.window, frame.blocks) = (None, Some(7 << 3), Frame::repeated(LETTER, 1 << 30, 128 << 10)))),
        broken("bomb-of-libzstd", |p| {
            let mut bytes = vec![0; 1 << 16];
            let len = zstd_safe::compress(&mut bytes[..], &vec![0; 1 << 20], 19).map_err(|_| anyhow::anyhow!("not compressed"))?;
            frame(p, &bytes[..len])
        }),
        // All is there; a reader of the beginning does not find it where it should be.
        fails("blocks-of-64-kib", Beginning, Rule::ChunkBlocks, |p| changed(p, |frame| frame.blocks = Frame::repeated(LETTER, LEN, 64 << 10))),
        fails("blocks-of-16-kib", Beginning, Rule::ChunkBlocks, |p| changed(p, |frame| frame.blocks = Frame::repeated(LETTER, LEN, 16 << 10))),
        fails("blocks-of-one-byte", Beginning, Rule::ChunkBlocks, |p| changed(p, |frame| { frame.blocks.splice(..1, Frame::repeated(LETTER, BLOCK, 1).into_iter().take(9000).chain([Block::Repeat(LETTER, BLOCK - 9000)])); })),
        fails("blocks-first-shorter-second-longer", Beginning, Rule::ChunkBlocks, |p| changed(p, |frame| (frame.blocks[0], frame.blocks[1]) = (Block::Repeat(LETTER, BLOCK - 1), Block::Repeat(LETTER, BLOCK + 1)))),
        fails("blocks-first-empty", Beginning, Rule::ChunkBlocks, |p| changed(p, |frame| frame.blocks.insert(0, Block::Raw(Vec::new())))),
        // Bytes behind the frame do not keep a reader from its beginning.
        fails("blocks-of-64-kib-then-skippable", Beginning, Rule::ChunkBlocks, |p| {
            let bytes = Frame::new(LEN, Frame::repeated(LETTER, LEN, 64 << 10)).bytes();
            frame(p, &[bytes, skippable(9)].concat())
        }),
        valid("block-of-libzstd", |p| encoded(p, &[])),
        // The block with the last bytes is not the last: a reader of the beginning never gets there.
        canonical("blocks-last-empty", Rule::ChunkBlocks, |p| changed(p, |frame| frame.blocks.push(Block::Raw(Vec::new())))),
        // Codecs.
        broken("codec-x86-of-no-frame", |p| { let chunk = p.chunk_of("text")?; p.store(chunk, 2, b"not a frame") }),
        canonical("codec-x86-of-code-as-plain-zstd", Rule::ContentDigest, |p| { let chunk = p.chunk_of("code")?; let stored = p.stored(chunk)?.to_vec(); p.store(chunk, 1, &stored) }),
        valid("codec-x86-of-what-is-no-code", |p| { let chunk = p.chunk_of("text")?; let stored = p.stored(chunk)?.to_vec(); p.store(chunk, 2, &stored) }),
        valid("codec-plain-of-text", |p| { let chunk = p.chunk_of("text")?; p.store(chunk, 0, &[LETTER; TEXT]) }),
    ]
}
