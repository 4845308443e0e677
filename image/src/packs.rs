// SPDX-License-Identifier: GPL-2.0-or-later

//! Packs and the chunks in them: stored bytes are verified, and decoded from the memory that was verified.

mod beside;
mod random;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tesserafs_format::limits::{BLOCK_BYTES, FRAME_BLOCK};
use tesserafs_format::{frame, x86, Chunk, Codec, Digest, Pack, PackKind, Place, Rule, Verified};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::error::Error;
use crate::finding::{Finding, Value};
use crate::hash::{Hasher, Sha2};
use crate::parallel::Cancel;
use crate::source::Source;

/// Bytes that are read at once to compute the digest of a pack.
const PIECE: u64 = 1 << 20;

/// Why bytes of a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The image breaks a rule there: a finding, and the work goes on.
    #[error("{0}")]
    Broken(Box<Finding>),
    /// The work ends.
    #[error(transparent)]
    Stop(#[from] Error),
}

/// The packs of an image.
#[derive(Debug)]
pub struct Packs<'a> {
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
    pub fn open(image: &'a Source, packs: &[Option<Pack>], dir: &Path) -> Result<Self, Error> {
        let open = |pack: &Option<Pack>| -> Result<Option<PackFile<'a>>, Error> {
            let Some(pack) = *pack else { return Ok(None) };
            if pack.kind == PackKind::Embedded {
                return Ok(Some(PackFile::Embedded(image, pack)));
            }
            let name = pack.digest.to_string();
            let source = Source::open(&dir.join(&name)).map_err(|error| match error {
                Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                    Error::NoPack { index: pack.index.0, name, dir: dir.to_owned() }
                }
                error => error,
            })?;
            Ok(Some(PackFile::File(source, pack)))
        };
        Ok(Self { files: packs.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Opens those of the packs that can be: each is looked for in all of `dirs`, in their order. Each read tells which chunks they hold.
    pub fn open_some(image: &'a Source, packs: &[Option<Pack>], dirs: &[PathBuf]) -> Self {
        Self::of(image, packs, |pack| {
            let name = pack.digest.to_string();
            dirs.iter().find_map(|dir| Source::open(&dir.join(&name)).ok())
        })
    }

    /// The packs: the embedded one is in `image`, and `file` says which file another one is.
    pub fn of(image: &'a Source, packs: &[Option<Pack>], file: impl Fn(&Pack) -> Option<Source>) -> Self {
        let open = |pack: &Option<Pack>| {
            let pack = (*pack)?;
            match pack.kind {
                PackKind::Embedded => Some(PackFile::Embedded(image, pack)),
                PackKind::File => file(&pack).map(|source| PackFile::File(source, pack)),
            }
        };
        Self { files: packs.iter().map(open).collect() }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "an image has pack 0 at least")]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Compares all bytes of pack `index` with its digest.
    pub fn check_digest(&self, index: usize, cancel: &Cancel) -> Result<(), DataError> {
        let Some(Some(file)) = self.files.get(index) else { return Ok(()) };
        let (source, base, pack) = file.parts();
        let place = Place::Pack(pack.index.0);
        if pack.kind == PackKind::File && source.len() != pack.bytes {
            let finding = Finding::new(Rule::PackDigest, place, source.len(), pack.bytes);
            return Err(DataError::Broken(Box::new(finding.detail("the pack has another length"))));
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
            return Err(DataError::Broken(Box::new(finding)));
        }
        Ok(())
    }

    /// Reads, verifies and decodes `chunk`, which lies in its pack, into `raw`. The result says what is wrong
    /// with the form of the chunk, not with its bytes.
    pub fn read(
        &self,
        chunk: &Chunk,
        decoder: &mut Decoder,
        raw: &mut Vec<u8>,
    ) -> Result<Option<Finding>, DataError> {
        let Some(Some(file)) = self.files.get(usize::from(chunk.pack.0)) else {
            let error = format!("chunk {} is in a pack that cannot be read", chunk.index.0);
            return Err(Error::Refused(error).into());
        };
        let (source, base, _) = file.parts();
        // Bounded: the record was proven to say 1 MiB at most.
        decoder.stored.resize(chunk.stored_len as usize, 0);
        source.read_at(base + chunk.offset, &mut decoder.stored)?;
        let place = Place::Chunk(chunk.index.0);
        let finding = |Broken(rule, found, expected)| Finding::new(rule, place, found, expected);
        let broken = |broken| DataError::Broken(Box::new(finding(broken)));
        let verified = Verified::check_chunk::<Sha2>(&decoder.stored, &chunk.digest)
            .map_err(|found: Digest| broken(Broken(Rule::ChunkDigest, found.into(), chunk.digest.into())))?;
        let form = decode(&mut decoder.zstd, chunk, verified.bytes(), raw).map_err(broken)?;
        Ok(form.map(finding))
    }
}

/// Decodes the stored bytes of a chunk into `raw`. The result says what is wrong with their form only.
fn decode(
    zstd: &mut DCtx<'_>,
    chunk: &Chunk,
    stored: &[u8],
    raw: &mut Vec<u8>,
) -> Result<Option<Broken>, Broken> {
    if chunk.codec == Codec::Plain {
        raw.clear();
        raw.extend_from_slice(stored);
        return Ok(None);
    }
    // Bytes of another chunk need not be zeroed: unless all of them are written, it is an error.
    raw.resize(chunk.raw_len as usize, 0);
    let form = decompress(zstd, stored, raw)?;
    if chunk.codec == Codec::ZstdX86 {
        x86::decode(raw);
    }
    Ok(form)
}

/// A rule that a chunk breaks: what was found, and what was expected.
struct Broken(Rule, Value, Value);

/// Decodes `frame` into all of `raw`, and compares it with the form that a builder gives it. The result says
/// what is wrong with that form only.
fn decompress(zstd: &mut DCtx<'_>, frame: &[u8], raw: &mut [u8]) -> Result<Option<Broken>, Broken> {
    let Err(broken) = decompress_blocks(zstd, frame, raw) else { return Ok(None) };
    // It decodes if all of it decodes at once: the kernel does the same.
    let wanted = raw.len();
    let whole = zstd.reset(ResetDirective::SessionOnly).and_then(|_| zstd.decompress(&mut *raw, frame));
    let found = match whole {
        Ok(len) if len == wanted && broken.0 == Rule::ChunkFrame => return Ok(Some(broken)),
        Ok(len) if len == wanted => return Err(broken),
        Ok(len) => Value::from(len as u64),
        Err(code) => undecodable(code),
    };
    Err(Broken(Rule::ChunkDecode, found, (wanted as u64).into()))
}

/// The description of a frame that gives an error.
fn undecodable(code: usize) -> Value {
    format!("a frame that does not decode ({})", zstd_safe::get_error_name(code)).into()
}

/// Decodes `frame` block by block, to see that each is as long as a reader of a few bytes relies on.
fn decompress_blocks(zstd: &mut DCtx<'_>, frame: &[u8], raw: &mut [u8]) -> Result<(), Broken> {
    let wanted = raw.len();
    // A decoder that goes block by block does not compare it in each case.
    let size = zstd_safe::get_frame_content_size(frame).ok().flatten();
    if size != Some(wanted as u64) {
        let found = size.map_or("no content size".to_owned(), |size| format!("a content size of {size}"));
        return Err(Broken(Rule::ChunkFrame, found.into(), (wanted as u64).into()));
    }
    let stored_len = frame.len();
    // Bytes behind the first frame are no hindrance to a reader of its beginning.
    let len = zstd_safe::find_frame_compressed_size(frame).unwrap_or(0);
    let frame = frame.get(..len).unwrap_or(frame);
    let broken = |found| Broken(Rule::ChunkBlocks, found, (wanted as u64).into());
    zstd.reset(ResetDirective::SessionOnly).map_err(|code| broken(undecodable(code)))?;
    zstd.set_parameter(DParameter::StableOutBuffer(true)).map_err(|code| broken(undecodable(code)))?;
    let mut output = OutBuffer::around(raw);
    let mut start = 0;
    let mut expected = 0;
    let ends = frame::block_ends(frame).filter(|end| *end < frame.len());
    for end in ends.chain([frame.len()]) {
        let is_last = end == frame.len();
        expected = if is_last { wanted } else { expected + FRAME_BLOCK as usize };
        let mut input = InBuffer::around(&frame[start..end]);
        while input.pos() < end - start {
            let before = (input.pos(), output.pos());
            let code = zstd.decompress_stream(&mut output, &mut input);
            code.map_err(|code| broken(undecodable(code)))?;
            // Neither bytes taken nor bytes given: it would never end.
            if (input.pos(), output.pos()) == before {
                return Err(broken("a decoder that is stuck".to_owned().into()));
            }
        }
        if output.pos() != expected {
            let (found, expected) = (output.pos() as u64, expected as u64);
            return Err(Broken(Rule::ChunkBlocks, found.into(), expected.into()));
        }
        start = end;
    }
    if len != stored_len {
        let found = format!("a zstd frame of {len} bytes");
        let expected = format!("one of {stored_len} bytes");
        return Err(Broken(Rule::ChunkFrame, found.into(), expected.into()));
    }
    Ok(())
}

/// The memory that one thread needs to decode chunks.
pub struct Decoder {
    zstd: DCtx<'static>,
    stored: Vec<u8>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder; an error where there is no memory for one.
    pub fn new() -> Result<Self, Error> {
        let no_memory = || Error::Refused("not enough memory to decode zstd".to_owned());
        Ok(Self { zstd: DCtx::try_create().ok_or_else(no_memory)?, stored: Vec::new() })
    }

    /// Decodes bytes that are to become a chunk, into `raw`; false if they are not those of one as long. Nothing proves them yet: that is
    /// up to the caller, before the image that they are for has a name.
    pub fn decode_unproven(&mut self, chunk: &Chunk, stored: &[u8], raw: &mut Vec<u8>) -> bool {
        let is_decoded = matches!(decode(&mut self.zstd, chunk, stored, raw), Ok(None));
        is_decoded && raw.len() == chunk.raw_len as usize
    }
}
