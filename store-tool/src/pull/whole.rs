// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs that nothing but the digest of all their bytes proves: bundles, and image files that come compressed.

use std::ops::Range;
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

/// Pieces that are known at once: those of 32 GiB. Where the disk has the room, a manifest can name a blob of any length.
const TOGETHER: usize = 1 << 18;

/// The failure to bring a blob.
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether the next pull can go on with what came.
    pub(super) is_begun: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, is_begun: false }
    }
}

/// Brings all bytes of a blob behind those that an earlier run has brought: `proven` says how many of these look right.
pub(super) fn fetch(
    fetcher: &Fetcher<'_>,
    blob: Blob,
    file: &Unfinished,
    proven: impl Fn(&Path) -> Result<u64, Error>,
    cancel: &Cancel,
) -> Result<(), Failed> {
    let mut first = if file.is_kept() { proven(file.path())?.min(blob.len) } else { 0 };
    let mut found = None;
    for _ in 0..ROUNDS {
        let brought = ranges(fetcher, blob, file, std::iter::once(first..blob.len));
        let digest = brought.and_then(|()| file.hash(cancel)).map_err(|error| {
            let is_begun = proven(file.path()).is_ok_and(|bytes| bytes > 0);
            Failed { error, is_begun }
        })?;
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
    Err(Error::Refused(format!("{shown}: the blob sha256:{expected} has the digest sha256:{found}")).into())
}

/// Brings these ranges of a blob, whose bytes are compared later.
pub(super) fn ranges(
    fetcher: &Fetcher<'_>,
    blob: Blob,
    file: &Unfinished,
    ranges: impl Iterator<Item = Range<u64>>,
) -> Result<(), Error> {
    let mut all = ranges.flat_map(pieces).peekable();
    while all.peek().is_some() {
        let pieces = Pieces::new(all.by_ref().take(TOGETHER).collect());
        fetcher.fetch(&[Target::new(blob, file, &pieces)])?;
    }
    Ok(())
}

/// The bytes of a range, in pieces.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Piece> {
    let end = range.end;
    let piece = move |start: u64| Piece { start, len: (end - start).min(PIECE) as u32, chunk: None };
    range.step_by(PIECE as usize).map(piece)
}
