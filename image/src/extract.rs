// SPDX-License-Identifier: GPL-2.0-or-later

//! Restores the tree of an image in a directory.
//!
//! Every name is created relative to the descriptor of its directory, exclusively and without following symlinks; every
//! byte that is written was verified. The steps: all directories and special files, in the order of inodes; the regular
//! files, on all threads; the second names of hard-linked files; last the attributes of directories, from the leaves up,
//! so that nothing that happens in a directory changes what was set.

mod attributes;
mod directories;
mod files;

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use tesserafs_format::limits::{NAME_MAX, SYMLINK_MAX};
use tesserafs_format::{FileKind, Ino, Inode};

use self::directories::Directories;
use crate::contents::Contents;
use crate::context::{read, Context};
use crate::error::Error;
use crate::text;
use crate::walk::{self, Tree};

/// What came of an extraction, beside findings.
#[derive(Debug, Default)]
pub struct Extraction {
    /// Something was written.
    pub begun: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Restores the tree in `dir`, which does not exist or is empty. The metadata was checked.
pub fn extract(
    context: &Context<'_>,
    tree: &Tree,
    dir: &Path,
    extraction: &mut Extraction,
) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let contents = Contents::open(context)?;
    let root = open_root(dir)?;
    extraction.begun = true;
    let extractor = Extractor {
        context,
        tree,
        contents,
        directories: Mutex::new(Directories::new(root)),
        unnamed: AtomicBool::new(Path::new("/proc/self/fd").is_dir()),
        is_root: rustix::process::geteuid().is_root(),
        not_owned: Mutex::default(),
        not_set: Mutex::default(),
    };
    context.progress.begin("extract", layout.inodes.records());
    let files = extractor.create_all()?;
    extractor.write_all(&files)?;
    extractor.link_all()?;
    for directory in tree.directories.iter().rev() {
        context.cancel.check()?;
        extractor.finish_directory(directory.ino)?;
    }
    let not_owned = *extractor.not_owned.lock().unwrap_or_else(PoisonError::into_inner);
    if not_owned > 0 {
        let what = "the owners, and set-user-ID and set-group-ID bits, of";
        extraction.notes.push(format!("not root: {what} {not_owned} files were not restored"));
    }
    let not_set = *extractor.not_set.lock().unwrap_or_else(PoisonError::into_inner);
    if not_set > 0 {
        extraction.notes.push(format!("not root: {not_set} xattrs were not restored"));
    }
    Ok(())
}

/// Creates `dir`, or proves that it is empty, and opens it.
fn open_root(dir: &Path) -> Result<OwnedFd, Error> {
    let shown = text::path(dir);
    let fail = |what: &str, source: io::Error| Error::Io { what: format!("cannot {what} {shown}"), source };
    // Others may enter it once it is complete and the image says so.
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(fail("create directory", source));
        }
        _ => (),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty())
        .map_err(|errno| fail("open directory", errno.into()))?;
    // By the descriptor: the name may stand for another directory by now.
    let cannot_read = |errno: Errno| fail("read directory", errno.into());
    for entry in rustix::fs::Dir::read_from(&root).map_err(cannot_read)? {
        if !matches!(entry.map_err(cannot_read)?.file_name().to_bytes(), b"." | b"..") {
            return Err(Error::Refused(format!("{shown} is not empty")));
        }
    }
    // What is created in it must not inherit an ACL.
    match rustix::fs::fremovexattr(&root, "system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(root),
        Err(errno) => Err(fail("remove the default ACL of", errno.into())),
    }
}

struct Extractor<'a> {
    context: &'a Context<'a>,
    tree: &'a Tree,
    contents: Contents<'a>,
    directories: Mutex<Directories>,
    /// Files can be written before they have a name.
    unnamed: AtomicBool,
    is_root: bool,
    not_owned: Mutex<u64>,
    not_set: Mutex<u64>,
}

impl Extractor<'_> {
    /// The path of an inode, for messages.
    fn shown(&self, ino: u32) -> String {
        let path = walk::path(self.context, self.tree, ino);
        path.map_or_else(|| format!("inode {ino}"), |path| text::escape(&path))
    }

    /// An error of a call; its text is made where there is one, as a path is looked for level by level.
    fn fail<'s>(&'s self, what: &'s str, ino: u32) -> impl Fn(Errno) -> Error + 's {
        move |errno| Error::Io { what: format!("cannot {what} {}", self.shown(ino)), source: errno.into() }
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
        let (parent, n) = self.tree.first_name(ino).ok_or_else(no_name)?;
        Ok((self.directory(parent.ino)?, self.name(parent, n)?))
    }

    /// Creates everything but regular files, which are returned.
    fn create_all(&self) -> Result<Vec<u32>, Error> {
        let mut files = Vec::new();
        for number in 2..=self.context.image.sb.layout.inodes.records() {
            self.context.cancel.check()?;
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let Some(ino) = Ino::from_number(number) else { continue };
            let inode = read(self.context.image.inode(ino))?;
            if matches!(inode.kind, FileKind::Regular { .. }) {
                files.push(number);
                continue;
            }
            let (dir, name) = self.first_name(number)?;
            self.create(&inode, &dir, &name)?;
            if !matches!(inode.kind, FileKind::Directory(_)) {
                self.finish_special(&inode, &dir, &name)?;
                self.context.progress.advance(1);
            }
        }
        Ok(files)
    }

    fn create(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(), Error> {
        let fail = self.fail("create", inode.ino.get());
        let private = Mode::from_raw_mode(0o700);
        let special = |kind| rustix::fs::mknodat(dir, name, kind, private, 0).map_err(&fail);
        match inode.kind {
            FileKind::Directory(_) => rustix::fs::mkdirat(dir, name, private).map_err(fail),
            FileKind::Symlink { offset, len } => {
                let mut target = [0; SYMLINK_MAX as usize];
                let target = &mut target[..len as usize];
                read(self.context.image.target(inode.ino, offset, target))?;
                rustix::fs::symlinkat(&*target, dir, name).map_err(fail)
            }
            FileKind::Fifo => special(FileType::Fifo),
            FileKind::Socket => special(FileType::Socket),
            FileKind::Whiteout => special(FileType::CharacterDevice),
            FileKind::Regular { .. } => Ok(()),
        }
    }

    /// Creates the names of hard-linked files beside the first.
    fn link_all(&self) -> Result<(), Error> {
        for directory in &self.tree.directories {
            for n in 0..directory.tables.entries {
                let Some(entry) = read(self.context.image.dirent(&directory.tables, n))? else { break };
                let number = entry.ino.get();
                let first = self.tree.first_name(number).map(|(directory, n)| (directory.ino, n));
                let is_first = first == Some((directory.ino, n));
                if is_first {
                    continue;
                }
                self.context.cancel.check()?;
                let (from_dir, from) = self.first_name(number)?;
                let (dir, name) = (self.directory(directory.ino)?, self.name(directory, n)?);
                match rustix::fs::linkat(&*from_dir, &from, &*dir, &name, AtFlags::empty()) {
                    // The file was left out, which is a finding.
                    Err(Errno::NOENT) if self.context.findings.count() > 0 => (),
                    result => result.map_err(self.fail("link", number))?,
                }
            }
        }
        Ok(())
    }
}
