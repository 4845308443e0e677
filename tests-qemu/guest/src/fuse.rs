// SPDX-License-Identifier: GPL-2.0
//! A filesystem with one file, whose reads go wrong on request.
//!
//! It is served by threads of this process, by FUSE, and without a page cache of its own, unless a test asks
//! for one: each read of the file gets here. Written bytes are forgotten.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};

const FOLDER: &str = "/mnt/served";
const NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);

/// How long answers are good for: a read that ends early makes FUSE think that the file is shorter, until
/// it asks again.
const NO_TIME: Duration = Duration::ZERO;

/// As many reads as the kernel sends ahead of a reader can wait, while others are answered.
const THREADS: usize = 16;

/// The page cache of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The kernel's: what was read is kept, and read ahead.
    Cached,
    /// None: the server opens the file with `FOPEN_DIRECT_IO`.
    Direct,
    /// The kernel's, and the server may open the file with another one behind it, whose filesystem then
    /// serves the requests to the first. This server never does that.
    PassedThrough,
}

/// The way in which a read goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error.
    Fails,
    /// No byte, as if the file ended there.
    Ends,
    /// Half of the bytes; a request for the others gets them.
    ComesShort,
    /// One bit is another one.
    Changes,
    /// Nothing, until the faults are called off.
    Stalls,
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// For one read.
    Once,
    /// From then on, for each read of any of the same bytes.
    There,
    /// From then on.
    Everywhere,
}

/// When a fault is to happen.
#[derive(Debug, Default)]
struct Faults {
    armed: Option<(Fault, Lasts)>,
    /// Reads before the first that it happens to.
    after: u32,
    /// The bytes that the first was of.
    place: Option<Range<u64>>,
    happened: u32,
}

impl Faults {
    /// The way in which a read goes wrong, if it does.
    fn of(&mut self, read: Range<u64>) -> Option<Fault> {
        let (fault, lasts) = self.armed?;
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        let place = self.place.get_or_insert_with(|| read.clone());
        let is_hit = match lasts {
            Lasts::Once => self.happened == 0,
            Lasts::There => read.start < place.end && place.start < read.end,
            Lasts::Everywhere => true,
        };
        self.happened += u32::from(is_hit);
        is_hit.then_some(fault)
    }
}

/// The state that the answering threads share with the test.
struct State {
    name: String,
    bytes: Vec<u8>,
    pages: Pages,
    faults: Mutex<Faults>,
    called_off: Condvar,
}

impl State {
    /// A thread that panicked has left nothing half done here.
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The filesystem, mounted.
pub(crate) struct Served {
    state: Arc<State>,
    session: Option<BackgroundSession>,
}

impl Served {
    /// Serves a file with these bytes, without a page cache.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self> {
        Self::with(bytes, Pages::Direct)
    }

    /// The same, under this name.
    pub(crate) fn named(bytes: Vec<u8>, name: &str) -> Result<Self> {
        Self::serve(name, bytes, Pages::Direct)
    }

    /// Serves a file with these bytes.
    pub(crate) fn with(bytes: Vec<u8>, pages: Pages) -> Result<Self> {
        Self::serve(NAME, bytes, pages)
    }

    fn serve(name: &str, bytes: Vec<u8>, pages: Pages) -> Result<Self> {
        std::fs::create_dir_all(FOLDER).with_context(|| format!("failed to create {FOLDER}"))?;
        let name = name.to_owned();
        let state = State { name, bytes, pages, faults: Mutex::default(), called_off: Condvar::new() };
        let state = Arc::new(state);
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        // Users other than root may use the file, too.
        config.acl = SessionACL::All;
        let session = Session::new(OneFile(Arc::clone(&state)), FOLDER, &config)
            .and_then(Session::spawn)
            .context("failed to mount a FUSE filesystem")?;
        Ok(Self { state, session: Some(session) })
    }

    /// The file.
    pub(crate) fn file(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.state.name)
    }

    /// Lets a fault happen to the read that comes after as many others.
    pub(crate) fn arm(&self, fault: Fault, lasts: Lasts, after: u32) {
        *self.state.faults() = Faults { armed: Some((fault, lasts)), after, ..Faults::default() };
    }

    /// Lets no fault happen any more; says how many have.
    pub(crate) fn call_off(&self) -> u32 {
        let faults = std::mem::take(&mut *self.state.faults());
        self.state.called_off.notify_all();
        faults.happened
    }

    /// How many faults have happened since they were asked for.
    pub(crate) fn happened(&self) -> u32 {
        self.state.faults().happened
    }

    /// Unmounts it; fails if somebody still uses the file.
    pub(crate) fn unmount(mut self) -> Result<()> {
        let session = self.session.take().context("it is unmounted already")?;
        match session.umount_and_join() {
            // A thread was just reading the last request, as the release of the file.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            ended => ended.context("failed to unmount a FUSE filesystem"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A reader that waits for an answer would never end.
        self.call_off();
    }
}

/// The filesystem as FUSE knows it.
struct OneFile(Arc<State>);

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_folder = inode == INodeNo::ROOT;
        FileAttr {
            ino: inode,
            size: if is_folder { 0 } else { self.0.bytes.len() as u64 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: if is_folder { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// `size` bytes at `offset`, as far as there are.
    fn bytes(&self, offset: u64, size: u32) -> &[u8] {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.0.bytes.get(offset..)).unwrap_or(&[]);
        &bytes[..bytes.len().min(size as usize)]
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if self.0.pages == Pages::PassedThrough {
            let refused = |_| io::Error::from(io::ErrorKind::Unsupported);
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).map_err(refused)?;
            config.set_max_stack_depth(1).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == self.0.name.as_str() {
            reply.entry(&NO_TIME, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NO_TIME, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = match self.0.pages {
            Pages::Cached | Pages::PassedThrough => FopenFlags::empty(),
            Pages::Direct => FopenFlags::FOPEN_DIRECT_IO,
        };
        reply.opened(FileHandle(0), flags);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&NO_TIME, &self.attributes(inode));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // As long as the kernel can say it.
        reply.written(data.len() as u32);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.bytes(offset, size);
        let fault = self.0.faults().of(offset..offset + u64::from(size));
        match fault {
            None => reply.data(bytes),
            Some(Fault::Fails) => reply.error(Errno::EIO),
            Some(Fault::Ends) => reply.data(&[]),
            Some(Fault::ComesShort) => reply.data(&bytes[..bytes.len().div_ceil(2)]),
            Some(Fault::Changes) => {
                let mut changed = bytes.to_vec();
                // Another place of another read, and the same one each time.
                let place = (offset as usize).wrapping_mul(0x9e37_79b9) % changed.len().max(1);
                if let Some(byte) = changed.get_mut(place) {
                    *byte ^= 1 << (place % 8);
                }
                reply.data(&changed);
            }
            Some(Fault::Stalls) => {
                let faults = self.0.faults();
                let waited = self.0.called_off.wait_while(faults, |faults| faults.armed.is_some());
                drop(waited);
                reply.data(bytes);
            }
        }
    }
}
