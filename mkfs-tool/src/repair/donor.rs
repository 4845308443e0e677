// SPDX-License-Identifier: GPL-2.0-or-later

//! The files that good bytes are looked for in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::metadata::Block;
use tesserafs_image::Source;

use crate::bundle::salvage;
use crate::bundle::stream::{Header, MAGIC};
use crate::encode::Sha2;
use crate::error::Result;

/// A file that good bytes are looked for in.
pub(super) struct Donor {
    pub(super) source: Arc<Source>,
    pub(super) kind: Kind,
    /// How often it had what was wanted.
    pub(super) taken: Taken,
    notes: Mutex<BTreeSet<String>>,
}

/// The kind of a file, by its first bytes.
pub(super) enum Kind {
    /// An image, whose metadata can be followed.
    Image {
        /// Its image ID.
        id: Digest,
        /// Its superblock.
        sb: Box<SuperBlock>,
    },
    /// A bundle.
    Bundle(Header),
    /// A pack; or an image whose first bytes are damaged. Its bytes count where they are at the same offset as those that are wanted.
    Other,
}

/// Counts of the bytes and blocks that were taken from a file.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The first block of the image, and its signature.
    pub(super) heads: AtomicU64,
    /// Blocks of metadata.
    pub(super) blocks: AtomicU64,
    /// Chunks, as they are stored.
    pub(super) chunks: AtomicU64,
    /// Chunks whose raw bytes it had.
    pub(super) encoded: AtomicU64,
    /// Bytes of packs that no chunk of the image has.
    pub(super) dead_bytes: AtomicU64,
}

/// Counts one more.
pub(super) fn count(taken: &AtomicU64, more: u64) {
    taken.fetch_add(more, Ordering::Relaxed);
}

impl Donor {
    /// Opens a file, and looks what it is.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let mut block = Box::new([0; BLOCK_SIZE]);
        read_some(&source, 0, block.as_mut());
        let mut notes = BTreeSet::new();
        let kind = if block.starts_with(&MAGIC) {
            match salvage::header(&source) {
                Ok(header) => Kind::Bundle(header),
                Err(error) => {
                    notes.insert(format!("not used: {error}"));
                    Kind::Other
                }
            }
        } else {
            match (check_prefix::<Sha2>(&block), SuperBlock::parse(&block)) {
                (Ok(id), Ok(sb)) => Kind::Image { id, sb: Box::new(sb) },
                _ => Kind::Other,
            }
        };
        Ok(Self { source, kind, taken: Taken::default(), notes: Mutex::new(notes) })
    }

    pub(super) fn path(&self) -> &Path {
        self.source.path()
    }

    /// Its superblock, if it is the image with this ID.
    pub(super) fn image_of(&self, id: Digest) -> Option<&SuperBlock> {
        self.image().filter(|(own, _)| *own == id).map(|(_, sb)| sb)
    }

    /// Where packs beside it are.
    pub(super) fn dir(&self) -> PathBuf {
        self.path().parent().unwrap_or(Path::new("")).to_owned()
    }

    /// Its image ID, and its superblock, if it is an image.
    pub(super) fn image(&self) -> Option<(Digest, &SuperBlock)> {
        match &self.kind {
            Kind::Image { id, sb } => Some((*id, sb)),
            _ => None,
        }
    }

    /// Its header, if it is a bundle that makes the image with this ID.
    pub(super) fn bundle_of(&self, id: Digest) -> Option<&Header> {
        match &self.kind {
            Kind::Bundle(header) if header.new == id => Some(header),
            _ => None,
        }
    }

    /// Whether its bytes may be those of the image with this ID, at the same offsets.
    pub(super) fn may_be_copy_of(&self, id: Digest) -> bool {
        match &self.kind {
            Kind::Image { id: own, .. } => *own == id,
            Kind::Bundle(_) => false,
            Kind::Other => true,
        }
    }

    /// Says once why something of it cannot be used.
    pub(super) fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(note);
    }

    /// The notes that were made.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Where packs are looked for: beside these files, and in `pack_dir`.
pub(super) fn dirs(donors: &[Donor], pack_dir: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in donors.iter().map(Donor::dir).chain([pack_dir.to_owned()]) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// Fills `bytes` with those from `offset` of a file that may be damaged; whether it has all of them.
pub(super) fn read_all(source: &Source, offset: u64, bytes: &mut [u8]) -> bool {
    let ends = offset.checked_add(bytes.len() as u64);
    ends.is_some_and(|end| end <= source.len()) && source.read_at(offset, bytes).is_ok()
}

/// The same as far as the file has them; zeros stand for those that it has not, or that its disk does not give.
pub(super) fn read_some(source: &Source, offset: u64, bytes: &mut [u8]) {
    let there = source.len().saturating_sub(offset).min(bytes.len() as u64) as usize;
    let (there, behind) = bytes.split_at_mut(there);
    behind.fill(0);
    if !there.is_empty() && source.read_at(offset, there).is_err() {
        for (at, piece) in (offset..).step_by(BLOCK_SIZE).zip(there.chunks_mut(BLOCK_SIZE)) {
            if source.read_at(at, piece).is_err() {
                piece.fill(0);
            }
        }
    }
}

/// The first block of a file, as far as it has one.
pub(super) fn first_block(source: &Source) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    read_some(source, 0, block.as_mut());
    block
}

/// Whether all bytes of a range are zeros, and there.
pub(super) fn are_zeros(source: &Source, start: u64, end: u64) -> bool {
    let mut piece = vec![0; BLOCK_SIZE];
    let mut at = start;
    while at < end {
        let piece = &mut piece[..(end - at).min(BLOCK_BYTES) as usize];
        if !read_all(source, at, piece) || piece.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += piece.len() as u64;
    }
    true
}
