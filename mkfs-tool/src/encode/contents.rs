// SPDX-License-Identifier: GPL-2.0-or-later

//! The contents that the sequencer met, found by their digests, each of which is kept once.

use std::hash::{BuildHasher, RandomState};

use hashbrown::hash_table::Entry;
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

    /// Adds a content, if it is not there; its index, and whether it is new.
    pub(super) fn add(&mut self, digest: Digest) -> (u32, bool) {
        let Self { digests, table, hasher } = self;
        let is = |index: &u32| digests[*index as usize] == digest;
        let hash_of = |index: &u32| hasher.hash_one(digests[*index as usize].0);
        match table.entry(hasher.hash_one(digest.0), is, hash_of) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(vacant) => {
                let index = digests.len() as u32;
                vacant.insert(index);
                digests.push(digest);
                (index, true)
            }
        }
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
            assert_eq!(contents.add(digest(number)), (number, true));
        }
        assert_eq!(contents.add(digest(17)), (17, false));
        assert!((0..1000).all(|number| contents.get(&digest(number)) == Some(number)));
        assert_eq!(contents.into_digests()[17], digest(17));
    }
}
