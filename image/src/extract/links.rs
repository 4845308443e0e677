// SPDX-License-Identifier: GPL-2.0-or-later

//! The names of hard-linked files beside the first.

use std::ffi::CString;
use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use tesserafs_format::FileType;

use super::{is_unknown, Extractor};
use crate::context::read;
use crate::error::Error;
use crate::losses::Kind;
use crate::text;

impl Extractor<'_> {
    /// Creates the names of hard-linked files beside the first.
    pub(super) fn link_all(&self) -> Result<(), Error> {
        if !self.scope.has_top() {
            return Ok(());
        }
        for directory in self.scope.directories() {
            for n in 0..directory.tables.entries {
                let Some(entry) = read(self.context.image.dirent(&directory.tables, n))? else { break };
                // Directories have one name.
                if entry.file_type == FileType::Directory {
                    continue;
                }
                let number = entry.ino.get();
                let first = self.scope.first_name(number).map(|(directory, n)| (directory.ino, n));
                if first == Some((directory.ino, n)) {
                    continue;
                }
                self.context.cancel.check()?;
                if self.is_left_out(number) {
                    self.leave_out(number, Errno::NOENT);
                    continue;
                }
                let (from_dir, from) = self.first_name(number)?;
                let (dir, name) = (self.directory(directory.ino)?, self.name(directory, n)?);
                match rustix::fs::linkat(&*from_dir, &from, &*dir, &name, AtFlags::empty()) {
                    Ok(()) => (),
                    // The file was left out, which is a finding.
                    Err(Errno::NOENT) if self.context.findings.count() > 0 => (),
                    Err(errno) if is_unknown(errno) => self.lose_link(number, directory.ino, &name, errno),
                    Err(errno) => return Err(self.fail("link", number)(errno)),
                }
            }
        }
        Ok(())
    }

    /// A second name is lost, and the file is not.
    fn lose_link(&self, number: u32, directory: u32, name: &CString, errno: Errno) {
        self.losses.add(Kind::File, false, || {
            let path = format!("{}/{}", self.shown(directory), text::escape(name.as_bytes()));
            let why = format!("no second name of {}: {}", self.shown(number), io::Error::from(errno));
            (String::new(), path.replacen("//", "/", 1), why)
        });
    }
}
