// SPDX-License-Identifier: GPL-2.0-or-later

//! From two images to a bundle.

use std::io::BufWriter;
use std::time::Instant;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tesserafs_format::Metadata;
use tesserafs_image::{superblock, Source};

use super::bases::Bases;
use super::piece::{cut, encode, How};
use super::side::Side;
use super::stream::{Header, Kind, Writer};
use super::tables::{parts, Range};
use super::wanted::Wanted;
use super::{head, BundleReport, BundleRequest};
use crate::convert::broken;
use crate::encode::zstd_version;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::progress::Progress;

/// Pieces that are made at once, for each processor.
const AT_ONCE: usize = 2;

/// Makes a bundle.
pub fn create(request: &BundleRequest, progress: &dyn Progress) -> Result<BundleReport> {
    let started = Instant::now();
    let output = Output::create(&request.output, request.force)?;
    let sources = [Source::open(&request.old)?, Source::open(&request.new)?];
    let read = |source: &Source| superblock::read_head(source).map_err(broken(source.path()));
    let heads = [read(&sources[0])?, read(&sources[1])?];
    let pack_dir = request.pack_dir.as_deref();
    let old = Side::open(&sources[0], &heads[0].sb, pack_dir)?;
    let new = Side::open(&sources[1], &heads[1].sb, pack_dir)?;
    let wanted = Wanted::new(&old.tables, &new.tables);

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
        let section = part.encode(&bytes(&new, part.new)?, &bytes(&old, part.old)?)?;
        metadata_bytes += section.len() as u64;
        writer.section(Kind::Table, &section).map_err(at)?;
    }
    for gap in &wanted.gaps {
        let mut bytes = vec![0; gap.len as usize];
        new.packs.read_bytes(gap.pack, gap.offset, &mut bytes).map_err(broken(new.path))?;
        writer.section(Kind::Gap, &bytes).map_err(at)?;
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
    for some in pieces.chunks(rayon::current_num_threads() * AT_ONCE) {
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

/// Bytes of the metadata of an image.
pub(super) fn bytes(side: &Side<'_>, range: Range) -> Result<Vec<u8>> {
    let mut bytes = vec![0; range.len as usize];
    if !bytes.is_empty() {
        side.metadata.read(range.offset, &mut bytes).map_err(broken(side.path))?;
    }
    Ok(bytes)
}
