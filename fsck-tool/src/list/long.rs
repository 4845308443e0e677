// SPDX-License-Identifier: GPL-2.0-or-later

//! A line for each file, for people.

use std::io::Write;

use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::{text, time, visit, Context, Error};

use super::{digest, Format};
use crate::print::cannot_write;

/// Type and mode, owner, size, digest, path; and where a symlink points.
pub(super) struct Long;

impl Format for Long {
    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let (size, digest) = size_and_digest(context, inode)?;
        let (mode, owner) = (mode_text(inode), format!("{}:{}", inode.uid, inode.gid));
        write!(out, "{mode} {owner} {size:>10} {digest:<64} ").map_err(cannot_write)?;
        writeln!(out, "{}", name(context, inode, path)?).map_err(cannot_write)
    }
}

/// The same with links, time and xattrs, whose values have a line each.
pub(super) struct Full;

impl Format for Full {
    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let (size, digest) = size_and_digest(context, inode)?;
        let (mode, nlink, time) =
            (mode_text(inode), inode.nlink, time::utc(inode.mtime.sec, inode.mtime.nsec));
        let owner = format!("{}:{}", inode.uid, inode.gid);
        write!(out, "{mode} {nlink:>3} {owner} {size:>10} {time} {digest:<64} ").map_err(cannot_write)?;
        writeln!(out, "{}", name(context, inode, path)?).map_err(cannot_write)?;
        visit::xattrs(context, inode, |name, value| {
            writeln!(out, "    {}={}", text::escape(name), text::escape(value)).map_err(cannot_write)
        })
    }
}

fn size_and_digest(context: &Context<'_>, inode: &Inode) -> Result<(u64, String), Error> {
    Ok(match inode.kind {
        FileKind::Regular { size, .. } => {
            let digest = digest(context, inode)?;
            (size, if size > PLAIN_DIGEST_MAX { format!("sparse:{digest}") } else { digest })
        }
        FileKind::Directory(directory) => (directory.entries.into(), "-".to_owned()),
        FileKind::Symlink { len, .. } => (len, "-".to_owned()),
        FileKind::Fifo | FileKind::Socket | FileKind::Whiteout => (0, "-".to_owned()),
    })
}

fn name(context: &Context<'_>, inode: &Inode, path: &[u8]) -> Result<String, Error> {
    let path = text::escape(path);
    Ok(match inode.kind {
        FileKind::Symlink { .. } => format!("{path} -> {}", text::escape(&visit::target(context, inode)?)),
        _ => path,
    })
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
