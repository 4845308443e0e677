// SPDX-License-Identifier: GPL-2.0-or-later

//! The work: packs, chunks with the contents in them, extents of contents of several, and the chunks that are left.

use std::sync::Arc;

use tesserafs_format::extent::Extents;
use tesserafs_format::{ContentIndex, Extent, Target};

use super::stream::Stream;
use super::{lock, Data};
use crate::check_map::Bits;
use tesserafs_image::error::Error;
use tesserafs_image::{text, walk};

/// The work that is still to be done.
pub(super) struct Jobs<'a> {
    pack: usize,
    content: u32,
    /// Contents whose extents are being given out, and the next one of each.
    streams: Vec<(Arc<Stream<'a>>, Extents, u32)>,
    /// Chunks that were given out for the contents in them.
    shared: Bits,
    rest: u32,
}

/// A part of the work.
pub(super) enum Job<'a> {
    /// The digest of a pack.
    Pack(usize),
    /// A chunk, with the contents that lie in it.
    Shared(u32),
    /// An extent of a content of several.
    Piece(Arc<Stream<'a>>, Extent, u32),
    /// A chunk that no content which can be followed uses.
    Rest(u32),
}

impl Jobs<'_> {
    /// All of it; the image has so many chunks.
    pub(super) fn new(chunks: u64) -> Result<Self, Error> {
        let shared = Bits::new(chunks, "a bit for each chunk")?;
        Ok(Self { pack: 0, content: 0, streams: Vec::new(), shared, rest: 0 })
    }
}

impl<'a> Data<'a> {
    /// The next job; `None` where there is none left. `own` is the content of several extents that the thread is at: it goes on with
    /// that one, as the digest then takes each piece when it is decoded.
    pub(super) fn next_job(&self, own: &mut Option<u32>) -> Result<Option<Job<'a>>, Error> {
        let mut guard = lock(&self.jobs);
        let jobs = &mut *guard;
        if jobs.pack < self.packs.len() {
            jobs.pack += 1;
            return Ok(Some(Job::Pack(jobs.pack - 1)));
        }
        loop {
            let at = jobs.streams.iter().position(|(stream, ..)| *own == Some(stream.content));
            if let Some(piece) = at.map(|at| self.next_piece(jobs, at)).transpose()?.flatten() {
                return Ok(Some(piece));
            }
            *own = None;
            let Some(size) = self.tree.sizes.get(jobs.content as usize) else { break };
            let content = ContentIndex(jobs.content);
            jobs.content += 1;
            if self.map.broken.get(content.0) || self.map.too_many_holes {
                continue;
            }
            let Some(extents) = self.context.note(self.context.image.extents(content, *size))? else {
                continue;
            };
            if extents.end - extents.first == 1 {
                let extent = self.context.note(self.context.image.extent(&extents, extents.first))?;
                if let Some(Extent { target: Target::Chunk { index, .. }, .. }) = extent {
                    if jobs.shared.set(index.0) {
                        return Ok(Some(Job::Shared(index.0)));
                    }
                    continue;
                }
            }
            let pieces = extents.end - extents.first;
            let step = self.context.step(*size, || {
                let path = walk::content_path(self.context, self.tree, content.0);
                format!("digesting {}", text::escape(&path.unwrap_or_default()))
            });
            let stream = Stream::new(content.0, *size, pieces, step);
            jobs.streams.push((Arc::new(stream), extents, extents.first));
            *own = Some(content.0);
        }
        while let Some(last) = jobs.streams.len().checked_sub(1) {
            if let Some(piece) = self.next_piece(jobs, last)? {
                return Ok(Some(piece));
            }
        }
        while u64::from(jobs.rest) < self.context.image.sb.layout.chunks.records() {
            let chunk = jobs.rest;
            jobs.rest += 1;
            if self.map.sound.get(chunk) && !self.seen.get(chunk) {
                return Ok(Some(Job::Rest(chunk)));
            }
        }
        Ok(None)
    }

    /// The next extent of a content that is being given out. Where there is none, the content is given out.
    fn next_piece(&self, jobs: &mut Jobs<'a>, at: usize) -> Result<Option<Job<'a>>, Error> {
        let Some((stream, extents, next)) = jobs.streams.get_mut(at) else { return Ok(None) };
        if *next < extents.end {
            let extent = self.context.note(self.context.image.extent(extents, *next))?;
            let number = *next - extents.first;
            *next += 1;
            // One that cannot be read could be before: the file changed meanwhile.
            if let Some(extent) = extent {
                return Ok(Some(Job::Piece(stream.clone(), extent, number)));
            }
        }
        jobs.streams.swap_remove(at);
        Ok(None)
    }
}
