// SPDX-License-Identifier: GPL-2.0

//! Lists the files of an image, and prints annotations.

use std::io::{self, Write};

use clap::ValueEnum;
use tesserafs_format::limits::{ANNOTATION_KEY_MAX, NAME_MAX, PLAIN_DIGEST_MAX, SYMLINK_MAX};
use tesserafs_format::{Directory, FileKind, Ino, Inode};

use tesserafs_image::context::read;
use tesserafs_image::error::Error;
use tesserafs_image::hash::sha256;
use tesserafs_image::text;
use tesserafs_image::Context;

/// How to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// A line for each file: type and mode, owner:group, size, SHA-256, path
    Long,
    /// A line for each regular file as sha256sum prints it
    Sha256,
}

/// The error of an output that cannot be written.
pub(crate) fn cannot_write(source: io::Error) -> Error {
    Error::Io { what: "cannot write the output".to_owned(), source }
}

/// A directory whose entries are being listed.
struct Level {
    directory: Directory,
    next: u32,
    /// Bytes of its path.
    path_len: usize,
}

/// Writes a line for each name in the tree, in the order of paths. The tree was checked.
pub(crate) fn list(
    context: &Context<'_>,
    listing: Listing,
    is_terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut left_out = 0_u64;
    let mut path = Vec::new();
    let root = read(context.image.inode(Ino::ROOT))?;
    if listing == Listing::Long {
        write_long(context, &root, b".", out)?;
    }
    let mut levels: Vec<Level> = level(&root, 0).into_iter().collect();
    while let Some(last) = levels.last_mut() {
        context.cancel.check()?;
        path.truncate(last.path_len);
        let Some(entry) = read(context.image.dirent(&last.directory, last.next))? else {
            levels.pop();
            continue;
        };
        last.next += 1;
        let mut buf = [0; NAME_MAX];
        let name = read(context.image.name(&entry, &mut buf))?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let inode = read(context.image.inode(entry.ino))?;
        match listing {
            Listing::Long => write_long(context, &inode, &path, out)?,
            Listing::Sha256 => {
                if let FileKind::Regular { size, .. } = inode.kind {
                    if size > PLAIN_DIGEST_MAX {
                        left_out += 1;
                    } else {
                        let line = text::sha256sum_line(&digest(context, &inode)?, &path);
                        let shown = if is_terminal { for_terminal(&line) } else { line };
                        out.write_all(&shown).map_err(cannot_write)?;
                    }
                }
            }
        }
        levels.extend(level(&inode, path.len()));
    }
    if left_out > 0 {
        let what = "larger than 64 GiB, whose digest is not the SHA-256 of their bytes, are left out";
        let _ = writeln!(io::stderr(), "fsck-tesserafs: files {what}: {left_out}");
    }
    Ok(())
}

/// The start of a directory; none of anything else.
fn level(inode: &Inode, path_len: usize) -> Option<Level> {
    match inode.kind {
        FileKind::Directory(directory) => Some(Level { directory, next: 0, path_len }),
        _ => None,
    }
}

/// The digest of a regular file's content, in hexadecimal.
fn digest(context: &Context<'_>, inode: &Inode) -> Result<String, Error> {
    match inode.kind {
        FileKind::Regular { content: Some(content), .. } => {
            Ok(read(context.image.content_digest(content))?.to_string())
        }
        _ => Ok(sha256(b"").to_string()),
    }
}

fn write_long(context: &Context<'_>, inode: &Inode, path: &[u8], out: &mut dyn Write) -> Result<(), Error> {
    let (size, digest) = match inode.kind {
        FileKind::Regular { size, .. } => {
            let digest = digest(context, inode)?;
            (size, if size > PLAIN_DIGEST_MAX { format!("sparse:{digest}") } else { digest })
        }
        FileKind::Directory(directory) => (directory.entries.into(), "-".to_owned()),
        FileKind::Symlink { len, .. } => (len, "-".to_owned()),
        FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => (0, "-".to_owned()),
    };
    let mode = mode_text(inode);
    let path = text::escape(path);
    write!(out, "{mode} {}:{} {size:>10} {digest:<64} {path}", inode.uid, inode.gid).map_err(cannot_write)?;
    if let FileKind::Symlink { offset, len } = inode.kind {
        let mut target = [0; SYMLINK_MAX as usize];
        let target = &mut target[..len as usize];
        read(context.image.target(inode.ino, offset, target))?;
        write!(out, " -> {}", text::escape(target)).map_err(cannot_write)?;
    }
    writeln!(out).map_err(cannot_write)
}

/// Type and permission bits as `ls` shows them; `w` is a whiteout.
fn mode_text(inode: &Inode) -> String {
    let kind = match inode.kind {
        FileKind::Regular { .. } => '-',
        FileKind::Directory(_) => 'd',
        FileKind::Symlink { .. } => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::Whiteout => 'w',
    };
    let mode = inode.mode;
    let bit = |mask: u16, c: char| if mode & mask == 0 { '-' } else { c };
    let special = |execute: u16, mask: u16, c: char| match (mode & execute != 0, mode & mask != 0) {
        (false, false) => '-',
        (true, false) => 'x',
        (true, true) => c,
        (false, true) => c.to_ascii_uppercase(),
    };
    [
        kind,
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        special(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        special(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        special(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

/// The text with every character that a terminal might obey replaced, but for the end of a line.
fn for_terminal(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .map(|c| if text::is_printable(c) || c == '\n' { c } else { '?' })
        .collect::<String>()
        .into_bytes()
}

/// Writes the bytes of the annotation of that key.
pub(crate) fn annotation(
    context: &Context<'_>,
    key: &[u8],
    is_terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let count = context.image.sb.layout.annotations.records();
    for number in 0..count {
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let annotation = read(context.image.annotation(index))?;
        let mut buf = [0; ANNOTATION_KEY_MAX as usize];
        let found = &mut buf[..annotation.key_len as usize];
        read(context.image.annotation_bytes(index, annotation.key_offset, found))?;
        if *found != *key {
            continue;
        }
        let mut piece = vec![0; 1 << 16];
        let mut at = annotation.value_offset();
        let end = at + u64::from(annotation.value_len);
        while at < end {
            context.cancel.check()?;
            let len = (end - at).min(piece.len() as u64) as usize;
            let piece = &mut piece[..len];
            read(context.image.annotation_bytes(index, at, piece))?;
            let len = if is_terminal {
                let whole = whole_characters(piece, at + len as u64 == end);
                out.write_all(&for_terminal(whole)).map_err(cannot_write)?;
                whole.len()
            } else {
                out.write_all(piece).map_err(cannot_write)?;
                len
            };
            at += len as u64;
        }
        return Ok(());
    }
    Err(Error::Refused(format!("the image has no annotation {}", text::escape(key))))
}

/// The piece without the beginning of a character whose other bytes come with the next piece.
fn whole_characters(piece: &[u8], is_last: bool) -> &[u8] {
    let rest = piece.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    if is_last || rest == piece.len() {
        piece
    } else {
        &piece[..piece.len() - rest]
    }
}
