// SPDX-License-Identifier: GPL-2.0-or-later

//! The packages that are in a tree, by the databases that package managers leave there: a bill of materials, and whether the
//! files are those that the databases list.
//!
//! - [`Names`]: the names of a tree in memory, found by path as the kernel would; [`Files`]: the bytes of its files;
//!   [`ImageTree`] is both of an image;
//! - `places`: where databases and metadata of packages are; `dpkg`, `apk`, `rpm` (with `header`), `python`, `npm` and `cargo` read
//!   them, `os_release` what the system calls itself;
//! - [`inventory`](self::inventory()): all of that, as [`Package`]s; [`document`](self::document()): a CycloneDX document of them;
//! - [`check`](self::check::check): the files against the lists.
//!
//! Databases are an attacker's bytes like any others. None is read that has more than [`DATABASE_MAX`] bytes; none can make a reader
//! loop, panic or take memory but by its own size.

mod apk;
mod cargo;
pub mod check;
mod document;
mod dpkg;
mod elf;
mod header;
mod inventory;
mod lines;
mod names;
mod npm;
mod os_release;
mod package;
mod places;
mod python;
mod rpm;
mod tree;

pub use self::document::{document, Document};
pub use self::inventory::{inventory, Inventory};
pub use self::names::{Kind, Names, NodeIndex};
pub use self::os_release::OsRelease;
pub use self::package::{Hash, Manager, Package};
pub use self::tree::{stored, ImageTree};

use std::ops::Range;

use crate::error::Error;
use crate::text::escape;

/// The key of the annotation that has the document (`FORMAT.md` 4.10).
pub const KEY: &[u8] = b"sbom.cdx.json";

/// Most bytes of a database of a system's packages that are believed.
pub const DATABASE_MAX: u64 = 256 << 20;

/// Most bytes of the metadata of one package that are believed.
pub const METADATA_MAX: u64 = 8 << 20;

/// The bytes of the files of a tree.
pub trait Files {
    /// Why bytes cannot be had.
    type Error: From<Error>;

    /// Appends exactly the bytes of `range`, which lies in the regular file with that inode number, to `buf`.
    fn read(&self, ino: u32, range: Range<u64>, buf: &mut Vec<u8>) -> Result<(), Self::Error>;
}

/// A place in a database that is not as its format says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    /// Where: a line, a record, a byte.
    place: String,
    found: String,
    expected: &'static str,
}

impl Wrong {
    /// `found` may quote the database.
    fn new(place: String, found: impl AsRef<str>, expected: &'static str) -> Self {
        Self { place, found: escape(found.as_ref().as_bytes()), expected }
    }

    /// The same with bytes of the database, of which the beginning is shown.
    fn bytes(place: String, found: &[u8], expected: &'static str) -> Self {
        let shown = escape(found.get(..40).unwrap_or(found));
        let more = if found.len() > 40 { "..." } else { "" };
        Self { place, found: format!("'{shown}{more}'"), expected }
    }

    /// The text without the name of the file.
    fn text(&self) -> String {
        format!("{}: found {}, expected {}", self.place, self.found, self.expected)
    }

    fn in_file(&self, path: &[u8]) -> Error {
        Error::Refused(format!("{}: {}", escape(path), self.text()))
    }
}

/// All bytes of a file that has no more than `limit`.
fn read_all<F: Files>(names: &Names, files: &F, node: NodeIndex, limit: u64) -> Result<Vec<u8>, F::Error> {
    let size = names.size(node);
    if size > limit {
        let path = escape(&names.path(node));
        let refusal = format!("{path}: found {size} bytes, expected {limit} of a package database at most");
        return Err(Error::Refused(refusal).into());
    }
    let mut bytes = Vec::new();
    if size > 0 {
        files.read(names.ino(node), 0..size, &mut bytes)?;
    }
    Ok(bytes)
}

/// The text of bytes that ought to be UTF-8.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
