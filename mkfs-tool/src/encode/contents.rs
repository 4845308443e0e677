// SPDX-License-Identifier: GPL-2.0-or-later

//! The contents that the sequencer met, found by their digests, each of which is kept once.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use tesserafs_format::Digest;

/// Distinct contents by index.
#[derive(Debug, Default)]
pub(super) struct Contents {
    digests: Vec<Digest>,
    table: HashTable<u32>,
    /// Seeded: who makes the files could choose digests that begin alike.
    hasher: RandomState,
}

impl Contents {
    /// The index of a content.
    pub(super) fn get(&self, digest: &Digest) -> Option<u32> {
        let is = |index: &u32| self.digests[*index as usize] == *digest;
        self.table.find(self.hasher.hash_one(digest.0), is).copied()
    }

    /// How many there are, which is the index of the next one.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    /// Adds a content that was not there.
    pub(super) fn push(&mut self, digest: Digest) {
        let Self { digests, table, hasher } = self;
        let index = digests.len() as u32;
        digests.push(digest);
        table.insert_unique(hasher.hash_one(digest.0), index, |index| {
            hasher.hash_one(digests[*index as usize].0)
        });
    }

    /// None yet, with room for so many, as far as there is memory.
    pub(super) fn with_room(contents: usize) -> Self {
        let mut empty = Self::default();
        let _ = empty.digests.try_reserve(contents);
        // There is none to be hashed anew.
        let _ = empty.table.try_reserve(contents, |_| 0);
        empty
    }

    /// Their digests, by index.
    pub(super) fn into_digests(self) -> Vec<Digest> {
        self.digests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_the_index_that_they_got() {
        let digest = |number: u32| super::super::sha256(&number.to_le_bytes());
        let mut contents = Contents::default();
        for number in 0..1000 {
            assert_eq!(contents.get(&digest(number)), None);
            assert_eq!(contents.len(), number as usize);
            contents.push(digest(number));
        }
        assert!((0..1000).all(|number| contents.get(&digest(number)) == Some(number)));
        assert_eq!(contents.into_digests()[17], digest(17));
    }
}
