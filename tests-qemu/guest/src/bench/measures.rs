// SPDX-License-Identifier: GPL-2.0
//! The measures.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use rustix::fs::{Mode, OFlags, CWD};
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};
use tesserafs_guest::reading::Plan;

use super::faults::SOURCE;
use super::walk::{read_to_end, walk, Visit};
use super::Work;
use crate::mounts::Mount;

/// The content of the caches when the clock starts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cache {
    /// Nothing: the mount is a part of what is measured.
    Unmounted,
    /// Nothing but the mount.
    Cold,
    /// The data that the same work has left there.
    Warm,
}

/// The files that a measure finds open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opens {
    Nothing,
    /// The files of the random pages.
    FilesOfPages,
    /// The large program.
    Program,
}

/// One measure.
pub(super) struct Measure {
    /// Name in the samples and tables.
    pub(super) name: &'static str,
    pub(super) cache: Cache,
    /// Whether what it leaves in memory is measured, too.
    pub(super) memory: bool,
    /// Files that are open when the clock starts: looking up their names is not what is measured.
    pub(super) opens: Opens,
    /// Whether it writes: a tmpfs lies on `/tmp` of the root then, with a program to compile.
    pub(super) scratch: bool,
    pub(super) run: fn(&Subject<'_>) -> Result<Work>,
}

/// A mounted tree to measure.
pub(super) struct Subject<'a> {
    pub(super) plan: &'a Plan,
    pub(super) root: &'a Path,
    opened: HashMap<&'a str, File>,
    scratch: Option<Mount>,
}

impl<'a> Subject<'a> {
    /// Opens what `measure` wants open, and gives it room to write.
    pub(super) fn new(measure: &Measure, plan: &'a Plan, root: &'a Path) -> Result<Self> {
        let paths: Vec<&str> = match measure.opens {
            Opens::Nothing => Vec::new(),
            Opens::FilesOfPages => plan.pages.iter().map(|page| page.path.as_str()).collect(),
            Opens::Program => vec![&plan.program],
        };
        let mut opened = HashMap::new();
        for path in paths {
            if !opened.contains_key(path) {
                opened.insert(path, File::from(open(&root.join(path))?));
            }
        }
        let scratch = measure.scratch.then(|| scratch(root)).transpose()?;
        Ok(Self { plan, root, opened, scratch })
    }

    /// A file that was opened before the clock started.
    pub(super) fn opened(&self, path: &str) -> Result<&File> {
        self.opened.get(path).with_context(|| format!("{path} was not opened before"))
    }

    /// Closes everything.
    pub(super) fn end(self) -> Result<()> {
        drop(self.opened);
        self.scratch.map_or(Ok(()), Mount::unmount)
    }
}

/// A tmpfs on `/tmp` of a root, with a program to compile.
fn scratch(root: &Path) -> Result<Mount> {
    let tmpfs = Mount::new(Path::new("tmpfs"), &root.join("tmp"), "tmpfs", MountFlags::empty(), "mode=1777")
        .context("failed to mount a tmpfs")?;
    let (name, text) = SOURCE;
    std::fs::write(root.join(name), text).with_context(|| format!("failed to write {name}"))?;
    Ok(tmpfs)
}

/// Bytes asked for at a time by readers of whole files.
pub(super) const BUFFER: usize = 128 << 10;

pub(super) const PAGE: usize = 4096;

/// The string that is looked for: some files of any system have it.
const NEEDLE: &str = "GNU General Public License";

/// Readers at once, where there are several.
const READERS: usize = 4;

/// The measure of a directory that not every tree has.
pub(super) const BIG_DIRECTORY: &str = "stat of 100,000 in one directory";

pub(super) const MEASURES: [Measure; 12] = [
    cold("mount to first stat", first_stat).unmounted(),
    cold("stat of all", stat_all),
    cold("stat of all, warm", stat_all).warm(),
    cold(BIG_DIRECTORY, stat_big),
    cold("sequential, all files", read_all).with_memory(),
    cold("grep -r, mapped files", grep_all),
    cold("sequential, one large file", read_large),
    cold("random 4 KiB", |at| random_pages(at, 1)).with_open(Opens::FilesOfPages),
    cold("random 4 KiB, four readers", |at| random_pages(at, READERS)).with_open(Opens::FilesOfPages),
    cold("small files", |at| small_files(at, 1)),
    cold("small files, four readers", |at| small_files(at, READERS)),
    cold("sequential, one large file, warm", read_large).warm(),
];

pub(super) const fn cold(name: &'static str, run: fn(&Subject<'_>) -> Result<Work>) -> Measure {
    Measure { name, cache: Cache::Cold, memory: false, opens: Opens::Nothing, scratch: false, run }
}

impl Measure {
    const fn unmounted(self) -> Self {
        Self { cache: Cache::Unmounted, ..self }
    }

    const fn warm(self) -> Self {
        Self { cache: Cache::Warm, ..self }
    }

    pub(super) const fn with_open(self, opens: Opens) -> Self {
        Self { opens, ..self }
    }

    pub(super) const fn with_scratch(self) -> Self {
        Self { scratch: true, ..self }
    }

    const fn with_memory(self) -> Self {
        Self { memory: true, ..self }
    }
}

/// Lets this process hold as many files open as it may: the measures want a few thousand, and by default it may hold as many, but does
/// not.
pub(super) fn allow_open_files() -> Result<()> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("failed to raise the limit of open files")
}

fn first_stat(at: &Subject<'_>) -> Result<Work> {
    rustix::fs::lstat(at.root).context("failed to look at the root")?;
    Ok(Work { count: 1, ..Work::default() })
}

fn stat_all(at: &Subject<'_>) -> Result<Work> {
    walk(at.root, &at.plan.leave_out, &mut Visit::Stat)
}

fn stat_big(at: &Subject<'_>) -> Result<Work> {
    walk(&at.root.join(&at.plan.big_directory), "", &mut Visit::Stat)
}

fn read_all(at: &Subject<'_>) -> Result<Work> {
    walk(at.root, &at.plan.leave_out, &mut Visit::Read(&mut vec![0; BUFFER]))
}

fn grep_all(at: &Subject<'_>) -> Result<Work> {
    walk(at.root, &at.plan.leave_out, &mut Visit::Search(&Finder::new(NEEDLE)))
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("failed to open {}", path.display()))
}

/// Reads a file to its end.
pub(super) fn read_whole(path: &Path, buffer: &mut [u8]) -> Result<u64> {
    read_to_end(&open(path)?, buffer).with_context(|| format!("failed to read {}", path.display()))
}

fn read_large(at: &Subject<'_>) -> Result<Work> {
    let bytes = read_whole(&at.root.join(&at.plan.large), &mut vec![0; BUFFER])?;
    Ok(Work { count: 1, bytes, ..Work::default() })
}

/// Runs `one` on each of `items`, dealt out to so many readers; adds up what they did.
fn at_once<T: Sync>(items: &[T], readers: usize, one: impl Fn(&T) -> Result<u64> + Sync) -> Result<Work> {
    let read = |part: &[T]| part.iter().map(&one).sum::<Result<u64>>();
    let bytes = if readers == 1 {
        read(items)?
    } else {
        std::thread::scope(|scope| {
            let parts = items.chunks(items.len().div_ceil(readers).max(1));
            let readers: Vec<_> = parts.map(|part| scope.spawn(|| read(part))).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().expect("a reader does not panic"))
                .sum::<Result<u64>>()
        })?
    };
    Ok(Work { count: items.len() as u64, bytes, ..Work::default() })
}

fn random_pages(at: &Subject<'_>, readers: usize) -> Result<Work> {
    at_once(&at.plan.pages, readers, |page| {
        at.opened(&page.path)?
            .read_exact_at(&mut [0; PAGE], page.offset)
            .with_context(|| format!("failed to read {} at {}", page.path, page.offset))?;
        Ok(PAGE as u64)
    })
}

fn small_files(at: &Subject<'_>, readers: usize) -> Result<Work> {
    // Larger than any of them: one call reads it, one meets its end.
    at_once(&at.plan.small, readers, |path| read_whole(&at.root.join(path), &mut [0; 65 << 10]))
}
