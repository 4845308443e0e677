// SPDX-License-Identifier: GPL-2.0

//! Lists the files of an image.

mod json;
mod long;
mod mtree;
mod time;

use std::io::{self, Write};

use clap::ValueEnum;
use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::context::read;
use tesserafs_image::hash::sha256;
use tesserafs_image::lookup::Found;
use tesserafs_image::{text, visit, Context, Error};

use crate::print::{cannot_write, for_terminal};
use crate::NAME;

/// How to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// A line for each file: type and mode, owner:group, size, SHA-256, path
    Long,
    /// The same with the number of links and the time; a line more for each xattr
    Full,
    /// A line for each regular file as sha256sum prints it
    Sha256,
    /// The paths, with bytes that are no printable text as \\ooo
    Names,
    /// The paths as they are, each with a NUL behind it
    Names0,
    /// A JSON object a line
    Json,
    /// A manifest for mtree and bsdtar
    Mtree,
}

/// Writes a line for each name at and below `top`, in the order of paths. The tree was checked.
pub(crate) fn list(
    context: &Context<'_>,
    top: &Found,
    listing: Listing,
    is_terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut left_out = 0_u64;
    if listing == Listing::Mtree {
        writeln!(out, "{}", mtree::HEADER).map_err(cannot_write)?;
    }
    visit::visit(context, top, |path, inode| match listing {
        Listing::Long => long::write(context, inode, path, out),
        Listing::Full => long::write_full(context, inode, path, out),
        Listing::Json => json::write(context, inode, path, out),
        Listing::Mtree => mtree::write(context, inode, path, out),
        Listing::Names => writeln!(out, "{}", text::escape(path)).map_err(cannot_write),
        Listing::Names0 => {
            let path = if is_terminal { for_terminal(path) } else { path.to_vec() };
            out.write_all(&[&path[..], b"\0"].concat()).map_err(cannot_write)
        }
        Listing::Sha256 => match inode.kind {
            FileKind::Regular { size, .. } if size > PLAIN_DIGEST_MAX => {
                left_out += 1;
                Ok(())
            }
            FileKind::Regular { .. } => {
                let line = text::sha256sum_line(&digest(context, inode)?, path);
                let shown = if is_terminal { for_terminal(&line) } else { line };
                out.write_all(&shown).map_err(cannot_write)
            }
            _ => Ok(()),
        },
    })?;
    if left_out > 0 {
        let limit = PLAIN_DIGEST_MAX >> 30;
        let what = "whose digest is not the SHA-256 of their bytes, are left out";
        let _ = writeln!(io::stderr(), "{NAME}: files larger than {limit} GiB, {what}: {left_out}");
    }
    Ok(())
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

/// The word for the type of a file in a machine listing.
fn type_name(inode: &Inode) -> &'static str {
    match inode.kind {
        FileKind::Regular { .. } => "file",
        FileKind::Directory(_) => "directory",
        FileKind::Symlink { .. } => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::Whiteout => "whiteout",
    }
}
