// SPDX-License-Identifier: GPL-2.0-or-later

//! Contents of several extents: threads decode these in any order, the digest takes them in theirs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tesserafs_format::{Extent, Target};

use super::kept::Kept;
use super::{lock, Data};
use tesserafs_image::error::Error;
use tesserafs_image::hash::{sha256, ContentHasher};
use tesserafs_image::packs::Decoder;
use tesserafs_image::progress::Step;

/// A content whose digest is being computed from several extents.
pub(super) struct Stream<'a> {
    pub(super) content: u32,
    pieces: u32,
    state: Mutex<StreamState>,
    /// Named as long as the content is digested.
    _step: Option<Step<'a>>,
}

struct StreamState {
    /// The piece that the digest needs next.
    next: u32,
    waiting: BTreeMap<u32, Piece>,
    /// Absent while a thread uses it.
    hasher: Option<ContentHasher>,
    /// A piece is missing, and with it the digest.
    lost: bool,
}

/// Pieces that wait for the thread which has the digest, before others help it.
const BACKLOG: usize = 2;

/// A part of a content.
pub(super) enum Piece {
    /// All bytes of a chunk whose raw digest is still to be checked, or any others.
    Bytes(Vec<u8>, Option<u32>),
    Zeros(u64),
    Lost,
}

impl<'a> Stream<'a> {
    /// Content number `content`, which has `size` bytes in so many pieces; `step` lasts as long as it is digested.
    pub(super) fn new(content: u32, size: u64, pieces: u32, step: Option<Step<'a>>) -> Self {
        let hasher = Some(ContentHasher::new(size));
        let state = StreamState { next: 0, waiting: BTreeMap::new(), hasher, lost: false };
        Self { content, pieces, state: Mutex::new(state), _step: step }
    }
}

impl Data<'_> {
    /// Decodes an extent, and hands it to the digest of its content.
    pub(super) fn piece(
        &self,
        stream: &Stream<'_>,
        extent: &Extent,
        number: u32,
        decoder: &mut Decoder,
        kept: &mut Kept,
    ) -> Result<(), Error> {
        let mut piece = match extent.target {
            Target::Hole => Piece::Zeros(extent.len()),
            Target::Chunk { index, offset } => {
                let len = usize::try_from(extent.len()).unwrap_or(usize::MAX);
                let range = offset as usize..(offset as usize).saturating_add(len);
                self.part(index.0, range, decoder, kept)?
            }
        };
        if extent.target != Target::Hole {
            self.context.progress.advance(extent.len());
        }
        let mut state = lock(&stream.state);
        if state.hasher.is_none() && state.waiting.len() >= BACKLOG {
            // The thread that has the digest is late already: it would take longer over this piece if it hashed the chunk, too.
            drop(state);
            self.digest_alone(&mut piece)?;
            state = lock(&stream.state);
        }
        state.waiting.insert(number, piece);
        // The thread that has the hasher takes all pieces that wait, this one too.
        let Some(mut hasher) = state.hasher.take() else { return Ok(()) };
        loop {
            let next = state.next;
            let Some(mut piece) = state.waiting.remove(&next) else { break };
            state.next += 1;
            state.lost |= matches!(piece, Piece::Lost);
            let lost = state.lost;
            drop(state);
            match &piece {
                Piece::Zeros(len) if lost => self.context.progress.advance(*len),
                _ if lost => self.digest_alone(&mut piece)?,
                _ => self.take(&mut hasher, &piece)?,
            }
            if let Piece::Bytes(bytes, _) = piece {
                self.reuse(bytes);
            }
            self.gate.leave();
            state = lock(&stream.state);
        }
        if state.next < stream.pieces {
            state.hasher = Some(hasher);
        } else if !state.lost {
            drop(state);
            self.compare(stream.content, hasher.finish())?;
        }
        Ok(())
    }

    /// Checks the raw digest of a chunk that its content cannot be digested beside.
    fn digest_alone(&self, piece: &mut Piece) -> Result<(), Error> {
        if let Piece::Bytes(bytes, due) = piece {
            if let Some(chunk) = due.take() {
                self.check_raw(chunk, sha256(bytes))?;
            }
        }
        Ok(())
    }

    fn take(&self, hasher: &mut ContentHasher, piece: &Piece) -> Result<(), Error> {
        match piece {
            Piece::Bytes(bytes, None) => hasher.update(bytes),
            Piece::Bytes(bytes, Some(chunk)) => self.check_raw(*chunk, hasher.update_and_digest(bytes))?,
            Piece::Zeros(len) => hasher.zeros_until(*len, |part| {
                self.context.progress.advance(part);
                self.context.cancel.check()
            })?,
            Piece::Lost => (),
        }
        Ok(())
    }
}
