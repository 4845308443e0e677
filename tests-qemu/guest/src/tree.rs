// SPDX-License-Identifier: GPL-2.0
//! Reads a tree into a [`Manifest`]: names first, then every name's facts, on several threads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use rustix::fs::SeekFrom as RawSeek;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::manifest::{Entry, Manifest};

/// Files up to this size are read from end to end; larger ones (they are sparse) by their data.
pub const READ_WHOLE: u64 = 1 << 30;

/// Unit of [`checksum`]: a block of zeros counts for nothing.
const BLOCK: u64 = 4096;

/// Whether a mode is a regular file's.
pub fn is_file(mode: u32) -> bool {
    mode & 0o170_000 == 0o100_000
}

/// Whether a mode is a directory's.
pub fn is_dir(mode: u32) -> bool {
    mode & 0o170_000 == 0o040_000
}

/// A tree as far as it could be read.
#[derive(Debug, Default)]
pub struct Scan {
    /// The part that could be read.
    pub manifest: Manifest,
    /// The paths that could not be read, with the reasons.
    pub errors: Vec<(Vec<u8>, io::Error)>,
}

/// Reads a tree that must be readable throughout.
pub fn scan(root: &Path, threads: usize) -> Result<Manifest> {
    let scan = scan_damaged(root, threads);
    if let Some((path, error)) = scan.errors.into_iter().next() {
        return Err(error).with_context(|| format!("failed to read /{}", path.escape_ascii()));
    }
    Ok(scan.manifest)
}

/// Reads a tree of which parts may answer with errors.
pub fn scan_damaged(root: &Path, threads: usize) -> Scan {
    let mut errors = Vec::new();
    let mut paths = vec![Vec::new()];
    list(root, &mut Vec::new(), &mut paths, &mut errors);
    paths.sort_unstable();

    let next = AtomicUsize::new(0);
    // A batch is long enough that threads do not meet at the counter, short enough to end together.
    const BATCH: usize = 64;
    let mut described: Vec<Described> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut out = Vec::new();
                    let mut buffer = vec![0; 1 << 20];
                    loop {
                        let start = next.fetch_add(BATCH, Ordering::Relaxed);
                        if start >= paths.len() {
                            return out;
                        }
                        let end = paths.len().min(start + BATCH);
                        for (index, path) in paths[start..end].iter().enumerate() {
                            out.push((start + index, describe(root, path, &mut buffer)));
                        }
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a scanning thread does not panic"))
            .collect()
    });
    described.sort_unstable_by_key(|(index, _)| *index);

    let mut entries = Vec::with_capacity(described.len());
    let mut inodes: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, result) in described {
        match result {
            Ok((entry, ino)) => {
                if !is_dir(entry.mode) {
                    inodes.entry(ino).or_default().push(entries.len());
                }
                entries.push(entry);
            }
            Err(error) => errors.push((paths[index].clone(), error)),
        }
    }
    for names in inodes.values().filter(|names| names.len() > 1) {
        let first = entries[names[0]].path.clone();
        for &name in names {
            entries[name].first_name = Some(first.clone());
        }
    }
    count_subdirectories(&mut entries);
    Scan { manifest: Manifest { entries }, errors }
}

/// Place of a path in the list, and what is known of it together with its inode number.
type Described = (usize, io::Result<(Entry, u64)>);

/// Collects every path below `root/prefix`.
fn list(root: &Path, prefix: &mut Vec<u8>, paths: &mut Vec<Vec<u8>>, errors: &mut Vec<(Vec<u8>, io::Error)>) {
    let mut here = PathBuf::from(root);
    if !prefix.is_empty() {
        here.push(std::ffi::OsStr::from_bytes(prefix));
    }
    let names = match std::fs::read_dir(&here) {
        Ok(names) => names,
        Err(error) => return errors.push((prefix.clone(), error)),
    };
    for name in names {
        let name = match name {
            Ok(name) => name,
            // The rest of this directory cannot be known.
            Err(error) => return errors.push((prefix.clone(), error)),
        };
        debug_assert_ne!(name.ino(), 0, "an inode number of 0 hides a name from readdir");
        let length = prefix.len();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(name.file_name().as_bytes());
        paths.push(prefix.clone());
        match name.file_type() {
            Ok(kind) if kind.is_dir() => list(root, prefix, paths, errors),
            Ok(_) => {}
            Err(error) => errors.push((prefix.clone(), error)),
        }
        prefix.truncate(length);
    }
}

/// Reads everything about one name; also its inode number.
fn describe(root: &Path, path: &[u8], buffer: &mut [u8]) -> io::Result<(Entry, u64)> {
    let mut full = PathBuf::from(root);
    if !path.is_empty() {
        full.push(std::ffi::OsStr::from_bytes(path));
    }
    let stat = std::fs::symlink_metadata(&full)?;
    let kind = stat.file_type();
    let target =
        if kind.is_symlink() { std::fs::read_link(&full)?.into_os_string().into_vec() } else { Vec::new() };
    let content = if kind.is_file() { checksum(&full, stat.size(), buffer)? } else { 0 };
    let rdev = if kind.is_char_device() || kind.is_block_device() {
        (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()))
    } else {
        (0, 0)
    };
    let entry = Entry {
        path: path.to_vec(),
        mode: stat.mode(),
        uid: stat.uid(),
        gid: stat.gid(),
        nlink: u32::try_from(stat.nlink()).map_err(io::Error::other)?,
        size: if kind.is_dir() { 0 } else { stat.size() },
        mtime: (stat.mtime(), u32::try_from(stat.mtime_nsec()).map_err(io::Error::other)?),
        rdev,
        target,
        xattrs: xattrs(&full)?,
        first_name: None,
        content,
    };
    Ok((entry, stat.ino()))
}

/// Extended attributes of a name (of a symlink itself, not of its target), in order.
///
/// Those that the running system invents (a label of the host's security module) are no part of a tree
/// here: only those that an image is asked to keep are listed.
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0u8; 4096];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::RANGE) => {
            names.resize(65536, 0);
            rustix::fs::llistxattr(path, &mut names[..])?
        }
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut out = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        value.shrink_to_fit();
        out.push((name.to_vec(), value));
    }
    out.sort();
    Ok(out)
}

/// Checksum of a file's bytes that holes do not change: the sum of one hash for each block that is
/// not all zeros, seeded with the block's number.
///
/// Every byte of files up to [`READ_WHOLE`] is read; where such a file has holes, its data is read a
/// second time along `SEEK_DATA` and must give the same sum. Larger files are read along `SEEK_DATA`
/// alone, and a few places of their holes.
pub fn checksum(path: &Path, size: u64, buffer: &mut [u8]) -> io::Result<u128> {
    let mut file = File::open(path)?;
    if size == 0 {
        return match file.read(buffer)? {
            0 => Ok(0),
            extra => Err(io::Error::other(format!("{extra} bytes in an empty file"))),
        };
    }
    if size > READ_WHOLE {
        probe_holes(&file, size)?;
        return checksum_of_data(&file, size, buffer);
    }
    let whole = checksum_of_range(&file, 0, size, buffer)?;
    if file.read_at(&mut buffer[..1], size)? != 0 {
        return Err(io::Error::other("bytes beyond the end of the file"));
    }
    if seek(&file, RawSeek::Hole(0))? != Some(size) {
        let data = checksum_of_data(&file, size, buffer)?;
        if data != whole {
            return Err(io::Error::other("SEEK_DATA leaves out bytes that are not zero"));
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(whole)
}

/// Like [`checksum`], along the data of the file only; checks that data and holes alternate up to its end.
fn checksum_of_data(file: &File, size: u64, buffer: &mut [u8]) -> io::Result<u128> {
    let mut sum = 0u128;
    let mut position = 0;
    while let Some(data) = seek(file, RawSeek::Data(position))? {
        let hole = seek(file, RawSeek::Hole(data))?
            .ok_or_else(|| io::Error::other(format!("no SEEK_HOLE after the data at {data}")))?;
        if data < position || hole <= data || hole > size {
            return Err(io::Error::other(format!(
                "SEEK_DATA({position}) = {data} and SEEK_HOLE({data}) = {hole} in {size} bytes"
            )));
        }
        let start = data - data % BLOCK;
        sum = sum.wrapping_add(checksum_of_range(file, start, hole, buffer)?);
        position = hole;
        if position == size {
            break;
        }
    }
    Ok(sum)
}

/// `lseek` to data or a hole; `None` where there is none any more.
fn seek(file: &File, to: RawSeek) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(position) => Ok(Some(position)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn checksum_of_range(file: &File, start: u64, end: u64, buffer: &mut [u8]) -> io::Result<u128> {
    let mut sum = 0u128;
    let mut position = start;
    while position < end {
        let want = usize::try_from((end - position).min(buffer.len() as u64)).map_err(io::Error::other)?;
        file.read_exact_at(&mut buffer[..want], position)?;
        for (index, block) in (position / BLOCK..).zip(buffer[..want].chunks(BLOCK as usize)) {
            if block.iter().any(|byte| *byte != 0) {
                sum = sum.wrapping_add(xxh3_128_with_seed(block, index));
            }
        }
        position += want as u64;
    }
    Ok(sum)
}

/// Reads the last byte and a few places of a huge file: where there is no data, there must be zeros.
fn probe_holes(file: &File, size: u64) -> io::Result<()> {
    for position in [size - 1, size / 2, size / 3, size / 7] {
        if seek(file, RawSeek::Data(position))? == Some(position) {
            continue;
        }
        let mut byte = [1];
        file.read_exact_at(&mut byte, position)?;
        if byte != [0] {
            return Err(io::Error::other(format!("not zero in the hole at {position}")));
        }
    }
    Ok(())
}

/// Sets the link count of every directory to 2 + subdirectories.
fn count_subdirectories(entries: &mut [Entry]) {
    let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
    for entry in entries.iter().filter(|e| is_dir(e.mode) && !e.path.is_empty()) {
        let parent = match entry.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => entry.path[..slash].to_vec(),
            None => Vec::new(),
        };
        *counts.entry(parent).or_default() += 1;
    }
    for entry in entries.iter_mut().filter(|e| is_dir(e.mode)) {
        entry.nlink = 2 + counts.get(&entry.path).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8], sparse_tail: u64) -> u128 {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let size = bytes.len() as u64 + sparse_tail;
        file.as_file().set_len(size).unwrap();
        checksum(file.path(), size, &mut vec![0; 1 << 20]).unwrap()
    }

    #[test]
    fn zeros_count_as_holes() {
        let mut written = vec![7u8; 4096];
        written.extend([0; 8192]);
        assert_eq!(sum(&written, 0), sum(&written[..4096], 8192));
    }

    #[test]
    fn place_and_value_count() {
        let mut first = vec![0u8; 12288];
        let mut second = first.clone();
        first[0] = 1;
        second[4096] = 1;
        assert_ne!(sum(&first, 0), sum(&second, 0));
        second[0] = 1;
        assert_ne!(sum(&first, 0), sum(&second, 0));
    }

    #[test]
    fn huge_files_are_read_by_their_data() {
        assert_eq!(sum(&[9; 4096], 1 << 40), sum(&[9; 4096], 0));
    }

    #[test]
    fn a_scan_finds_links_and_differences() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/a"), b"hello").unwrap();
        std::fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        let before = scan(dir.path(), 2).unwrap();
        let paths: Vec<&[u8]> = before.entries.iter().map(|e| &e.path[..]).collect();
        assert_eq!(paths, [&b""[..], b"b", b"d", b"d/a"]);
        assert_eq!(before.entries[0].nlink, 3);
        assert_eq!(before.entries[3].first_name.as_deref(), Some(&b"b"[..]));
        std::fs::write(dir.path().join("b"), b"hallo").unwrap();
        let after = scan(dir.path(), 1).unwrap();
        assert_eq!(before.differences(&after).len(), 2);
        assert!(before.expect_equal(&after).is_err());
    }
}
