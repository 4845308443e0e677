// SPDX-License-Identifier: GPL-2.0
//! A tree in the order in which its directories list it.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, CWD};

use super::Work;
use crate::sys::Mapping;

/// The action on each name besides looking at it.
pub(super) enum Visit<'b> {
    /// `stat`, nothing else.
    Stat,
    /// Regular files are read to their end through this buffer, as `tar` does.
    Read(&'b mut [u8]),
    /// Regular files are mapped, and a string is looked for in all of each.
    Search(&'b Finder<'b>),
}

/// Visits everything below `root` but the folder `leave_out`.
pub(super) fn walk(root: &Path, leave_out: &str, visit: &mut Visit<'_>) -> Result<Work> {
    let root_fd = open_folder(CWD, root.as_os_str())?;
    let left = match rustix::fs::statat(&root_fd, leave_out, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if !leave_out.is_empty() => Some(stat.st_ino),
        _ => None,
    };
    let mut work = Work::default();
    folder(root_fd, left, visit, &mut work)?;
    Ok(work)
}

fn open_folder(at: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<OwnedFd> {
    rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
        .with_context(|| format!("failed to open the folder {}", Path::new(name).display()))
}

/// One folder: its files in order, each folder in its place.
fn folder(fd: OwnedFd, left: Option<u64>, visit: &mut Visit<'_>, work: &mut Work) -> Result<()> {
    let mut entries = Dir::read_from(&fd).context("failed to list a folder")?;
    while let Some(entry) = entries.read() {
        let entry = entry.context("failed to list a folder")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("failed to look at {}", name.to_string_lossy()))?;
        work.count += 1;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() && Some(stat.st_ino) != left {
            let name = OsString::from_vec(name.to_bytes().to_vec());
            folder(open_folder(fd.as_fd(), &name)?, left, visit, work)?;
        } else if kind.is_file() {
            let open = || {
                rustix::fs::openat(&fd, name, OFlags::RDONLY, Mode::empty())
                    .with_context(|| format!("failed to open {}", name.to_string_lossy()))
            };
            match visit {
                Visit::Stat => {}
                Visit::Read(buffer) => {
                    work.bytes += read_to_end(&open()?, buffer)
                        .with_context(|| format!("failed to read {}", name.to_string_lossy()))?;
                }
                Visit::Search(finder) => {
                    let length = usize::try_from(stat.st_size).context("a size out of range")?;
                    work.bytes += length as u64;
                    work.found += search(&File::from(open()?), length, finder)
                        .with_context(|| format!("failed to map {}", name.to_string_lossy()))?;
                }
            }
        }
    }
    Ok(())
}

/// Reads a file from its beginning; returns its length.
pub(super) fn read_to_end(file: &OwnedFd, buffer: &mut [u8]) -> Result<u64> {
    let mut bytes = 0;
    loop {
        match rustix::io::read(file, &mut *buffer)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// Looks for all places of a string in a file of this length.
fn search(file: &File, length: usize, finder: &Finder<'_>) -> std::io::Result<u64> {
    // An empty file cannot be mapped.
    if length == 0 {
        return Ok(0);
    }
    let mapping = Mapping::new(file, length)?;
    Ok(finder.find_iter(mapping.bytes()).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_visited_once_and_what_is_left_out_is_not_entered() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::create_dir_all(root.path().join("out/sub")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "12345").unwrap();
        std::fs::write(root.path().join("out/sub/file"), "1").unwrap();
        let stat = walk(root.path(), "out", &mut Visit::Stat).unwrap();
        assert_eq!(stat, Work { count: 4, ..Work::default() });
        let read = walk(root.path(), "", &mut Visit::Read(&mut [0; 2])).unwrap();
        assert_eq!(read, Work { count: 6, bytes: 6, found: 0 });
        std::fs::write(root.path().join("out/empty"), "").unwrap();
        let search = walk(root.path(), "a", &mut Visit::Search(&Finder::new("1"))).unwrap();
        assert_eq!(search, Work { count: 5, bytes: 1, found: 1 });
        let search = walk(root.path(), "", &mut Visit::Search(&Finder::new("34"))).unwrap();
        assert_eq!(search, Work { count: 7, bytes: 6, found: 1 });
    }
}
