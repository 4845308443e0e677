// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Chunks: the unit of storage, verification, compression and dedup.

use crate::digest::Digest;
use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::CHUNK_RAW_MAX;
use crate::pack::{Pack, PackIndex};
use crate::raw::RawChunk;
use crate::superblock::Layout;

/// Bits of an offset in a pack.
const OFFSET_BITS: u32 = 48;
/// The largest offset in a pack.
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;
/// Bits of a stored length.
const STORED_BITS: u32 = 24;
/// The largest stored length that the record can say.
const STORED_MAX: u32 = (1 << STORED_BITS) - 1;

impl RawChunk {
    /// Index of the pack.
    pub fn pack(&self) -> u16 {
        u16::try_from(self.place.get() >> OFFSET_BITS).unwrap_or(u16::MAX)
    }

    /// Where the stored bytes begin in the pack.
    pub fn offset(&self) -> u64 {
        self.place.get() & OFFSET_MAX
    }

    /// Stored bytes.
    pub fn stored_len(&self) -> u32 {
        self.stored.get() & STORED_MAX
    }
}

/// Index of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// How the stored bytes of a chunk give its raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// They are the raw bytes.
    Plain,
    /// One zstd frame.
    Zstd,
    /// One zstd frame of what the [x86 filter](crate::x86) makes of them.
    ZstdX86,
}

impl Codec {
    /// The stored value.
    pub const fn value(self) -> u8 {
        match self {
            Codec::Plain => 0,
            Codec::Zstd => 1,
            Codec::ZstdX86 => 2,
        }
    }
}

impl TryFrom<u8> for Codec {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(Codec::Plain),
            1 => Ok(Codec::Zstd),
            2 => Ok(Codec::ZstdX86),
            other => Err(other),
        }
    }
}

/// A chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its index.
    pub index: ChunkIndex,
    /// The pack that holds it.
    pub pack: PackIndex,
    /// Where its stored bytes begin in the pack.
    pub offset: u64,
    /// How they are stored.
    pub codec: Codec,
    /// Number of stored bytes, 1 at least.
    pub stored_len: u32,
    /// Number of decoded bytes, 1 at least, [`CHUNK_RAW_MAX`] at most.
    pub raw_len: u32,
    /// The digest of the stored bytes, see [`chunk_digest`](crate::chunk_digest).
    pub digest: Digest,
}

impl Chunk {
    /// Parses and proves record `index` of the chunk tables.
    pub fn parse(
        raw: &RawChunk,
        digest: Digest,
        index: ChunkIndex,
        layout: &Layout,
    ) -> Result<Self, FormatError> {
        let place = Place::Chunk(index.0);
        let pack = raw.pack();
        ensure(
            u64::from(pack) < layout.packs.records(),
            Rule::PackIndex,
            place,
            pack.into(),
            layout.packs.records(),
        )?;
        let stored = raw.stored.get();
        let codec = u8::try_from(stored >> STORED_BITS).unwrap_or(u8::MAX);
        let codec = Codec::try_from(codec).map_err(|found| {
            FormatError::new(Rule::ChunkCodec, place, found.into(), Codec::ZstdX86.value().into())
        })?;
        let stored_len = raw.stored_len();
        let raw_len = raw.raw_len.get();
        ensure(
            (1..=CHUNK_RAW_MAX).contains(&raw_len),
            Rule::ChunkRawLength,
            place,
            raw_len.into(),
            CHUNK_RAW_MAX.into(),
        )?;
        let fits = match codec {
            Codec::Plain => stored_len == raw_len,
            Codec::Zstd | Codec::ZstdX86 => (1..raw_len).contains(&stored_len),
        };
        ensure(fits, Rule::ChunkStoredLength, place, stored_len.into(), raw_len.into())?;
        Ok(Self { index, pack: PackIndex(pack), offset: raw.offset(), codec, stored_len, raw_len, digest })
    }

    /// The inverse of [`parse`](Self::parse); `None` for an offset that the record cannot hold.
    pub fn to_raw(&self) -> Option<RawChunk> {
        if self.stored_len > STORED_MAX {
            return None;
        }
        let place = Self::place(self.pack, self.offset)?;
        let codec = u32::from(self.codec.value()) << STORED_BITS;
        Some(RawChunk {
            place: place.into(),
            stored: (codec | self.stored_len).into(),
            raw_len: self.raw_len.into(),
        })
    }

    /// The first word of a record: where the stored bytes are; `None` for an offset that it cannot hold.
    pub fn place(pack: PackIndex, offset: u64) -> Option<u64> {
        if offset > OFFSET_MAX {
            return None;
        }
        Some(u64::from(pack.0) << OFFSET_BITS | offset)
    }

    /// Proves that the stored bytes lie in their pack.
    pub fn check_range(&self, pack: &Pack) -> Result<(), FormatError> {
        let end = self.offset.saturating_add(self.stored_len.into());
        ensure(end <= pack.bytes, Rule::ChunkRange, Place::Chunk(self.index.0), end, pack.bytes)
    }
}
