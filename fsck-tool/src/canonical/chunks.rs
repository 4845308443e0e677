// SPDX-License-Identifier: GPL-2.0-or-later

//! In which order the chunks of an image are, and how each is stored, against how a builder does it (`FORMAT.md` 5.1, 5.4, 5.5).

use mkfs_tesserafs::encode::{zstd_version, Compressor, Map, Sha2};
use tesserafs_format::raw::RawChunk;
use tesserafs_format::{chunk_digest, Chunk, ChunkIndex, Codec, Digest, Place};
use tesserafs_image::context::read;
use tesserafs_image::packs::{DataError, Decoder};
use tesserafs_image::profile::version;
use tesserafs_image::{Contents, Context, Error};

use super::difference::{Explanation, Freedom};

/// The levels that a profile can have.
const LEVELS: std::ops::RangeInclusive<u32> = 1..=22;

/// The first chunk that is another one, or stored otherwise: `order` has them as they would be stored in pack 0. The contents are cut and
/// grouped as by a builder.
pub(super) fn compare(
    context: &Context<'_>,
    contents: &Contents<'_>,
    map: &Map,
    order: &[u32],
) -> Result<Option<Explanation>, Error> {
    for (at, number) in order.iter().copied().enumerate() {
        context.cancel.check()?;
        let index = ChunkIndex(number);
        let digest = read(context.image.raw_digest(index))?;
        let before = map.raw_digests.get(..at).unwrap_or(&map.raw_digests);
        let built = map.raw_digests.get(at).zip(map.chunks.get(at));
        let explanation = match built.zip(map.chunk_digests.get(at)) {
            Some(((expected, raw), stored)) if *expected == digest => {
                let image = read(context.image.chunk(index))?;
                how_stored(&image, raw, stored).map(|freedom| (freedom, image))
            }
            _ => return Ok(Some(which(index, &digest, before, map))),
        };
        if let Some(((freedom, expected), image)) = explanation {
            let mut more = Vec::new();
            let profile = context.image.sb.profile.zstd_version;
            if freedom == Freedom::Frame {
                more.extend(level(contents, &image)?);
            }
            if freedom == Freedom::Frame || (freedom == Freedom::Plain && profile != zstd_version()) {
                more.push(about_zstd(profile));
            }
            return Ok(Some(Explanation {
                about: Some(Place::Chunk(number)),
                found: text(number, image.codec, image.stored_len),
                expected,
                more,
                ..Explanation::new(freedom)
            }));
        }
    }
    Ok(None)
}

/// Why a chunk has other raw bytes than that of a builder.
fn which(index: ChunkIndex, digest: &Digest, before: &[Digest], map: &Map) -> Explanation {
    let about = Some(Place::Chunk(index.0));
    let position = |digests: &[Digest]| digests.iter().position(|other| other == digest);
    if let Some(other) = position(before) {
        return Explanation {
            about,
            found: format!("the raw bytes of chunk {other} as chunk {} again", index.0),
            expected: "each raw bytes in one chunk".to_owned(),
            ..Explanation::new(Freedom::DuplicateChunk)
        };
    }
    let expected = match position(&map.raw_digests) {
        Some(other) => format!("these raw bytes as chunk {other}"),
        None => "no chunk of these raw bytes".to_owned(),
    };
    Explanation {
        about,
        found: format!("raw bytes {digest} as chunk {}", index.0),
        expected,
        ..Explanation::new(Freedom::ChunkOrder)
    }
}

/// Whether the same raw bytes are stored otherwise, and how a builder stores them.
fn how_stored(image: &Chunk, built: &RawChunk, digest: &Digest) -> Option<(Freedom, String)> {
    let (codec, len) = (built.stored.get() >> 24, built.stored.get() & 0xff_ffff);
    let codec = u8::try_from(codec).ok().and_then(|codec| Codec::try_from(codec).ok())?;
    let freedom = match (image.codec, codec) {
        (Codec::Plain, Codec::Plain) => return None,
        (Codec::Plain, _) => Freedom::Plain,
        (_, Codec::Plain) => Freedom::Frame,
        (own, other) if own != other => Freedom::Filter,
        _ if image.stored_len == len && image.digest == *digest => return None,
        _ => Freedom::Frame,
    };
    Some((freedom, text(image.index.0, codec, len)))
}

fn text(chunk: u32, codec: Codec, len: u32) -> String {
    let how = match codec {
        Codec::Plain => "plain",
        Codec::Zstd => "as a frame",
        Codec::ZstdX86 => "as a frame of filtered bytes",
    };
    format!("chunk {chunk} {how}, {len} bytes")
}

/// The level that this program's libzstd makes the frame of an image's chunk at, if there is one.
fn level(contents: &Contents<'_>, image: &Chunk) -> Result<Option<String>, Error> {
    let raw = contents.chunk(image.index, &mut Decoder::new()?).map_err(|error| match error {
        DataError::Stop(error) => error,
        DataError::Broken(finding) => {
            Error::Refused(format!("the image changed while it was read: {finding}"))
        }
    })?;
    for level in LEVELS {
        let failed = |error: mkfs_tesserafs::error::Error| Error::Refused(error.to_string());
        let mut compressor = Compressor::new(level).map_err(failed)?;
        let (codec, stored) = compressor.compress(&raw).map_err(failed)?;
        if codec == image.codec && chunk_digest::<Sha2>(stored) == image.digest {
            return Ok(Some(format!("it is the frame of level {level}")));
        }
    }
    Ok(None)
}

/// A reminder that frames depend on the library.
fn about_zstd(profile: u32) -> String {
    let (own, theirs) = (version(zstd_version()), version(profile));
    format!("frames differ from one version of libzstd to the next: this program has {own}, the profile says {theirs}")
}

#[cfg(test)]
mod tests {
    use tesserafs_format::PackIndex;

    use super::*;

    #[test]
    fn how_a_chunk_is_stored_is_told_by_codec_and_bytes() {
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        let chunk = |codec, stored_len, digest| Chunk {
            index: ChunkIndex(5),
            pack: PackIndex(0),
            offset: 0,
            codec,
            stored_len,
            raw_len: 100,
            digest,
        };
        let freedom = |image: Chunk, built: Chunk| {
            how_stored(&image, &built.to_raw().unwrap(), &built.digest).map(|(freedom, _)| freedom)
        };
        let plain = chunk(Codec::Plain, 100, one);
        let frame = chunk(Codec::Zstd, 50, one);
        assert_eq!(freedom(plain, plain), None);
        assert_eq!(freedom(frame, frame), None);
        assert_eq!(freedom(plain, frame), Some(Freedom::Plain));
        assert_eq!(freedom(frame, plain), Some(Freedom::Frame));
        assert_eq!(freedom(frame, chunk(Codec::ZstdX86, 50, one)), Some(Freedom::Filter));
        assert_eq!(freedom(frame, chunk(Codec::Zstd, 49, one)), Some(Freedom::Frame));
        assert_eq!(freedom(frame, chunk(Codec::Zstd, 50, two)), Some(Freedom::Frame));
    }
}
