// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Packs: runs of stored chunks. Pack 0 lies inside the image, others are files beside it.

use zerocopy::IntoBytes;

use crate::digest::Digest;
use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::{BLOCK_BYTES, FILE_SIZE_MAX};
use crate::raw::RawPack;
use crate::superblock::Layout;

/// Index of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackIndex(pub u16);

/// Where a pack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackKind {
    /// In the image, behind the superblock.
    Embedded,
    /// A file named after its digest.
    File,
}

impl PackKind {
    /// The stored value.
    pub const fn value(self) -> u32 {
        match self {
            PackKind::Embedded => 0,
            PackKind::File => 1,
        }
    }
}

/// A pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Its index.
    pub index: PackIndex,
    /// Where it is.
    pub kind: PackKind,
    /// SHA-256 of all its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub bytes: u64,
}

impl Pack {
    /// Parses and proves record `index` of the pack table.
    pub fn parse(raw: &RawPack, index: PackIndex, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::Pack(index.0);
        let reserved = raw.reserved.as_bytes().iter().copied().find(|byte| *byte != 0).unwrap_or(0);
        ensure(reserved == 0, Rule::PackPadding, place, reserved.into(), 0)?;
        let kind = if index.0 == 0 { PackKind::Embedded } else { PackKind::File };
        ensure(
            raw.kind.get() == kind.value(),
            Rule::PackKind,
            place,
            raw.kind.get().into(),
            kind.value().into(),
        )?;
        let bytes = raw.bytes.get();
        let most = match kind {
            // The shared form: no chunk lies in the image.
            PackKind::Embedded if layout.packs.records() > 1 => 0,
            PackKind::Embedded => layout.tree_offset.saturating_sub(BLOCK_BYTES),
            PackKind::File => FILE_SIZE_MAX,
        };
        ensure(bytes <= most, Rule::PackBytes, place, bytes, most)?;
        Ok(Self { index, kind, digest: Digest(raw.digest), bytes })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawPack {
        RawPack {
            digest: self.digest.0,
            bytes: self.bytes.into(),
            kind: self.kind.value().into(),
            ..RawPack::default()
        }
    }
}
