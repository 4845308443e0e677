// SPDX-License-Identifier: GPL-2.0-or-later

//! Lines as sha256sum prints and checks them.

use std::io::Write;

use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};
use tesserafs_image::{text, Context, Error};

use super::{digest, Format};
use crate::print::{cannot_write, for_terminal};
use crate::run::say;

/// A line for each regular file.
pub(super) struct Sums {
    is_terminal: bool,
    /// Files whose digest is not the SHA-256 of their bytes.
    left_out: u64,
}

impl Sums {
    pub(super) const fn new(is_terminal: bool) -> Self {
        Self { is_terminal, left_out: 0 }
    }
}

impl Format for Sums {
    fn file(
        &mut self,
        context: &Context<'_>,
        inode: &Inode,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let FileKind::Regular { size, .. } = inode.kind else { return Ok(()) };
        if size > PLAIN_DIGEST_MAX {
            self.left_out += 1;
            return Ok(());
        }
        let line = text::sha256sum_line(&digest(context, inode)?, path);
        out.write_all(&if self.is_terminal { for_terminal(&line) } else { line }).map_err(cannot_write)
    }

    fn end(&self) {
        if self.left_out > 0 {
            let (limit, count) = (PLAIN_DIGEST_MAX >> 30, self.left_out);
            let what = "whose digest is not the SHA-256 of their bytes, are left out";
            say(&format!("files larger than {limit} GiB, {what}: {count}"));
        }
    }
}
