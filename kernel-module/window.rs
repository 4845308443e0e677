// SPDX-License-Identifier: GPL-2.0

//! Step 1 of a read: which bytes of a file are read together.
//!
//! A chunk is decoded as a whole, or nearly so. A reader that needs one page of it gets the pages
//! around that page for the price of a copy.

use core::ops::Range;

use kernel::prelude::*;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::num::u64_from_usize;
use tesserafs_format::{Extent, Target};

use crate::error::Failure;
use crate::read::Reader;
use crate::vfs::address_space::ReadAhead;

/// Bytes of a readahead window that is wide enough: the rest of a chunk at either end waits in the
/// chunk cache for the next window.
///
/// The page cache widens a window by single pages, and the next one begins behind them, out of
/// alignment. When a file of 33 MB is read from its beginning to its end, 29 % of it do not get
/// into large folios without a copy if every window is widened, and 12 % if none of this width is.
const WIDE: usize = 256 << 10;

impl Reader<'_> {
    /// Widens a readahead window to what is decoded for it, unless it is wide.
    ///
    /// A window of one page is a small `read()` at a random place. If the rest of its chunk is wanted
    /// later, all of the chunk is decoded then, and kept for a while.
    pub(crate) fn widen(&self, window: &mut ReadAhead<'_>) -> Result<(), Failure> {
        if !(BLOCK_SIZE + 1..WIDE).contains(&window.len()) {
            return Ok(());
        }
        let pos = window.pos();
        let behind = pos.saturating_add(u64_from_usize(window.len()));
        let range = self.decoded_with(pos..behind.min(self.size))?;
        let behind = behind.max(range.end);
        let len = |from: u64| usize::try_from(behind.saturating_sub(from)).unwrap_or(0);
        // The end first: the page cache gives up at the first page that is there already, and the
        // page in which a chunk begins was part of the window before.
        window.expand(pos, len(pos));
        window.expand(range.start, len(range.start));
        Ok(())
    }

    /// `range`, widened to the pages that lie as a whole in the extents at its ends: their chunks are
    /// decoded for `range` anyway. A page that needs another chunk, too, is not among them.
    pub(crate) fn decoded_with(&self, range: Range<u64>) -> Result<Range<u64>, Failure> {
        let Some(extents) = self.extents.filter(|_| !range.is_empty()) else {
            return Ok(range);
        };
        // A hole costs nothing now and nothing later.
        let is_data = |extent: &Extent| extent.target != Target::Hole;
        let first = self.image.extent_at(&extents, range.start)?;
        let last = range.end.saturating_sub(1);
        let last = self.image.extent_at(&extents, last)?;
        let start = Some(first)
            .filter(is_data)
            .and_then(|first| first.start.checked_next_multiple_of(BLOCK_BYTES))
            .map_or(range.start, |start| start.min(range.start));
        let end = Some(last)
            .filter(is_data)
            .map(|last| self.last_whole_page(last.end))
            .map_or(range.end, |end| end.max(range.end));
        Ok(start..end)
    }

    /// The end of the last page that lies as a whole before `end`, or holds the end of the file.
    fn last_whole_page(&self, end: u64) -> u64 {
        if end >= self.size {
            return end;
        }
        end.saturating_sub(end % BLOCK_BYTES)
    }
}
