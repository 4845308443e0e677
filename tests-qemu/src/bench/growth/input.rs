// SPDX-License-Identifier: GPL-2.0
//! The input that grows: archives that are written as they are read, a folder of files, and a file with holes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{EntryType, Header};

use crate::rootfs::noise;

/// Files of a directory.
pub(super) const FILES: u64 = 1000;

/// Bytes of a small file: one of so many sizes, beginning with the smallest.
const SMALLEST: u64 = 100;
const SIZES: u64 = 400;

/// The unit of an archive.
const RECORD: u64 = 512;

/// Bytes of a file that are made at once.
const BLOCK: u64 = 1 << 20;

/// Of a file with holes: so many bytes of data at the beginning of each stretch of so many.
const DATA: u64 = 64 << 10;
const STRETCH: u64 = 64 << 20;

/// Inodes of a tree with so many files: directories, and the root.
pub(super) fn inodes(files: u64) -> u64 {
    files + files.div_ceil(FILES) + 1
}

/// The name of a directory, and that of a file in it.
fn directory(number: u64) -> String {
    format!("directory-{number:05}")
}

fn file(number: u64) -> String {
    format!("file-{number:07}")
}

/// Writes an archive with so many small files.
pub(super) fn archive(out: impl Write, files: u64) -> io::Result<()> {
    let (mut out, text, mut bytes) = (BufWriter::with_capacity(BLOCK as usize, out), Text::new(), Vec::new());
    for number in 0..files {
        let folder = directory(number / FILES);
        if number % FILES == 0 {
            out.write_all(header(&folder, EntryType::Directory, 0)?.as_bytes())?;
        }
        small(&text, number, &mut bytes);
        let name = format!("{folder}/{}", file(number));
        out.write_all(header(&name, EntryType::Regular, bytes.len() as u64)?.as_bytes())?;
        bytes.resize(bytes.len().next_multiple_of(RECORD as usize), 0);
        out.write_all(&bytes)?;
    }
    end(out)
}

/// Makes a folder with the same files.
pub(super) fn folder(at: &Path, files: u64) -> Result<()> {
    let (text, mut bytes) = (Text::new(), Vec::new());
    for number in 0..files {
        let folder = at.join(directory(number / FILES));
        if number % FILES == 0 {
            std::fs::create_dir_all(&folder).context("failed to create a folder")?;
        }
        small(&text, number, &mut bytes);
        std::fs::write(folder.join(file(number)), &bytes).context("failed to write a file")?;
    }
    Ok(())
}

/// The bytes of a small file: no other one has them.
fn small(text: &Text, number: u64, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(format!("{number}: ").as_bytes());
    text.write(number, (SMALLEST + number % SIZES) as usize, bytes);
}

/// Writes an archive with one file of noise.
pub(super) fn random(out: impl Write, size: u64) -> io::Result<()> {
    large(out, size, |number, bytes| *bytes = noise(number, BLOCK as usize))
}

/// Writes an archive with one file of text.
pub(super) fn text(out: impl Write, size: u64) -> io::Result<()> {
    let text = Text::new();
    large(out, size, |number, bytes| {
        bytes.clear();
        text.write(number, BLOCK as usize, bytes);
    })
}

/// Writes an archive with one file; `fill` makes each block of it.
fn large(mut out: impl Write, size: u64, fill: impl Fn(u64, &mut Vec<u8>)) -> io::Result<()> {
    out.write_all(header("large", EntryType::Regular, size)?.as_bytes())?;
    let mut bytes = Vec::new();
    for (number, begin) in (0..size).step_by(BLOCK as usize).enumerate() {
        fill(number as u64, &mut bytes);
        bytes.truncate((size - begin).min(BLOCK) as usize);
        bytes.resize(bytes.len().next_multiple_of(RECORD as usize), 0);
        out.write_all(&bytes)?;
    }
    end(out)
}

/// Makes a folder with one file of holes, with some noise between them.
pub(super) fn sparse(at: &Path, size: u64) -> Result<()> {
    std::fs::create_dir(at).context("failed to create a folder")?;
    let file = File::create(at.join("large")).context("failed to create a file")?;
    file.set_len(size).context("failed to make a hole")?;
    for (number, begin) in (0..size).step_by(STRETCH as usize).enumerate() {
        let data = noise(number as u64, (size - begin).min(DATA) as usize);
        file.write_all_at(&data, begin).context("failed to write between holes")?;
    }
    Ok(())
}

/// Bytes of data in such a file.
pub(super) fn data_between_holes(size: u64) -> u64 {
    size.div_ceil(STRETCH) * DATA
}

/// Bytes of an archive with so many small files, at most.
pub(super) fn archive_bytes(files: u64) -> u64 {
    // The largest file fits into one record behind its header.
    (2 * files + files.div_ceil(FILES) + 2) * RECORD
}

/// The header of an entry.
fn header(name: &str, kind: EntryType, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// The two empty records that end an archive.
fn end(mut out: impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * RECORD as usize])?;
    out.flush()
}

/// A language of few words, in which text of any length is written fast.
struct Text {
    phrases: Vec<String>,
}

impl Text {
    /// So many words, and phrases of them: each phrase is met several times in a chunk, in another order, so that text
    /// compresses well, but has no chunk twice.
    const WORDS: usize = 256;
    const PHRASES: usize = 512;

    fn new() -> Self {
        let syllables = ["ka", "lo", "mi", "ren", "su", "tor", "va", "wen"];
        let word = |draw: usize| {
            let parts = [draw & 7, draw >> 3 & 7, draw >> 5];
            parts[..2 + draw % 2].iter().map(|part| syllables[*part]).collect::<String>()
        };
        let words: Vec<String> = (0..Self::WORDS).map(word).collect();
        let phrase = |draws: &[u8]| -> String {
            let words = draws[..3 + usize::from(draws[0] % 4)].iter().map(|draw| &*words[usize::from(*draw)]);
            words.flat_map(|word| [word, " "]).collect()
        };
        Self { phrases: noise(0, Self::PHRASES * 8).chunks(8).map(phrase).collect() }
    }

    /// Appends so many bytes; another seed gives another text.
    fn write(&self, seed: u64, length: usize, out: &mut Vec<u8>) {
        let end = out.len() + length;
        // A phrase of less than eight bytes there is none.
        for draw in noise(seed, length / 4 + 2).chunks_exact(2) {
            if out.len() >= end {
                break;
            }
            let phrase = usize::from(u16::from_le_bytes([draw[0], draw[1]])) % Self::PHRASES;
            out.extend_from_slice(self.phrases[phrase].as_bytes());
        }
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, size and type of each entry, with the bytes of those that are small.
    fn entries(archive: &[u8]) -> Vec<(String, u64, u8, &[u8])> {
        let (mut entries, mut at) = (Vec::new(), 0);
        while archive[at] != 0 {
            let header = &archive[at..at + RECORD as usize];
            let text = |range: std::ops::Range<usize>| {
                String::from_utf8(header[range].iter().copied().take_while(|byte| *byte != 0).collect())
            };
            let size = u64::from_str_radix(&text(124..136).unwrap(), 8).unwrap();
            at += RECORD as usize;
            entries.push((text(0..100).unwrap(), size, header[156], &archive[at..at + size as usize]));
            at += size.next_multiple_of(RECORD) as usize;
        }
        assert!(archive[at..].len() == 2 * RECORD as usize && archive[at..].iter().all(|byte| *byte == 0));
        entries
    }

    #[test]
    fn an_archive_has_so_many_files_that_differ() {
        let mut bytes = Vec::new();
        archive(&mut bytes, 2500).unwrap();
        assert!(bytes.len() as u64 <= archive_bytes(2500));
        let entries = entries(&bytes);
        assert_eq!(entries.len() as u64 + 1, inodes(2500));
        assert_eq!(entries[0].0, "directory-00000");
        assert_eq!(entries[2502].0, "directory-00002/file-0002499");
        let files: std::collections::HashSet<&[u8]> =
            entries.iter().filter(|entry| entry.2 == b'0').map(|entry| entry.3).collect();
        assert_eq!(files.len(), 2500);
        assert!(files.iter().all(|bytes| (SMALLEST..RECORD).contains(&(bytes.len() as u64))));
    }

    #[test]
    fn a_folder_has_the_files_of_the_archive() {
        let at = tempfile::tempdir().unwrap();
        folder(at.path(), 1001).unwrap();
        let mut bytes = Vec::new();
        archive(&mut bytes, 1001).unwrap();
        for (name, _, kind, bytes) in entries(&bytes) {
            let path = at.path().join(name);
            assert!(if kind == b'5' { path.is_dir() } else { std::fs::read(path).unwrap() == bytes });
        }
    }

    #[test]
    fn a_large_file_has_its_size_in_any_header() {
        let mut bytes = Vec::new();
        random(&mut bytes, BLOCK + 700).unwrap();
        let [(name, size, _, data)] = &*entries(&bytes) else { panic!("one file") };
        assert_eq!((name.as_str(), *size), ("large", BLOCK + 700));
        assert_eq!(data[BLOCK as usize..], noise(1, 700));
        let header = header("large", EntryType::Regular, 100_000_000_000).unwrap();
        assert_eq!(header.entry_size().unwrap(), 100_000_000_000);
    }

    #[test]
    fn text_compresses_well_and_is_no_repetition() {
        const CHUNK: usize = 128 << 10;
        let (mut bytes, mut packed) = (Vec::new(), Vec::with_capacity(CHUNK));
        text(&mut bytes, CHUNK as u64).unwrap();
        zstd_safe::compress(&mut packed, &bytes[RECORD as usize..][..CHUNK], 3).unwrap();
        let ratio = CHUNK / packed.len();
        assert!((4..10).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_sparse_file_has_data_now_and_then() {
        let at = tempfile::tempdir().unwrap();
        let folder = at.path().join("folder");
        sparse(&folder, 2 * STRETCH + 1000).unwrap();
        let metadata = folder.join("large").metadata().unwrap();
        assert_eq!(metadata.len(), 2 * STRETCH + 1000);
        let stored = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert!((2 * DATA..=data_between_holes(metadata.len())).contains(&stored), "{stored}");
    }
}
