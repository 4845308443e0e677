// SPDX-License-Identifier: GPL-2.0-or-later

//! A tree with more holes than an image may have, told before their zeros are digested.
//!
//! An image's size bounds the holes in files of up to 8 GiB (`FORMAT.md` 4.7), and is known at its end only, when a tree with
//! too many of them has cost minutes. But the walk ends soon: by then it is known how many bytes of data there are at most, how
//! large the image can get at most, and what the holes of those files come to that hardly have anything else.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{plain_holes_max, BLOCK_BYTES, BLOCK_SIZE, DIGEST_SIZE, PLAIN_DIGEST_MAX};
use tesserafs_image::sbom::KEY;

use super::{FileTask, Found, OpenFile, Source, Walked};
use crate::error::{Error, Result};
use crate::tree::Tree;

/// Bytes of a file whose holes are looked for.
const LARGE: u64 = 16 << 20;

/// Bytes of holes that a byte of the image allows.
const HOLES_PER_BYTE: u64 = 64;

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// A source that refuses its tree at the end of the walk, if no image can have its holes.
#[derive(Debug)]
pub struct HoleLimit<'a, S> {
    source: &'a S,
    /// Least bytes of a hole.
    hole_min: u64,
    /// Bytes of the image that do not come from the tree.
    other_bytes: u64,
}

/// The facts that the walk has found so far.
#[derive(Default)]
struct Account {
    /// Bytes of data, at most.
    data: u64,
    /// Files with bytes.
    files: u64,
    /// Bytes of holes in distinct contents, at least.
    holes: u64,
    /// The contents that were counted.
    known: HashSet<[u8; DIGEST_SIZE]>,
}

impl Account {
    /// Bytes that the image has at most.
    fn image_bytes(&self, tree: &Tree, other_bytes: u64) -> u64 {
        let bytes = [
            size_of_val(&tree.attributes[..]),
            size_of_val(&tree.entries[..]),
            tree.names.len(),
            tree.targets.len(),
            size_of_val(&tree.xattr_sets[..]),
            tree.xattr_entries.len(),
        ];
        let tree_bytes: u64 = bytes.iter().map(|len| *len as u64).sum::<u64>() + tree.nodes.len() as u64 * 32;
        // A file has a chunk and a hole more than it has whole blocks of data: less than 300 bytes of records each.
        let map_bytes = (self.data / BLOCK_BYTES + 2 * self.files).saturating_mul(300);
        let metadata = tree_bytes.saturating_add(map_bytes).saturating_add(other_bytes);
        // A hundredth for hashes, and the ends of regions and tables.
        self.data.saturating_add(metadata).saturating_add(metadata / 100).saturating_add(1 << 20)
    }
}

impl<'a, S: Source> HoleLimit<'a, S> {
    /// Guards a source.
    pub fn new(source: &'a S, hole_min: u32, other_bytes: u64) -> Self {
        Self { source, hole_min: hole_min.into(), other_bytes }
    }

    /// Counts a file.
    fn count(&self, task: &FileTask<S::File>, account: &mut Account) -> Result<()> {
        account.files += 1;
        if task.size < LARGE {
            account.data += task.size;
            return Ok(());
        }
        let mut file = self.source.open(task)?;
        let Some(runs) = sparse_runs(&mut file, task.size)? else {
            account.data = account.data.saturating_add(task.size);
            return Ok(());
        };
        account.data += runs.iter().map(|run| run.end - run.start).sum::<u64>();
        if task.size > PLAIN_DIGEST_MAX {
            return Ok(());
        }
        let starts = runs.iter().map(|run| run.start).chain([task.size]);
        let ends = [0].into_iter().chain(runs.iter().map(|run| run.end));
        let holes =
            ends.zip(starts).map(|(end, start)| start - end).filter(|len| *len >= self.hole_min).sum();
        if account.known.insert(identity(&mut file, task.size, &runs)?) {
            account.holes = account.holes.saturating_add(holes);
        }
        Ok(())
    }
}

/// Where a file has data, if that is so little that it does not pay for the holes.
fn sparse_runs(file: &mut impl OpenFile, size: u64) -> Result<Option<Vec<Range<u64>>>> {
    let mut runs = Vec::new();
    let (mut pos, mut data) = (0, 0);
    while pos < size {
        let run = file.data(pos)?;
        pos = run.end;
        if run.is_empty() {
            break;
        }
        data += run.end - run.start;
        if data > size / HOLES_PER_BYTE {
            return Ok(None);
        }
        runs.push(run);
    }
    Ok(Some(runs))
}

/// A digest that equal contents share, and others do not: of the size and of all blocks that are not zero.
fn identity(file: &mut impl OpenFile, size: u64, runs: &[Range<u64>]) -> Result<[u8; DIGEST_SIZE]> {
    let mut hasher = Sha256::new();
    hasher.update(size.to_le_bytes());
    let mut buffer = Vec::new();
    for run in runs {
        let mut at = run.start;
        while at < run.end {
            let end = run.end.min(at + PIECE);
            buffer.clear();
            file.read(at..end, &mut buffer)?;
            for (block, bytes) in (at / BLOCK_BYTES..).zip(buffer.chunks(BLOCK_SIZE)) {
                if bytes.iter().any(|byte| *byte != 0) {
                    hasher.update(block.to_le_bytes());
                    hasher.update(bytes);
                }
            }
            at = end;
        }
    }
    Ok(hasher.finalize().into())
}

impl<S: Source> Source for HoleLimit<'_, S> {
    type File = S::File;
    type Open<'b>
        = S::Open<'b>
    where
        Self: 'b;

    fn files_at_most(&self) -> usize {
        self.source.files_at_most()
    }

    fn walk(&self, found: Found<'_, S::File>) -> Result<Walked> {
        let mut account = Account::default();
        let walked = self.source.walk(&mut |task| {
            self.count(&task, &mut account)?;
            found(task)
        })?;
        let sbom_bytes =
            walked.sbom.as_ref().map_or(0, |sbom| (sbom.document.json.len() + KEY.len() + 16) as u64);
        let image_bytes = account.image_bytes(&walked.tree, self.other_bytes.saturating_add(sbom_bytes));
        if account.holes > plain_holes_max(image_bytes) {
            return Err(Error::TooMany(TOO_MANY));
        }
        Ok(walked)
    }

    fn open<'b>(&'b self, task: &'b FileTask<S::File>) -> Result<S::Open<'b>> {
        self.source.open(task)
    }

    fn read_each<'b>(&'b self, tasks: &'b [FileTask<S::File>]) -> Result<Vec<(S::Open<'b>, Vec<u8>)>> {
        self.source.read_each(tasks)
    }

    fn close(&self) -> Result<()> {
        self.source.close()
    }

    fn path(&self, task: &FileTask<S::File>) -> PathBuf {
        self.source.path(task)
    }
}

/// The limit that a tree with too many holes passes, in words.
pub(crate) const TOO_MANY: &str =
    "bytes of holes in files of up to 8 GiB (64 GiB, and 64 times its own size; --exclude leaves files out)";
