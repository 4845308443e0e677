// SPDX-License-Identifier: GPL-2.0-or-later

//! A manifest as mtree(5) describes it, with full paths, as bsdtar and mtree read it.

use std::fmt::Write as _;
use std::io::Write;

use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::{visit, Context, Error};

use super::{digest, Format};
use crate::print::cannot_write;

/// The first line.
const HEADER: &str = "#mtree";

/// A manifest.
pub(super) struct Mtree;

impl Format for Mtree {
    fn begin(&mut self, out: &mut dyn Write) -> Result<(), Error> {
        writeln!(out, "{HEADER}").map_err(cannot_write)
    }

    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        // A path without a slash would be in the directory that the line before began.
        let path = if path == b"." { ".".to_owned() } else { format!("./{}", vis(path)) };
        let (kind, more) = match inode.kind {
            FileKind::Regular { size, .. } if size > PLAIN_DIGEST_MAX => ("file", format!(" size={size}")),
            FileKind::Regular { size, .. } => {
                ("file", format!(" size={size} sha256digest={}", digest(context, inode)?))
            }
            FileKind::Directory(_) => ("dir", String::new()),
            FileKind::Symlink { .. } => ("link", format!(" link={}", vis(&visit::target(context, inode)?))),
            FileKind::Fifo => ("fifo", String::new()),
            FileKind::Socket => ("socket", String::new()),
            FileKind::Whiteout => ("char", " device=linux,0,0".to_owned()),
        };
        let (mode, nlink, uid, gid) = (inode.mode, inode.nlink, inode.uid, inode.gid);
        let time = format!("{}.{:09}", inode.mtime.sec, inode.mtime.nsec);
        // bsdtar takes a socket for a regular file, and ends with an error.
        let path = if kind == "socket" { format!("# {path}") } else { path };
        writeln!(
            out,
            "{path} type={kind} mode={mode:04o} nlink={nlink} uid={uid} gid={gid} time={time}{more}"
        )
        .map_err(cannot_write)
    }
}

/// The bytes as vis(3) writes them with `VIS_OCTAL`, so that no reader takes one for a blank, a comment or a pattern.
fn vis(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"/._-+,:@%~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out
}
