// SPDX-License-Identifier: GPL-2.0-or-later

//! The names of an archive's directories, in little memory: an archive of many files has a name for each.
//!
//! All names lie in one row of bytes, and an entry of 16 bytes says in which directory each is. While the archive is read, a table
//! of numbers finds them; then the entries are sorted, and the table goes.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use hashbrown::{hash_table, HashTable};

use super::header::Parsed;

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The node of the directory.
    dir: u32,
    /// The node that is named.
    node: u32,
    /// Where its length and its bytes are.
    name: u64,
}

/// The node of a name that was removed: there are fewer than so many.
const NOTHING: u32 = u32::MAX;

/// Names of an archive that are too few to guess how many will come.
const FEW: usize = 4096;

/// Names for which there is room at once on a guess, unless there are more, which are then doubled: 20 MiB, if it is wrong.
const GUESS_MAX: usize = 1 << 21;

/// Names that an entry may bring with it: its own, and directories that have no entry.
const SPARE: usize = 16;

/// Bytes of the length before a name.
const LENGTH: usize = 4;

/// The bytes of all names, each behind its length.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn push(&mut self, name: &[u8]) -> Parsed<u64> {
        let at = self.0.len() as u64;
        let len = u32::try_from(name.len()).map_err(|_| "a name of more than 4 GiB")?;
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(name);
        Ok(at)
    }

    fn get(&self, at: u64) -> &[u8] {
        let (len, name) = self.0[at as usize..].split_at(LENGTH);
        let len = len.iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte));
        &name[..len]
    }
}

/// The directory of an entry, and its name.
fn named<'a>(entries: &[Entry], bytes: &'a Bytes, at: u32) -> (u32, &'a [u8]) {
    let entry = &entries[at as usize];
    (entry.dir, bytes.get(entry.name))
}

/// Names that still come.
#[derive(Debug, Default)]
pub(super) struct Growing {
    bytes: Bytes,
    entries: Vec<Entry>,
    /// Indices of entries.
    table: HashTable<u32>,
    /// Seeded: who makes the archive cannot choose names that collide.
    hasher: RandomState,
}

impl Growing {
    /// The node of a name in a directory.
    pub(super) fn find(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let at = self.table.find(self.hasher.hash_one((dir, name)), self.is(dir, name))?;
        Some(self.entries[*at as usize].node).filter(|node| *node != NOTHING)
    }

    fn is<'a>(&'a self, dir: u32, name: &'a [u8]) -> impl Fn(&u32) -> bool + 'a {
        move |at| named(&self.entries, &self.bytes, *at) == (dir, name)
    }

    /// Lets a name in a directory stand for a node, whatever it stood for.
    pub(super) fn set(&mut self, dir: u32, name: &[u8], node: u32) -> Parsed<()> {
        let Self { bytes, entries, table, hasher } = self;
        let is = |at: &u32| named(entries, bytes, *at) == (dir, name);
        let hash_of = |at: &u32| hasher.hash_one(named(entries, bytes, *at));
        match table.entry(hasher.hash_one((dir, name)), is, hash_of) {
            hash_table::Entry::Occupied(known) => entries[*known.get() as usize].node = node,
            hash_table::Entry::Vacant(new) => {
                let at = u32::try_from(entries.len()).map_err(|_| "the archive has more than 2^32 names")?;
                let name = bytes.push(name)?;
                entries.push(Entry { dir, node, name });
                new.insert(at);
            }
        }
        Ok(())
    }

    /// How many names there are, removed ones too.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes room for the names that are likely to come, if there is hardly any left. `first` is the number of the archive's first
    /// name, `read` the bytes of the archive that were read, and `all` its length.
    ///
    /// A table that doubles each time it is full hashes each name about twice; with one guess most are hashed once.
    pub(super) fn make_room(&mut self, first: usize, read: u64, all: u64) {
        let len = self.table.len();
        let own = len - first;
        if own < FEW || self.table.capacity() - len >= SPARE {
            return;
        }
        // As if those to come were like those that came.
        let to_come = own as u128 * u128::from(all.saturating_sub(read)) / u128::from(read.max(1));
        let more = to_come.min(len.max(GUESS_MAX) as u128) as usize;
        let Self { bytes, entries, table, hasher } = self;
        // Where there is no memory for so many, it grows as it would.
        let _ = table.try_reserve(more, |at| hasher.hash_one(named(entries, bytes, *at)));
    }

    /// Lets a name in a directory stand for nothing.
    pub(super) fn remove(&mut self, dir: u32, name: &[u8]) {
        if let Some(at) = self.table.find(self.hasher.hash_one((dir, name)), self.is(dir, name)) {
            self.entries[*at as usize].node = NOTHING;
        }
    }

    /// The names in a directory, in no order; it looks at all there are.
    pub(super) fn of(&self, dir: u32) -> impl Iterator<Item = &[u8]> {
        let are_in = move |entry: &&Entry| entry.dir == dir && entry.node != NOTHING;
        self.entries.iter().filter(are_in).map(|entry| self.bytes.get(entry.name))
    }

    /// The same names, sorted.
    pub(super) fn sort(self, is_directory: impl Fn(u32) -> bool) -> Sorted {
        let Self { mut bytes, mut entries, table, .. } = self;
        drop(table);
        entries.retain(|entry| entry.node != NOTHING);
        entries.sort_unstable_by(|a, b| (a.dir, bytes.get(a.name)).cmp(&(b.dir, bytes.get(b.name))));
        bytes.0.shrink_to_fit();
        entries.shrink_to_fit();
        let named = (0..).zip(&entries).map(|(at, entry)| (entry.node, at));
        let mut directories: Vec<(u32, u32)> = named.filter(|(node, _)| is_directory(*node)).collect();
        directories.sort_unstable();
        Sorted { bytes, entries, directories }
    }
}

/// All names, by directory, and in each in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    bytes: Bytes,
    entries: Vec<Entry>,
    /// Directories, by node, with the indices of their names.
    directories: Vec<(u32, u32)>,
}

/// A name, where it is, and what it stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// The node of the directory.
    pub(super) dir: u32,
    pub(super) name: &'a [u8],
    /// The node that is named.
    pub(super) node: u32,
}

impl Sorted {
    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them are directories.
    pub(super) fn directories(&self) -> usize {
        self.directories.len()
    }

    /// Bytes of all names.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.0.len() - LENGTH * self.entries.len()
    }

    /// The name of that index.
    pub(super) fn get(&self, at: u32) -> Named<'_> {
        let Entry { dir, node, name } = self.entries[at as usize];
        Named { dir, name: self.bytes.get(name), node }
    }

    /// The indices of the names in a directory.
    pub(super) fn of(&self, dir: u32) -> Range<u32> {
        let start = self.entries.partition_point(|entry| entry.dir < dir);
        let len = self.entries[start..].partition_point(|entry| entry.dir == dir);
        // As many as there were indices for.
        start as u32..(start + len) as u32
    }

    /// The path of a directory from `root`, one above it. It is put together only where it is shown or matched: those of
    /// directories in directories without end would take a time that is the square of their depth.
    pub(super) fn path(&self, root: u32, dir: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != root {
            let Ok(found) = self.directories.binary_search_by_key(&at, |(node, _)| *node) else { break };
            let named = self.get(self.directories[found].1);
            names.push(named.name);
            at = named.dir;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The node of a name in a directory.
    pub(super) fn find(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let key = |entry: &Entry| (entry.dir, self.bytes.get(entry.name)).cmp(&(dir, name));
        let at = self.entries.binary_search_by(key).ok()?;
        Some(self.entries[at].node)
    }
}

/// The names of a path. Leading slashes and `.` say nothing; `..` is refused.
pub(super) fn components(path: &[u8]) -> Parsed<Vec<&[u8]>> {
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return Err("its path leaves the archive by way of ..".into());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_before_and_after_they_are_sorted() {
        let mut growing = Growing::default();
        let mut node = 0;
        for dir in [7, 0, 3] {
            for number in (0..1000_u32).rev() {
                node += 1;
                growing.set(dir, number.to_string().as_bytes(), node).expect("room");
            }
        }
        growing.set(3, b"17", 9999).expect("room");
        growing.set(3, b"", 5).expect("room");
        growing.set(5, b"gone", 1).expect("room");
        growing.set(5, b"back", 2).expect("room");
        growing.remove(5, b"gone");
        growing.remove(5, b"back");
        growing.remove(5, b"never");
        assert_eq!((growing.find(5, b"gone"), growing.of(5).count()), (None, 0));
        growing.set(5, b"back", 3).expect("room");
        assert_eq!((growing.find(5, b"back"), growing.of(5).count()), (Some(3), 1));
        assert_eq!(growing.find(0, b"999"), Some(1001));
        assert_eq!(growing.find(3, b"17"), Some(9999));
        assert_eq!(growing.find(1, b"17"), None);
        growing.set(0, b"directory", 8888).expect("room");
        growing.set(8888, b"below", 8889).expect("room");
        let sorted = growing.sort(|node| (8888..9999).contains(&node));
        assert_eq!(
            (sorted.find(0, b"999"), sorted.find(3, b"17"), sorted.find(3, b"x")),
            (Some(1001), Some(9999), None)
        );
        let names: Vec<&[u8]> = sorted.of(3).map(|at| sorted.get(at).name).collect();
        assert!(names.is_sorted() && names.len() == 1001 && names[0].is_empty());
        assert_eq!((sorted.of(1).len(), sorted.of(5).len(), sorted.len()), (0, 1, 3004));
        let paths =
            [(0, 8889), (8888, 8889), (0, 8888), (0, 0), (0, 3)].map(|(root, dir)| sorted.path(root, dir));
        assert_eq!(paths, [&b"directory/below"[..], b"below", b"directory", b"", b""]);
    }
}
