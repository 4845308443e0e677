// SPDX-License-Identifier: GPL-2.0-or-later

//! Manifests and configs: small files under their digest.

use std::io::{Read, Write};

use rustix::fs::{Mode, OFlags};
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::Error;

use super::dir::{failed, new_name, refuse};
use super::lock::Using;
use super::Store;

/// The most bytes of a document, as registries have it.
pub const DOCUMENT_MAX: u64 = 4 << 20;

impl Store {
    /// The document with that digest, which was compared with it. `None` where it is not there.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let name = digest.to_string();
        let Some(file) = self.images.file(&name, OFlags::RDONLY)? else { return Ok(None) };
        let path = self.images.join(&name);
        let mut bytes = Vec::new();
        let read = file.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed("read", &path, error))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(refuse(&path, "more bytes", format_args!("{DOCUMENT_MAX} at most")));
        }
        let found = sha256(&bytes);
        if found != *digest {
            return Err(refuse(&path, format_args!("a file whose digest is {found}"), "the one in its name"));
        }
        Ok(Some(bytes))
    }
}

impl Using<'_> {
    /// Adds a document, on the disk. The result is its digest.
    pub fn add_document(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = sha256(bytes);
        let images = &self.store().images;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let len = bytes.len();
            return Err(Error::Refused(format!(
                "a document has {len} bytes, expected {DOCUMENT_MAX} at most"
            )));
        }
        // One that is broken is replaced.
        if matches!(self.document(&digest), Ok(Some(_))) {
            return Ok(digest);
        }
        let (name, new) = (digest.to_string(), new_name());
        let mut file = images.create(&new, 0o644)?;
        let written = file.write_all(bytes).and_then(|()| {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
            file.sync_all()
        });
        let path = images.join(&name);
        let named =
            written.map_err(|error| failed("write", &path, error)).and_then(|()| images.rename(&new, &name));
        if let Err(error) = named {
            let _ = images.remove(&new);
            return Err(error);
        }
        images.sync()?;
        Ok(digest)
    }
}
