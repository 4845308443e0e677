// SPDX-License-Identifier: GPL-2.0-or-later

//! Small contents that share a chunk (`FORMAT.md` 5.1 and 5.2).

use tesserafs_format::{Digest, Profile};

/// The open group: small contents one after the other.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
}

/// Whether the open group goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEnd {
    /// The next content still belongs to it.
    Open,
    /// It ends here.
    Closed,
}

/// Whether a group of `held` bytes would get too long by a content of `len` bytes: then it is to be closed first.
pub fn is_full(held: u64, len: u64, profile: &Profile) -> bool {
    held > 0 && held + len > 2 * u64::from(profile.group_size)
}

/// Whether a group of `held` bytes ends behind its last content, which has `len` of them and this digest.
pub fn end_behind(held: u64, len: u64, digest: &Digest, profile: &Profile) -> GroupEnd {
    let [a, b, c, d, ..] = digest.0;
    let h = u64::from(u32::from_le_bytes([a, b, c, d]));
    let size = u64::from(profile.group_size);
    let chosen = h * size < len << 33;
    if held >= size / 2 && chosen {
        GroupEnd::Closed
    } else {
        GroupEnd::Open
    }
}

impl Group {
    /// Whether `len` more bytes would make the group too long: then it is to be closed first.
    pub fn is_full(&self, len: usize, profile: &Profile) -> bool {
        is_full(self.bytes.len() as u64, len as u64, profile)
    }

    /// Appends a content; where it begins, and whether the group ends behind it.
    pub fn append(&mut self, content: &[u8], digest: &Digest, profile: &Profile) -> (u32, GroupEnd) {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(content);
        (offset, end_behind(self.bytes.len() as u64, content.len() as u64, digest, profile))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes; an empty group begins.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
