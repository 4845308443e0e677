// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs that nothing but the digest of all their bytes proves: bundles, and image files that come compressed.

use std::path::Path;

use tesserafs_image::{Cancel, Error};

use super::fetch::{Fetcher, Target};
use super::ranges::{Piece, Pieces};
use crate::artifact::Blob;
use crate::store::Unfinished;

/// Times that a blob is fetched: it may come wrong once.
const ROUNDS: usize = 2;

/// Bytes that come and are written at once: of a line that is cut off, no more are lost.
const PIECE: u64 = 1 << 17;

/// Brings all bytes of a blob behind those that an earlier run has brought: `proven` says how many of these look right.
pub(super) fn fetch(
    fetcher: &Fetcher<'_>,
    blob: Blob,
    file: &Unfinished,
    proven: impl Fn(&Path) -> Result<u64, Error>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut first = if file.is_kept() { proven(file.path())?.min(blob.len) } else { 0 };
    let mut found = None;
    for _ in 0..ROUNDS {
        let pieces = Pieces::new(pieces(first, blob.len));
        fetcher.fetch(&[Target::new(blob, file, &pieces)])?;
        let digest = file.hash(cancel)?;
        if digest == blob.digest {
            return Ok(());
        }
        // Bytes that were there may be of a liar, and a mirror may be one.
        found = Some(digest);
        first = 0;
        fetcher.repository().drop_mirrors();
    }
    let found = found.map_or_else(String::new, |digest| digest.to_string());
    let (shown, expected) = (fetcher.shown(), blob.digest);
    Err(Error::Refused(format!("{shown}: the blob sha256:{expected} has the digest sha256:{found}")))
}

/// The bytes of a range, in pieces.
pub(super) fn pieces(first: u64, end: u64) -> Vec<Piece> {
    let starts = (first..end).step_by(PIECE as usize);
    starts.map(|start| Piece { start, len: (end - start).min(PIECE) as u32, chunk: None }).collect()
}
