// SPDX-License-Identifier: GPL-2.0-or-later

//! The new image and the new packs, from their beginning to their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_image::Source;

use super::blocks::Mended;
use super::head::Head;
use super::places::PackPlace;
use super::work::{kept_as, Work};
use super::RepairRequest;
use crate::error::Result;

/// Begins the new image: all that is known of it but the chunks that are damaged, and the zeros behind them.
pub(super) fn begin(
    request: &RepairRequest,
    target: &Path,
    head: &Head,
    image: &Source,
    mended: &Mended,
) -> Result<Work> {
    let replaced = Some(image).filter(|_| request.output.is_none());
    let new = Work::create(target, replaced)?;
    let layout = &head.sb.layout;
    new.set_len(head.sb.file_bytes())?;
    new.copy(image, 0, layout.image_bytes)?;
    new.write(0, &*head.block)?;
    for (number, (block, _)) in &mended.found {
        new.write(layout.tree_offset + number * BLOCK_BYTES, &**block)?;
    }
    new.write(layout.image_bytes, &head.signature)?;
    Ok(new)
}

/// Begins the packs that are damaged, with what there is of them.
pub(super) fn begin_packs(request: &RepairRequest, places: &[PackPlace]) -> Result<BTreeMap<u16, NewPack>> {
    let mut packs = BTreeMap::new();
    for place in places.iter().filter(|place| place.is_damaged) {
        let Some(path) = &place.path else { continue };
        let is_there = place.source.is_some();
        let keep = kept_as(path, request.keep.as_deref().filter(|_| is_there))?;
        let file = Work::create(path, place.source.as_deref())?;
        file.set_len(place.pack.bytes)?;
        if let Some(source) = &place.source {
            file.copy(source, 0, place.pack.bytes)?;
        }
        packs.insert(place.pack.index.0, NewPack { file, keep });
    }
    Ok(packs)
}

/// A pack that is made anew.
pub(super) struct NewPack {
    pub(super) file: Work,
    /// The name that the damaged one is kept under.
    keep: Option<PathBuf>,
}

/// Gives the new files their names: packs first, so that no image is there without them.
pub(super) fn put_in_place(
    packs: BTreeMap<u16, NewPack>,
    new: Option<Work>,
    keep: Option<&Path>,
) -> Result<()> {
    for pack in packs.into_values() {
        pack.file.commit(pack.keep.as_deref())?;
    }
    new.map_or(Ok(()), |new| new.commit(keep))
}
