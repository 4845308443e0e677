// SPDX-License-Identifier: GPL-2.0

//! Packs and the chunks in them: stored bytes are verified, and decoded from the memory that was verified.

use std::path::Path;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Chunk, Codec, Digest, Pack, PackKind, Place, Rule, Verified};
use zstd_safe::DCtx;

use crate::error::Error;
use crate::finding::Finding;
use crate::hash::{Hasher, Sha2};
use crate::parallel::Cancel;
use crate::source::Source;

/// Bytes that are read at once to compute the digest of a pack.
const PIECE: u64 = 1 << 20;

/// Why the bytes of a chunk cannot be had.
#[derive(Debug)]
pub(crate) enum ChunkError {
    /// The chunk breaks a rule.
    Broken(Box<Finding>),
    /// The check ends.
    Stop(Error),
}

impl From<Error> for ChunkError {
    fn from(error: Error) -> Self {
        ChunkError::Stop(error)
    }
}

/// The packs of an image.
#[derive(Debug)]
pub(crate) struct Packs<'a> {
    files: Vec<Option<PackFile<'a>>>,
}

#[derive(Debug)]
enum PackFile<'a> {
    Embedded(&'a Source, Pack),
    File(Source, Pack),
}

impl PackFile<'_> {
    fn parts(&self) -> (&Source, u64, &Pack) {
        match self {
            PackFile::Embedded(source, pack) => (source, BLOCK_BYTES, pack),
            PackFile::File(source, pack) => (source, 0, pack),
        }
    }
}

impl<'a> Packs<'a> {
    /// Opens the packs: the embedded one is in `image`, others are files in `dir`.
    pub(crate) fn open(image: &'a Source, packs: &[Option<Pack>], dir: &Path) -> Result<Self, Error> {
        let open = |pack: &Option<Pack>| -> Result<Option<PackFile<'a>>, Error> {
            let Some(pack) = *pack else { return Ok(None) };
            if pack.kind == PackKind::Embedded {
                return Ok(Some(PackFile::Embedded(image, pack)));
            }
            let name = pack.digest.to_string();
            let path = dir.join(&name);
            if !path.exists() {
                return Err(Error::NoPack { index: pack.index.0, name, dir: dir.to_owned() });
            }
            Ok(Some(PackFile::File(Source::open(&path)?, pack)))
        };
        Ok(Self { files: packs.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Compares all bytes of pack `index` with its digest.
    pub(crate) fn check_digest(&self, index: usize, cancel: &Cancel) -> Result<(), ChunkError> {
        let Some(Some(file)) = self.files.get(index) else { return Ok(()) };
        let (source, base, pack) = file.parts();
        let place = Place::Pack(pack.index.0);
        if pack.kind == PackKind::File && source.len() != pack.bytes {
            let finding = Finding::new(Rule::PackDigest, place, source.len(), pack.bytes);
            return Err(ChunkError::Broken(Box::new(finding.detail("the pack has another length"))));
        }
        let mut hasher = Hasher::default();
        let mut buf = vec![0; PIECE.min(pack.bytes) as usize];
        let mut at = 0;
        while at < pack.bytes {
            cancel.check()?;
            let piece = PIECE.min(pack.bytes - at);
            let bytes = &mut buf[..piece as usize];
            source.read_at(base + at, bytes)?;
            hasher.update(bytes);
            at += piece;
        }
        let found = hasher.finish();
        if found != pack.digest {
            let finding = Finding::new(Rule::PackDigest, place, found, pack.digest);
            return Err(ChunkError::Broken(Box::new(finding)));
        }
        Ok(())
    }

    /// Reads, verifies and decodes `chunk`, which lies in its pack, into `raw`.
    pub(crate) fn read(
        &self,
        chunk: &Chunk,
        decoder: &mut Decoder,
        raw: &mut Vec<u8>,
    ) -> Result<(), ChunkError> {
        let Some(Some(file)) = self.files.get(usize::from(chunk.pack.0)) else {
            let error = format!("chunk {} is in a pack that cannot be read", chunk.index.0);
            return Err(Error::Refused(error).into());
        };
        let (source, base, _) = file.parts();
        // Bounded: the record was proven to say 1 MiB at most.
        decoder.stored.resize(chunk.stored_len as usize, 0);
        source.read_at(base + chunk.offset, &mut decoder.stored)?;
        let place = Place::Chunk(chunk.index.0);
        let broken = |rule, found: crate::finding::Value, expected: crate::finding::Value| {
            ChunkError::Broken(Box::new(Finding::new(rule, place, found, expected)))
        };
        let verified = Verified::check::<Sha2>(&decoder.stored, &chunk.digest)
            .map_err(|found: Digest| broken(Rule::ChunkDigest, found.into(), chunk.digest.into()))?;
        raw.clear();
        match chunk.codec {
            Codec::Plain => raw.extend_from_slice(verified.bytes()),
            Codec::Zstd => {
                let stored = verified.bytes();
                let frame = zstd_safe::find_frame_compressed_size(stored).unwrap_or(0);
                if frame != stored.len() {
                    let found = format!("a zstd frame of {frame} bytes");
                    let expected = format!("one of {} bytes", stored.len());
                    return Err(broken(Rule::ChunkDecode, found.into(), expected.into()));
                }
                raw.reserve(chunk.raw_len as usize);
                raw.resize(chunk.raw_len as usize, 0);
                match decoder.zstd.decompress(raw.as_mut_slice(), stored) {
                    Ok(len) if len == raw.len() => (),
                    Ok(len) => {
                        return Err(broken(Rule::ChunkDecode, (len as u64).into(), chunk.raw_len.into()));
                    }
                    Err(code) => {
                        let reason = zstd_safe::get_error_name(code);
                        let found = format!("a frame that does not decode ({reason})");
                        return Err(broken(Rule::ChunkDecode, found.into(), chunk.raw_len.into()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What one thread needs to decode chunks.
pub(crate) struct Decoder {
    zstd: DCtx<'static>,
    stored: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Result<Self, Error> {
        let no_memory = || Error::Refused("not enough memory to decode zstd".to_owned());
        Ok(Self { zstd: DCtx::try_create().ok_or_else(no_memory)?, stored: Vec::new() })
    }
}
