// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Extended attributes: sets that inodes share, and the entries of a set.

use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::num::{align_up, u64_from_usize};
use crate::raw::{RawXattrEntry, RawXattrSet};
use crate::superblock::Layout;

/// Entries begin at multiples of this many bytes.
pub const XATTR_ALIGN: u64 = 8;

/// Bytes of an entry's header.
const HEADER: u64 = 8;

/// Index of an xattr set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrSetIndex(pub u32);

/// A set of xattrs, proven to lie in the entry table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrSet {
    /// Its index.
    pub index: XattrSetIndex,
    /// Where its first entry begins in the entry table.
    pub offset: u64,
    /// Bytes of its entries.
    pub bytes: u32,
    /// Number of entries, 1 at least.
    pub count: u32,
}

impl XattrSet {
    /// Parses and proves record `index` of the set table.
    pub fn parse(raw: &RawXattrSet, index: XattrSetIndex, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::XattrSet(index.0);
        let (offset, bytes, count) = (raw.offset.get(), raw.bytes.get(), raw.count.get());
        let total = layout.xattr_entries.records();
        let in_table = layout.xattr_entries.range(offset, bytes.into()).is_some();
        let end = offset.saturating_add(bytes.into());
        ensure(in_table && offset % XATTR_ALIGN == 0, Rule::XattrSetRange, place, end, total)?;
        // An entry is two units of alignment at least, its header and a name; and in the list of names it is
        // seven bytes at least, `user.`, a byte and a NUL.
        let most = u64::from(bytes.checked_div(16).unwrap_or(0).min(XATTR_LIST_MAX / 7));
        ensure(count > 0 && u64::from(count) <= most, Rule::XattrSetCount, place, count.into(), most)?;
        Ok(Self { index, offset, bytes, count })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawXattrSet {
        RawXattrSet { offset: self.offset.into(), bytes: self.bytes.into(), count: self.count.into() }
    }
}

/// One xattr of a set, proven to lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrEntry {
    /// Where its name begins in the entry table.
    pub name_offset: u64,
    /// Bytes of the name.
    pub name_len: u8,
    /// Where its value begins in the entry table.
    pub value_offset: u64,
    /// Bytes of the value.
    pub value_len: u32,
    /// Where the next entry begins in the entry table.
    pub end: u64,
}

impl XattrEntry {
    /// Parses and proves the entry of `set` that begins at `offset` of the entry table.
    pub fn parse(raw: &RawXattrEntry, offset: u64, set: &XattrSet) -> Result<Self, FormatError> {
        let place = Place::XattrSet(set.index.0);
        let value_len = raw.value_len.get();
        let padding = raw.reserved.iter().copied().find(|byte| *byte != 0).unwrap_or(0);
        ensure(padding == 0, Rule::XattrPadding, place, padding.into(), 0)?;
        ensure(raw.name_len > 0, Rule::XattrName, place, 0, 1)?;
        ensure(
            value_len <= XATTR_VALUE_MAX,
            Rule::XattrValueLength,
            place,
            value_len.into(),
            XATTR_VALUE_MAX.into(),
        )?;
        let set_end = set.offset.saturating_add(set.bytes.into());
        let out_of_set = FormatError::new(Rule::XattrEntryRange, place, offset, set_end);
        let name_offset = offset.checked_add(HEADER).ok_or(out_of_set)?;
        let value_offset = name_offset.checked_add(raw.name_len.into()).ok_or(out_of_set)?;
        let end = value_offset
            .checked_add(value_len.into())
            .and_then(|end| align_up(end, XATTR_ALIGN))
            .filter(|end| *end <= set_end)
            .ok_or(out_of_set)?;
        Ok(Self { name_offset, name_len: raw.name_len, value_offset, value_len, end })
    }

    /// The header of an entry; `None` where a length passes its limit.
    pub fn to_raw(name: &[u8], value: &[u8]) -> Option<RawXattrEntry> {
        let name_len = u8::try_from(name.len()).ok()?;
        let value_len = u32::try_from(value.len()).ok().filter(|len| *len <= XATTR_VALUE_MAX)?;
        Some(RawXattrEntry { value_len: value_len.into(), name_len, reserved: [0; 3] })
    }
}

/// Bytes of an entry with its padding.
pub fn entry_bytes(name: &[u8], value: &[u8]) -> Option<u64> {
    let end = HEADER.checked_add(u64_from_usize(name.len()))?.checked_add(u64_from_usize(value.len()))?;
    align_up(end, XATTR_ALIGN)
}

/// Whether an image can hold an xattr of that name.
pub fn is_valid_name(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    const WHOLE: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    let prefixed = |prefix: &&[u8]| name.strip_prefix(*prefix).is_some_and(|rest| !rest.is_empty());
    name.len() <= XATTR_NAME_MAX
        && !name.contains(&0)
        && (WHOLE.contains(&name) || PREFIXES.iter().any(prefixed))
}
