// SPDX-License-Identifier: GPL-2.0

//! Where a walk is.

/// The directories of a walk: their parents' places here, and their names.
///
/// A path is put together only where it is shown or matched: those of directories in directories without end would take
/// a time that is the square of their depth.
pub(super) struct Trail<'a>(Vec<(usize, &'a [u8])>);

impl<'a> Trail<'a> {
    /// The root, at 0.
    pub(super) fn new() -> Self {
        Self(vec![(0, b"")])
    }

    /// Adds a directory; its place.
    pub(super) fn add(&mut self, parent: usize, name: &'a [u8]) -> usize {
        self.0.push((parent, name));
        self.0.len() - 1
    }

    /// The path of the directory at that place; the root's is empty.
    pub(super) fn path(&self, mut place: usize) -> Vec<u8> {
        let mut names = Vec::new();
        while place != 0 {
            let (parent, name) = self.0[place];
            names.push(name);
            place = parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}
