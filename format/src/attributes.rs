// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Attributes: what the inodes of an image have in common, stored once for all of them.
//!
//! A root filesystem has tens of thousands of inodes and a few dozen combinations of type, mode, owner and xattrs.

use crate::error::{ensure, FormatError, Place, Rule};
use crate::inode::FileType;
use crate::raw::RawAttributes;
use crate::superblock::Layout;
use crate::xattr::XattrSetIndex;

/// The owner or group that stands for nobody.
const NOBODY: u32 = u32::MAX;

/// Index of a record of the attribute table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributesIndex(pub u32);

/// The attributes of an inode, proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The type.
    pub file_type: FileType,
    /// Permission bits, `07777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The xattrs.
    pub xattrs: Option<XattrSetIndex>,
}

impl Attributes {
    /// Parses and proves record `index` of the attribute table.
    pub fn parse(raw: &RawAttributes, index: AttributesIndex, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::Attributes(index.0);
        let file_type = FileType::try_from(raw.file_type).map_err(|found| {
            let last = FileType::Whiteout.value();
            FormatError::new(Rule::AttributesType, place, found.into(), last.into())
        })?;
        ensure(raw.reserved == 0, Rule::AttributesPadding, place, raw.reserved.into(), 0)?;
        let mode = raw.mode.get();
        ensure(mode & !0o7777 == 0, Rule::AttributesMode, place, mode.into(), 0o7777)?;
        if file_type == FileType::Symlink {
            ensure(mode == 0o777, Rule::AttributesMode, place, mode.into(), 0o777)?;
        }
        let (uid, gid) = (raw.uid.get(), raw.gid.get());
        for owner in [uid, gid] {
            let most = u64::from(NOBODY).saturating_sub(1);
            ensure(owner != NOBODY, Rule::AttributesOwner, place, owner.into(), most)?;
        }
        let xattrs = match raw.xattrs.get().checked_sub(1) {
            None => None,
            Some(set) => {
                let sets = layout.xattr_sets.records();
                ensure(u64::from(set) < sets, Rule::AttributesXattrs, place, set.into(), sets)?;
                Some(XattrSetIndex(set))
            }
        };
        Ok(Self { file_type, mode, uid, gid, xattrs })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawAttributes {
        RawAttributes {
            file_type: self.file_type.value(),
            reserved: 0,
            mode: self.mode.into(),
            uid: self.uid.into(),
            gid: self.gid.into(),
            xattrs: self.xattrs.map_or(0, |set| set.0.saturating_add(1)).into(),
        }
    }
}
