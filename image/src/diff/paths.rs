// SPDX-License-Identifier: GPL-2.0-or-later

//! The paths of differences, each as a name in a directory: whole paths would take the square of their depth.

/// The path of a file that differs, or of a directory above one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathIndex(usize);

impl PathIndex {
    /// That of the root.
    pub(super) const ROOT: Self = Self(0);
}

/// All of these paths.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The names, one after the other.
    names: Vec<u8>,
    places: Vec<Place>,
}

/// The directory, and where in `names` the name begins; it ends where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    parent: PathIndex,
    name: usize,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self { names: Vec::new(), places: vec![Place { parent: PathIndex::ROOT, name: 0 }] }
    }

    /// Adds a name in a directory.
    pub(super) fn add(&mut self, parent: PathIndex, name: &[u8]) -> PathIndex {
        let index = PathIndex(self.places.len());
        self.places.push(Place { parent, name: self.names.len() });
        self.names.extend_from_slice(name);
        index
    }

    /// The path from the root, which is `.` itself.
    pub(super) fn get(&self, index: PathIndex) -> Vec<u8> {
        let mut above = Vec::new();
        let mut at = index;
        while at != PathIndex::ROOT {
            above.push(at);
            at = self.places[at.0].parent;
        }
        let mut path = Vec::new();
        for at in above.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(self.name(at));
        }
        if path.is_empty() {
            path.push(b'.');
        }
        path
    }

    fn name(&self, index: PathIndex) -> &[u8] {
        let end = self.places.get(index.0 + 1).map_or(self.names.len(), |next| next.name);
        &self.names[self.places[index.0].name..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_names_of_all_directories_above() {
        let mut paths = Paths::new();
        let usr = paths.add(PathIndex::ROOT, b"usr");
        let etc = paths.add(PathIndex::ROOT, b"etc");
        let lib = paths.add(usr, b"lib");
        let all = [PathIndex::ROOT, usr, etc, lib].map(|index| paths.get(index));
        assert_eq!(all, [&b"."[..], b"usr", b"etc", b"usr/lib"]);
    }
}
