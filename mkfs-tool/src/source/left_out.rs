// SPDX-License-Identifier: GPL-2.0-or-later

//! The differences between a source and its image: how many, and, on request, which.

use std::fmt::Write as _;

use serde::Serialize;

use crate::error::{path_of, Shown};

/// The names and attributes in the source that are not in the image.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeftOut {
    /// Names that `--exclude` matches, each with everything below it.
    pub excluded: u64,
    /// Device nodes.
    pub devices: u64,
    /// Xattrs, labels and access control lists of a kind that an image does not hold, or that no system call would set.
    pub xattrs: u64,
    /// The image itself, where it lies in the source.
    pub image: u64,
    /// Names on other filesystems, and mount points whose content is on one.
    pub mounts: u64,
    /// Whiteouts in opaque directories, where there is nothing to hide.
    pub whiteouts: u64,
    /// Names of AUFS's own files, each with everything below it.
    pub aufs: u64,
    /// Entries and names of an archive that `--strip` or `--prefix` leaves out, of the latter each with everything below it.
    pub outside: u64,
    /// Bytes of an archive behind its end mark, from the first that is not zero.
    pub behind_end: u64,
    /// Whether these begin with another archive, as of a concatenation.
    pub another_archive: bool,
    /// Which.
    #[serde(skip_serializing_if = "Names::is_unwanted")]
    pub names: Names,
}

impl LeftOut {
    /// Nothing yet; `verbose` wants names.
    pub fn new(verbose: bool) -> Self {
        Self { names: Names::new(verbose), ..Self::default() }
    }

    /// As lines for people; with `asked_for`, those too that an option asked for.
    pub fn to_text(&self, asked_for: bool) -> String {
        let mut text = String::new();
        for (number, what, is_asked_for) in [
            (self.excluded, "excluded names", true),
            (self.devices, "device nodes", true),
            (self.mounts, "names, or contents of mount points, on other filesystems", true),
            (self.outside, "entries that --strip or --prefix does not want", true),
            (self.xattrs, "xattrs that an image does not hold", false),
            (self.image, "names of the image itself", false),
            (self.whiteouts, "whiteouts in opaque directories, where nothing is left to hide", false),
            (self.aufs, "names of files of AUFS itself (.wh..wh.*)", false),
            (self.behind_end, "bytes behind the end mark of the archive", false),
        ] {
            if number > 0 && (asked_for || !is_asked_for) {
                let _ = writeln!(text, "left out: {number} {what}");
            }
        }
        if self.another_archive {
            text.push_str("          (another archive begins there, as in a concatenation; only the first one was read)\n");
        }
        self.names.write(&mut text);
        text
    }
}

/// How an archive was read where it leaves that open.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ArchiveNotes {
    /// Directories without an entry, whose attributes are the default's.
    pub implied_directories: u64,
    /// Entries of a type that no standard has, which are read as regular files.
    pub unknown_types: u64,
    /// Hard links with data of their own, which are not used.
    pub links_with_data: u64,
    /// Directories that a later entry of another type has the place of, each with all that was in it.
    pub replaced_directories: u64,
    /// Whether the archive has no end mark.
    pub no_end_mark: bool,
    /// Which.
    #[serde(skip_serializing_if = "Names::is_unwanted")]
    pub names: Names,
}

impl ArchiveNotes {
    /// As lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (number, what) in [
            (
                self.implied_directories,
                "directories without an entry in the archive: mode 0755, owner 0:0, mtime 0",
            ),
            (self.unknown_types, "entries of an unknown type, which were read as regular files"),
            (self.links_with_data, "hard links with data of their own, which were not used"),
            (
                self.replaced_directories,
                "directories, with all in them, whose place an entry of another type took later",
            ),
        ] {
            if number > 0 {
                let _ = writeln!(text, "note: {number} {what}");
            }
        }
        if self.no_end_mark {
            text.push_str("note: the archive has no end mark: it may have been longer\n");
        }
        self.names.write(&mut text);
        text
    }
}

/// Names, where they are wanted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Names(Option<Vec<Named>>);

/// A name, and what it is.
#[derive(Clone, Debug, Serialize)]
pub struct Named {
    /// The path, as it is shown.
    name: String,
    /// The thing that was left out, or noted.
    what: String,
}

impl Names {
    /// None yet.
    pub fn new(wanted: bool) -> Self {
        Self(wanted.then(Vec::new))
    }

    /// Notes a name, in words that follow it.
    pub fn push(&mut self, name: impl FnOnce() -> Vec<u8>, what: impl Into<String>) {
        if let Some(names) = &mut self.0 {
            let name = name();
            let shown = if name.is_empty() { "/".into() } else { Shown(path_of(&name)).to_string() };
            names.push(Named { name: shown, what: what.into() });
        }
    }

    fn is_unwanted(&self) -> bool {
        self.0.is_none()
    }

    fn write(&self, text: &mut String) {
        for Named { name, what } in self.0.iter().flatten() {
            let _ = writeln!(text, "  {name}: {what}");
        }
    }
}
