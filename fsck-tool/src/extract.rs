// SPDX-License-Identifier: GPL-2.0

//! Restores the tree of an image in a directory.
//!
//! Every name is created relative to the descriptor of its directory, exclusively and without following symlinks; every
//! byte that is written was verified. The steps: all directories and special files, in the order of inodes; the regular
//! files, on all threads; the second names of hard-linked files; last the attributes of directories, from the
//! leaves up, so that no later step in a directory changes its attributes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags, CWD};
use rustix::io::Errno;
use tesserafs_format::limits::{SYMLINK_MAX, XATTR_NAME_MAX};
use tesserafs_format::{ChunkIndex, ContentIndex, FileKind, Ino, Inode, Place, Rule, Target};

use crate::check::Context;
use crate::error::Error;
use crate::finding::Finding;
use crate::hash::ContentHasher;
use crate::list::read;
use crate::packs::{ChunkError, Decoder, Packs};
use crate::parallel;
use crate::text;
use crate::walk::{self, Tree};

/// Directories that are kept open.
const OPEN_DIRECTORIES: usize = 128;

/// Decoded chunks with several files that are kept.
const KEPT_CHUNKS: usize = 32;

/// The result of an extraction, beside findings.
#[derive(Debug, Default)]
pub(crate) struct Extraction {
    /// Something was written.
    pub(crate) begun: bool,
    /// Notes for the user.
    pub(crate) notes: Vec<String>,
}

/// Restores the tree in `dir`, which does not exist or is empty. The metadata was checked.
pub(crate) fn extract(
    context: &Context<'_>,
    tree: &Tree,
    dir: &Path,
    extraction: &mut Extraction,
) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let packs: Result<Vec<_>, Error> = (0..layout.packs.records())
        .map(|number| {
            let index = tesserafs_format::PackIndex(u16::try_from(number).unwrap_or(u16::MAX));
            read(context.image.pack(index)).map(Some)
        })
        .collect();
    let packs = Packs::open(context.metadata.source(), &packs?, &context.pack_dir)?;
    let root = open_root(dir)?;
    extraction.begun = true;
    let extractor = Extractor {
        context,
        tree,
        packs,
        directories: Mutex::new(Directories::new(root)),
        chunks: Mutex::default(),
        compared: Mutex::default(),
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
    // Files that are created in it must not inherit an ACL.
    match rustix::fs::fremovexattr(&root, "system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(root),
        Err(errno) => Err(fail("remove the default ACL of", errno.into())),
    }
}

/// Open directories, by inode number.
struct Directories {
    root: Arc<OwnedFd>,
    open: HashMap<u32, Arc<OwnedFd>>,
    order: VecDeque<u32>,
}

impl Directories {
    fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), open: HashMap::new(), order: VecDeque::new() }
    }

    fn keep(&mut self, ino: u32, fd: Arc<OwnedFd>) {
        if self.order.len() == OPEN_DIRECTORIES {
            if let Some(oldest) = self.order.pop_front() {
                self.open.remove(&oldest);
            }
        }
        if self.open.insert(ino, fd).is_none() {
            self.order.push_back(ino);
        }
    }
}

/// A decoded chunk, once a thread has decoded it.
type Kept = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// Chunks with several files: decoded once for all of them that are written at about the same time.
#[derive(Default)]
struct Chunks {
    kept: HashMap<u32, Kept>,
    order: VecDeque<u32>,
}

struct Extractor<'a> {
    context: &'a Context<'a>,
    tree: &'a Tree,
    packs: Packs<'a>,
    directories: Mutex<Directories>,
    chunks: Mutex<Chunks>,
    /// Contents that have their digest: files that share one, however long its holes are, cost it once.
    compared: Mutex<HashSet<ContentIndex>>,
    /// Files can be written before they have a name.
    unnamed: AtomicBool,
    is_root: bool,
    not_owned: Mutex<u64>,
    not_set: Mutex<u64>,
}

/// Why a file was not written.
enum FileError {
    /// The image is broken there: a finding, and the extraction goes on.
    Broken(Box<Finding>),
    Stop(Error),
}

impl From<Error> for FileError {
    fn from(error: Error) -> Self {
        FileError::Stop(error)
    }
}

impl From<ChunkError> for FileError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Broken(finding) => FileError::Broken(finding),
            ChunkError::Stop(error) => FileError::Stop(error),
        }
    }
}

impl Extractor<'_> {
    /// The path of an inode, for messages.
    fn shown(&self, ino: u32) -> String {
        let path = walk::path(self.context, self.tree, ino);
        path.map_or_else(|| format!("inode {ino}"), |path| text::escape(&path))
    }

    fn fail(&self, what: &str, ino: u32) -> impl Fn(Errno) -> Error {
        let what = format!("cannot {what} {}", self.shown(ino));
        move |errno| Error::Io { what: what.clone(), source: errno.into() }
    }

    /// The name of entry `n` of a directory.
    fn name(&self, directory: &walk::Directory, n: u32) -> Result<CString, Error> {
        let mut buf = [0; tesserafs_format::limits::NAME_MAX];
        let no_entry = || Error::Refused(format!("directory {} has no entry {n}", directory.ino));
        let entry = read(self.context.image.dirent(&directory.tables, n))?.ok_or_else(no_entry)?;
        let name = read(self.context.image.name(&entry, &mut buf))?;
        CString::new(name).map_err(|_| Error::Refused("a name with a NUL".to_owned()))
    }

    /// The descriptor of a directory that was created, opened from the root name by name where it is not open.
    fn directory(&self, ino: u32) -> Result<Arc<OwnedFd>, Error> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        let mut at = ino;
        let mut fd = loop {
            if at == Ino::ROOT.get() {
                break directories.root.clone();
            }
            if let Some(fd) = directories.open.get(&at) {
                break fd.clone();
            }
            let Some((parent, n)) = self.tree.first_name(at) else {
                return Err(Error::Refused(format!("directory {at} has no name")));
            };
            missing.push((at, parent, n));
            at = parent.ino;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (ino, parent, n) in missing.into_iter().rev() {
            let opened = rustix::fs::openat(&fd, self.name(parent, n)?, flags, Mode::empty())
                .map_err(self.fail("open directory", ino))?;
            fd = Arc::new(opened);
            directories.keep(ino, fd.clone());
        }
        Ok(fd)
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

    /// Writes the regular files.
    fn write_all(&self, files: &[u32]) -> Result<(), Error> {
        let decoders: Result<Vec<_>, Error> =
            (0..self.context.threads).map(|_| Decoder::new().map(Mutex::new)).collect();
        let decoders = decoders?;
        parallel::for_each(self.context.threads, files.len() as u64, self.context.cancel, |index| {
            // There are as many decoders as threads: one is free.
            let mut free = decoders.iter().filter_map(|decoder| decoder.try_lock().ok());
            let Some(mut decoder) = free.next() else {
                return Err(Error::Refused("a thread of the extraction failed".to_owned()));
            };
            let number = files[index as usize];
            let Some(ino) = Ino::from_number(number) else { return Ok(()) };
            let inode = read(self.context.image.inode(ino))?;
            let (dir, name) = self.first_name(number)?;
            let (file, has_name) = self.create_file(&dir, &name).map_err(self.fail("create", number))?;
            let written =
                self.write(&inode, &file, &mut decoder).and_then(|()| Ok(self.finish(&inode, &file)?));
            match written {
                Ok(()) if has_name => (),
                Ok(()) => name_file(&file, &dir, &name).map_err(self.fail("create", number))?,
                Err(error) => {
                    if has_name {
                        // Half a file is worse than none: somebody might take it for the whole.
                        rustix::fs::unlinkat(&*dir, &name, AtFlags::empty())
                            .map_err(self.fail("remove", number))?;
                    }
                    match error {
                        FileError::Broken(finding) => self.context.findings.add(*finding),
                        FileError::Stop(error) => return Err(error),
                    }
                }
            }
            self.context.progress.advance(1);
            Ok(())
        })
    }

    /// Creates a regular file, and says whether it has its name. Where the file system can, the file gets its
    /// name when it is complete, so that an end of the program never leaves half of a file.
    fn create_file(&self, dir: &OwnedFd, name: &CString) -> Result<(File, bool), Errno> {
        let private = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if self.unnamed.load(Ordering::Relaxed) {
            match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, private) {
                Ok(file) => return Ok((file.into(), false)),
                // The errors of file systems that cannot do it.
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                    self.unnamed.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno),
            }
        }
        let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok((rustix::fs::openat(dir, name, flags | exclusive, private)?.into(), true))
    }

    /// Writes the bytes of a regular file; holes stay holes.
    fn write(&self, inode: &Inode, file: &File, decoder: &mut Decoder) -> Result<(), FileError> {
        let FileKind::Regular { size, content: Some(content) } = inode.kind else { return Ok(()) };
        let ino = inode.ino.get();
        let fail = |source| Error::Io { what: format!("cannot write {}", self.shown(ino)), source };
        let extents = read(self.context.image.extents(content, size))?;
        let is_compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner).contains(&content);
        let mut hasher = (!is_compared).then(|| ContentHasher::new(size));
        let mut raw = Vec::new();
        for index in extents.first..extents.end {
            self.context.cancel.check()?;
            let extent = read(self.context.image.extent(&extents, index))?;
            let Target::Chunk { index, offset } = extent.target else {
                if let Some(hasher) = &mut hasher {
                    hasher.zeros_until(extent.len(), || self.context.cancel.check())?;
                }
                continue;
            };
            let chunk = read(self.context.image.chunk(index))?;
            let start = offset as usize;
            let len = usize::try_from(extent.len()).unwrap_or(usize::MAX);
            let end = start.saturating_add(len);
            let shared;
            let bytes = if len == chunk.raw_len as usize {
                self.packs.read(&chunk, decoder, &mut raw)?;
                raw.get(start..end)
            } else {
                shared = self.shared(index, decoder)?;
                shared.get(start..end)
            };
            let bytes = bytes.ok_or_else(|| {
                Error::Refused(format!("the image changed while {} was read", self.shown(ino)))
            })?;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            file.write_all_at(bytes, extent.start).map_err(fail)?;
        }
        file.set_len(size).map_err(fail)?;
        hasher.map_or(Ok(()), |hasher| self.compare(content, hasher))
    }

    fn compare(&self, content: ContentIndex, hasher: ContentHasher) -> Result<(), FileError> {
        let expected = read(self.context.image.content_digest(content))?;
        let found = hasher.finish().digest;
        if found == expected {
            self.compared.lock().unwrap_or_else(PoisonError::into_inner).insert(content);
            return Ok(());
        }
        let finding = Finding::new(Rule::ContentDigest, Place::Content(content.0), found, expected);
        Err(FileError::Broken(Box::new(finding)))
    }

    /// The decoded bytes of a chunk that has several files.
    fn shared(&self, index: ChunkIndex, decoder: &mut Decoder) -> Result<Arc<Vec<u8>>, FileError> {
        let kept = {
            let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
            match chunks.kept.get(&index.0) {
                Some(kept) => kept.clone(),
                None => {
                    if chunks.order.len() == KEPT_CHUNKS {
                        if let Some(oldest) = chunks.order.pop_front() {
                            chunks.kept.remove(&oldest);
                        }
                    }
                    let kept = Kept::default();
                    chunks.kept.insert(index.0, kept.clone());
                    chunks.order.push_back(index.0);
                    kept
                }
            }
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(raw) = &*kept {
            return Ok(raw.clone());
        }
        let chunk = read(self.context.image.chunk(index))?;
        let mut raw = Vec::new();
        self.packs.read(&chunk, decoder, &mut raw)?;
        let raw = Arc::new(raw);
        *kept = Some(raw.clone());
        Ok(raw)
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

    /// Sets owner, xattrs, mode and time of a regular file: in this order, as each may undo those after it.
    fn finish(&self, inode: &Inode, file: &File) -> Result<(), Error> {
        let number = inode.ino.get();
        let owned = self.own(number, || {
            rustix::fs::fchown(file, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)))
        })?;
        self.xattrs(inode, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        rustix::fs::fchmod(file, mode(inode, owned)).map_err(self.fail("set the mode of", number))?;
        rustix::fs::futimens(file, &times(inode)).map_err(self.fail("set the time of", number))
    }

    /// The same of a symlink or a special file, which cannot be opened.
    fn finish_special(&self, inode: &Inode, dir: &OwnedFd, name: &CString) -> Result<(), Error> {
        let number = inode.ino.get();
        // All by a descriptor of the file that was created. In a directory that others may write in, its name
        // may by now be a hard link to a file that is not theirs.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(self.fail("open", number))?;
        let stat = rustix::fs::fstat(&handle).map_err(self.fail("stat", number))?;
        if stat.st_nlink != 1 || FileType::from_raw_mode(stat.st_mode) != special_type(inode) {
            let shown = self.shown(number);
            return Err(Error::Refused(format!("{shown} was replaced while it was extracted")));
        }
        let owned = self.own(number, || {
            let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
            rustix::fs::chownat(&handle, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        })?;
        let is_symlink = matches!(inode.kind, FileKind::Symlink { .. });
        // Calls that take no such descriptor get a path that leads to it.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        self.xattrs(inode, |name, value| {
            rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
        })?;
        if !is_symlink {
            rustix::fs::chmod(path.as_str(), mode(inode, owned))
                .map_err(self.fail("set the mode of", number))?;
        }
        rustix::fs::utimensat(&handle, "", &times(inode), AtFlags::EMPTY_PATH)
            .map_err(self.fail("set the time of", number))
    }

    fn finish_directory(&self, number: u32) -> Result<(), Error> {
        let Some(ino) = Ino::from_number(number) else { return Ok(()) };
        let inode = read(self.context.image.inode(ino))?;
        let dir = self.directory(number)?;
        let file = File::from(dir.try_clone().map_err(|source| Error::Io {
            what: format!("cannot open directory {}", self.shown(number)),
            source,
        })?);
        self.context.progress.advance(1);
        self.finish(&inode, &file)
    }

    /// Sets an owner, and says whether it is set; only root may, and other users are told at the end.
    fn own(&self, number: u32, set: impl Fn() -> Result<(), Errno>) -> Result<bool, Error> {
        match set() {
            Ok(()) => Ok(true),
            Err(Errno::PERM) if !self.is_root => {
                *self.not_owned.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                Ok(false)
            }
            Err(errno) => Err(self.fail("set the owner of", number)(errno)),
        }
    }

    fn xattrs(&self, inode: &Inode, set: impl Fn(&CString, &[u8]) -> Result<(), Errno>) -> Result<(), Error> {
        let Some(index) = inode.xattrs else { return Ok(()) };
        let image = &self.context.image;
        let mut cursor = image.xattrs(read(image.xattr_set(index))?);
        let mut buf = [0; XATTR_NAME_MAX];
        while let Some((entry, name)) = read(cursor.next(&mut buf))? {
            let mut value = vec![0; entry.value_len as usize];
            read(image.xattr_value(index, &entry, &mut value))?;
            let name =
                CString::new(name).map_err(|_| Error::Refused("an xattr name with a NUL".to_owned()))?;
            match set(&name, &value) {
                Ok(()) => (),
                Err(Errno::PERM) if !self.is_root => {
                    *self.not_set.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
                Err(errno) => {
                    let what = format!("set xattr {} of", text::escape(name.as_bytes()));
                    return Err(self.fail(&what, inode.ino.get())(errno));
                }
            }
        }
        Ok(())
    }
}

/// The type of the file that is created for an inode that is neither a regular file nor a directory.
fn special_type(inode: &Inode) -> FileType {
    match inode.kind {
        FileKind::Symlink { .. } => FileType::Symlink,
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::Whiteout => FileType::CharacterDevice,
        FileKind::Regular { .. } => FileType::RegularFile,
        FileKind::Directory(_) => FileType::Directory,
    }
}

/// Gives a file without a name the name `name`, which must not exist.
fn name_file(file: &File, dir: &OwnedFd, name: &CString) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// The mode; a program must not run as another owner than that of the image.
fn mode(inode: &Inode, owned: bool) -> Mode {
    let kept = if owned { 0o7777 } else { 0o1777 };
    Mode::from_raw_mode(RawMode::from(inode.mode & kept))
}

/// The modification time, for both times that can be set.
fn times(inode: &Inode) -> Timestamps {
    let time = Timespec { tv_sec: inode.mtime.sec, tv_nsec: inode.mtime.nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}
