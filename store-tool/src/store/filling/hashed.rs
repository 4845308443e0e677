// SPDX-License-Identifier: GPL-2.0-or-later

//! The digest of a file that grows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tesserafs_format::Digest;
use tesserafs_image::hash::Hasher;
use tesserafs_image::{Cancel, Error};

use crate::store::dir::failed;

/// Bytes that are hashed at once.
pub(super) const PIECE: u64 = 1 << 20;

/// The digest of the first bytes of a file.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    hasher: Hasher,
    /// How many.
    pub(super) bytes: u64,
}

impl Hashed {
    /// Takes the bytes of the file up to `end`.
    pub(super) fn advance(
        &mut self,
        file: &File,
        path: &Path,
        end: u64,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut buf = vec![0; PIECE.min(end.saturating_sub(self.bytes)) as usize];
        while self.bytes < end {
            cancel.check()?;
            let bytes = &mut buf[..PIECE.min(end - self.bytes) as usize];
            file.read_exact_at(bytes, self.bytes).map_err(|error| failed("read", path, error))?;
            self.hasher.update(bytes);
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// The digest of the bytes so far.
    pub(super) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}
