// SPDX-License-Identifier: GPL-2.0-or-later

//! The bytes of a bundle: a header, sections, and an end, each proven by a digest before it is used.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tesserafs_format::Digest;

use crate::encode::sha256;
use crate::error::{Error, Result};

/// The first bytes of a bundle.
pub(crate) const MAGIC: [u8; 8] = *b"TESSBNDL";
const VERSION: u32 = 1;

/// Set where stored chunks are shipped only, which need no libzstd of some version.
const PORTABLE: u32 = 1;

/// No section is longer.
const SECTION_MAX: u64 = 8 << 20;

/// Bytes of the header: magic, version, flags, version of libzstd, zero, old and new image ID, and the SHA-256 of all that.
const HEADER: usize = PROVEN + 32;
const PROVEN: usize = 8 + 4 * 4 + 2 * 32;

/// Bytes of the header of a section: kind, zero, length, and the SHA-256 of the section.
const SECTION: usize = 4 + 4 + 8 + 32;

/// The header of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The image ID of what it is applied to.
    pub(crate) old: Digest,
    /// The image ID of the result.
    pub(crate) new: Digest,
    /// Whether nothing is compressed when it is applied.
    pub(crate) portable: bool,
    /// The libzstd that chunks are compressed again with.
    pub(crate) zstd_version: u32,
}

/// A kind of section; they come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first block and the signature.
    Head,
    /// A part of a table.
    Table,
    /// What the old image has.
    Match,
    /// Bytes of a pack that no chunk has.
    Gap,
    /// Chunks.
    Piece,
    /// The digest of all headers.
    End,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Head, Self::Table, Self::Match, Self::Gap, Self::Piece, Self::End];

    fn number(self) -> u32 {
        1 + self as u32
    }
}

/// Writes a bundle.
pub(super) struct Writer<W> {
    out: W,
    headers: Sha256,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut raw = MAGIC.to_vec();
        let flags = if header.portable { PORTABLE } else { 0 };
        for number in [VERSION, flags, header.zstd_version, 0] {
            raw.extend(number.to_le_bytes());
        }
        raw.extend(header.old.0);
        raw.extend(header.new.0);
        raw.extend(sha256(&raw).0);
        let mut writer = Self { out, headers: Sha256::new(), bytes: 0 };
        writer.header(&raw)?;
        Ok(writer)
    }

    pub(super) fn section(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let mut raw = kind.number().to_le_bytes().to_vec();
        raw.extend([0; 4]);
        raw.extend((bytes.len() as u64).to_le_bytes());
        raw.extend(sha256(bytes).0);
        self.header(&raw)?;
        self.put(bytes)
    }

    /// Ends the bundle; its bytes.
    pub(super) fn end(mut self) -> io::Result<u64> {
        let digest = self.headers.clone().finalize();
        self.section(Kind::End, &digest)?;
        self.out.flush()?;
        Ok(self.bytes)
    }

    fn header(&mut self, raw: &[u8]) -> io::Result<()> {
        self.headers.update(raw);
        self.put(raw)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Reads a bundle.
pub(super) struct Reader<R> {
    from: R,
    path: PathBuf,
    headers: Sha256,
    at: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub(super) fn open(from: R, path: &Path) -> Result<(Self, Header)> {
        let mut reader = Self { from, path: path.to_owned(), headers: Sha256::new(), at: 0 };
        let mut raw = [0; HEADER];
        reader.fill(&mut raw)?;
        reader.headers.update(raw);
        if !raw.starts_with(&MAGIC) {
            return Err(reader.broken(0, "this is no bundle"));
        }
        let (found, expected) = (sha256(&raw[..PROVEN]), digest(&raw[PROVEN..]));
        if found != expected {
            return Err(reader.broken(0, format!("the header has digest {found}, expected {expected}")));
        }
        let [version, flags, zstd_version, zero] = [8, 12, 16, 20].map(|at| number(&raw[at..]));
        if version != VERSION {
            let reason =
                format!("found version {version}, expected {VERSION}: use the tesserafs of its time");
            return Err(reader.broken(0, reason));
        }
        if flags & !PORTABLE != 0 || zero != 0 {
            let reason = format!("found flags {flags} and {zero}, expected {PORTABLE} or 0, and 0");
            return Err(reader.broken(0, reason));
        }
        let header = Header {
            old: digest(&raw[24..]),
            new: digest(&raw[56..]),
            portable: flags & PORTABLE != 0,
            zstd_version,
        };
        Ok((reader, header))
    }

    /// Reads the next section, which must be one of these kinds; nothing behind the end.
    pub(super) fn next(&mut self, expected: &[Kind]) -> Result<(Kind, Vec<u8>)> {
        let at = self.at;
        let mut raw = [0; SECTION];
        self.fill(&mut raw)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number(&raw));
        let kind = kind.filter(|kind| expected.contains(kind));
        let kind = kind.ok_or_else(|| {
            self.broken(at, format!("found a section of kind {}, expected {expected:?}", number(&raw)))
        })?;
        let len = raw[8..].first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        if number(&raw[4..]) != 0 {
            return Err(self.broken(at, "found bits that have no meaning"));
        }
        if len > SECTION_MAX {
            return Err(
                self.broken(at, format!("found a section of {len} bytes, expected {SECTION_MAX} at most"))
            );
        }
        let before = self.headers.clone();
        self.headers.update(raw);
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        let (found, expected) = (sha256(&bytes), digest(&raw[16..]));
        if found != expected {
            return Err(self.broken(at, format!("the section has digest {found}, expected {expected}")));
        }
        if kind == Kind::End && bytes != before.finalize()[..] {
            return Err(self.broken(at, "sections are missing, or in another order"));
        }
        if kind == Kind::End {
            let mut more = [0];
            let read = self.from.read(&mut more).map_err(Error::io("read", &self.path))?;
            if read > 0 {
                return Err(self.broken(self.at, "found bytes behind the end"));
            }
        }
        Ok((kind, bytes))
    }

    /// An error about the section that begins at this byte.
    pub(super) fn broken(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::Archive { path: self.path.clone(), offset, reason: reason.into() }
    }

    /// Bytes so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let at = self.at;
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.broken(at, "the bundle ends there"),
            _ => Error::io("read", &self.path)(error),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |number| u32::from_le_bytes(*number))
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(bytes.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: Header =
        Header { old: Digest([1; 32]), new: Digest([2; 32]), portable: true, zstd_version: 10507 };

    fn bundle() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &SAID).unwrap();
        writer.section(Kind::Head, b"first").unwrap();
        writer.section(Kind::Piece, b"second").unwrap();
        let len = writer.end().unwrap();
        assert_eq!(len, bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (mut reader, header) = Reader::open(bytes, "bundle".as_ref())?;
        assert_eq!(header, SAID);
        let mut all = Vec::new();
        loop {
            match reader.next(&Kind::ALL)? {
                (Kind::End, _) => return Ok(all),
                (_, bytes) => all.push(bytes),
            }
        }
    }

    #[test]
    fn sections_come_back() {
        assert_eq!(read(&bundle()).unwrap(), [&b"first"[..], b"second"]);
    }

    #[test]
    fn a_download_goes_on_behind_the_last_whole_section() {
        let good = bundle();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle");
        let (second, end) = (HEADER + SECTION + 5, HEADER + 2 * SECTION + 5 + 6);
        for at in 0..=good.len() {
            // The room for the rest was taken.
            let mut begun = good[..at].to_vec();
            begun.resize(good.len(), 0);
            std::fs::write(&path, begun).unwrap();
            let expected = match at {
                _ if at == good.len() => at,
                _ if at >= end => end,
                _ if at >= second => second,
                _ if at >= HEADER => HEADER,
                _ => 0,
            };
            let proven = crate::bundle::proven(&path).unwrap();
            // The last bytes of a section or a digest may be zeros.
            assert!(proven as usize >= expected && proven as usize <= at.max(expected) + 2, "{at}: {proven}");
        }
    }

    #[test]
    fn a_changed_byte_a_cut_and_a_lost_section_are_found() {
        let good = bundle();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
            assert!(read(&good[..at]).is_err(), "{at} bytes");
        }
        let more = [&good[..], b"x"].concat();
        assert!(read(&more).unwrap_err().to_string().contains("behind the end"));
        let first = HEADER..HEADER + SECTION + 5;
        let mut lost = good.clone();
        lost.drain(first);
        assert!(read(&lost).unwrap_err().to_string().contains("missing"));
    }
}
