// SPDX-License-Identifier: GPL-2.0
//! Packs, chunk records, contents, extents, annotations.

use anyhow::{Context, Result};
use tesserafs_format::raw::{RawAnnotation, RawChunk, RawContentMap, RawExtent, RawPack};
use tesserafs_format::{Chunk, PackIndex, Rule};

use super::super::parts::{chunk_digest, sha256, Parts};
use super::super::reader::At::Data;
use super::super::{Case, Kernel};
use super::{canonical, fails, refused, set32, set64, set8, valid};

/// The chunk of a hole.
const HOLE: u32 = u32::MAX;

pub(super) fn cases() -> Vec<Case> {
    [packs(), chunks(), extents(), annotations()].concat()
}

/// Puts the chunks into a pack of this kind, which is in no file.
fn move_chunks(p: &mut Parts, kind: u32) -> Result<()> {
    let bytes = std::mem::take(&mut p.pack);
    let moved = RawPack {
        digest: sha256(&bytes),
        bytes: (bytes.len() as u64).into(),
        kind: kind.into(),
        ..RawPack::default()
    };
    p.packs[0].bytes = 0.into();
    p.packs[0].digest = sha256(&[]);
    p.packs.push(moved);
    for chunk in &mut p.chunks {
        let place = Chunk::place(PackIndex(1), chunk.offset()).context("a chunk lies too far")?;
        chunk.place = place.into();
    }
    Ok(())
}

#[rustfmt::skip]
fn packs() -> Vec<Case> {
    vec![
        refused("pack-kind-file", Rule::PackKind, |p| set32(&mut p.packs[0].kind, 1)),
        refused("pack-kind-max", Rule::PackKind, |p| set32(&mut p.packs[0].kind, u32::MAX)),
        refused("pack-bytes-over", Rule::PackBytes, |p| { let bytes = (p.pack.len() as u64).next_multiple_of(4096); set64(&mut p.packs[0].bytes, bytes + 1) }),
        refused("pack-bytes-max", Rule::PackBytes, |p| set64(&mut p.packs[0].bytes, u64::MAX)),
        refused("pack-reserved", Rule::PackPadding, |p| set32(&mut p.packs[0].reserved[4], 1)),
        fails("pack-bytes-zero", Data, Rule::ChunkRange, |p| set64(&mut p.packs[0].bytes, 0)),
        fails("pack-bytes-one-less", Data, Rule::ChunkRange, |p| { let bytes = p.pack.len() as u64; set64(&mut p.packs[0].bytes, bytes - 1) }),
        canonical("pack-digest", Rule::PackDigest, |p| set8(&mut p.packs[0].digest[31], 0)),
        refused("pack-external-embedded", Rule::PackKind, |p| move_chunks(p, 0)),
        // fsck says that the file is not there, which is no broken rule.
        Case { kernel: Kernel::LacksPack, ..valid("pack-external", |p| move_chunks(p, 1)) },
        Case { kernel: Kernel::LacksPack, ..canonical("pack-unused", Rule::MapPacks, |p| { move_chunks(p, 1)?; p.packs.push(RawPack { digest: [7; 32], bytes: 4096.into(), kind: 1.into(), ..RawPack::default() }); Ok(()) }) },
        refused("pack-external-beside-embedded", Rule::PackBytes, |p| { let last = p.packs[0]; p.packs.push(RawPack { kind: 1.into(), digest: [7; 32], ..last }); Ok(()) }),
    ]
}

#[rustfmt::skip]
fn chunks() -> Vec<Case> {
    vec![
        fails("chunk-pack-next", Data, Rule::PackIndex, |p| set64(&mut p.chunk("text")?.place, 1 << 48)),
        fails("chunk-pack-max", Data, Rule::PackIndex, |p| set64(&mut p.chunk("text")?.place, u64::MAX)),
        fails("chunk-offset-max", Data, Rule::ChunkRange, |p| set64(&mut p.chunk("text")?.place, (1 << 48) - 1)),
        fails("chunk-offset-end", Data, Rule::ChunkRange, |p| { let end = p.pack.len() as u64; set64(&mut p.chunk("text")?.place, end) }),
        fails("chunk-offset-elsewhere", Data, Rule::ChunkDigest, |p| { let place = p.chunk("text")?.place.get(); set64(&mut p.chunk("text")?.place, place + 1) }).for_fsck(Rule::MapChunks),
        fails("chunk-codec-three", Data, Rule::ChunkCodec, |p| { let stored = p.chunk("text")?.stored.get() & 0xff_ffff; set32(&mut p.chunk("text")?.stored, stored | 3 << 24) }),
        fails("chunk-codec-max", Data, Rule::ChunkCodec, |p| { let stored = p.chunk("text")?.stored.get(); set32(&mut p.chunk("text")?.stored, stored | 0xff << 24) }),
        fails("chunk-raw-zero", Data, Rule::ChunkRawLength, |p| set32(&mut p.chunk("text")?.raw_len, 0)),
        fails("chunk-raw-over", Data, Rule::ChunkRawLength, |p| set32(&mut p.chunk("text")?.raw_len, (1 << 20) + 1)),
        fails("chunk-raw-max", Data, Rule::ChunkRawLength, |p| set32(&mut p.chunk("text")?.raw_len, u32::MAX)),
        fails("chunk-stored-zero", Data, Rule::ChunkStoredLength, |p| set32(&mut p.chunk("text")?.stored, 1 << 24)),
        fails("chunk-stored-as-raw", Data, Rule::ChunkStoredLength, |p| { let raw = p.chunk("text")?.raw_len.get(); set32(&mut p.chunk("text")?.stored, raw | 1 << 24) }),
        fails("chunk-stored-max", Data, Rule::ChunkStoredLength, |p| set32(&mut p.chunk("text")?.stored, 0x1ff_ffff)),
        fails("chunk-plain-shorter", Data, Rule::ChunkStoredLength, |p| { let raw = p.chunk("big")?.raw_len.get(); set32(&mut p.chunk("big")?.raw_len, raw - 1) }),
        fails("chunk-plain-longer", Data, Rule::ChunkStoredLength, |p| { let raw = p.chunk("big")?.raw_len.get(); set32(&mut p.chunk("big")?.raw_len, raw + 1) }),
        fails("chunk-plain-as-zstd", Data, Rule::ChunkStoredLength, |p| { let stored = p.chunk("big")?.stored.get(); set32(&mut p.chunk("big")?.stored, stored | 1 << 24) }),
        fails("chunk-zstd-as-plain", Data, Rule::ChunkStoredLength, |p| { let stored = p.chunk("text")?.stored.get() & 0xff_ffff; set32(&mut p.chunk("text")?.stored, stored) }),
        fails("chunk-digest", Data, Rule::ChunkDigest, |p| { let chunk = p.chunk_of("big")?; set8(&mut p.chunk_digests[chunk][0], 0) }),
        fails("chunk-digest-of-the-whole", Data, Rule::ChunkDigest, |p| { let chunk = p.chunk_of("big")?; p.chunk_digests[chunk] = sha256(p.stored(chunk)?); Ok(()) }),
        fails("chunk-digests-swapped", Data, Rule::ChunkDigest, |p| { let (a, b) = (p.chunk_of("big")?, p.chunk_of("text")?); p.chunk_digests.swap(a, b); Ok(()) }),
        fails("chunk-bytes", Data, Rule::ChunkDigest, |p| { p.pack[0] ^= 1; p.seal_pack(); Ok(()) }),
        canonical("chunk-raw-digest", Rule::RawDigest, |p| { let chunk = p.chunk_of("big")?; set8(&mut p.raw_digests[chunk][0], 0) }),
        canonical("chunk-other-bytes", Rule::RawDigest, |p| { let chunk = p.chunk_of("big")?; let start = usize::try_from(p.chunks[chunk].place.get())?; p.pack[start] ^= 1; p.seal(chunk) }),
        canonical("chunk-records-swapped", Rule::MapChunks, |p| {
            let (a, b) = (p.chunk_of("big")?, p.chunk_of("text")?);
            p.chunks.swap(a, b);
            p.chunk_digests.swap(a, b);
            p.raw_digests.swap(a, b);
            for extent in &mut p.extents {
                match extent.chunk.get() as usize {
                    n if n == a => extent.chunk = (b as u32).into(),
                    n if n == b => extent.chunk = (a as u32).into(),
                    _ => (),
                }
            }
            Ok(())
        }),
        canonical("chunk-unused", Rule::MapChunks, |p| {
            let (place, bytes) = (p.pack.len() as u64, b"nobody's");
            p.pack.extend(bytes);
            p.chunks.push(RawChunk { place: place.into(), stored: 8.into(), raw_len: 8.into() });
            p.chunk_digests.push(chunk_digest(bytes));
            p.raw_digests.push(sha256(bytes));
            p.seal_pack();
            Ok(())
        }),
        canonical("chunk-twice", Rule::MapChunks, |p| {
            // Two records of the same stored bytes.
            let chunk = p.chunk_of("text")?;
            p.chunks.push(p.chunks[chunk]);
            p.chunk_digests.push(p.chunk_digests[chunk]);
            p.raw_digests.push(p.raw_digests[chunk]);
            Ok(())
        }),
        canonical("chunks-overlap", Rule::MapChunks, |p| {
            // The group begins in the last bytes of the chunk before it.
            let chunk = p.chunk_of("big")?;
            let place = p.chunks[chunk].place.get();
            let len = p.chunks[chunk].raw_len.get();
            set64(&mut p.chunks[chunk].place, place.checked_add(1).unwrap_or(0))?;
            set32(&mut p.chunks[chunk].stored, len)?;
            p.seal(chunk)
        }),
        canonical("pack-bytes-unused", Rule::MapChunks, |p| { p.pack.push(1); p.seal_pack(); Ok(()) }),
    ]
}

/// Moves the first extents of the contents behind that of a path on by `more`, the number of new extents.
fn shift(p: &mut Parts, path: &str, more: u32) -> Result<()> {
    let content = p.content(path)?;
    for map in p.content_map.iter_mut().skip(content + 1) {
        map.first_extent = (map.first_extent.get() + more).into();
    }
    Ok(())
}

#[rustfmt::skip]
fn extents() -> Vec<Case> {
    vec![
        fails("content-first-extent-max", Data, Rule::ContentExtents, |p| { let content = p.content("text")?; set32(&mut p.content_map[content].first_extent, u32::MAX) }),
        fails("content-first-extent-end", Data, Rule::ContentExtents, |p| { let (content, end) = (p.content("text")?, p.extents.len() as u32); set32(&mut p.content_map[content].first_extent, end) }),
        fails("content-without-extents", Data, Rule::ContentExtents, |p| { let content = p.content("holes")?; let next = p.content_map[content + 1].first_extent; p.content_map[content].first_extent = next; Ok(()) }),
        fails("contents-swapped", Data, Rule::ContentExtents, |p| { let content = p.content("holes")?; p.content_map.swap(content, content + 1); Ok(()) }),
        canonical("content-digest", Rule::ContentDigest, |p| { let content = p.content("text")?; set8(&mut p.contents[content][0], 0) }),
        canonical("content-digest-twice", Rule::TreeContents, |p| { let (a, b) = (p.content("text")?, p.content("big")?); p.contents[a] = p.contents[b]; Ok(()) }),
        canonical("content-unused", Rule::TreeContents, |p| { p.contents.push([1; 32]); let end = p.extents.len() as u32; p.content_map.push(RawContentMap { first_extent: end.into() }); p.extents.push(RawExtent { chunk: HOLE.into(), ..RawExtent::default() }); Ok(()) }),
        fails("extent-begins-late", Data, Rule::ExtentOrder, |p| set64(&mut p.extent("text", 0)?.file_offset, 1)),
        fails("extent-begins-at-max", Data, Rule::ExtentOrder, |p| set64(&mut p.extent("text", 0)?.file_offset, u64::MAX)),
        fails("extents-at-one-place", Data, Rule::ExtentOrder, |p| set64(&mut p.extent("holes", 1)?.file_offset, 0)),
        fails("extents-out-of-order", Data, Rule::ExtentRange, |p| { let range = p.extents("holes")?; p.extents.swap(range.start + 1, range.start + 2); Ok(()) }).for_fsck(Rule::ExtentOrder),
        fails("extent-at-the-end", Data, Rule::ExtentOrder, |p| { let size = p.inode("holes")?.size.get(); set64(&mut p.extent("holes", 2)?.file_offset, size) }),
        fails("extent-behind-the-end", Data, Rule::ExtentOrder, |p| set64(&mut p.extent("holes", 2)?.file_offset, u64::MAX)),
        fails("extent-longer-than-its-chunk", Data, Rule::ExtentRange, |p| { let at = p.extent("holes", 1)?.file_offset.get(); set64(&mut p.extent("holes", 1)?.file_offset, at + 1) }),
        fails("extent-shorter-than-a-block", Data, Rule::ExtentLength, |p| set64(&mut p.extent("holes", 1)?.file_offset, 4095)),
        fails("extent-of-a-byte", Data, Rule::ExtentLength, |p| set64(&mut p.extent("holes", 1)?.file_offset, 1)),
        fails("extent-chunk-end", Data, Rule::ChunkIndex, |p| { let end = p.chunks.len() as u32; set32(&mut p.extent("text", 0)?.chunk, end) }),
        fails("extent-chunk-before-hole", Data, Rule::ChunkIndex, |p| set32(&mut p.extent("text", 0)?.chunk, HOLE - 1)),
        fails("extent-of-another-chunk", Data, Rule::ExtentRange, |p| { let other = p.extent("small1", 0)?.chunk; p.extent("text", 0)?.chunk = other; Ok(()) }),
        canonical("extent-of-a-longer-chunk", Rule::ContentDigest, |p| { let other = p.extent("text", 0)?.chunk; p.extent("code", 0)?.chunk = other; Ok(()) }),
        fails("extent-chunk-offset-one", Data, Rule::ExtentRange, |p| set32(&mut p.extent("text", 0)?.chunk_offset, 1)),
        fails("extent-chunk-offset-max", Data, Rule::ExtentRange, |p| set32(&mut p.extent("text", 0)?.chunk_offset, u32::MAX)),
        canonical("extent-in-a-group-elsewhere", Rule::ContentDigest, |p| { let at = p.extent("a/small2", 0)?.chunk_offset.get(); set32(&mut p.extent("a/small2", 0)?.chunk_offset, at ^ 1) }),
        canonical("extents-overlap-in-a-group", Rule::ContentDigest, |p| { let at = p.extent("small1", 0)?.chunk_offset; p.extent("a/small2", 0)?.chunk_offset = at; Ok(()) }),
        fails("hole-with-an-offset", Data, Rule::ExtentHole, |p| set32(&mut p.extent("holes", 1)?.chunk_offset, 1)),
        fails("hole-with-offset-max", Data, Rule::ExtentHole, |p| set32(&mut p.extent("holes", 1)?.chunk_offset, u32::MAX)),
        canonical("hole-at-the-start", Rule::ContentDigest, |p| set32(&mut p.extent("holes", 0)?.chunk, HOLE)),
        canonical("hole-at-the-end", Rule::ContentDigest, |p| set32(&mut p.extent("holes", 2)?.chunk, HOLE)),
        canonical("hole-is-all", Rule::ContentDigest, |p| set32(&mut p.extent("text", 0)?.chunk, HOLE)),
        canonical("hole-of-2^63-bytes", Rule::ContentDigest, |p| { set32(&mut p.extent("text", 0)?.chunk, HOLE)?; set64(&mut p.inode("text")?.size, i64::MAX as u64) }),
        canonical("holes-side-by-side", Rule::MapExtents, |p| {
            let range = p.extents("holes")?;
            p.extents.insert(range.start + 2, RawExtent { file_offset: 8192.into(), chunk: HOLE.into(), chunk_offset: 0.into() });
            shift(p, "holes", 1)
        }),
        canonical("extent-in-two", Rule::MapExtents, |p| {
            let (range, mut half) = (p.extents("text")?, *p.extent("text", 0)?);
            (half.file_offset, half.chunk_offset) = (4096.into(), 4096.into());
            p.extents.insert(range.start + 1, half);
            shift(p, "text", 1)
        }),
        fails("extents-unused", Data, Rule::ExtentOrder, |p| { let last = p.extents[0]; p.extents.push(RawExtent { file_offset: 0.into(), ..last }); Ok(()) }),
    ]
}

#[rustfmt::skip]
fn annotations() -> Vec<Case> {
    vec![
        canonical("annotation-offset-over", Rule::AnnotationRange, |p| set64(&mut p.annotations[1].offset, 1000)),
        canonical("annotation-offset-max", Rule::AnnotationRange, |p| set64(&mut p.annotations[1].offset, u64::MAX)),
        canonical("annotation-value-over", Rule::AnnotationRange, |p| { let len = p.annotations[1].value_len.get(); set32(&mut p.annotations[1].value_len, len + 1) }),
        canonical("annotation-value-max", Rule::AnnotationRange, |p| set32(&mut p.annotations[1].value_len, u32::MAX)),
        canonical("annotation-key-empty", Rule::AnnotationKey, |p| set32(&mut p.annotations[1].key_len, 0)),
        canonical("annotation-key-256", Rule::AnnotationKey, |p| set32(&mut p.annotations[1].key_len, 256)),
        canonical("annotation-key-max", Rule::AnnotationKey, |p| set32(&mut p.annotations[1].key_len, u32::MAX)),
        canonical("annotations-unsorted", Rule::AnnotationOrder, |p| set8(&mut p.annotation_data[0], b'z')),
        canonical("annotations-overlap", Rule::AnnotationRange, |p| set64(&mut p.annotations[1].offset, 0)),
        canonical("annotation-without-data", Rule::AnnotationRange, |p| { p.annotations.push(RawAnnotation { key_len: 1.into(), ..RawAnnotation::default() }); let end = p.annotation_data.len() as u64; set64(&mut p.annotations[2].offset, end) }),
        canonical("annotation-data-unused", Rule::AnnotationRange, |p| { p.annotation_data.push(0); Ok(()) }),
    ]
}
