// SPDX-License-Identifier: GPL-2.0-or-later

//! A directory as the source of a tree.
//!
//! Every path is opened beneath the root without following a symlink, sockets, FIFOs and devices are never opened, and what
//! changes between the walk and the end of reading is an error, never a silent mixture. A change of nothing that is stored, such
//! as a name more elsewhere, is none.

mod directories;
mod file;
mod here;
mod stamp;
mod xattr;

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    fstat, open, readlinkat, statat, statx, AtFlags, FileType, Mode, OFlags, RawDir, Stat, StatxAttributes,
    StatxFlags,
};
use rustix::io::Errno;

use self::directories::{Directories, ROOT};
pub use self::file::{DirFile, OpenDirFile};
use self::here::Here;
use self::stamp::Stamp;
use self::xattr::Buffers;
use super::{join, overlay, DeviceList, Devices, FileTask, Filter, Found, LeftOut, Source, Walked};
use crate::error::{path_of, Error, Result, Shown};
use crate::tree::{Attributes, Kind, TreeBuilder, TreeError, Xattrs};

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
    directories: Directories,
    filter: Filter,
    /// xattr calls have no `at` form; where a thread has no working directory of its own, they go through the descriptor's link in
    /// procfs, where that is mounted.
    procfs: bool,
}

/// A directory that the walk is in.
struct Visit {
    ino: u32,
    number: u32,
    stamp: Stamp,
    /// A mount point that stays, without what is mounted.
    empty: bool,
    /// Lower layers have nothing here, or it is hidden.
    opaque: bool,
}

/// The state that a walk carries from directory to directory.
struct Walk {
    builder: TreeBuilder,
    left_out: LeftOut,
    devices: DeviceList,
    /// Inodes of files with several names, by device and number.
    links: HashMap<(u64, u64), u32>,
    queue: VecDeque<Visit>,
    buffers: Buffers,
    here: Option<Here>,
    dirents: Vec<MaybeUninit<u8>>,
    /// The device of the root.
    dev: u64,
}

impl DirSource {
    /// Opens a directory as a source.
    pub fn open(path: &Path, filter: Filter) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let root = open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let procfs = Path::new("/proc/self/fd").is_dir();
        Ok(Self { path: path.to_owned(), directories: Directories::new(root), filter, procfs })
    }

    /// The path of something in the tree as a user would name it.
    fn shown(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            self.path.clone()
        } else {
            self.path.join(path_of(path))
        }
    }

    /// The path of a name in a directory.
    fn path_in(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        join(&self.directories.path(dir), name)
    }

    fn attributes(&self, stat: &Stat, stamp: &Stamp, xattrs: Xattrs) -> Attributes {
        let mut attributes = Attributes {
            mode: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stamp.mtime,
            xattrs,
        };
        self.filter.attributes.apply(&mut attributes);
        attributes
    }

    /// The kind of an entry; `None` where it is left out.
    fn kind(
        &self,
        dir: &OwnedFd,
        number: u32,
        name: &[u8],
        stat: &Stat,
        walk: &mut Walk,
    ) -> Result<Option<Kind>> {
        let path = || self.path_in(number, name);
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::Regular { size: stat.st_size as u64 },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())
                    .map_err(|error| self.io("read the link", &path(), error))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
            FileType::CharacterDevice | FileType::BlockDevice => {
                match self.filter.devices {
                    Devices::Refuse => walk.devices.push(self.shown(&path())),
                    Devices::Skip => {
                        walk.left_out.devices += 1;
                        walk.left_out.names.push(path, "a device");
                    }
                }
                return Ok(None);
            }
            _ => return Err(Error::unsupported(&self.shown(&path()), "a file of an unknown type")),
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

    /// The error of the directory that packs go to: each build would have all packs of those before it, and its own as it grows.
    fn holds_packs(&self, path: &[u8]) -> Error {
        let way_out = if path.is_empty() {
            String::new()
        } else {
            format!(", or leave it out: --exclude=/{}", Shown(path_of(path)))
        };
        let reason = format!("is the directory for packs, and lies in SOURCE: choose another{way_out}");
        Error::unsupported(&self.shown(path), reason)
    }

    /// The names in an open directory, sorted.
    fn names(&self, dir: &OwnedFd, number: u32, dirents: &mut [MaybeUninit<u8>]) -> Result<Vec<Box<[u8]>>> {
        let mut names = Vec::new();
        let mut entries = RawDir::new(dir, dirents);
        while let Some(entry) = entries.next() {
            let entry = entry
                .map_err(|error| self.io("read the directory", &self.directories.path(number), error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.into());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Adds the names in a directory to the tree.
    fn visit(&self, visit: &Visit, walk: &mut Walk, found: Found<'_, DirFile>) -> Result<()> {
        let path = || self.directories.path(visit.number);
        let io = |action| move |error| self.io(action, &self.directories.path(visit.number), error);
        let opened = walk.builder.open_directory(visit.ino);
        opened.map_err(|error| Error::unsupported(&self.shown(&path()), error.to_string()))?;
        if visit.empty {
            return Ok(());
        }
        if self.filter.pack_dir.is_some_and(|id| id == visit.stamp.id()) {
            return Err(self.holds_packs(&path()));
        }
        let dir = self.directories.open_directory(visit.number, OPEN).map_err(io("open the directory"))?;
        let names = self.names(&dir, visit.number, &mut walk.dirents)?;
        walk.buffers.is_here = walk.here.as_ref().is_some_and(|here| here.enter(&dir));
        for name in &names {
            self.entry(&dir, visit, name, walk, found)?;
        }
        let now = fstat(&dir).map_err(io("stat"))?;
        if let Some(what) = visit.stamp.difference(&now) {
            return Err(self.changed(&path(), what));
        }
        if visit.stamp.is_in_doubt(&now) {
            rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0)).map_err(io("read the directory"))?;
            if self.names(&dir, visit.number, &mut walk.dirents)? != names {
                return Err(self.changed(&path(), "its names are different"));
            }
            let xattrs = xattr::again(&dir).map_err(io("read the xattrs of"))?;
            if !visit.stamp.has_xattrs(&xattrs) {
                return Err(self.changed(&path(), "its xattrs are different"));
            }
        }
        Ok(())
    }

    /// Adds a name in an open directory to the tree.
    fn entry(
        &self,
        dir: &OwnedFd,
        visit: &Visit,
        name: &[u8],
        walk: &mut Walk,
        found: Found<'_, DirFile>,
    ) -> Result<()> {
        let number = visit.number;
        let path = || self.path_in(number, name);
        if !self.filter.exclude.is_empty() && self.filter.exclude.is_match(path_of(&path())) {
            walk.left_out.excluded += 1;
            walk.left_out.names.push(path, "excluded");
            return Ok(());
        }
        let stat =
            statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.io("stat", &path(), error))?;
        let id = (stat.st_dev, stat.st_ino);
        if self.filter.image.contains(&id) {
            walk.left_out.image += 1;
            walk.left_out.names.push(path, "the image itself");
            return Ok(());
        }
        let refused = |error: TreeError| Error::unsupported(&self.shown(&path()), error.to_string());
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let empty = self.filter.one_file_system
            && stat.st_dev != walk.dev
            && (is_directory || is_mounted(dir, name).map_err(|error| self.io("stat", &path(), error))?);
        if empty {
            walk.left_out.mounts += 1;
            walk.left_out.names.push(path, "on another filesystem");
            if !is_directory {
                return Ok(());
            }
        }
        let Some(kind) = self.kind(dir, number, name, &stat, walk)? else { return Ok(()) };
        if kind == Kind::Whiteout && visit.opaque {
            walk.left_out.whiteouts += 1;
            walk.left_out.names.push(path, "a whiteout in an opaque directory");
            return Ok(());
        }
        let linked = stat.st_nlink > 1 && kind != Kind::Directory;
        if let Some(ino) = walk.links.get(&id).filter(|_| linked) {
            return walk.builder.add_link(name, *ino).map_err(refused);
        }
        let xattrs = self.xattrs(dir, number, name, &mut walk.buffers, &mut walk.left_out)?;
        let stamp = Stamp::of(&stat, &xattrs);
        let opaque = overlay::hides_all(&xattrs, visit.opaque);
        let attributes = self.attributes(&stat, &stamp, xattrs);
        let ino = walk.builder.add(name, &kind, attributes).map_err(refused)?;
        if linked {
            walk.links.insert(id, ino);
        }
        match kind {
            Kind::Directory => {
                let number = self.directories.add(number, name);
                walk.queue.push_back(Visit { ino, number, stamp, empty, opaque });
            }
            Kind::Regular { size } if size > 0 => {
                let sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
                found(FileTask { ino, size, file: DirFile::new(number, name, stamp, sparse) })?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether something is mounted at a name; where the kernel does not tell, it is.
///
/// Of files a number of another device does not say so: in an overlay of several filesystems they have that of their layer.
fn is_mounted(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = match statx(dir, name, flags, StatxFlags::empty()) {
        Err(Errno::NOSYS) => return Ok(true),
        found => found?,
    };
    let is_known = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    Ok(!is_known || found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Source for DirSource {
    type File = DirFile;
    type Open<'a> = OpenDirFile<'a>;

    fn walk(&self, found: Found<'_, DirFile>) -> Result<Walked> {
        let root = self.directories.root();
        let stat = fstat(root).map_err(|error| self.io("stat", b"", error))?;
        let mut buffers = Buffers::new();
        let mut left_out = LeftOut::new(self.filter.verbose);
        let xattrs = self.xattrs(root, ROOT, b".", &mut buffers, &mut left_out)?;
        let stamp = Stamp::of(&stat, &xattrs);
        let mut builder = TreeBuilder::new(self.attributes(&stat, &stamp, xattrs))
            .map_err(|error| Error::unsupported(&self.path, error.to_string()))?;
        builder.configure(&self.filter).map_err(|error| Error::unsupported(&self.path, error.to_string()))?;
        let mut walk = Walk {
            builder,
            left_out,
            devices: DeviceList::default(),
            links: HashMap::new(),
            // Overlayfs does not heed the mark on a root: all layers' roots are one.
            queue: VecDeque::from([Visit { ino: 1, number: ROOT, stamp, empty: false, opaque: false }]),
            buffers,
            here: Here::new(),
            dirents: vec![MaybeUninit::uninit(); DIRENTS_BUFFER],
            dev: stat.st_dev,
        };
        while let Some(visit) = walk.queue.pop_front() {
            self.visit(&visit, &mut walk, found)?;
        }
        walk.devices.refuse()?;
        let tree =
            walk.builder.finish().map_err(|error| Error::unsupported(&self.path, error.to_string()))?;
        Ok(Walked { tree, left_out: walk.left_out, archive: None, sbom: None })
    }

    fn open<'a>(&'a self, task: &'a FileTask<DirFile>) -> Result<OpenDirFile<'a>> {
        OpenDirFile::open(self, task)
    }

    /// Each file is proved to be the same when it was read, and each directory when the walk leaves it.
    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn path(&self, task: &FileTask<DirFile>) -> PathBuf {
        self.shown(&task.file.path(self))
    }
}
