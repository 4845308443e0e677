// SPDX-License-Identifier: GPL-2.0-or-later

//! How the contents of an image are cut and grouped, against how a builder does it (`FORMAT.md` 5.1).

use mkfs_tesserafs::encode::Map;
use tesserafs_format::extent::{Extents, HOLE};
use tesserafs_format::raw::RawExtent;
use tesserafs_format::{ChunkIndex, ContentIndex, Digest, Place, Target};
use tesserafs_image::context::read;
use tesserafs_image::walk::Tree;
use tesserafs_image::{Context, Error};

use super::difference::{Explanation, Freedom};

/// A range of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    /// None of a hole.
    part: Option<Part>,
}

/// The part of a raw chunk that a range is; the chunk by its bytes, as its index says nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    digest: Digest,
    raw_len: u32,
    offset: u32,
}

impl Piece {
    fn text(&self) -> String {
        let Piece { start, end, part } = self;
        match part {
            None => format!("bytes {start}..{end} as a hole"),
            Some(part) if part.offset == 0 && u64::from(part.raw_len) == end - start => {
                format!("bytes {start}..{end} as a chunk")
            }
            Some(Part { raw_len, offset, .. }) => {
                format!("bytes {start}..{end} at byte {offset} of a chunk of {raw_len} bytes")
            }
        }
    }
}

/// The first content that is not cut and grouped as a builder does it.
pub(super) fn compare(context: &Context<'_>, tree: &Tree, map: &Map) -> Result<Option<Explanation>, Error> {
    let small_max = u64::from(context.image.sb.profile.small_max);
    for (number, size) in (0_u32..).zip(&tree.sizes) {
        context.cancel.check()?;
        let extents = read(context.image.extents(ContentIndex(number), *size))?;
        let Some(built) = built(map, number) else { return Ok(None) };
        let is_small = built.len() == 1 && *size <= small_max && piece(map, built, 0, *size).part.is_some();
        for at in 0_u32.. {
            let Some(image) = of_image(context, &extents, at)? else { break };
            let builder = piece(map, built, at as usize, *size);
            if image == builder {
                continue;
            }
            let next = match image.end.cmp(&builder.end) {
                std::cmp::Ordering::Less => of_image(context, &extents, at + 1)?,
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some(piece(map, built, at as usize + 1, *size)),
            };
            let freedom = freedom(&image, &builder, next, is_small);
            return Ok(Some(Explanation {
                about: Some(Place::Content(number)),
                found: image.text(),
                expected: builder.text(),
                ..Explanation::new(freedom)
            }));
        }
    }
    Ok(None)
}

/// The freedom that two pieces with the same beginning show; `next` follows the one that is shorter.
fn freedom(image: &Piece, builder: &Piece, next: Option<Piece>, is_small: bool) -> Freedom {
    let ends_at_a_hole = next.is_some_and(|next| next.part.is_none());
    match (image.part, builder.part) {
        (Some(_), Some(_)) if ends_at_a_hole => Freedom::Hole,
        (Some(_), Some(_)) if is_small => Freedom::Group,
        (Some(_), Some(_)) if image.end != builder.end => Freedom::CutPoint,
        (Some(_), Some(_)) => Freedom::ChunkPart,
        _ => Freedom::Hole,
    }
}

/// Extent `at` of a content of the image.
fn of_image(context: &Context<'_>, extents: &Extents, at: u32) -> Result<Option<Piece>, Error> {
    let Some(index) = extents.first.checked_add(at).filter(|index| *index < extents.end) else {
        return Ok(None);
    };
    let extent = read(context.image.extent(extents, index))?;
    let part = match extent.target {
        Target::Hole => None,
        Target::Chunk { index, offset } => {
            let raw_len = read(context.image.chunk(index))?.raw_len;
            Some(Part { digest: read(context.image.raw_digest(index))?, raw_len, offset })
        }
    };
    Ok(Some(Piece { start: extent.start, end: extent.end, part }))
}

/// The extents of a content that a builder makes; none where it has no such content.
fn built(map: &Map, content: u32) -> Option<&[RawExtent]> {
    let content = content as usize;
    let first = *map.content_map.get(content)? as usize;
    let end = map.content_map.get(content + 1).map_or(map.extents.len(), |end| *end as usize);
    map.extents.get(first..end).filter(|extents| !extents.is_empty())
}

/// Extent `at` of a content of `size` bytes that a builder makes.
fn piece(map: &Map, built: &[RawExtent], at: usize, size: u64) -> Piece {
    let Some(extent) = built.get(at) else { return Piece { start: size, end: size, part: None } };
    let end = built.get(at + 1).map_or(size, |next| next.file_offset.get());
    let chunk = ChunkIndex(extent.chunk.get());
    let known = map.raw_digests.get(chunk.0 as usize).zip(map.chunks.get(chunk.0 as usize));
    let part = known.filter(|_| chunk.0 != HOLE).map(|(digest, raw)| Part {
        digest: *digest,
        raw_len: raw.raw_len.get(),
        offset: extent.chunk_offset.get(),
    });
    Piece { start: extent.file_offset.get(), end, part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(start: u64, end: u64, offset: u32, raw_len: u32) -> Piece {
        Piece { start, end, part: Some(Part { digest: Digest::default(), raw_len, offset }) }
    }

    fn hole(start: u64, end: u64) -> Piece {
        Piece { start, end, part: None }
    }

    #[test]
    fn a_freedom_is_told_by_two_pieces_and_what_follows() {
        let whole = data(0, 8192, 0, 8192);
        let cases = [
            (data(0, 4096, 0, 4096), whole, Some(data(4096, 8192, 0, 4096)), false, Freedom::CutPoint),
            (data(0, 4096, 0, 4096), whole, Some(hole(4096, 8192)), false, Freedom::Hole),
            (hole(0, 8192), whole, None, false, Freedom::Hole),
            (whole, hole(0, 4096), Some(data(4096, 8192, 0, 4096)), false, Freedom::Hole),
            (hole(0, 4096), hole(0, 8192), Some(whole), false, Freedom::Hole),
            (data(0, 8192, 7, 9000), whole, None, false, Freedom::ChunkPart),
            (data(0, 8192, 7, 9000), whole, None, true, Freedom::Group),
            (data(0, 4096, 0, 4096), whole, Some(data(4096, 8192, 0, 4096)), true, Freedom::Group),
        ];
        for (image, builder, next, is_small, expected) in cases {
            assert_eq!(freedom(&image, &builder, next, is_small), expected, "{image:?} {builder:?}");
        }
    }

    #[test]
    fn a_piece_is_described_by_its_bytes() {
        assert_eq!(hole(0, 4096).text(), "bytes 0..4096 as a hole");
        assert_eq!(data(0, 10, 0, 10).text(), "bytes 0..10 as a chunk");
        assert_eq!(data(5, 10, 3, 10).text(), "bytes 5..10 at byte 3 of a chunk of 10 bytes");
    }
}
