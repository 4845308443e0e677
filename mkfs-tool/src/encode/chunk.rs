// SPDX-License-Identifier: GPL-2.0-or-later

//! The messages between workers and the sequencer: windows of files, chunks to compress, chunks compressed, events of files.

use std::ops::Range;
use std::sync::Arc;

use tesserafs_format::{Codec, Digest};

use super::permit::Permit;
use crate::chunker::Summary;

/// The index of a chunk that has none yet.
pub(super) const UNNUMBERED: u32 = u32::MAX;

/// Bytes of a file that chunks refer to.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) _permit: Permit,
}

/// A chunk to compress.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) window: Arc<Window>,
    pub(super) range: Range<usize>,
    /// The digest of its raw bytes.
    pub(super) digest: Digest,
    /// Nobody else may compress the chunk.
    pub(super) claimed: bool,
}

/// News about a file, from a worker to the sequencer.
#[derive(Debug)]
pub(super) enum Event {
    Chunk {
        start: u64,
        len: u32,
        digest: Digest,
    },
    Hole {
        start: u64,
    },
    /// The whole of a small content.
    Small {
        window: Arc<Window>,
    },
    /// The content is complete.
    End(Summary),
}

/// A chunk after compression.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) bytes: StoredBytes,
    pub(super) codec: Codec,
    pub(super) raw_len: u32,
    pub(super) digest: Digest,
    pub(super) _permit: Permit,
}

/// Where the bytes of a chunk after compression are.
#[derive(Debug)]
pub(super) enum StoredBytes {
    Compressed(Vec<u8>),
    /// Where they were read.
    Plain(Arc<Window>, Range<usize>),
}

impl Stored {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            StoredBytes::Compressed(bytes) => bytes,
            StoredBytes::Plain(window, range) => &window.bytes[range.clone()],
        }
    }
}

/// How far a chunk is.
#[derive(Debug)]
pub(super) enum Progressed {
    /// A job for it waits.
    Unclaimed,
    /// Somebody compresses it.
    Claimed,
    Ready(Box<Stored>),
    Written,
}

#[derive(Debug)]
pub(super) struct ChunkState {
    pub(super) index: u32,
    pub(super) stored: Progressed,
}

/// A file that is being read: its events that the sequencer has not taken yet.
#[derive(Debug)]
pub(super) struct FileEvents {
    pub(super) ino: u32,
    pub(super) size: u64,
    pub(super) events: Vec<Event>,
}

impl FileEvents {
    /// Whether no more of them will come.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.events.last(), Some(Event::End(_)))
    }
}
