// SPDX-License-Identifier: GPL-2.0-or-later

//! Digests of blobs, compared while the bytes pass.

use std::io::{self, Read, Write};
use std::path::Path;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};

use crate::error::{Error, Result};

/// Bytes that pass, and the digest of them.
pub(super) struct Digesting<T> {
    inner: T,
    hasher: Box<dyn DynDigest>,
    bytes: u64,
}

impl<T> Digesting<T> {
    /// Digests as `expected` is made.
    pub(super) fn new(inner: T, expected: &Digest, path: &Path) -> Result<Self> {
        let hasher: Box<dyn DynDigest> = match expected.algorithm() {
            DigestAlgorithm::Sha256 => Box::new(Sha256::default()),
            DigestAlgorithm::Sha384 => Box::new(Sha384::default()),
            DigestAlgorithm::Sha512 => Box::new(Sha512::default()),
            other => {
                return Err(Error::unsupported(
                    path,
                    format!("has a digest by {other}, which nobody checks"),
                ));
            }
        };
        Ok(Self { inner, hasher, bytes: 0 })
    }

    /// Bytes so far.
    pub(super) fn passed(&self) -> u64 {
        self.bytes
    }

    /// Compares the digest of all bytes; `what` has it.
    pub(super) fn check(self, path: &Path, what: &str, expected: &Digest) -> Result<()> {
        let found: String = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == expected.digest() {
            return Ok(());
        }
        let algorithm = expected.algorithm();
        Err(Error::unsupported(path, format!("{what} {algorithm}:{found}, expected {expected}")))
    }
}

impl<T: Read> Read for Digesting<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<T: Write> Write for Digesting<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Compares the digest of a document.
pub(super) fn check(path: &Path, bytes: &[u8], expected: &Digest) -> Result<()> {
    let mut digesting = Digesting::new(bytes, expected, path)?;
    io::copy(&mut digesting, &mut io::sink()).map_err(Error::io("read", path))?;
    digesting.check(path, "has the digest", expected)
}
