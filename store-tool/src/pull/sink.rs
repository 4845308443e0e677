// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes that come, cut into pieces, proven, and written to their places.

use mkfs_tesserafs::progress::Progress;
use tesserafs_format::chunk_digest;
use tesserafs_image::hash::Sha2;
use tesserafs_image::Error;

use super::fetch::Target;

/// Takes bytes of a blob in order, and writes those of pieces.
pub(super) struct Sink<'s> {
    target: &'s Target<'s>,
    progress: &'s dyn Progress,
    /// The offset that is expected.
    next: u64,
    /// The piece that it lies in or before.
    number: usize,
    /// The bytes of that piece so far.
    piece: Vec<u8>,
}

impl<'s> Sink<'s> {
    /// Bytes from `start` on are expected.
    pub(super) fn new(target: &'s Target<'s>, start: u64, progress: &'s dyn Progress) -> Self {
        Self { target, progress, next: start, number: target.pieces.at(start), piece: Vec::new() }
    }

    /// Two connections may bring one piece at once: one of them writes it.
    pub(super) fn take(
        &mut self,
        offset: u64,
        mut bytes: &[u8],
        mut wrong: impl FnMut(String),
    ) -> Result<(), Error> {
        let Target { pieces, file, .. } = self.target;
        if offset != self.next {
            self.number = pieces.at(offset);
            self.piece.clear();
        }
        let mut at = offset;
        self.next = offset + bytes.len() as u64;
        while let Some(piece) = pieces.all().get(self.number).filter(|_| !bytes.is_empty()) {
            let skipped = piece.start.saturating_sub(at).min(bytes.len() as u64);
            (at, bytes) = (at + skipped, &bytes[skipped as usize..]);
            let is_begun = at == piece.start + self.piece.len() as u64;
            let now = piece.end().saturating_sub(at).min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(now);
            // Bytes that another connection has brought, or that began before the first byte here, are of no use.
            let is_wanted = is_begun && pieces.is_lacking(self.number);
            if is_wanted {
                self.piece.extend_from_slice(now);
            }
            (at, bytes) = (at + now.len() as u64, rest);
            if at < piece.end() {
                continue;
            }
            if is_wanted {
                let found = piece
                    .chunk
                    .map(|(number, expected)| (number, expected, chunk_digest::<Sha2>(&self.piece)));
                match found {
                    Some((number, expected, found)) if found != expected => wrong(format!(
                        "chunk {number}, at byte {}, has the digest {found}, expected {expected}",
                        piece.start
                    )),
                    // Bytes that come twice, or lie between pieces, are no progress.
                    _ if pieces.claim(self.number) => {
                        file.write_at(piece.start, &self.piece)?;
                        pieces.is_there_now(self.number);
                        self.progress.read(u64::from(piece.len));
                        self.target.hash_front()?;
                    }
                    _ => (),
                }
            }
            self.piece.clear();
            self.number += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mkfs_tesserafs::progress::Silent;
    use tesserafs_format::Digest;
    use tesserafs_image::hash::sha256;
    use tesserafs_image::Cancel;

    use super::*;
    use crate::artifact::Blob;
    use crate::pull::chunks::LackingFile;
    use crate::pull::ranges::{Piece, Pieces};
    use crate::store::{Finished, Slot, Store};

    /// Pieces of 100 bytes, of which every other one is a chunk.
    fn pieces(bytes: &[u8]) -> Pieces {
        let piece = |number: u32| {
            let start = u64::from(number) * 100;
            let bytes = &bytes[start as usize..][..100];
            let chunk = (number % 2 == 0).then(|| (number, chunk_digest::<Sha2>(bytes)));
            Piece { start, len: 100, chunk }
        };
        Pieces::new((0..bytes.len() as u32 / 100).map(piece).collect())
    }

    /// Brings all pieces by `bring`; the digest that the file has then, if it is not its own.
    fn brought(bytes: &[u8], bring: impl Fn(&Target<'_>)) -> Option<Digest> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::create(&folder.path().join("store")).expect("a store");
        let using = store.use_it(&Cancel::default(), &mut || ()).expect("the store");
        let filling = using.begin_image(&Digest([1; 32]), &Cancel::default(), &mut || ()).expect("an image");
        let blob = Blob { digest: sha256(bytes), len: bytes.len() as u64 };
        let Slot::Unfinished(unfinished) = filling.file(&blob.digest, blob.len).expect("a file") else {
            unreachable!("the store is new")
        };
        let file =
            LackingFile { what: "pack".into(), blob, unfinished, pieces: pieces(bytes), is_whole: true };
        let target = Target::of_file(&file);
        bring(&target);
        assert!(file.pieces.has_all());
        let finished = filling.finish(file.unfinished, &Cancel::default()).expect("the end");
        match finished {
            Finished::Complete(path) => {
                assert!(std::fs::read(path).expect("the blob") == bytes);
                None
            }
            Finished::Not { found, file } => {
                let now = std::fs::read(file.path()).expect("the file");
                assert_eq!(found, sha256(&now), "the digest of other bytes than the file has");
                Some(found)
            }
        }
    }

    fn take(target: &Target<'_>, start: u64, bytes: &[u8]) -> usize {
        let mut sink = Sink::new(target, start, &Silent);
        let mut wrong = 0;
        for (part, at) in bytes.chunks(70).zip((start..).step_by(70)) {
            sink.take(at, part, |_| wrong += 1).expect("bytes");
        }
        wrong
    }

    fn bytes() -> Vec<u8> {
        (0..1000_u32).map(|number| (number.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
    }

    #[test]
    fn the_digest_is_that_of_the_file_in_whichever_order_its_bytes_come() {
        let all = bytes();
        for order in [[0, 300, 600], [600, 300, 0], [300, 0, 600]] {
            let found = brought(&all, |target| {
                for start in order {
                    let end = if start == 600 { 1000 } else { start + 300 };
                    assert_eq!(take(target, start as u64, &all[start..end]), 0);
                }
            });
            assert_eq!(found, None);
        }
    }

    #[test]
    fn a_piece_that_came_is_not_written_again() {
        let (all, mut others) = (bytes(), bytes());
        // Of the second piece, which is no chunk.
        others[150] ^= 1;
        let found = brought(&all, |target| {
            assert_eq!(take(target, 0, &all), 0);
            assert_eq!(take(target, 0, &others), 0);
        });
        assert_eq!(found, None);
        let found = brought(&all, |target| {
            assert_eq!(take(target, 0, &others), 0);
            assert_eq!(take(target, 0, &all), 0);
        });
        assert_eq!(found, Some(sha256(&others)));
    }

    #[test]
    fn a_wrong_chunk_is_left_out_and_comes_again() {
        let (all, mut others) = (bytes(), bytes());
        others[250] ^= 1;
        let found = brought(&all, |target| {
            assert_eq!(take(target, 0, &others), 1);
            assert!(target.pieces.is_lacking(2));
            assert_eq!(take(target, 0, &all), 0);
        });
        assert_eq!(found, None);
    }
}
