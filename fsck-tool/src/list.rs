// SPDX-License-Identifier: GPL-2.0-or-later

//! Lists the files of an image, in one of several formats.

mod json;
mod long;
mod mtree;
mod names;
mod sha256;

use std::io::Write;

use clap::ValueEnum;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::context::read;
use tesserafs_image::lookup::Found;
use tesserafs_image::{hash, visit, Context, Error};

/// How to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// A line for each file: type and mode, owner:group, size, SHA-256, path
    Long,
    /// The same with the number of links and the time; a line more for each xattr
    Full,
    /// A line for each regular file as sha256sum prints it
    Sha256,
    /// The paths, with bytes that are no printable text as \ooo
    Names,
    /// The paths as they are, each with a NUL behind it
    Names0,
    /// A JSON object a line
    Json,
    /// A manifest for mtree and bsdtar
    Mtree,
}

/// A way to write the files of an image, one after the other.
trait Format {
    /// Writes what stands before the first file.
    fn begin(&mut self, _out: &mut dyn Write) -> Result<(), Error> {
        Ok(())
    }

    /// Writes a file.
    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error>;

    /// Says what was not written.
    fn end(&self) {}
}

impl Listing {
    fn format(self, is_terminal: bool) -> Box<dyn Format> {
        match self {
            Listing::Long => Box::new(long::Long),
            Listing::Full => Box::new(long::Full),
            Listing::Sha256 => Box::new(sha256::Sums::new(is_terminal)),
            Listing::Names => Box::new(names::Names),
            Listing::Names0 => Box::new(names::Names0 { is_terminal }),
            Listing::Json => Box::new(json::Json),
            Listing::Mtree => Box::new(mtree::Mtree),
        }
    }
}

/// Writes each name at and below `top`, in the order of paths. The tree was checked.
pub(crate) fn list(
    context: &Context<'_>,
    top: &Found,
    listing: Listing,
    is_terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut format = listing.format(is_terminal);
    format.begin(out)?;
    visit::visit(context, top, |path, inode| format.file(context, inode, path, out))?;
    format.end();
    Ok(())
}

/// The digest of a regular file's content, in hexadecimal.
fn digest(context: &Context<'_>, inode: &Inode) -> Result<String, Error> {
    match inode.kind {
        FileKind::Regular { content: Some(content), .. } => {
            Ok(read(context.image.content_digest(content))?.to_string())
        }
        _ => Ok(hash::sha256(b"").to_string()),
    }
}
