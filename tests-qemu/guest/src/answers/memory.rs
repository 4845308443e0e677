// SPDX-License-Identifier: GPL-2.0
//! Questions about mappings: `mmap`, `madvise`, `mlock`, `msync`, `mincore`.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use tesserafs_guest::plan::ANSWERS_LARGE;

use super::raw::{answer, Answer};
use super::{At, Question};

const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const SHARED: i32 = libc::MAP_SHARED;
const PRIVATE: i32 = libc::MAP_PRIVATE;
const HUGE: usize = 2 << 20;

/// A mapping of a file of the tree: nobody writes to the mapped bytes but by its own address, which only this
/// module has.
struct Mapped {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapped {
    fn new(file: &File, length: usize, rights: i32, flags: i32, offset: i64) -> Result<Self, Errno> {
        let none = std::ptr::null_mut();
        // SAFETY: It goes where nothing is mapped.
        let address = unsafe { libc::mmap(none, length, rights, flags, file.as_raw_fd(), offset) };
        answer(address as i64)?;
        Ok(Self { address, length })
    }

    fn advise(&self, advice: i32) -> Answer {
        // SAFETY: The mapping is this value's, of a file, and nobody has a reference to its bytes.
        answer(unsafe { libc::madvise(self.address, self.length, advice) })
    }

    /// Another call about all of it.
    fn call(&self, call: libc::c_long, argument: i64) -> Answer {
        // SAFETY: The calls of the tests change how the mapping is kept, or may be accessed.
        answer(unsafe { libc::syscall(call, self.address, self.length, argument) })
    }

    /// Reads a byte of each page.
    fn touch(&self) {
        for offset in (0..self.length).step_by(4096) {
            // SAFETY: The place is in the mapping, which can be read and lies before the end of the file.
            std::hint::black_box(unsafe { self.address.cast::<u8>().add(offset).read_volatile() });
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: The mapping was made in `new` and is not used after this.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

fn mapped(at: &At, rights: i32, flags: i32) -> Result<Mapped, Errno> {
    Mapped::new(&at.open("large")?, ANSWERS_LARGE, rights, flags, 0)
}

fn map(at: &At, name: &str, rights: i32, flags: i32) -> Answer {
    Mapped::new(&at.open(name)?, 4096, rights, flags, 0).map(|_| 0)
}

fn advise(at: &At, advice: i32) -> Answer {
    mapped(at, READ, PRIVATE)?.advise(advice)
}

/// Collapses a mapping of the large file where `mmap` put it; how many KiB of it are huge pages then.
pub(super) fn collapse(at: &At) -> Answer {
    let mapping = mapped(at, READ, PRIVATE)?;
    mapping.touch();
    mapping.advise(libc::MADV_COLLAPSE)?;
    let maps = std::fs::read_to_string("/proc/self/smaps").map_err(|_| Errno::IO)?;
    let start = format!("{:x}-", mapping.address as usize);
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.find_map(|line| line.strip_prefix("FilePmdMapped:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).ok_or(Errno::IO)
}

pub(super) const QUESTIONS: &[Question] = &[
    ("mmap shared, to read", |at| map(at, "large", READ, SHARED)),
    ("mmap shared, to write", |at| map(at, "large", WRITE, SHARED)),
    ("mmap private, to read", |at| map(at, "large", READ, PRIVATE)),
    ("mmap private, to write", |at| map(at, "large", WRITE, PRIVATE)),
    ("mmap private, to execute", |at| map(at, "program", READ | libc::PROT_EXEC, PRIVATE)),
    ("mmap without rights", |at| map(at, "large", libc::PROT_NONE, PRIVATE)),
    ("mmap MAP_POPULATE", |at| map(at, "large", READ, PRIVATE | libc::MAP_POPULATE)),
    ("mmap MAP_LOCKED", |at| map(at, "large", READ, PRIVATE | libc::MAP_LOCKED)),
    ("mmap MAP_NORESERVE", |at| map(at, "large", WRITE, PRIVATE | libc::MAP_NORESERVE)),
    ("mmap MAP_SHARED_VALIDATE", |at| map(at, "large", READ, libc::MAP_SHARED_VALIDATE)),
    ("mmap MAP_SYNC", |at| map(at, "large", READ, libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC)),
    ("mmap MAP_HUGETLB", |at| map(at, "large", READ, PRIVATE | libc::MAP_HUGETLB)),
    ("mmap MAP_GROWSDOWN", |at| map(at, "large", READ, PRIVATE | libc::MAP_GROWSDOWN)),
    ("mmap without a kind", |at| map(at, "large", READ, 0)),
    ("mmap of an empty file", |at| map(at, "empty", READ, PRIVATE)),
    ("mmap of a folder", |at| map(at, "folder", READ, PRIVATE)),
    ("mmap at half a page", |at| Mapped::new(&at.open("large")?, 4096, READ, PRIVATE, 2048).map(|_| 0)),
    ("mmap of no byte", |at| Mapped::new(&at.open("large")?, 0, READ, PRIVATE, 0).map(|_| 0)),
    ("mmap behind the end", |at| Mapped::new(&at.open("large")?, 4096, READ, PRIVATE, 1 << 40).map(|_| 0)),
    ("mmap, address for huge pages", |at| Ok((mapped(at, READ, PRIVATE)?.address as usize % HUGE) as i64)),
    ("mmap of O_PATH", |at| {
        let file = super::raw::open(&at.path("large"), libc::O_PATH)?;
        Mapped::new(&file, 4096, READ, PRIVATE, 0).map(|_| 0)
    }),
    ("mprotect of shared, to write", |at| mapped(at, READ, SHARED)?.call(libc::SYS_mprotect, WRITE.into())),
    ("mprotect of private, to write", |at| mapped(at, READ, PRIVATE)?.call(libc::SYS_mprotect, WRITE.into())),
    ("mlock", |at| mapped(at, READ, PRIVATE)?.call(libc::SYS_mlock, 0)),
    ("mlock2 MLOCK_ONFAULT", |at| mapped(at, READ, PRIVATE)?.call(libc::SYS_mlock2, 1)),
    ("munlock", |at| mapped(at, READ, PRIVATE)?.call(libc::SYS_munlock, 0)),
    ("msync MS_SYNC", |at| mapped(at, READ, SHARED)?.call(libc::SYS_msync, libc::MS_SYNC.into())),
    ("msync MS_ASYNC", |at| mapped(at, READ, SHARED)?.call(libc::SYS_msync, libc::MS_ASYNC.into())),
    ("msync MS_INVALIDATE", |at| mapped(at, READ, SHARED)?.call(libc::SYS_msync, libc::MS_INVALIDATE.into())),
    ("madvise NORMAL", |at| advise(at, libc::MADV_NORMAL)),
    ("madvise RANDOM", |at| advise(at, libc::MADV_RANDOM)),
    ("madvise SEQUENTIAL", |at| advise(at, libc::MADV_SEQUENTIAL)),
    ("madvise WILLNEED", |at| advise(at, libc::MADV_WILLNEED)),
    ("madvise DONTNEED", |at| advise(at, libc::MADV_DONTNEED)),
    ("madvise FREE", |at| advise(at, libc::MADV_FREE)),
    ("madvise REMOVE", |at| advise(at, libc::MADV_REMOVE)),
    ("madvise REMOVE of shared", |at| mapped(at, READ, SHARED)?.advise(libc::MADV_REMOVE)),
    ("madvise DONTFORK", |at| advise(at, libc::MADV_DONTFORK)),
    ("madvise DOFORK", |at| advise(at, libc::MADV_DOFORK)),
    ("madvise MERGEABLE", |at| advise(at, libc::MADV_MERGEABLE)),
    ("madvise UNMERGEABLE", |at| advise(at, libc::MADV_UNMERGEABLE)),
    ("madvise HUGEPAGE", |at| advise(at, libc::MADV_HUGEPAGE)),
    ("madvise NOHUGEPAGE", |at| advise(at, libc::MADV_NOHUGEPAGE)),
    ("madvise DONTDUMP", |at| advise(at, libc::MADV_DONTDUMP)),
    ("madvise DODUMP", |at| advise(at, libc::MADV_DODUMP)),
    ("madvise WIPEONFORK", |at| advise(at, libc::MADV_WIPEONFORK)),
    ("madvise KEEPONFORK", |at| advise(at, libc::MADV_KEEPONFORK)),
    ("madvise COLD", |at| advise(at, libc::MADV_COLD)),
    ("madvise PAGEOUT", |at| advise(at, libc::MADV_PAGEOUT)),
    ("madvise POPULATE_READ", |at| advise(at, libc::MADV_POPULATE_READ)),
    ("madvise POPULATE_WRITE", |at| advise(at, libc::MADV_POPULATE_WRITE)),
    ("madvise POPULATE_WRITE of private", |at| mapped(at, WRITE, PRIVATE)?.advise(libc::MADV_POPULATE_WRITE)),
    ("madvise COLLAPSE", collapse),
    ("madvise COLLAPSE of shared", |at| mapped(at, READ, SHARED)?.advise(libc::MADV_COLLAPSE)),
    ("madvise with a number of none", |at| advise(at, 9999)),
];
