// SPDX-License-Identifier: GPL-2.0

//! The headers of a tar archive.
//!
//! Read here and not by a library, because archives of container layers need what the common one lacks: PAX values with
//! newlines in them (file capabilities are binary), times before 1970 and of nanoseconds, all forms of sparse files,
//! and an error for an archive that is cut off.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tesserafs_format::limits::{FILE_SIZE_MAX, XATTR_LIST_MAX};
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::xattr::is_valid_name;
use tesserafs_format::Timestamp;

use crate::error::{Error, Result};
use crate::tree::{Attributes, Xattrs};

/// Bytes in a header, and the unit in which everything is padded.
const RECORD: u64 = 512;
/// Bytes of a long name, or of the PAX records of one entry, that are believed.
const EXTENSION_MAX: u64 = 64 << 20;
/// Bytes of global PAX records that are believed: each entry gets them, and may have no more than a header itself.
const GLOBAL_MAX: usize = 4096;
/// Prefix of PAX keys that are xattrs.
const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";

/// A part of a file that is in the archive; the bytes between segments are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First byte in the file.
    pub(super) start: u64,
    /// First byte in the archive.
    pub(super) offset: u64,
    /// Bytes, 1 at least.
    pub(super) len: u64,
}

impl Segment {
    /// First byte of the file behind it.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The kind of an entry.
#[derive(Debug)]
pub(super) enum EntryKind {
    Directory,
    Regular { size: u64, segments: Box<[Segment]> },
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Device { whiteout: bool },
}

/// An entry of an archive, with all that other headers say about it.
#[derive(Debug)]
pub(super) struct TarEntry {
    pub(super) path: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) kind: EntryKind,
    /// Where its header is.
    pub(super) offset: u64,
}

/// PAX records that count here; `None` where there is none.
#[derive(Clone, Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Timestamp>,
    xattrs: Xattrs,
    sparse: Sparse,
}

/// GNU's PAX records for sparse files.
#[derive(Clone, Debug, Default)]
struct Sparse {
    major: u64,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    /// Offset, length, offset, length, ...
    map: Vec<u64>,
}

/// Reads entry after entry.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    path: PathBuf,
    len: u64,
    at: u64,
    global: Pax,
    /// Xattrs that an image does not hold.
    pub(super) left_out_xattrs: u64,
}

/// A header record.
struct Header([u8; RECORD as usize]);

type Parsed<T> = std::result::Result<T, String>;

impl Reader {
    pub(super) fn new(file: File, path: &Path, len: u64) -> Self {
        Self { file, path: path.to_owned(), len, at: 0, global: Pax::default(), left_out_xattrs: 0 }
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<TarEntry>> {
        let offset = self.at;
        self.read_entry().map_err(|problem| match problem {
            Problem::Read(error) => error,
            Problem::Archive(reason) => Error::Archive { path: self.path.clone(), offset, reason },
        })
    }

    fn read_entry(&mut self) -> std::result::Result<Option<TarEntry>, Problem> {
        let mut pax = self.global.clone();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let offset = self.at;
            if offset + RECORD > self.len {
                let what = if offset == 0 { "it is no tar archive" } else { "the archive is cut off" };
                return Err(format!("{what}: no end mark").into());
            }
            let mut header = Header([0; RECORD as usize]);
            self.read(offset, &mut header.0)?;
            if header.0.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            header.check()?;
            self.at += RECORD;
            let own_size = header.size()?;
            match header.0[156] {
                b'x' | b'X' => {
                    let records = self.extension(own_size)?;
                    self.left_out_xattrs += pax.read(&records)?;
                }
                b'g' => {
                    let records = self.extension(own_size)?;
                    let mut global = std::mem::take(&mut self.global);
                    self.left_out_xattrs += global.read(&records)?;
                    if global.bytes() > GLOBAL_MAX {
                        return Err(format!("more than {GLOBAL_MAX} bytes for all entries").into());
                    }
                    self.global = global;
                    pax = self.global.clone();
                }
                b'L' => long_name = Some(until_nul(&self.extension(own_size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(own_size)?).to_vec()),
                // The label of a tape.
                b'V' => {
                    self.extension(own_size)?;
                }
                b'M' => return Err("it continues a file of another volume".to_owned().into()),
                kind => return self.finish(header, kind, offset, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// Reads the data behind a header that is not a file's.
    fn extension(&mut self, size: u64) -> std::result::Result<Vec<u8>, Problem> {
        if size > EXTENSION_MAX {
            return Err(format!("a header of {size} bytes").into());
        }
        self.skip(size)?;
        let mut bytes = vec![0; size as usize];
        self.read(self.at - size.next_multiple_of(RECORD), &mut bytes)?;
        Ok(bytes)
    }

    /// Steps over `size` bytes and their padding.
    fn skip(&mut self, size: u64) -> Parsed<()> {
        let end = self.at.checked_add(size).filter(|end| *end <= self.len);
        let Some(end) = end.and_then(|end| end.checked_next_multiple_of(RECORD)) else {
            return Err("the archive is cut off inside this entry".into());
        };
        self.at = end;
        Ok(())
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), Problem> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|error| Problem::Read(Error::io("read", &self.path)(error)))
    }

    fn finish(
        &mut self,
        header: Header,
        kind: u8,
        offset: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> std::result::Result<TarEntry, Problem> {
        let path = pax
            .sparse
            .name
            .clone()
            .or_else(|| pax.path.clone())
            .or(long_name)
            .unwrap_or_else(|| header.path());
        let link =
            pax.linkpath.clone().or(long_link).unwrap_or_else(|| until_nul(&header.0[157..257]).to_vec());
        let attributes = Attributes {
            mode: (header.number(100..108)? & 0o7777) as u16,
            uid: pax.uid.map_or_else(|| header.id(108..116), Ok)?,
            gid: pax.gid.map_or_else(|| header.id(116..124), Ok)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp { sec: header.number(136..148)?, nsec: 0 },
            },
            xattrs: pax.xattrs.clone(),
        };
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let kind = match kind {
            // Before there was a type for directories.
            0 | b'0' if path.ends_with(b"/") => self.no_data(stored, EntryKind::Directory)?,
            0 | b'0' | b'7' => self.regular(&pax.sparse, stored)?,
            b'S' => self.old_sparse(&header, stored)?,
            b'1' => self.no_data(stored, EntryKind::HardLink(link))?,
            b'2' => self.no_data(0, EntryKind::Symlink(link))?,
            b'3' | b'4' => {
                let (major, minor) = (header.number(329..337)?, header.number(337..345)?);
                let whiteout = header.0[156] == b'3' && major == 0 && minor == 0;
                self.no_data(0, EntryKind::Device { whiteout })?
            }
            b'5' | b'D' => self.no_data(stored, EntryKind::Directory)?,
            b'6' => self.no_data(0, EntryKind::Fifo)?,
            other => {
                return Err(
                    format!("an entry of the unknown type {}", char::from(other).escape_default()).into()
                );
            }
        };
        Ok(TarEntry { path, attributes, kind, offset })
    }

    fn no_data(&mut self, stored: u64, kind: EntryKind) -> Parsed<EntryKind> {
        self.skip(stored)?;
        Ok(kind)
    }

    /// A regular file, perhaps sparse in one of PAX' ways.
    fn regular(&mut self, sparse: &Sparse, stored: u64) -> std::result::Result<EntryKind, Problem> {
        let start = self.at;
        self.skip(stored)?;
        let end = start + stored;
        let Some(size) = sparse.real_size else {
            let whole = Segment { start: 0, offset: start, len: stored };
            let segments = if stored == 0 { Box::default() } else { Box::from([whole]) };
            return Ok(EntryKind::Regular { size: stored, segments });
        };
        if sparse.major == 0 {
            return Ok(sparse_file(&sparse.map, start, end, size)?);
        }
        // Version 1: decimal numbers, each on a line, before the data and padded like it.
        let mut at = start;
        let mut number = || -> std::result::Result<u64, Problem> {
            let mut digits = [0; 21];
            let len = digits.len().min((end - at) as usize);
            self.read(at, &mut digits[..len])?;
            let line = digits[..len].split(|byte| *byte == b'\n').next().unwrap_or_default();
            at += line.len() as u64 + 1;
            Ok(decimal(line).filter(|_| at <= end).ok_or("a damaged map of a sparse file")?)
        };
        let pairs = number()?;
        if pairs > stored / 4 {
            return Err("a damaged map of a sparse file".to_owned().into());
        }
        let map = (0..pairs * 2).map(|_| number()).collect::<std::result::Result<Vec<u64>, Problem>>()?;
        let data = start + (at - start).next_multiple_of(RECORD);
        Ok(sparse_file(&map, data, end, size)?)
    }

    /// A regular file, sparse in the old way of GNU tar: the map in the header and in records behind it.
    fn old_sparse(&mut self, header: &Header, stored: u64) -> std::result::Result<EntryKind, Problem> {
        let size = unsigned(field(&header.0[483..495])?)?;
        let mut map = Vec::new();
        let mut read = |bytes: &[u8]| -> Parsed<()> {
            for pair in bytes.chunks_exact(24) {
                if pair[0] != 0 || pair[12] != 0 {
                    map.push(unsigned(field(&pair[..12])?)?);
                    map.push(unsigned(field(&pair[12..])?)?);
                }
            }
            Ok(())
        };
        read(&header.0[386..482])?;
        let mut more = header.0[482] != 0;
        while more {
            let mut record = [0; RECORD as usize];
            self.skip(RECORD)?;
            self.read(self.at - RECORD, &mut record)?;
            read(&record[..504])?;
            more = record[504] != 0;
        }
        let start = self.at;
        self.skip(stored)?;
        Ok(sparse_file(&map, start, start + stored, size)?)
    }
}

/// Why there is no entry.
enum Problem {
    Read(Error),
    Archive(String),
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Problem::Archive(reason)
    }
}

impl From<&str> for Problem {
    fn from(reason: &str) -> Self {
        Problem::Archive(reason.into())
    }
}

/// A sparse file from its map; its data lie from `data` to `end` of the archive.
fn sparse_file(map: &[u64], data: u64, end: u64, size: u64) -> Parsed<EntryKind> {
    let damaged = || "a damaged map of a sparse file".to_owned();
    let mut segments = Vec::with_capacity(map.len() / 2);
    let (mut offset, mut last) = (data, 0);
    for pair in map.chunks(2) {
        let [start, len] = *pair else { return Err(damaged()) };
        let stop = start.checked_add(len).filter(|stop| *stop <= size).ok_or_else(damaged)?;
        let next = offset.checked_add(len).filter(|next| *next <= end).ok_or_else(damaged)?;
        if start < last {
            return Err(damaged());
        }
        if len > 0 {
            segments.push(Segment { start, offset, len });
        }
        (offset, last) = (next, stop);
    }
    if size > FILE_SIZE_MAX {
        return Err(damaged());
    }
    Ok(EntryKind::Regular { size, segments: segments.into() })
}

impl Header {
    /// Proves the checksum, which counts its own bytes as spaces.
    fn check(&self) -> Parsed<()> {
        let bytes =
            || self.0.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { b' ' } else { *byte });
        let unsigned: i64 = bytes().map(i64::from).sum();
        // As old programs did it.
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        match self.number(148..156) {
            Ok(sum) if sum == unsigned || sum == signed => Ok(()),
            _ => Err("no tar header: its checksum is wrong".into()),
        }
    }

    fn number(&self, range: std::ops::Range<usize>) -> Parsed<i64> {
        field(&self.0[range])
    }

    fn size(&self) -> Parsed<u64> {
        unsigned(self.number(124..136)?)
    }

    fn id(&self, range: std::ops::Range<usize>) -> Parsed<u32> {
        u32::try_from(self.number(range)?).map_err(|_| "a user or group number of more than 32 bits".into())
    }

    /// The name, behind the prefix where there is one.
    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU's own format has other things in the prefix' place; star's has times in the last part of it.
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            (b"ustar\0", b"tar\0") => until_nul(&self.0[345..476]),
            (b"ustar\0", _) => until_nul(&self.0[345..500]),
            _ => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }
}

impl Pax {
    /// Bytes that a copy takes beside the record itself.
    fn bytes(&self) -> usize {
        let names = [&self.path, &self.linkpath, &self.sparse.name];
        let names: usize = names.into_iter().flatten().map(Vec::len).sum();
        let xattrs: usize =
            self.xattrs.iter().map(|xattr| size_of_val(xattr) + xattr.0.len() + xattr.1.len()).sum();
        names + xattrs + size_of_val(&self.sparse.map[..])
    }

    /// Reads PAX records, `LENGTH KEY=VALUE` with a newline; the number of xattrs that are left out.
    fn read(&mut self, mut bytes: &[u8]) -> Parsed<u64> {
        let mut left_out = 0;
        let damaged = || "a damaged PAX header".to_owned();
        // Some writers pad with zeros.
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let len =
                decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok()).ok_or_else(damaged)?;
            let record = bytes.get(space + 1..len).ok_or_else(damaged)?;
            let record = record.strip_suffix(b"\n").ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            left_out += self.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[len..];
        }
        Ok(left_out)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Parsed<u64> {
        let number = || decimal(value).ok_or_else(|| format!("PAX: {} is no number", key.escape_ascii()));
        let id =
            || u32::try_from(number()?).map_err(|_| "a user or group number of more than 32 bits".to_owned());
        // An empty value takes back what a global header said.
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        let there = !value.is_empty();
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.linkpath = bytes(),
            b"size" => self.size = there.then(number).transpose()?,
            b"uid" => self.uid = there.then(id).transpose()?,
            b"gid" => self.gid = there.then(id).transpose()?,
            b"mtime" => {
                self.mtime = there.then(|| time(value).ok_or("PAX: mtime is no time")).transpose()?;
            }
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|number| !number.is_empty());
                self.sparse.map =
                    numbers.map(decimal).collect::<Option<_>>().ok_or("a damaged map of a sparse file")?;
            }
            // ACLs and labels as text, which no system call takes.
            _ if key.starts_with(b"SCHILY.acl.") || key.starts_with(b"RHT.security.") => return Ok(1),
            _ => {
                let Some(name) = key.strip_prefix(SCHILY_XATTR) else { return Ok(0) };
                if !is_valid_name(name) {
                    return Ok(1);
                }
                self.xattrs.retain(|(known, _)| known != name);
                self.xattrs.push((name.to_vec(), value.to_vec()));
                // No image holds more, and each is compared with all before it.
                let names: usize = self.xattrs.iter().map(|(name, _)| name.len() + 1).sum();
                if names > usize_from_u32(XATTR_LIST_MAX) {
                    return Err("more names of xattrs than an inode can have".into());
                }
            }
        }
        Ok(0)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

fn unsigned(number: i64) -> Parsed<u64> {
    u64::try_from(number).map_err(|_| "a negative size".into())
}

/// A number in a header: octal digits, or, with the first bit set, a big-endian two's complement of the other bits.
fn field(bytes: &[u8]) -> Parsed<i64> {
    let refused = || "a number that is none".to_owned();
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => {
            // The second bit is the sign.
            let start = if first & 0x40 != 0 { -1 } else { i128::from(first & 0x3f) };
            let rest = bytes.iter().skip(1).try_fold(start, |number: i128, byte| {
                number.checked_mul(256).map(|number| number + i128::from(*byte))
            });
            rest.and_then(|number| i64::try_from(number).ok()).ok_or_else(refused)
        }
        _ => {
            let text = until_nul(bytes).trim_ascii();
            if text.is_empty() {
                return Ok(0);
            }
            let digits = std::str::from_utf8(text).map_err(|_| refused())?;
            i64::from_str_radix(digits, 8).map_err(|_| refused())
        }
    }
}

/// A PAX time: seconds, perhaps negative, perhaps with a fraction.
fn time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = if whole.is_empty() { 0 } else { decimal(whole.as_bytes())?.try_into().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nsec =
        fraction.bytes().chain([b'0'; 9]).take(9).fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(match (negative, nsec) {
        (false, _) => Timestamp { sec, nsec },
        (true, 0) => Timestamp { sec: -sec, nsec: 0 },
        (true, _) => Timestamp { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    })
}
