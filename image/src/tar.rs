// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree as a tar archive, in the PAX format of POSIX.1-2001, as GNU tar, bsdtar and mkfs.tesserafs read it.
//!
//! All that an image holds of a file is in the archive: nanoseconds, owners of any size, xattrs (`SCHILY.xattr.*`, and as
//! `LIBARCHIVE.xattr.*` those whose names are not UTF-8), ACLs also as text (`SCHILY.acl.*`), hard links, holes (GNU sparse
//! format 1.0), whiteouts as character devices 0:0. Only sockets have no place in an archive; they are a loss.

mod acl;
mod header;

use std::collections::HashMap;
use std::io::{self, Write};

use ::tar::EntryType;
use tesserafs_format::{FileKind, Inode};

use self::header::Entry;
use crate::contents::{Contents, Piece};
use crate::context::Context;
use crate::error::Error;
use crate::lookup::Found;
use crate::losses::{Kind, Losses};
use crate::packs::{DataError, Decoder};
use crate::{text, visit};

/// Bytes of a block of an archive.
const BLOCK: u64 = 512;

/// Bytes that must be zeros before a sparse entry is worth its headers.
const HOLES_MIN: u64 = 4096;

/// The error of an archive that cannot be written.
fn cannot_write(source: io::Error) -> Error {
    Error::Io { what: "cannot write the archive".to_owned(), source }
}

/// Writes what was found at a path, and all below it, to `out`; names are relative to it. The tree was checked.
///
/// An error leaves an archive without an end, which no reader takes for a whole one.
pub fn write(
    context: &Context<'_>,
    top: &Found,
    losses: &Losses,
    out: &mut dyn Write,
) -> Result<(), DataError> {
    let mut archive = Archive {
        context,
        contents: Contents::open(context)?,
        decoder: Decoder::new()?,
        out,
        links: HashMap::new(),
        broken: None,
    };
    context.progress.begin("archive", context.image.sb.layout.inodes.records());
    let visited = visit::visit(context, top, |path, inode| archive.entry(path, inode, losses));
    // A finding about the image explains why the visit ended.
    if let Some(broken) = archive.broken.take() {
        return Err(broken);
    }
    visited?;
    // Two blocks of zeros are the end.
    archive
        .out
        .write_all(&[0; 2 * BLOCK as usize])
        .and_then(|()| archive.out.flush())
        .map_err(cannot_write)?;
    Ok(())
}

struct Archive<'a, 'o> {
    context: &'a Context<'a>,
    contents: Contents<'a>,
    decoder: Decoder,
    out: &'o mut dyn Write,
    /// First paths of files with several names.
    links: HashMap<u32, Vec<u8>>,
    broken: Option<DataError>,
}

impl Archive<'_, '_> {
    fn entry(&mut self, path: &[u8], inode: &Inode, losses: &Losses) -> Result<(), Error> {
        self.context.progress.advance(1);
        let mut name = path.to_vec();
        let kind = match inode.kind {
            FileKind::Regular { .. } => EntryType::Regular,
            FileKind::Directory(_) => {
                name.push(b'/');
                EntryType::Directory
            }
            FileKind::Symlink { .. } => EntryType::Symlink,
            FileKind::Fifo => EntryType::Fifo,
            FileKind::Whiteout => EntryType::Char,
            FileKind::Socket => {
                losses.add(Kind::File, false, || {
                    let why = "a tar archive has no sockets".to_owned();
                    (String::new(), format!("/{}", text::escape(path)), why)
                });
                return Ok(());
            }
        };
        let mut entry = Entry::new(kind, &name, inode);
        let is_directory = kind == EntryType::Directory;
        if !is_directory && inode.nlink > 1 {
            if let Some(first) = self.links.get(&inode.ino.get()) {
                // The attributes are those of the first name; some readers want them again.
                let mut link = Entry::new(EntryType::Link, &name, inode);
                link.target(first);
                return link.write(self.out, 0).map_err(cannot_write);
            }
            self.links.insert(inode.ino.get(), name.clone());
        }
        entry.target(&visit::target(self.context, inode)?);
        visit::xattrs(self.context, inode, |name, value| {
            entry.xattr(name, value);
            Ok(())
        })?;
        match inode.kind {
            FileKind::Regular { size, .. } => self.file(entry, &name, inode, size),
            _ => entry.write(self.out, 0).map_err(cannot_write),
        }
    }

    fn file(&mut self, mut entry: Entry, name: &[u8], inode: &Inode, size: u64) -> Result<(), Error> {
        let _step = self.context.step(size, || format!("archiving {}", text::escape(name)));
        let runs: Vec<(u64, u64)> = self
            .contents
            .data_runs(inode)?
            .into_iter()
            .map(|(start, len)| (start, len.min(size.saturating_sub(start))))
            .collect();
        let data: u64 = runs.iter().map(|(_, len)| len).sum();
        // Readers take each run from a block of its own; GNU tar would, and others would not, expect padding between them.
        let is_even = runs.iter().rev().skip(1).all(|(_, len)| len % BLOCK == 0);
        let is_sparse = size.saturating_sub(data) >= HOLES_MIN && is_even;
        let len = if is_sparse {
            let map = entry.sparse(name, size, &runs);
            let len = map.len() as u64 + data;
            entry.write(self.out, len).map_err(cannot_write)?;
            self.out.write_all(&map).map_err(cannot_write)?;
            len
        } else {
            entry.write(self.out, size).map_err(cannot_write)?;
            size
        };
        let out = &mut *self.out;
        let read = self.contents.read(inode, &mut self.decoder, |piece| {
            match piece {
                Piece::Data(bytes) => out.write_all(bytes),
                Piece::Hole(_) if is_sparse => Ok(()),
                Piece::Hole(len) => io::copy(&mut io::Read::take(io::repeat(0), len), out).map(drop),
            }
            .map_err(cannot_write)
        });
        match read {
            Ok(()) => (),
            Err(DataError::Stop(error)) => return Err(error),
            Err(broken) => {
                self.broken = Some(broken);
                return Err(Error::Refused("the archive ends at a broken file".to_owned()));
            }
        }
        let padding = (len.next_multiple_of(BLOCK) - len) as usize;
        out.write_all(&[0; BLOCK as usize][..padding]).map_err(cannot_write)
    }
}
