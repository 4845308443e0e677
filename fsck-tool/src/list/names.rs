// SPDX-License-Identifier: GPL-2.0-or-later

//! Paths, and nothing else.

use std::io::Write;

use tesserafs_format::Inode;
use tesserafs_image::{text, Context, Error};

use super::Format;
use crate::print::{cannot_write, for_terminal};

/// A path a line, with bytes that are no printable text as `\ooo`.
pub(super) struct Names;

impl Format for Names {
    fn file(
        &mut self,
        _context: &Context<'_>,
        _inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        writeln!(out, "{}", text::escape(path)).map_err(cannot_write)
    }
}

/// Paths as they are, but on a terminal, each with a NUL behind it.
pub(super) struct Names0 {
    pub(super) is_terminal: bool,
}

impl Format for Names0 {
    fn file(
        &mut self,
        _context: &Context<'_>,
        _inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut path = if self.is_terminal { for_terminal(path) } else { path.to_vec() };
        path.push(0);
        out.write_all(&path).map_err(cannot_write)
    }
}
