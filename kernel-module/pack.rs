// SPDX-License-Identifier: GPL-2.0

//! Step 4 of a read: the stored bytes of chunks, from their pack into private memory.

use kernel::prelude::*;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::{Chunk, ChunkIndex, Image, Metadata, Pack, PackKind, Place};

use crate::error::Failure;
use crate::klib::buffer::Buffer;
use crate::verify::{verify, Trust};
use crate::vfs::backing::{Backing, Bytes};
use crate::vfs::fatal_signal_pending;

/// The packs of an image.
pub(crate) struct Packs {
    /// In the order of the pack table.
    files: Buffer<PackFile>,
}

/// A pack, and what it is read from.
struct PackFile {
    backing: Backing,
    /// Where it begins there.
    start: u64,
    pack: Pack,
}

impl Packs {
    /// Room for the packs of an image.
    pub(crate) fn new(count: u64) -> Result<Self> {
        let count = usize::try_from(count).map_err(|_| EFBIG)?;
        Ok(Self {
            files: Buffer::with_capacity(count)?,
        })
    }

    /// Adds the next one of the pack table.
    pub(crate) fn add(&mut self, backing: Backing, pack: Pack) -> Result {
        let start = match pack.kind {
            PackKind::Embedded => BLOCK_BYTES,
            PackKind::File => 0,
        };
        self.files.push(PackFile {
            backing,
            start,
            pack,
        })
    }

    /// The device of this machine that they lie on; none if it is not one.
    pub(crate) fn device(&self) -> Option<u32> {
        let device = self.files.first()?.backing.device();
        let is_there = |file: &PackFile| file.backing.is_local() && file.backing.device() == device;
        self.files.iter().all(is_there).then_some(device)
    }

    /// The number of filesystems below one that reads them.
    pub(crate) fn stack_depth(&self) -> c_int {
        let depths = self.files.iter().map(|file| file.backing.stack_depth());
        depths.max().unwrap_or(0)
    }

    /// Compares the first chunk that the image has in each pack beside it with its digest, whatever vouches for
    /// the others; the pack where that fails. So a file that is no more than as long as a pack is refused, and
    /// not found when somebody reads.
    pub(crate) fn check_first<M>(&self, image: &Image<'_, M>) -> Result<(), (&Pack, Failure)>
    where
        M: Metadata<Error = Failure>,
    {
        for PackFile { pack, .. } in self.files.iter() {
            let check = || {
                let Some(chunk) = image.first_chunk(pack.index)? else {
                    return Ok(());
                };
                let mut stored = self.read([chunk].into_iter())?;
                for stored in stored.of_each([chunk].into_iter())?.iter_mut() {
                    verify(Trust::Digests, &chunk, stored)?;
                }
                Ok(())
            };
            if pack.kind == PackKind::File {
                check().map_err(|failure| (pack, failure))?;
            }
        }
        Ok(())
    }

    /// Reads the stored bytes of each of `chunks`: those that lie side by side in a pack with one
    /// request. They are not verified yet.
    pub(crate) fn read(&self, chunks: impl Iterator<Item = Chunk>) -> Result<Stored, Failure> {
        let mut runs = Buffer::with_capacity(1)?;
        let mut run: Option<Run<'_>> = None;
        for chunk in chunks {
            if let Some(run) = run.as_mut().filter(|run| run.is_before(&chunk)) {
                run.add(&chunk)?;
                continue;
            }
            // `Chunk::parse` proved that the table has the pack.
            let file = self.files.get(usize::from(chunk.pack.0)).ok_or(EIO)?;
            if let Some(run) = run.replace(Run::new(file, &chunk)?) {
                runs.push(run.read()?)?;
            }
        }
        if let Some(run) = run {
            runs.push(run.read()?)?;
        }
        Ok(Stored { runs })
    }
}

/// Chunks that lie side by side in a pack, and are asked for in this order.
struct Run<'a> {
    file: &'a PackFile,
    first: ChunkIndex,
    start: u64,
    end: u64,
}

impl<'a> Run<'a> {
    fn new(file: &'a PackFile, chunk: &Chunk) -> Result<Self, Failure> {
        let mut run = Self {
            file,
            first: chunk.index,
            start: chunk.offset,
            end: chunk.offset,
        };
        run.add(chunk)?;
        Ok(run)
    }

    /// Whether the chunk begins where the run ends.
    fn is_before(&self, chunk: &Chunk) -> bool {
        self.file.pack.index == chunk.pack && self.end == chunk.offset
    }

    /// Adds the chunk that begins where it ends.
    fn add(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        chunk.check_range(&self.file.pack)?;
        self.end = self.end.saturating_add(chunk.stored_len.into());
        Ok(())
    }

    /// Reads its bytes with one request.
    fn read(&self) -> Result<Bytes, Failure> {
        // Requests to a device cannot be interrupted.
        if fatal_signal_pending() {
            return Err(EINTR.into());
        }
        // OVERFLOW: `check_range` proved the end in the pack, which ends before the tree region, or with its file.
        let pos = self.file.start.saturating_add(self.start);
        let len = usize::try_from(self.end.saturating_sub(self.start)).map_err(|_| EIO)?;
        self.file
            .backing
            .read_once(pos, len)
            .map_err(|error| Failure::backing(Place::Chunk(self.first.0), error))
    }
}

/// The stored bytes of some chunks.
pub(crate) struct Stored {
    /// Of chunks that lie side by side, each.
    runs: Buffer<Bytes>,
}

impl Stored {
    /// The stored bytes of each of `chunks`, which are those that were read.
    pub(crate) fn of_each(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
    ) -> Result<Buffer<&mut [u8]>> {
        let mut each = Buffer::with_capacity(chunks.size_hint().0)?;
        let mut runs = self.runs.iter_mut();
        let mut run: &mut [u8] = &mut [];
        for chunk in chunks {
            if run.is_empty() {
                run = runs.next().ok_or(EIO)?;
            }
            let (stored, rest) = run
                .split_at_mut_checked(usize_from_u32(chunk.stored_len))
                .ok_or(EIO)?;
            each.push(stored)?;
            run = rest;
        }
        Ok(each)
    }
}
