// SPDX-License-Identifier: GPL-2.0-or-later

//! Restores a tree, or a part of one, in a directory.
//!
//! Every name is created relative to the descriptor of its directory, exclusively and without following symlinks; every
//! byte that is written was verified. The steps: all directories and special files, in the order of inodes; the regular
//! files, on all threads; the second names of hard-linked files; last the attributes of directories, from the
//! leaves up, so that no later step in a directory changes its attributes.
//!
//! Anything that the system or the filesystem refuses of a file, an owner, an xattr, a mode, a time or the file itself where it
//! knows no such type, is a [`Losses`] and not the end: the rest of the tree is worth having. A directory that cannot be
//! created and bytes that cannot be written end the extraction.

mod attributes;
mod create;
mod directories;
mod files;
mod links;
mod root;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use tesserafs_format::limits::NAME_MAX;

use self::directories::Directories;
use self::root::Root;
use crate::contents::Contents;
use crate::context::{read, Context};
use crate::error::Error;
use crate::losses::{Kind, Losses};
use crate::scope::Scope;
use crate::text;
use crate::walk::{self, Tree};

/// The attributes that are restored beside the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Owners. Without them no file gets a set-user-ID or set-group-ID bit: it would be another owner's.
    pub owners: bool,
    /// Xattrs.
    pub xattrs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { owners: true, xattrs: true }
    }
}

/// The result of an extraction, beside findings.
#[derive(Debug, Default)]
pub struct Extraction {
    /// Something was written.
    pub begun: bool,
    /// The attributes and files that were not restored.
    pub losses: Losses,
}

/// Restores the part of `tree` that `scope` says in `dir`, which does not exist or is empty but for `lost+found`. The
/// metadata was checked.
pub fn extract(
    context: &Context<'_>,
    tree: &Tree,
    scope: &Scope<'_>,
    options: Options,
    dir: &Path,
    extraction: &mut Extraction,
) -> Result<(), Error> {
    Extractor::new(context, tree, scope, options, dir, extraction)?.run()
}

struct Extractor<'a> {
    context: &'a Context<'a>,
    tree: &'a Tree,
    scope: &'a Scope<'a>,
    options: Options,
    contents: Contents<'a>,
    /// The directory that is extracted to has a `lost+found`, as a filesystem just made has.
    has_lost_found: bool,
    directories: Mutex<Directories>,
    /// Files can be written before they have a name.
    unnamed: AtomicBool,
    /// They can be given one by their descriptor alone.
    links_descriptors: AtomicBool,
    privileges: CapabilitySet,
    losses: &'a Losses,
    /// Inodes that were not created.
    left_out: Mutex<HashSet<u32>>,
}

impl<'a> Extractor<'a> {
    /// Opens the directory.
    fn new(
        context: &'a Context<'a>,
        tree: &'a Tree,
        scope: &'a Scope<'a>,
        options: Options,
        dir: &Path,
        extraction: &'a mut Extraction,
    ) -> Result<Self, Error> {
        let contents = Contents::open(context)?;
        let root = Root::open(dir)?;
        extraction.begun = true;
        Ok(Self {
            context,
            tree,
            scope,
            options,
            contents,
            has_lost_found: root.has_lost_found,
            directories: Mutex::new(Directories::new(root.fd)),
            unnamed: AtomicBool::new(Path::new("/proc/self/fd").is_dir()),
            links_descriptors: AtomicBool::new(true),
            // A file that cannot be asked for is not there.
            privileges: rustix::thread::capabilities(None)
                .map_or(CapabilitySet::empty(), |capabilities| capabilities.effective),
            losses: &extraction.losses,
            left_out: Mutex::default(),
        })
    }

    /// Restores the tree.
    fn run(&self) -> Result<(), Error> {
        self.context.progress.begin("extract", self.context.image.sb.layout.inodes.records());
        let files = self.create_all()?;
        self.write_all(&files)?;
        self.link_all()?;
        for directory in self.scope.directories().iter().rev() {
            self.context.cancel.check()?;
            if directory.ino != self.scope.top() || self.scope.has_top() {
                self.finish_directory(directory.ino)?;
            }
        }
        Ok(())
    }

    /// The path of an inode, for messages.
    fn shown(&self, ino: u32) -> String {
        let path = walk::path(self.context, self.tree, ino);
        path.map_or_else(|| format!("inode {ino}"), |path| text::escape(&path))
    }

    /// An error of a call; its text is made where there is one, as a path is looked for level by level.
    fn fail<'s>(&'s self, what: &'s str, ino: u32) -> impl Fn(Errno) -> Error + 's {
        move |errno| Error::Io { what: format!("cannot {what} {}", self.shown(ino)), source: errno.into() }
    }

    /// Counts what `errno` kept from being restored.
    fn lose(&self, kind: Kind, ino: u32, errno: Errno, by_privilege: bool, what: impl FnOnce() -> String) {
        self.losses
            .add(kind, by_privilege, || (what(), self.shown(ino), std::io::Error::from(errno).to_string()));
    }

    /// Leaves a file out, and says so.
    fn leave_out(&self, ino: u32, errno: Errno) {
        self.lose(Kind::File, ino, errno, false, String::new);
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(ino);
    }

    fn is_left_out(&self, ino: u32) -> bool {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).contains(&ino)
    }

    /// The name of entry `n` of a directory.
    fn name(&self, directory: &walk::Directory, n: u32) -> Result<CString, Error> {
        let mut buf = [0; NAME_MAX];
        let no_entry = || Error::Refused(format!("directory {} has no entry {n}", directory.ino));
        let entry = read(self.context.image.dirent(&directory.tables, n))?.ok_or_else(no_entry)?;
        let name = read(self.context.image.name(&entry, &mut buf))?;
        CString::new(name).map_err(|_| Error::Refused("a name with a NUL".to_owned()))
    }

    /// The directory of an inode's first name, and the name.
    fn first_name(&self, ino: u32) -> Result<(Arc<OwnedFd>, CString), Error> {
        let no_name = || Error::Refused(format!("inode {ino} has no name"));
        let (parent, n) = self.scope.first_name(ino).ok_or_else(no_name)?;
        Ok((self.directory(parent.ino)?, self.name(&parent, n)?))
    }
}

/// Whether a filesystem says so of a name, a type or a link that it does not know, and not of a lack of room.
fn is_unknown(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NAMETOOLONG
            | Errno::MLINK
    )
}
