// SPDX-License-Identifier: GPL-2.0

//! A directory as the source of a tree.
//!
//! Every path is opened beneath the root without following a symlink, sockets, FIFOs and devices are never opened, and what
//! changes between the walk and the end of reading is an error, never a silent mixture.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    fstat, lgetxattr, llistxattr, open, openat, openat2, readlinkat, seek, statat, AtFlags, Mode, OFlags,
    RawDir, ResolveFlags, SeekFrom, Stat,
};
use rustix::io::Errno;
use tesserafs_format::limits::{BLOCK_BYTES, XATTR_LIST_MAX, XATTR_VALUE_MAX};
use tesserafs_format::xattr::is_valid_name;
use tesserafs_format::Timestamp;

use super::{join, DeviceList, Devices, FileTask, Filter, Found, LeftOut, OpenFile, Source, Walked};
use crate::error::{path_of, Error, Result, Shown};
use crate::tree::{Attributes, Kind, TreeBuilder, Xattrs};

/// How a directory or file is opened: never through a symlink, never waiting for a FIFO's other end.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Bytes that one system call reads of a directory.
const DIRENTS_BUFFER: usize = 1 << 16;

/// A directory.
#[derive(Debug)]
pub struct DirSource {
    path: PathBuf,
    root: OwnedFd,
    filter: Filter,
    /// xattr calls have no `at` form; they go through the descriptor's link in procfs, where that is mounted.
    procfs: bool,
}

/// What identifies a file and changes when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    mode: u32,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

/// A regular file: where it is, and how it was when the walk met it.
#[derive(Debug)]
pub struct DirFile {
    path: Box<[u8]>,
    stamp: Stamp,
    /// Fewer blocks than bytes: the file may have holes that need not be read.
    sparse: bool,
}

impl DirSource {
    /// Opens a directory as a source.
    pub fn open(path: &Path, filter: Filter) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let root = open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let procfs = Path::new("/proc/self/fd").is_dir();
        Ok(Self { path: path.to_owned(), root, filter, procfs })
    }

    /// The path of something in the tree as a user would name it.
    fn shown(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.path.clone()
        } else {
            self.path.join(path_of(path))
        }
    }

    /// Opens a path beneath the root.
    fn open_beneath(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        // Only the owner of a file may read it without a new atime.
        match self.open_once(path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.open_once(path, flags),
            other => other,
        }
    }

    fn open_once(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            // Longer than PATH_MAX, or a kernel or sandbox without openat2: one directory after the other.
            Err(Errno::NAMETOOLONG | Errno::NOSYS | Errno::PERM) => self.open_stepwise(name, flags),
            other => other,
        }
    }

    fn open_stepwise(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let dir = at.as_ref().unwrap_or(&self.root).as_fd();
            let Some(slash) = rest.iter().position(|byte| *byte == b'/') else {
                return openat(dir, rest, flags, Mode::empty());
            };
            let next = openat(dir, &rest[..slash], step, Mode::empty())?;
            at = Some(next);
            rest = &rest[slash + 1..];
        }
    }

    /// The xattrs of `name` in the open directory `dir`, whose path is `dir_path`.
    fn xattrs(
        &self,
        dir: &OwnedFd,
        dir_path: &[u8],
        name: &[u8],
        walk: &mut Scratch,
        left_out: &mut LeftOut,
    ) -> Result<Xattrs> {
        let path = &mut walk.path;
        path.clear();
        if self.procfs {
            path.extend_from_slice(format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes());
        } else {
            path.extend_from_slice(self.shown(dir_path).as_os_str().as_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let shown = || self.shown(&join(dir_path, name));
        walk.list.clear();
        match llistxattr(path.as_slice(), spare_capacity(&mut walk.list)) {
            Ok(_) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list the xattrs of", &shown())(error)),
        }
        let mut xattrs = Vec::new();
        for attr in walk.list.split(|byte| *byte == 0).filter(|attr| !attr.is_empty()) {
            if !is_valid_name(attr) {
                left_out.xattrs += 1;
                let what = format!("xattr {}, which an image does not hold", Shown(path_of(attr)));
                left_out.names.push(|| join(dir_path, if name == b"." { b"" } else { name }), what);
                continue;
            }
            walk.value.clear();
            match lgetxattr(path.as_slice(), attr, spare_capacity(&mut walk.value)) {
                Ok(_) => xattrs.push((attr.to_vec(), walk.value.clone())),
                Err(Errno::NODATA) => {
                    return Err(Error::Changed { path: shown(), what: "an xattr went away" });
                }
                Err(error) => return Err(Error::io("read the xattrs of", &shown())(error)),
            }
        }
        Ok(xattrs)
    }

    fn attributes(&self, stat: &Stat, xattrs: Xattrs) -> Attributes {
        let mut attributes = Attributes {
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Stamp::of(stat).mtime,
            xattrs,
        };
        self.filter.attributes.apply(&mut attributes);
        attributes
    }

    /// What an entry is; `None` where it is left out.
    fn kind(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        devices: &mut DeviceList,
        left_out: &mut LeftOut,
    ) -> Result<Option<Kind>> {
        use rustix::fs::FileType;
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::Regular { size: stat.st_size as u64 },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())
                    .map_err(|error| self.io("read the link", path, error))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
            FileType::CharacterDevice | FileType::BlockDevice => {
                match self.filter.devices {
                    Devices::Refuse => devices.push(self.shown(path)),
                    Devices::Skip => {
                        left_out.devices += 1;
                        left_out.names.push(|| path.to_vec(), "a device");
                    }
                }
                return Ok(None);
            }
            _ => return Err(Error::unsupported(&self.shown(path), "a file of an unknown type")),
        }))
    }

    fn io(&self, action: &'static str, path: &[u8], error: Errno) -> Error {
        if error == Errno::NOENT {
            return Error::Changed { path: self.shown(path), what: "it went away" };
        }
        Error::io(action, &self.shown(path))(error)
    }

    fn changed(&self, path: &[u8], what: &'static str) -> Error {
        Error::Changed { path: self.shown(path), what }
    }

    /// The names in an open directory, sorted.
    fn names(&self, dir: &OwnedFd, path: &[u8], scratch: &mut Scratch) -> Result<Vec<Box<[u8]>>> {
        let mut names = Vec::new();
        let mut entries = RawDir::new(dir, &mut scratch.dirents);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| self.io("read the directory", path, error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.into());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Buffers of a walk.
struct Scratch {
    path: Vec<u8>,
    list: Vec<u8>,
    value: Vec<u8>,
    dirents: Vec<MaybeUninit<u8>>,
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            size: stat.st_size as u64,
            mtime: Timestamp { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 },
            ctime: Timestamp { sec: stat.st_ctime, nsec: stat.st_ctime_nsec as u32 },
        }
    }

    /// What is different now, if anything.
    fn difference(&self, now: &Self) -> Option<&'static str> {
        if (self.dev, self.ino, self.mode & 0o170_000) != (now.dev, now.ino, now.mode & 0o170_000) {
            return Some("another file took its place");
        }
        if self.size != now.size {
            return Some("its size is different");
        }
        if self.mtime != now.mtime {
            return Some("its mtime is different");
        }
        (self != now).then_some("its ctime is different")
    }
}

impl Source for DirSource {
    type File = DirFile;
    type Open<'a> = OpenDirFile<'a>;

    fn walk(&self, found: Found<'_, DirFile>) -> Result<Walked> {
        let mut left_out = LeftOut::new(self.filter.verbose);
        let mut devices = DeviceList::default();
        let mut scratch = Scratch {
            path: Vec::new(),
            list: Vec::with_capacity(XATTR_LIST_MAX as usize),
            value: Vec::with_capacity(XATTR_VALUE_MAX as usize),
            dirents: vec![MaybeUninit::uninit(); DIRENTS_BUFFER],
        };
        let stat = fstat(&self.root).map_err(|error| self.io("stat", b"", error))?;
        let xattrs = self.xattrs(&self.root, b"", b".", &mut scratch, &mut left_out)?;
        let mut builder = TreeBuilder::new(self.attributes(&stat, xattrs))
            .map_err(|error| Error::unsupported(&self.path, error.to_string()))?;
        let mut links: HashMap<(u64, u64), u32> = HashMap::new();
        let mut queue = VecDeque::from([(1_u32, Vec::new(), Stamp::of(&stat))]);
        while let Some((dir_ino, dir_path, stamp)) = queue.pop_front() {
            builder
                .open_directory(dir_ino)
                .map_err(|error| Error::unsupported(&self.shown(&dir_path), error.to_string()))?;
            let dir = self
                .open_beneath(&dir_path, OPEN | OFlags::DIRECTORY)
                .map_err(|error| self.io("open the directory", &dir_path, error))?;
            let names = self.names(&dir, &dir_path, &mut scratch)?;
            for name in names {
                let path = join(&dir_path, &name);
                if self.filter.exclude.is_match(path_of(&path)) {
                    left_out.excluded += 1;
                    left_out.names.push(|| path, "excluded");
                    continue;
                }
                let stat = statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| self.io("stat", &path, error))?;
                let id = (stat.st_dev, stat.st_ino);
                if self.filter.image.contains(&id) {
                    left_out.image += 1;
                    left_out.names.push(|| path, "the image itself");
                    continue;
                }
                let refused =
                    |error: crate::tree::TreeError| Error::unsupported(&self.shown(&path), error.to_string());
                let Some(kind) = self.kind(&dir, &name, &path, &stat, &mut devices, &mut left_out)? else {
                    continue;
                };
                let linked = stat.st_nlink > 1 && kind != Kind::Directory;
                if let Some(ino) = links.get(&id).filter(|_| linked) {
                    builder.add_link(&name, *ino).map_err(refused)?;
                    continue;
                }
                let xattrs = self.xattrs(&dir, &dir_path, &name, &mut scratch, &mut left_out)?;
                let ino = builder.add(&name, &kind, self.attributes(&stat, xattrs)).map_err(refused)?;
                if linked {
                    links.insert(id, ino);
                }
                let stamp = Stamp::of(&stat);
                match kind {
                    Kind::Directory => queue.push_back((ino, path, stamp)),
                    Kind::Regular { size } if size > 0 => {
                        let sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
                        let file = DirFile { path: path.into(), stamp, sparse };
                        found(FileTask { ino, size, file })?;
                    }
                    _ => {}
                }
            }
            let now = fstat(&dir).map_err(|error| self.io("stat", &dir_path, error))?;
            if let Some(what) = stamp.difference(&Stamp::of(&now)) {
                return Err(self.changed(&dir_path, what));
            }
        }
        devices.refuse()?;
        let tree = builder.finish().map_err(|error| Error::unsupported(&self.path, error.to_string()))?;
        Ok(Walked { tree, left_out, archive: None })
    }

    fn open<'a>(&'a self, task: &'a FileTask<DirFile>) -> Result<OpenDirFile<'a>> {
        let fd = self
            .open_beneath(&task.file.path, OPEN)
            .map_err(|error| self.io("open", &task.file.path, error))?;
        Ok(OpenDirFile { source: self, file: &task.file, fd: fd.into(), size: task.size, pos: 0 })
    }
}

/// An open file of a directory.
#[derive(Debug)]
pub struct OpenDirFile<'a> {
    source: &'a DirSource,
    file: &'a DirFile,
    fd: File,
    size: u64,
    /// Where the descriptor stands.
    pos: u64,
}

impl OpenFile for OpenDirFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        if !self.file.sparse {
            return Ok(pos..self.size);
        }
        // The descriptor moves.
        self.pos = u64::MAX;
        let start = match seek(&self.fd, SeekFrom::Data(pos)) {
            Ok(start) => start.min(self.size),
            Err(Errno::NXIO) => return Ok(self.size..self.size),
            // A filesystem that does not know holes.
            Err(_) => return Ok(pos..self.size),
        };
        let end = seek(&self.fd, SeekFrom::Hole(start)).unwrap_or(self.size);
        let end = end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).min(self.size);
        let start = start / BLOCK_BYTES * BLOCK_BYTES;
        Ok(start.max(pos)..end)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let io = |error| Error::io("read", &self.source.shown(&self.file.path))(error);
        if self.pos != range.start {
            (&self.fd).seek(io::SeekFrom::Start(range.start)).map_err(io)?;
        }
        let len = range.end - range.start;
        buf.reserve_exact(len as usize);
        let read = (&self.fd).take(len).read_to_end(buf).map_err(io)?;
        if read as u64 != len {
            return Err(self.source.changed(&self.file.path, "it became shorter"));
        }
        self.pos = range.end;
        Ok(())
    }

    fn close(self) -> Result<()> {
        let now = fstat(&self.fd).map_err(|error| self.source.io("stat", &self.file.path, error))?;
        match self.file.stamp.difference(&Stamp::of(&now)) {
            Some(what) => Err(self.source.changed(&self.file.path, what)),
            None => Ok(()),
        }
    }
}
