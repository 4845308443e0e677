// SPDX-License-Identifier: GPL-2.0-or-later

//! The metadata: the blocks of it that are damaged, by copies, by images of the same tree, and by the tables that bundles and their old
//! images give.

use std::path::Path;

use tesserafs_image::{Source, VerifiedMetadata};

use super::blocks::{BlockFile, Blocks, Mended};
use super::donor::{self, Donor};
use super::head::Head;
use crate::bundle::salvage;
use crate::error::{Error, Result};

/// Finds the damaged blocks of metadata, and good ones.
pub(super) fn mend(head: &Head, image: &Source, donors: &[Donor], target: &Path) -> Result<Mended> {
    let mut files = vec![BlockFile::copy(None, image, &head.sb)];
    for (number, donor) in donors.iter().enumerate() {
        if donor.may_be_copy_of(head.id) {
            files.push(BlockFile::copy(Some(number), &donor.source, &head.sb));
        } else if let Some((_, sb)) = donor.image() {
            files.push(BlockFile { is_copy: false, ..BlockFile::copy(Some(number), &donor.source, sb) });
        }
    }
    let mut mended = Blocks { sb: &head.sb, files: files.clone() }.mend();
    if !mended.lost.is_empty() {
        let made = tables_of_bundles(head, donors, target)?;
        if !made.is_empty() {
            files
                .extend(made.iter().map(|(number, source)| BlockFile::copy(Some(*number), source, &head.sb)));
            mended = Blocks { sb: &head.sb, files }.mend();
        }
    }
    for (_, file) in mended.found.values() {
        file.iter().for_each(|file| donor::count(&donors[*file].taken.blocks, 1));
    }
    Ok(mended)
}

/// Files without a name that have the tables of the image where it has them, as bundles and their old images give them.
fn tables_of_bundles(head: &Head, donors: &[Donor], target: &Path) -> Result<Vec<(usize, Source)>> {
    let mut made = Vec::new();
    for (number, donor) in donors.iter().enumerate() {
        let Some(header) = donor.bundle_of(head.id) else { continue };
        for (old, sb) in donors.iter().filter_map(|old| Some((old, old.image_of(header.old)?))) {
            let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = tempfile::tempfile_in(dir).map_err(Error::io("create a file in", dir))?;
            file.set_len(head.sb.layout.image_bytes).map_err(Error::io("create a file in", dir))?;
            let old = VerifiedMetadata::new(&old.source, sb);
            if let Err(error) = salvage::tables(&donor.source, &old, &head.sb.layout, &file) {
                donor.note(error.to_string());
            }
            made.push((number, Source::from_file(file, donor.path())?));
        }
    }
    Ok(made)
}
