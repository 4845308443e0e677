// SPDX-License-Identifier: GPL-2.0-or-later

//! The entries of a tar archive, one after the other (`FORMAT.md` 4.9).
//!
//! Read here and not by `tar-core` 0.1, as its times are unsigned seconds (none before 1970, no nanoseconds), it does not apply global
//! PAX headers, and it wants Rust 1.86; nor by `tar`, which also splits PAX values at newlines (file capabilities are binary).

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tesserafs_format::Timestamp;

use super::acl::{Owners, Texts};
use super::ahead::Ahead;
use super::header::{until_nul, Header, Parsed, RECORD};
use super::pax::Pax;
use super::sparse::Segment;
use crate::error::{path_of, Error, Result, Shown};
use crate::tree::Attributes;

/// Bytes of a long name, or of all the PAX records that are for one entry alone, that are believed.
const EXTENSION_MAX: u64 = 64 << 20;
/// Bytes of global PAX records that are believed: each entry gets them, and may have no more than a header itself.
const GLOBAL_MAX: usize = 4096;

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
    pub(super) acls: Texts,
    /// Names of xattrs, and keys of others, that cannot be in an image.
    pub(super) left_out: Vec<Vec<u8>>,
    pub(super) kind: EntryKind,
    /// Where its header is, from the start of the archive.
    pub(super) offset: u64,
    /// A type that no standard has, which is a regular file to all who read archives.
    pub(super) is_unknown: bool,
    /// A hard link with bytes of its own, which nobody uses.
    pub(super) has_link_data: bool,
}

/// How an archive ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// Without two records of zeros.
    pub(super) is_missing: bool,
    /// The first byte behind the end mark that is not zero, from the start of the archive, and whether a header begins there.
    pub(super) more: Option<(u64, bool)>,
}

/// Reads entry after entry.
#[derive(Debug)]
pub(super) struct Reader {
    file: Ahead,
    path: PathBuf,
    /// Where the archive begins in the file.
    start: u64,
    /// Where it ends there.
    pub(super) limit: u64,
    pub(super) at: u64,
    global: Pax,
    pub(super) owners: Owners,
    pub(super) end: End,
}

/// Why there is no entry.
pub(super) enum Problem {
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

/// The headers before the one of an entry.
#[derive(Default)]
struct Extensions {
    /// The data of its own PAX headers, which count more than global ones wherever those stand.
    own: Vec<Vec<u8>>,
    /// Bytes of these.
    own_bytes: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Reader {
    /// Reads the archive at these bytes of a file; `path` is its name in errors.
    pub(super) fn new(file: File, path: &Path, bytes: Range<u64>) -> Self {
        Self {
            file: Ahead::new(file, bytes.start),
            path: path.to_owned(),
            start: bytes.start,
            limit: bytes.end,
            at: bytes.start,
            global: Pax::default(),
            owners: Owners::default(),
            end: End::default(),
        }
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<TarEntry>> {
        let mut offset = self.at;
        self.read_entry(&mut offset).map_err(|problem| match problem {
            Problem::Read(error) => error,
            Problem::Archive(reason) => {
                Error::Archive { path: self.path.clone(), offset: offset - self.start, reason }
            }
        })
    }

    fn read_entry(&mut self, offset: &mut u64) -> std::result::Result<Option<TarEntry>, Problem> {
        let mut before = Extensions::default();
        let mut is_alone = true;
        loop {
            *offset = self.at;
            let Some(header) = self.header(is_alone)? else { return Ok(None) };
            header.check()?;
            is_alone &= matches!(header.kind(), b'g' | b'V');
            self.at += RECORD;
            match header.kind() {
                b'x' | b'X' => {
                    let records = self.extension(header.size()?)?;
                    // Their errors are told where they are.
                    Pax::default().read(&records)?;
                    before.own_bytes += records.len() as u64;
                    if before.own_bytes > EXTENSION_MAX {
                        return Err(format!("PAX headers of {} bytes for one entry", before.own_bytes).into());
                    }
                    before.own.push(records);
                }
                b'g' => {
                    let records = self.extension(header.size()?)?;
                    let mut global = std::mem::take(&mut self.global);
                    global.read(&records)?;
                    if global.bytes() > GLOBAL_MAX {
                        return Err(format!("more than {GLOBAL_MAX} bytes for all entries").into());
                    }
                    self.global = global;
                }
                b'L' => before.long_name = Some(until_nul(&self.extension(header.size()?)?).to_vec()),
                b'K' => before.long_link = Some(until_nul(&self.extension(header.size()?)?).to_vec()),
                // The label of a tape.
                b'V' => self.skip(header.size()?)?,
                b'A' => return Err("an ACL in the form of Solaris, which is not read".into()),
                b'M' => return Err("it continues a file of another volume".into()),
                _ => return self.entry(&header, *offset - self.start, before).map(Some),
            }
        }
    }

    /// The header here; `None` at the end, which nothing that is for another entry may stand before.
    fn header(&mut self, is_alone: bool) -> std::result::Result<Option<Header>, Problem> {
        let rest = self.limit.saturating_sub(self.at).min(RECORD);
        let mut header = Header([0; RECORD as usize]);
        self.read(self.at, &mut header.0[..rest as usize])?;
        if rest == RECORD && !header.is_zero() {
            return Ok(Some(header));
        }
        if self.limit == self.start {
            return Err("it is no tar archive: it is empty".into());
        }
        if !is_alone {
            return Err("the archive ends behind a header that is for another entry".into());
        }
        if !header.is_zero() {
            let what = if self.at == self.start { "it is no tar archive" } else { "the archive is cut off" };
            return Err(format!("{what}: {rest} bytes instead of a header of {RECORD}").into());
        }
        self.end = End { is_missing: rest < RECORD, more: self.more()? };
        Ok(None)
    }

    /// The first byte that is not zero from the end mark on.
    fn more(&mut self) -> std::result::Result<Option<(u64, bool)>, Problem> {
        let mut at = self.at;
        let mut buffer = vec![0; 1 << 16];
        while at < self.limit {
            let part = &mut buffer[..(self.limit - at).min(1 << 16) as usize];
            self.read(at, part)?;
            if let Some(place) = part.iter().position(|byte| *byte != 0) {
                let at = at + place as u64;
                let record = self.start + (at - self.start) / RECORD * RECORD;
                return Ok(Some((at - self.start, self.is_header(record)?)));
            }
            at += part.len() as u64;
        }
        Ok(None)
    }

    /// Whether a header stands at that place.
    fn is_header(&mut self, at: u64) -> std::result::Result<bool, Problem> {
        let mut header = Header([0; RECORD as usize]);
        if at.checked_add(RECORD).is_none_or(|end| end > self.limit) {
            return Ok(false);
        }
        self.read(at, &mut header.0)?;
        Ok(!header.is_zero() && header.check().is_ok())
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
    pub(super) fn skip(&mut self, size: u64) -> Parsed<()> {
        let end = self.at.checked_add(size).filter(|end| *end <= self.limit);
        let Some(end) = end.and_then(|end| end.checked_next_multiple_of(RECORD)) else {
            return Err("the archive is cut off inside this entry".into());
        };
        self.at = end;
        Ok(())
    }

    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), Problem> {
        self.file.read(offset, buf).map_err(|error| Problem::Read(Error::io("read", &self.path)(error)))
    }

    fn entry(
        &mut self,
        header: &Header,
        offset: u64,
        before: Extensions,
    ) -> std::result::Result<TarEntry, Problem> {
        let Extensions { own, long_name, long_link, .. } = before;
        let mut pax = self.global.clone();
        for records in &own {
            pax.read(records)?;
        }
        let name = pax.sparse.name.take().or_else(|| pax.path.take()).or(long_name);
        let path = name.unwrap_or_else(|| header.path());
        self.named_entry(header, offset, pax, long_link, path.clone()).map_err(|problem| match problem {
            Problem::Archive(reason) => format!("{}: {reason}", Shown(path_of(&path))).into(),
            read => read,
        })
    }

    fn named_entry(
        &mut self,
        header: &Header,
        offset: u64,
        mut pax: Pax,
        long_link: Option<Vec<u8>>,
        path: Vec<u8>,
    ) -> std::result::Result<TarEntry, Problem> {
        let link = pax.linkpath.take().or(long_link).unwrap_or_else(|| header.link().to_vec());
        let mut attributes = Attributes {
            mode: (header.number(100..108)? & 0o7777) as u16,
            uid: pax.uid.map_or_else(|| header.id(108..116), Ok)?,
            gid: pax.gid.map_or_else(|| header.id(116..124), Ok)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp { sec: header.number(136..148)?, nsec: 0 },
            },
            xattrs: Vec::new(),
        };
        self.note_owners(header, &pax, &attributes);
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let (mut is_unknown, mut has_link_data) = (false, false);
        let kind = match header.kind() {
            // Before there was a type for directories.
            0 | b'0' | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => self.regular(&pax.sparse, stored)?,
            b'S' => self.old_sparse(header, stored)?,
            b'1' => {
                has_link_data = self.skip_link_data(header, stored)?;
                EntryKind::HardLink(link)
            }
            b'2' => EntryKind::Symlink(link),
            b'3' | b'4' => {
                let (major, minor) = (header.number(329..337)?, header.number(337..345)?);
                EntryKind::Device { whiteout: header.kind() == b'3' && major == 0 && minor == 0 }
            }
            b'5' => EntryKind::Directory,
            // GNU's, with a list of its names.
            b'D' => {
                self.skip(stored)?;
                EntryKind::Directory
            }
            b'6' => EntryKind::Fifo,
            _ => {
                is_unknown = true;
                self.regular(&pax.sparse, stored)?
            }
        };
        let (mut acls, mut xattrs) = (pax.acls, pax.xattrs);
        if !matches!(kind, EntryKind::Directory) && acls.default.take().is_some() {
            xattrs.leave_out(b"SCHILY.acl.default");
        }
        if matches!(kind, EntryKind::Symlink(_)) && acls.access.take().is_some() {
            xattrs.leave_out(b"SCHILY.acl.access");
        }
        let left_out;
        (attributes.xattrs, left_out) = xattrs.finish();
        Ok(TarEntry { path, attributes, acls, left_out, kind, offset, is_unknown, has_link_data })
    }

    /// Learns which numbers the names of the owner and the group have.
    fn note_owners(&mut self, header: &Header, pax: &Pax, attributes: &Attributes) {
        let uname = pax.uname.as_deref().unwrap_or_else(|| header.owner_name(265..297));
        let gname = pax.gname.as_deref().unwrap_or_else(|| header.owner_name(297..329));
        self.owners.note((uname, attributes.uid), (gname, attributes.gid));
    }

    /// Steps over the data of a hard link, if there are any.
    ///
    /// POSIX let a hard link have data in 2001; before, and in the archives of many programs since, it has a size and no data.
    /// So what stands behind the header decides: another header or the end of the archive are no data.
    fn skip_link_data(&mut self, header: &Header, stored: u64) -> std::result::Result<bool, Problem> {
        if stored == 0 || !header.is_posix() || self.at >= self.limit || self.is_header(self.at)? {
            return Ok(false);
        }
        let mut next = Header([0; RECORD as usize]);
        self.read(self.at, &mut next.0[..(self.limit - self.at).min(RECORD) as usize])?;
        // Zeros end the archive, unless an entry stands where the data would end.
        let end = self.at.checked_add(stored).and_then(|end| end.checked_next_multiple_of(RECORD));
        if next.is_zero() && !end.map_or(Ok(false), |end| self.is_header(end))? {
            return Ok(false);
        }
        self.skip(stored)?;
        Ok(true)
    }
}
