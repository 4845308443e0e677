// SPDX-License-Identifier: GPL-2.0-or-later

//! From two images to a bundle.

use std::io::BufWriter;
use std::time::Instant;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_image::packs::DataError;
use tesserafs_image::{superblock, Cancel, Source};

use super::bases::Bases;
use super::covers::Covers;
use super::matches::Matches;
use super::piece::{cut, Both, How};
use super::rebuild::digests;
use super::side::{RawReader, Side};
use super::stream::{Header, Kind, Writer};
use super::tables::{self, groups, padding, Span};
use super::wanted::Wanted;
use super::{at_once, head, in_pool, BundleReport, BundleRequest};
use crate::convert::broken;
use crate::encode::{sha256, zstd_version};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::progress::Progress;

/// Threads at levels up to 19, at most: two of them have taken 250 MB, with all that the program has; and above.
const THREADS_MAX: usize = 6;
const SLOW_THREADS_MAX: usize = 2;

/// Makes a bundle.
pub fn create(request: &BundleRequest, progress: &dyn Progress) -> Result<BundleReport> {
    in_pool(if request.level > 19 { SLOW_THREADS_MAX } else { THREADS_MAX }, || {
        create_bundle(request, progress)
    })
}

fn create_bundle(request: &BundleRequest, progress: &dyn Progress) -> Result<BundleReport> {
    let started = Instant::now();
    let output = Output::create(&request.output, request.force)?;
    let sources = [Source::open(&request.old)?, Source::open(&request.new)?];
    let read = |source: &Source| superblock::read_head(source).map_err(broken(source.path()));
    let heads = [read(&sources[0])?, read(&sources[1])?];
    let pack_dir = request.pack_dir.as_deref();
    let old = Side::open(&sources[0], &heads[0].sb, pack_dir)?;
    let new = Side::open(&sources[1], &heads[1].sb, pack_dir)?;
    let matches = Matches::find(&old.tables, &new.tables);
    let wanted = Wanted::new(&old.tables, &new.tables, &matches);
    check(&new, &sources[1], &wanted, &matches)?;

    let header = Header {
        old: heads[0].id,
        new: heads[1].id,
        portable: request.portable,
        zstd_version: zstd_version(),
    };
    let at = |error| Error::io("write", &request.output)(error);
    let out = BufWriter::new(output.file()?);
    let mut writer = Writer::new(out, &header).map_err(at)?;
    writer.section(Kind::Head, &head::encode(&heads[1], &sources[1])?).map_err(at)?;
    let mut metadata_bytes = 0;
    for group in groups(&old.superblock().layout, &new.superblock().layout) {
        let section = tables::encode(&group, |span| new.metadata(span), |span| old.metadata(span))?;
        metadata_bytes += section.len() as u64;
        writer.section(Kind::Table, &section).map_err(at)?;
    }
    for section in matches.encode()? {
        metadata_bytes += section.len() as u64;
        writer.section(Kind::Match, &section).map_err(at)?;
    }
    for gap in &wanted.gaps {
        for (offset, len) in gap.sections() {
            let mut bytes = vec![0; len as usize];
            new.packs.read_bytes(gap.pack, offset, &mut bytes).map_err(broken(new.path))?;
            writer.section(Kind::Gap, &bytes).map_err(at)?;
        }
    }

    let bases = match request.portable {
        true => Bases::default(),
        false => Bases::find(&old, &new, &matches, &wanted.lacking)?,
    };
    let covers = Covers::find(&new.tables, &matches, &wanted.lacking);
    let both = Both { old: &old, new: &new, covers: &covers, bases: &bases };
    let how = How { portable: request.portable, level: request.level };
    let pieces = cut(&new.tables, &covers, &wanted.lacking);
    let stored = |chunks: &[u32]| -> u64 {
        chunks.iter().map(|chunk| u64::from(new.tables.chunks[*chunk as usize].stored_len)).sum()
    };
    progress.found(stored(&wanted.lacking));
    for some in pieces.chunks(at_once()) {
        let sections: Result<Vec<_>> = some
            .into_par_iter()
            .map(|chunks| {
                let section = both.encode(chunks, how);
                progress.read(stored(chunks));
                section
            })
            .collect();
        for section in sections? {
            writer.section(Kind::Piece, &section).map_err(at)?;
        }
    }
    let bundle_bytes = writer.end().map_err(at)?;
    output.commit()?;
    Ok(BundleReport::new(
        request,
        &header,
        &wanted,
        stored(&wanted.lacking),
        metadata_bytes,
        bundle_bytes,
        started,
    ))
}

/// Refuses a new image with bytes that nothing proves, and that `apply` makes zero, or with digests that it computes otherwise: such an
/// image would be made by no host.
fn check(new: &Side<'_>, source: &Source, wanted: &Wanted, matches: &Matches) -> Result<()> {
    let sb = new.superblock();
    if !source.is_device() && source.len() != sb.file_bytes() {
        let reason = format!("has {} bytes, expected {}", source.len(), sb.file_bytes());
        return Err(Error::unsupported(new.path, reason));
    }
    let layout = &sb.layout;
    let behind_pack = BLOCK_BYTES + new.tables.packs[0].bytes;
    let behind_signature = layout.image_bytes + u64::from(sb.signature_bytes);
    let mut zeros = vec![(behind_pack, layout.tree_offset), (behind_signature, sb.file_bytes())];
    zeros.extend(padding(layout).into_iter().map(|Span { offset, len }| (offset, offset + len)));
    for (start, end) in zeros {
        let mut bytes = vec![0; end.saturating_sub(start).min(BLOCK_BYTES) as usize];
        source.read_at(start, &mut bytes)?;
        if end.saturating_sub(start) >= BLOCK_BYTES || bytes.iter().any(|byte| *byte != 0) {
            let reason = format!("has other bytes than zeros from byte {start} to {end}: see fsck.tesserafs");
            return Err(Error::unsupported(new.path, reason));
        }
    }
    for (content, found) in digests(new, &matches.lacking_contents())? {
        let (found, expected) = (found?, new.tables.content_digests[content as usize]);
        if found != expected {
            let reason =
                format!("content {content} has digest {found}, expected {expected}: see fsck.tesserafs");
            return Err(Error::unsupported(new.path, reason));
        }
    }
    check_raw(new, &wanted.elsewhere)?;
    for gap in &wanted.gaps {
        new.packs.check_digest(gap.pack.into(), &Cancel::default()).map_err(|error| match error {
            DataError::Broken(finding) => Error::unsupported(new.path, finding.to_string()),
            DataError::Stop(error) => error.into(),
        })?;
    }
    Ok(())
}

/// Compares the raw bytes of chunks with their digests.
pub(super) fn check_raw(new: &Side<'_>, chunks: &[u32]) -> Result<()> {
    let mut reader = RawReader::new(new)?;
    for number in chunks {
        let (found, expected) = (sha256(reader.chunk(*number)?), new.tables.raw_digests[*number as usize]);
        if found != expected {
            let reason =
                format!("chunk {number} has the raw digest {found}, expected {expected}: see fsck.tesserafs");
            return Err(Error::unsupported(new.path, reason));
        }
    }
    Ok(())
}
