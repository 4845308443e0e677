// SPDX-License-Identifier: GPL-2.0-or-later

//! From two images to a bundle.

use std::io::BufWriter;
use std::time::Instant;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_image::packs::DataError;
use tesserafs_image::{superblock, Cancel, Source};

use super::bases::Bases;
use super::piece::{cut, encode, How};
use super::side::Side;
use super::stream::{Header, Kind, Writer};
use super::tables::{parts, Span};
use super::wanted::Wanted;
use super::{at_once, head, in_pool, BundleReport, BundleRequest};
use crate::convert::broken;
use crate::encode::zstd_version;
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
    let wanted = Wanted::new(&old.tables, &new.tables);
    check(&new, &sources[1], &wanted)?;

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
    for part in parts(&old.superblock().layout, &new.superblock().layout) {
        let section = part.encode(&new.metadata(part.new)?, &old.metadata(part.old)?)?;
        metadata_bytes += section.len() as u64;
        writer.section(Kind::Table, &section).map_err(at)?;
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
        false => Bases::find(&old, &new, &wanted.lacking)?,
    };
    let how = How { portable: request.portable, level: request.level };
    let pieces = cut(&new, &wanted.lacking);
    let stored = |chunks: &[u32]| -> u64 {
        chunks.iter().map(|chunk| u64::from(new.tables.chunks[*chunk as usize].stored_len)).sum()
    };
    progress.found(stored(&wanted.lacking));
    for some in pieces.chunks(at_once()) {
        let sections: Result<Vec<_>> = some
            .into_par_iter()
            .map(|chunks| {
                let section = encode(&old, &new, &bases, chunks, how);
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

/// Refuses a new image with bytes that nothing proves, and that `apply` makes zero: it would be made otherwise, or by no host.
fn check(new: &Side<'_>, source: &Source, wanted: &Wanted) -> Result<()> {
    let sb = new.superblock();
    if !source.is_device() && source.len() != sb.file_bytes() {
        let reason = format!("has {} bytes, expected {}", source.len(), sb.file_bytes());
        return Err(Error::unsupported(new.path, reason));
    }
    let layout = &sb.layout;
    let behind_pack = BLOCK_BYTES + new.tables.packs[0].bytes;
    let behind_signature = layout.image_bytes + u64::from(sb.signature_bytes);
    let mut padding = vec![(behind_pack, layout.tree_offset), (behind_signature, sb.file_bytes())];
    let mut end_of_last = layout.tree_offset;
    for Span { offset, len } in parts(layout, layout).map(|part| part.new) {
        padding.push((end_of_last, offset));
        end_of_last = offset + len;
    }
    padding.push((end_of_last, layout.hash_offset));
    for (start, end) in padding {
        let mut bytes = vec![0; end.saturating_sub(start).min(BLOCK_BYTES) as usize];
        source.read_at(start, &mut bytes)?;
        if end.saturating_sub(start) >= BLOCK_BYTES || bytes.iter().any(|byte| *byte != 0) {
            let reason = format!("has other bytes than zeros from byte {start} to {end}: see fsck.tesserafs");
            return Err(Error::unsupported(new.path, reason));
        }
    }
    for gap in &wanted.gaps {
        new.packs.check_digest(gap.pack.into(), &Cancel::default()).map_err(|error| match error {
            DataError::Broken(finding) => Error::unsupported(new.path, finding.to_string()),
            DataError::Stop(error) => error.into(),
        })?;
    }
    Ok(())
}
