// SPDX-License-Identifier: GPL-2.0-or-later

//! Bytes of a pack that no chunk of the image has: only the digest of the whole pack proves them. They are chunks of other images that name
//! the pack, whose tables say so where they are among the files of `--from`; else they come from another copy of the pack, or a bundle.

use std::collections::HashSet;

use tesserafs_format::{Chunk, PackKind};

use super::donor::{count, read_all};
use super::fill::Fill;
use super::places::{digest, gaps, read_chunk, PackPlace};
use super::report::LostDead;
use super::supply::{Fetched, Tools, Wanted};
use super::work::Work;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// Pack 0 is full of chunks in all images that a builder makes. Where it is not, its digest tells whether its other bytes are right.
pub(super) fn look_at_pack_0(places: &mut [PackPlace], chunks: &[Chunk], progress: &dyn Progress) {
    for place in places.iter_mut().filter(|place| place.pack.kind == PackKind::Embedded) {
        if gaps(&place.pack, chunks).is_empty() {
            continue;
        }
        progress.found(place.pack.bytes);
        let found =
            place.source.as_ref().and_then(|source| digest(source, place.start, place.pack.bytes, progress));
        place.is_damaged = found != Some(place.pack.digest);
    }
}

/// Completes a pack whose chunks are all there. The answer is what cannot be had of it.
pub(super) fn complete(fill: &Fill<'_>, place: &PackPlace) -> Result<Option<LostDead>> {
    let pack = &place.pack;
    let Some((file, start)) = fill.file(pack.index.0) else { return Ok(None) };
    let gaps = gaps(pack, &fill.tables.chunks);
    let new = Pack { fill, place, file, start, gaps };
    let has_own = new.gaps.last().is_none_or(|(_, end)| {
        place.source.as_ref().is_some_and(|source| source.len() >= place.start.saturating_add(*end))
    });
    if has_own && new.is_right()? || new.by_tables()? || new.by_copies()? || new.by_bundles()? {
        return Ok(None);
    }
    if new.gaps.is_empty() {
        let reason = format!(
            "has all chunks that the image says, and not the digest {}: no repair makes that right",
            pack.digest
        );
        return Err(Error::unsupported(file.target(), reason));
    }
    let bytes = new.gaps.iter().map(|(start, end)| end - start).sum();
    Ok(Some(LostDead { pack: pack.digest.to_string(), bytes }))
}

/// A pack that is completed.
struct Pack<'p, 'a> {
    fill: &'p Fill<'a>,
    place: &'p PackPlace,
    file: &'p Work,
    /// Where the pack begins in it.
    start: u64,
    /// The ranges that no chunk of the image has.
    gaps: Vec<(u64, u64)>,
}

impl Pack<'_, '_> {
    fn is_right(&self) -> Result<bool> {
        let pack = &self.place.pack;
        self.fill.progress.found(pack.bytes);
        let source = self.file.source()?;
        Ok(digest(&source, self.start, pack.bytes, self.fill.progress) == Some(pack.digest))
    }

    /// By the chunks that other images have in it.
    fn by_tables(&self) -> Result<bool> {
        let is_in_gap = |wanted: &Wanted| {
            let end = wanted.chunk.offset.saturating_add(wanted.chunk.stored_len.into());
            let at = self.gaps.partition_point(|(start, _)| *start <= wanted.chunk.offset);
            at.checked_sub(1).is_some_and(|at| end <= self.gaps[at].1)
        };
        let mut wanted = self.fill.supply.chunks_of_pack(self.place.pack.digest);
        wanted.retain(is_in_gap);
        let new = self.file.source()?;
        let mut stored = Vec::new();
        wanted.retain(|wanted| !read_chunk(&new, self.start, &wanted.chunk, &mut stored));
        if wanted.is_empty() {
            return Ok(false);
        }
        let known = self.fill.supply.locate(&wanted);
        let mut tools = Tools::new(self.fill.head.sb.profile.level)?;
        let pack = usize::from(self.place.pack.index.0);
        for (wanted, known) in wanted.iter().zip(&known) {
            if let Fetched::Stored(stored) = self.fill.supply.fetch(pack, wanted, known, &mut tools)? {
                self.file.write(self.start + wanted.chunk.offset, &stored)?;
            }
        }
        self.is_right()
    }

    /// By other files that have the pack.
    fn by_copies(&self) -> Result<bool> {
        let mut piece = vec![0; PIECE as usize];
        for copy in &self.fill.supply.copies[usize::from(self.place.pack.index.0)] {
            let mut bytes = 0;
            let mut is_there = true;
            for (from, end) in &self.gaps {
                let mut at = *from;
                while at < *end && is_there {
                    let piece = &mut piece[..PIECE.min(end - at) as usize];
                    is_there = read_all(&copy.source, copy.start + at, piece);
                    if is_there {
                        self.file.write(self.start + at, piece)?;
                    }
                    at += piece.len() as u64;
                    bytes += piece.len() as u64;
                }
            }
            if is_there && self.is_right()? {
                count(&self.fill.donors[copy.donor].taken.dead_bytes, bytes);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// By bundles that make the image.
    fn by_bundles(&self) -> Result<bool> {
        let own = self.place.pack.index.0;
        for donor in self.fill.donors.iter().filter(|donor| donor.bundle_of(self.fill.head.id).is_some()) {
            let bytes = std::cell::Cell::new(0);
            let take_gap = |pack: u16, offset: u64, gap: &[u8]| {
                if pack != own {
                    return Ok(());
                }
                bytes.set(bytes.get() + gap.len() as u64);
                self.file.write(self.start + offset, gap)
            };
            self.fill.search(donor, None, &HashSet::new(), &|_, _| Ok(()), &take_gap)?;
            if bytes.get() > 0 && self.is_right()? {
                count(&donor.taken.dead_bytes, bytes.get());
                return Ok(true);
            }
        }
        Ok(false)
    }
}
