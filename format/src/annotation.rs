// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Annotations: keys with bytes, hashed and signed with the rest, that the kernel does not interpret.

use crate::error::{ensure, FormatError, Place, Rule};
use crate::limits::ANNOTATION_KEY_MAX;
use crate::raw::RawAnnotation;
use crate::superblock::Layout;

/// One annotation, proven to lie in the data table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Its index.
    pub index: u32,
    /// Where its key begins in the data table; its value follows.
    pub key_offset: u64,
    /// Bytes of the key, 1 to 255.
    pub key_len: u32,
    /// Bytes of the value.
    pub value_len: u32,
}

impl Annotation {
    /// Parses and proves record `index` of the annotation table.
    pub fn parse(raw: &RawAnnotation, index: u32, layout: &Layout) -> Result<Self, FormatError> {
        let place = Place::Annotation(index);
        let (key_len, value_len) = (raw.key_len.get(), raw.value_len.get());
        ensure(
            (1..=ANNOTATION_KEY_MAX).contains(&key_len),
            Rule::AnnotationKey,
            place,
            key_len.into(),
            ANNOTATION_KEY_MAX.into(),
        )?;
        let key_offset = raw.offset.get();
        let len = u64::from(key_len).saturating_add(value_len.into());
        let in_table = layout.annotation_data.range(key_offset, len).is_some();
        let end = key_offset.saturating_add(len);
        ensure(in_table, Rule::AnnotationRange, place, end, layout.annotation_data.records())?;
        Ok(Self { index, key_offset, key_len, value_len })
    }

    /// The inverse of [`parse`](Self::parse).
    pub fn to_raw(&self) -> RawAnnotation {
        RawAnnotation {
            offset: self.key_offset.into(),
            key_len: self.key_len.into(),
            value_len: self.value_len.into(),
        }
    }

    /// Where its value begins in the data table.
    pub fn value_offset(&self) -> u64 {
        // OVERFLOW: `parse` proved the range in the table.
        self.key_offset.saturating_add(self.key_len.into())
    }
}
