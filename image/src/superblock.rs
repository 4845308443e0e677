// SPDX-License-Identifier: GPL-2.0-or-later

//! The superblock: the first thing to read.

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{FormatError, Place, Rule, SuperBlock};

use crate::error::Broken;
use crate::hash::Sha2;
use crate::source::Source;

/// Reads the superblock of an image, and proves that the file holds what it describes.
///
/// This compares no image ID and no signature: who made the image, the caller decides.
pub fn read(source: &Source) -> Result<SuperBlock, Broken> {
    let mut block = [0; BLOCK_SIZE];
    let len = source.len();
    let too_short = |expected| FormatError::new(Rule::FileLength, Place::Byte(len), len, expected);
    if len < BLOCK_SIZE as u64 {
        return Err(too_short(BLOCK_SIZE as u64).into());
    }
    source.read_at(0, &mut block)?;
    let sb = SuperBlock::parse(&block)?;
    check_prefix::<Sha2>(&block)?;
    if len < sb.file_bytes() {
        return Err(too_short(sb.file_bytes()).into());
    }
    Ok(sb)
}
