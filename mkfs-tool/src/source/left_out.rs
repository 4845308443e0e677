// SPDX-License-Identifier: GPL-2.0

//! What a source has that its image does not have: how much, and, where somebody asks, which.

use std::fmt::Write as _;

use serde::Serialize;

use crate::error::{path_of, Shown};

/// What is in the source and not in the image.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeftOut {
    /// Names that `--exclude` matches, each with everything below it.
    pub excluded: u64,
    /// Device nodes.
    pub devices: u64,
    /// Xattrs of a kind that an image does not hold, or that no system call would set.
    pub xattrs: u64,
    /// The image itself, where it lies in the source.
    pub image: u64,
    /// Names on other filesystems, and mount points whose content is on one.
    pub mounts: u64,
    /// Which.
    #[serde(skip_serializing_if = "Names::is_unwanted")]
    pub names: Names,
}

impl LeftOut {
    /// Nothing yet; `verbose` wants names.
    pub fn new(verbose: bool) -> Self {
        Self { names: Names::new(verbose), ..Self::default() }
    }

    /// As lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (number, what) in [
            (self.excluded, "excluded names"),
            (self.devices, "device nodes"),
            (self.xattrs, "xattrs that an image does not hold"),
            (self.image, "names of the image itself"),
            (self.mounts, "names, or contents of mount points, on other filesystems"),
        ] {
            if number > 0 {
                let _ = writeln!(text, "left out: {number} {what}");
            }
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
    /// What was left out.
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
