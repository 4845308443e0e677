// SPDX-License-Identifier: GPL-2.0-or-later

//! An archive whose files are looked up by name, as container images are kept in archives.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::growing::Growing;
use super::index::Index;
use super::names::components;
use super::node::What;
use super::nodes::Nodes;
use super::open_in_place;
use crate::error::{path_of, Error, Result, Shown};
use crate::source::oci::Part;
use crate::source::Filter;

/// Symlinks that are followed for one name. `docker save` of before 2023 has them, each to a file, where layers are equal.
const LINKS_MAX: usize = 8;

/// An archive, and the tree that it holds.
#[derive(Debug)]
pub(in crate::source) struct Archive {
    path: PathBuf,
    file: File,
    nodes: Nodes,
}

impl Archive {
    /// Opens and indexes an archive, and says its name in messages; `-` is standard input. An archive that must be unpacked goes to an
    /// unnamed file in `spool`.
    pub(in crate::source) fn open(path: &Path, spool: &Path) -> Result<(Self, PathBuf)> {
        let (file, shown) = open_in_place(path, spool)?;
        let len = file.metadata().map_err(Error::io("stat", &shown))?.len();
        let root = Growing::new(0).map_err(|reason| Error::unsupported(&shown, reason))?;
        let mut index = Index::new(&Filter::default(), root);
        index.archive(&file, &shown, 0..len)?;
        let nodes = index.finish(&shown)?.nodes;
        Ok((Self { path: shown.clone(), file, nodes }, shown))
    }

    /// The regular file of that path, where there is one.
    pub(in crate::source) fn find(&self, path: &[u8]) -> Result<Option<Part>> {
        let refused =
            |reason: String| Error::unsupported(&self.path, format!("{}: {reason}", Shown(path_of(path))));
        let mut wanted = path.to_vec();
        for _ in 0..=LINKS_MAX {
            let names = components(&wanted).map_err(refused)?;
            let Some(node) = self.nodes.find(self.nodes.root(), &names) else { return Ok(None) };
            match self.nodes.what(node) {
                What::Regular { size, offset } => {
                    let file = self.file.try_clone().map_err(Error::io("open", &self.path))?;
                    return Ok(Some(Part { file, at: *offset, end: offset + size }));
                }
                What::Symlink(target) => wanted = beside(&names, target).map_err(refused)?,
                What::Sparse(_) => {
                    return Err(refused("is a file with holes in the archive, expected all bytes".into()))
                }
                other => return Err(refused(format!("is {}, expected a file", other.name()))),
            }
        }
        Err(refused(format!("leads through more than {LINKS_MAX} symlinks")))
    }
}

/// The path that a symlink with these names leads to.
fn beside(names: &[&[u8]], target: &[u8]) -> Result<Vec<u8>, String> {
    let mut path: Vec<&[u8]> = names[..names.len().saturating_sub(1)].to_vec();
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(path.pop().ok_or("leads out of the archive")?),
            name => path.push(name),
        }
    }
    Ok(path.join(&b'/'))
}
