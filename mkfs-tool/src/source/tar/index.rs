// SPDX-License-Identifier: GPL-2.0-or-later

//! From the entries of an archive, or of several that are layers, to a tree.

use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::acl::Owners;
use super::growing::{Added, Growing};
use super::nodes::Nodes;
use super::reader::{EntryKind, Reader, TarEntry};
use super::{image_archive, names};
use crate::error::{path_of, Error, Result, Shown};
use crate::source::{join, left_out, AclNames, ArchiveNotes, Filter, LeftOut};

/// A tree that is being read, and the account of it.
pub(super) struct Index<'a> {
    pub(super) nodes: Growing<'a>,
    pub(super) owners: Owners,
    acl_names: AclNames,
    left_out: LeftOut,
    notes: ArchiveNotes,
    /// Bytes of the archive that was read last.
    len: u64,
}

impl<'a> Index<'a> {
    /// An empty tree.
    pub(super) fn new(filter: &Filter, nodes: Growing<'a>) -> Self {
        let names = left_out::Names::new(filter.verbose);
        Self {
            nodes,
            owners: Owners::default(),
            acl_names: filter.archive.acl_names,
            left_out: LeftOut::new(filter.verbose),
            notes: ArchiveNotes { names, ..ArchiveNotes::default() },
            len: 0,
        }
    }

    /// Adds all entries of the archive at these bytes of a file; `path` is its name in messages.
    pub(super) fn archive(&mut self, file: &File, path: &Path, bytes: Range<u64>) -> Result<()> {
        let mut reader = Reader::new(file.try_clone().map_err(Error::io("open", path))?, path, bytes.clone());
        reader.owners = std::mem::take(&mut self.owners);
        let first = self.nodes.names.len();
        while let Some(entry) = reader.next()? {
            self.add(entry, path)?;
            self.nodes.names.make_room(first, reader.at - bytes.start, bytes.end - bytes.start);
        }
        self.owners = std::mem::take(&mut reader.owners);
        self.notes.no_end_mark |= reader.end.is_missing;
        self.len = bytes.end - bytes.start;
        if let Some((at, is_archive)) = reader.end.more {
            self.left_out.behind_end += self.len - at;
            self.left_out.another_archive |= is_archive;
            let what = format!("from byte {at} on, behind its end mark");
            self.left_out.names.push(|| path.as_os_str().as_bytes().to_vec(), what);
        }
        Ok(())
    }

    fn add(&mut self, mut entry: TarEntry, archive: &Path) -> Result<()> {
        let offset = entry.offset;
        let path = entry.path.clone();
        let name = || path.clone();
        let is_link = matches!(entry.kind, EntryKind::HardLink(_));
        let unheld = std::mem::take(&mut entry.left_out);
        let (is_unknown, has_link_data) = (entry.is_unknown, entry.has_link_data);
        let Self { nodes, left_out, notes, .. } = self;
        let refused = |reason| Error::Archive { path: archive.to_owned(), offset, reason };
        match nodes.add(entry).map_err(refused)? {
            Added::Inside => {}
            Added::Replacing => {
                notes.replaced_directories += 1;
                notes.names.push(name, "an entry in the place of an earlier directory");
            }
            Added::Stripped => {
                left_out.outside += 1;
                left_out.names.push(name, "--strip takes all of its names off");
                return Ok(());
            }
        }
        // Those of a link are those of its target.
        for key in unheld.into_iter().filter(|_| !is_link) {
            left_out.xattrs += 1;
            let what = || format!("xattr {}, which an image does not hold", Shown(path_of(&key)));
            left_out.names.push(name, what());
        }
        if is_unknown {
            notes.unknown_types += 1;
            notes.names.push(name, "an entry of an unknown type");
        }
        if has_link_data {
            notes.links_with_data += 1;
            notes.names.push(name, "a hard link with data");
        }
        Ok(())
    }

    /// The tree, and the account of it.
    pub(super) fn finish(self, path: &Path) -> Result<Indexed> {
        let refused = |reason| Error::Archive { path: path.to_owned(), offset: self.len, reason };
        let nodes = self.nodes.finish(&self.owners, self.acl_names).map_err(refused)?;
        Ok(Indexed { root: nodes.root(), nodes, left_out: self.left_out, notes: self.notes })
    }
}

/// A tree that was read, and the account of it.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) nodes: Nodes,
    /// The node that becomes the root.
    pub(super) root: u32,
    pub(super) left_out: LeftOut,
    pub(super) notes: ArchiveNotes,
}

impl Indexed {
    /// Takes the directory as the root that a filter wants; `path` is that of the archive in messages.
    pub(super) fn choose_root(&mut self, filter: &Filter, path: &Path) -> Result<()> {
        let Some(prefix) = &filter.archive.prefix else {
            let refusal = image_archive::refusal(&self.nodes).filter(|_| filter.archive.strip == 0);
            return refusal.map_or(Ok(()), |reason| Err(Error::unsupported(path, reason)));
        };
        let wanted = names::components(prefix.as_os_str().as_bytes())
            .map_err(|reason| Error::Usage(format!("--prefix {}: {reason}", Shown(prefix))))?;
        for (place, name) in wanted.iter().enumerate() {
            let mut found = None;
            for at in self.nodes.names(self.root) {
                let other = self.nodes.name(at);
                if other.name == *name {
                    found = Some(other.node);
                } else {
                    self.left_out.outside += 1;
                    let path = || join(&wanted[..place].join(&b'/'), other.name);
                    self.left_out.names.push(path, "not below --prefix");
                }
            }
            let directory = found.filter(|node| self.nodes.what(*node).is_directory());
            self.root = directory.ok_or_else(|| {
                let reason = format!("has no directory {}, which --prefix wants", Shown(prefix));
                Error::unsupported(path, reason)
            })?;
        }
        Ok(())
    }
}
