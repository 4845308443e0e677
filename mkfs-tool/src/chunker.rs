// SPDX-License-Identifier: GPL-2.0

//! Where contents are cut: holes, content-defined chunks, and the ends of groups (`FORMAT.md` 5.1 to 5.3).
//!
//! Everything here is a function of the bytes and the profile: how the bytes arrive makes no difference.

use std::ops::Range;
use std::sync::Arc;

use fastcdc::v2020;
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{BLOCK_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_format::{Digest, Profile};

/// What the digest of a content above [`PLAIN_DIGEST_MAX`] begins with.
const SPARSE_TAG: &[u8; 16] = b"TESSRAFS-SPARSE\0";

/// A block of zeros to compare with.
const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// Whether a block, or a last shorter one, is all zero.
fn is_zero(block: &[u8]) -> bool {
    // Data is told from zeros by its first word nearly always.
    block.first() == Some(&0) && block == &ZEROS[..block.len()]
}

/// The cut points of FastCDC for a profile.
#[derive(Clone, Copy, Debug)]
pub struct FastCdc {
    min: usize,
    avg: usize,
    max: usize,
    mask_s: u64,
    mask_l: u64,
}

impl FastCdc {
    /// The cut points of `profile`.
    pub fn new(profile: &Profile) -> Self {
        let (mask_s, mask_l) = v2020::select_masks(profile.chunk_avg as usize, v2020::Normalization::Level1);
        Self {
            min: profile.chunk_min as usize,
            avg: profile.chunk_avg as usize,
            max: profile.chunk_max as usize,
            mask_s,
            mask_l,
        }
    }

    /// The length of the first chunk of `segment`, the rest of a segment or `chunk_max` bytes of it at least.
    fn first(&self, segment: &[u8]) -> usize {
        let (_, len) = v2020::cut(
            segment,
            self.min,
            self.avg,
            self.max,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
        );
        len
    }
}

/// A part of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Zeros that are stored nowhere.
    Hole {
        /// First byte in the content.
        start: u64,
    },
    /// A chunk.
    Chunk {
        /// First byte in the content.
        start: u64,
        /// Its bytes in the window that it was cut from.
        range: Range<usize>,
    },
}

/// Cuts one content that arrives in windows.
///
/// # Invariants
///
/// `window` begins at byte `window_start` of the content. Its first `scanned` bytes were looked at; the last
/// `zero_run` bytes before that point are zero blocks, of which the window holds all, or, `in_hole`, none.
#[derive(Debug)]
pub struct Cutter {
    cdc: FastCdc,
    hole_min: u64,
    window: Vec<u8>,
    window_start: u64,
    scanned: usize,
    zero_run: u64,
    in_hole: bool,
}

impl Cutter {
    /// A cutter at the start of a content.
    pub fn new(cdc: FastCdc, profile: &Profile) -> Self {
        Self {
            cdc,
            hole_min: profile.hole_min.into(),
            window: Vec::new(),
            window_start: 0,
            scanned: 0,
            zero_run: 0,
            in_hole: false,
        }
    }

    /// The bytes that are still to be cut. The caller appends to it: whole blocks, but for the end of the content.
    pub fn window(&mut self) -> &mut Vec<u8> {
        &mut self.window
    }

    /// Cuts what can be cut, and gives back the window that the pieces refer to; with `last`, everything.
    /// What is left begins the next window, with room for `room` bytes more.
    pub fn advance(&mut self, last: bool, room: usize, pieces: &mut Vec<Piece>) -> Arc<Vec<u8>> {
        let window = std::mem::take(&mut self.window);
        let mut uncut = 0;
        for block in window[self.scanned..].chunks(BLOCK_SIZE) {
            let at = self.scanned;
            self.scanned += block.len();
            if is_zero(block) {
                self.zero_run += block.len() as u64;
                self.open_hole(&window, &mut uncut, pieces);
            } else {
                self.close_hole(at, &mut uncut, pieces);
            }
        }
        if self.in_hole {
            uncut = self.scanned;
            if last {
                pieces.push(Piece::Hole { start: self.window_start + self.scanned as u64 - self.zero_run });
            }
        } else if last {
            self.cut(&window, uncut..self.scanned, pieces);
            uncut = self.scanned;
        } else {
            // Zeros at the end may turn out to be a hole, and so the end of the segment.
            let sure = self.scanned - self.zero_run as usize;
            while sure - uncut >= self.cdc.max {
                uncut = self.cut_one(&window, uncut..sure, pieces);
            }
        }
        // INVARIANT: the next window begins with what was scanned and not cut.
        let rest = &window[uncut..];
        self.window = Vec::with_capacity(if last { 0 } else { rest.len() + room });
        self.window.extend_from_slice(rest);
        self.window_start += uncut as u64;
        self.scanned -= uncut;
        Arc::new(window)
    }

    /// Takes `len` zero bytes that nobody read, whole blocks but for the end of the content. They follow the window.
    /// The caller has called [`advance`](Self::advance) since it last appended.
    pub fn skip_zeros(&mut self, len: u64, pieces: &mut Vec<Piece>) -> Option<Arc<Vec<u8>>> {
        if !self.in_hole && self.zero_run + len < self.hole_min {
            // Too few for a hole; `hole_min` bounds the memory.
            self.window.resize(self.window.len() + len as usize, 0);
            return None;
        }
        self.zero_run += len;
        let window = std::mem::take(&mut self.window);
        if !self.in_hole {
            let kept = window.len() - (self.zero_run - len) as usize;
            self.cut(&window, 0..kept, pieces);
            self.in_hole = true;
        }
        // INVARIANT: the window is empty, and all of the run is in the hole.
        self.window_start += window.len() as u64 + len;
        self.scanned = 0;
        Some(Arc::new(window))
    }

    /// Ends the segment where the zeros before `scanned` begin, once they are enough for a hole.
    fn open_hole(&mut self, window: &[u8], uncut: &mut usize, pieces: &mut Vec<Piece>) {
        if !self.in_hole && self.zero_run >= self.hole_min {
            let end = self.scanned - self.zero_run as usize;
            self.cut(window, *uncut..end, pieces);
            self.in_hole = true;
        }
    }

    /// Ends a hole before data that begins at byte `at` of the window.
    fn close_hole(&mut self, at: usize, uncut: &mut usize, pieces: &mut Vec<Piece>) {
        if self.in_hole {
            pieces.push(Piece::Hole { start: self.window_start + at as u64 - self.zero_run });
            self.in_hole = false;
            *uncut = at;
        }
        self.zero_run = 0;
    }

    /// Cuts the rest of a segment into chunks.
    fn cut(&self, window: &[u8], mut rest: Range<usize>, pieces: &mut Vec<Piece>) {
        while !rest.is_empty() {
            rest.start = self.cut_one(window, rest.clone(), pieces);
        }
    }

    /// Cuts one chunk; where it ends.
    fn cut_one(&self, window: &[u8], rest: Range<usize>, pieces: &mut Vec<Piece>) -> usize {
        let end = rest.start + self.cdc.first(&window[rest.clone()]);
        pieces.push(Piece::Chunk { start: self.window_start + rest.start as u64, range: rest.start..end });
        end
    }
}

/// The digest of a content, whose bytes arrive in order (`FORMAT.md` 4.7).
pub struct ContentHasher {
    hash: Sha256,
    sparse: Option<SparseRun>,
}

/// Where a digest over the data runs of a huge content stands.
struct SparseRun {
    pos: u64,
    /// Where the current run of non-zero blocks began.
    start: Option<u64>,
}

impl ContentHasher {
    /// A hasher for a content of `size` bytes.
    pub fn new(size: u64) -> Self {
        let mut hash = Sha256::new();
        let sparse = (size > PLAIN_DIGEST_MAX).then(|| {
            hash.update(SPARSE_TAG);
            hash.update(size.to_le_bytes());
            SparseRun { pos: 0, start: None }
        });
        Self { hash, sparse }
    }

    /// The next bytes: whole blocks, but for the end of the content.
    pub fn data(&mut self, bytes: &[u8]) {
        let Some(run) = &mut self.sparse else {
            self.hash.update(bytes);
            return;
        };
        for block in bytes.chunks(BLOCK_SIZE) {
            if is_zero(block) {
                run.end(&mut self.hash);
            } else {
                if run.start.is_none() {
                    run.start = Some(run.pos);
                    self.hash.update(run.pos.to_le_bytes());
                }
                self.hash.update(block);
            }
            run.pos += block.len() as u64;
        }
    }

    /// The next `len` bytes are zero: whole blocks, but for the end of the content.
    pub fn zeros(&mut self, mut len: u64) {
        if let Some(run) = &mut self.sparse {
            run.end(&mut self.hash);
            run.pos += len;
            return;
        }
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while len > 0 {
            let part = len.min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..part as usize]);
            len -= part;
        }
    }

    /// The digest.
    pub fn finish(mut self) -> Digest {
        if let Some(run) = &mut self.sparse {
            run.end(&mut self.hash);
        }
        Digest(self.hash.finalize().into())
    }
}

impl SparseRun {
    fn end(&mut self, hash: &mut Sha256) {
        if let Some(start) = self.start.take() {
            hash.update((self.pos - start).to_le_bytes());
        }
    }
}

/// The open group: small contents one after the other.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
}

/// What to do with the open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEnd {
    /// The next content still belongs to it.
    Open,
    /// It ends here.
    Closed,
}

impl Group {
    /// Whether `len` more bytes would make the group too long: then it is to be closed first.
    pub fn is_full(&self, len: usize, profile: &Profile) -> bool {
        !self.bytes.is_empty() && self.bytes.len() + len > 2 * profile.group_size as usize
    }

    /// Appends a content; where it begins, and whether the group ends behind it.
    pub fn append(&mut self, content: &[u8], digest: &Digest, profile: &Profile) -> (u32, GroupEnd) {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(content);
        let [a, b, c, d, ..] = digest.0;
        let h = u64::from(u32::from_le_bytes([a, b, c, d]));
        let size = u64::from(profile.group_size);
        let chosen = h * size < (content.len() as u64) << 33;
        let long = self.bytes.len() as u64 >= size / 2;
        (offset, if long && chosen { GroupEnd::Closed } else { GroupEnd::Open })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes; an empty group begins.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
